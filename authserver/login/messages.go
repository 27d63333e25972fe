package login

import (
	"fmt"
	"time"

	"authserver/authserver"
)

// messages is everything the pages say in one language. A test finds what a
// language lacks, and a %s that one has and another has not.
type messages struct {
	Language     string // BCP 47
	DefaultBrand string // where the operator has no name

	SignIn, SignInTo, SignInLead       string
	Username, Password, Submit, Cancel string
	Or, UsePasskey, PasskeyFailed      string
	ContinueAs, OtherAccount           string

	SecondFactor, SecondFactorLead   string
	Code, CodeHint, Recovery, Verify string
	OnlyPasskey                      string
	Allow, AllowTitle, AllowLead     string
	AllowNothing, AllowedBefore      string
	Deny, NotYou, AnswerTo           string
	Unverified, Policy, Terms        string

	Account, Greeting                             string
	Devices, DevicesLead, ThisDevice, LastSeen    string
	SignedInAgo, EndSession, EndSessionOf         string
	Apps, AppsLead, NoApps, AppSince, AppUsed     string
	EndApp, EndAppOf                              string
	PasswordTitle, ChangePassword, CurrentWord    string
	NewWord, RepeatWord, NewWordHint              string
	TwoSteps, TwoStepsLead, Authenticator         string
	AuthenticatorOff, AuthenticatorSince, SetUp   string
	Remove, RemoveAuthenticator, Passkeys         string
	PasskeysLead, PasskeyName, PasskeyNameHint    string
	AddPasskey, RemovePasskeyOf, PasskeySince     string
	PasskeyUsed, PasskeysNeedScript, Codes        string
	CodesLead, NewCodes                           string
	EnrolTOTP, EnrolScan, EnrolType, EnrolConfirm string
	QRCode, Confirm                               string
	RecoveryCodes, RecoveryLead, RecoveryDone     string

	SignOut, SignOutTitle, SignOutLead, Stay    string
	SignedOut, SignedOutLead, SignedOutNext     string
	Continue, ContinueLead, BackTo, SignInAgain string
	ErrorDetail, TryAgain, Reference            string

	JustNow, UnknownDevice, BrowserOnSystem                    string
	Seconds, Minutes, MinutesAgo, HoursAgo, DaysAgo, CodesLeft plural

	Months  [12]string
	Day     string // of %d day, %s month, %d year
	Scopes  map[string]string
	Notices map[authserver.Notice]string
	Errors  map[authserver.ErrorKind]errorText
}

// errorText is what an error page says.
type errorText struct{ Title, Text string }

func (t *messages) day(at time.Time) string {
	return fmt.Sprintf(t.Day, at.Day(), t.Months[at.Month()-1], at.Year())
}
