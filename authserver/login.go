package authserver

import (
	"net/http"
	"strings"
	"time"
)

// Login draws the pages that people see. The server makes every decision: it
// checks forms, passwords and consent, and says with a typed model what a page is
// to show. A Login turns the model into an answer. Package authserver/login is the
// one that comes with the server; to have wholly different pages, write another
// and put it into Config.Login.
//
// Each method writes one complete answer: the header, with Page.Status, and a body
// of HTML. Before the call the server has set the headers that every page needs
// (no-store, no framing, no sniffing, no referrer) and a Content-Security-Policy
// that allows forms and nothing else; a Login that has styles or scripts replaces
// it by Page.Policy. It must not read the request's body; it may look at the
// request's Accept-Language.
//
// Pages work without scripts, with one exception: passkeys need the browser's
// navigator.credentials. Whatever a model holds may come from a stranger (the name
// of a client, what was typed before); package login is made of components that escape it (docs/decisions/0047-pages-are-compiled.md).
type Login interface {
	// SignIn asks who is there.
	SignIn(w http.ResponseWriter, r *http.Request, page SignInPage)
	// SecondFactor asks for a further proof after the password.
	SecondFactor(w http.ResponseWriter, r *http.Request, page SecondFactorPage)
	// Consent asks whether a client may have what it asks for.
	Consent(w http.ResponseWriter, r *http.Request, page ConsentPage)
	// Account shows a user's sessions, apps, password and second factors.
	Account(w http.ResponseWriter, r *http.Request, page AccountPage)
	// EnrolTOTP shows the secret of an authenticator app and asks for its first code.
	EnrolTOTP(w http.ResponseWriter, r *http.Request, page EnrolTOTPPage)
	// RecoveryCodes shows new recovery codes, the only time they can be seen.
	RecoveryCodes(w http.ResponseWriter, r *http.Request, page RecoveryCodesPage)
	// ConfirmLogout asks whether the user means to sign out.
	ConfirmLogout(w http.ResponseWriter, r *http.Request, page ConfirmLogoutPage)
	// SignedOut says that the session has ended and tells clients by their iframes.
	SignedOut(w http.ResponseWriter, r *http.Request, page SignedOutPage)
	// FormPost sends an authorization response to the client by a form.
	FormPost(w http.ResponseWriter, r *http.Request, page FormPostPage)
	// Error says what went wrong where the user cannot be sent back to the client.
	Error(w http.ResponseWriter, r *http.Request, page ErrorPage)
}

// Page is the part of the model that all pages have.
type Page struct {
	Status    int    // of the answer
	UILocales string // the client's wish, BCP 47 tags separated by spaces (OpenID Connect Core §3.1.2.1); goes before Accept-Language
	Home      string // URL of the account page
	// Targets are the sources, besides 'self', that the page's forms may lead to:
	// Chromium applies the policy's form-action to the redirect that answers a form.
	Targets []string
	// Frames are the sources that may be shown in iframes (front-channel logout).
	Frames []string
}

// Policy returns the Content-Security-Policy of the page with sources for its
// styles and scripts, for example 'self' or the hash of an inline one. Empty means
// none at all.
func (p Page) Policy(styles, scripts string) string {
	policy := "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action " +
		strings.Join(append([]string{"'self'"}, p.Targets...), " ")
	if styles != "" {
		policy += "; style-src " + styles
	}
	if scripts != "" {
		policy += "; script-src " + scripts
	}
	if len(p.Frames) > 0 {
		policy += "; frame-src " + strings.Join(p.Frames, " ")
	}
	return policy
}

// Form is a form on a page: a POST to Action that carries Fields unchanged, beside
// the inputs that the page's documentation names. One of Fields binds it to the
// browser that it was made for.
type Form struct {
	Action string
	Fields []Field
}

// Field is a hidden input.
type Field struct{ Name, Value string }

// ClientView is a client as a person is to see it. Name has no control or
// direction-changing characters and at most 80 of the others.
type ClientView struct {
	ID   string
	Name string // client_name, or the client_id where there is none
	Host string // where the answer goes: a hostname, or the scheme of a native app
	// Unverified marks a client that registered itself: nobody vouches for its name.
	Unverified bool
	PolicyURI  string // https, or empty; RFC 7591 §2
	TosURI     string // https, or empty; RFC 7591 §2
}

// UserView is a user as he sees himself.
type UserView struct {
	Username string
	Name     string // the claim name, or the username
}

// Text is one text in several languages, by BCP 47 tag: {"en": "…", "de": "…"}.
type Text map[string]string

// Notice is something that a page says about what has just happened. Empty is nothing.
type Notice string

// The notices. Those of failures come with SignInPage, SecondFactorPage and the
// like; the others with AccountPage.
const (
	NoticeCredentials    Notice = "credentials"    // wrong username or password, or an account that cannot sign in
	NoticeThrottled      Notice = "throttled"      // too many attempts; the page's Wait says how long
	NoticeBusy           Notice = "busy"           // too many people sign in, or the store does not answer; try again
	NoticeExpired        Notice = "expired"        // the form was too old; this is a new one
	NoticeReauthenticate Notice = "reauthenticate" // the client, or what was asked for, needs a fresh sign-in
	NoticeOtherAccount   Notice = "other_account"  // another account is signed in than when the page was made
	NoticeCode           Notice = "code"           // wrong code
	NoticeCodeUsed       Notice = "code_used"      // the code was used before; wait for the next
	NoticePasskey        Notice = "passkey"        // the passkey did not verify, or is not known here
	NoticePassword       Notice = "password"       // the current password is wrong
	NoticePasswordShort  Notice = "password_short" // the new password is too short, or longer than 1024 bytes
	NoticePasswordMatch  Notice = "password_match" // the new password and its repetition differ
	NoticePasswordSet    Notice = "password_set"   // done: the password is changed
	NoticeSessionEnded   Notice = "session_ended"  // done: that session has ended
	NoticeAppEnded       Notice = "app_ended"      // done: that app has no access any more
	NoticeFactorAdded    Notice = "factor_added"   // done: there is a further second factor
	NoticeFactorRemoved  Notice = "factor_removed" // done: a second factor is gone
)

// SignInPage asks who is there. The form's inputs are username and password; a
// button named cancel with value 1 goes back to the client without signing in.
type SignInPage struct {
	Page
	Form    Form
	Client  *ClientView   // who sent the user; nil for the account page
	Login   string        // to fill into username: what was typed before, or login_hint
	Notice  Notice        // why the page is shown again
	Wait    time.Duration // with NoticeThrottled
	Passkey *Passkey      // signing in with a passkey and without a password; nil where not offered
	Current *UserView     // who is signed in and may continue; nil for nobody
	// Continue is posted to go on as Current, without inputs; nil where a fresh
	// sign-in is required.
	Continue *Form
}

// Passkey is a question to the browser's navigator.credentials. The form's input
// passkey takes the answer, as the JSON of PublicKeyCredential.toJSON().
type Passkey struct {
	Form    Form
	Options string // JSON for parseRequestOptionsFromJSON, or parseCreationOptionsFromJSON on AccountPage
}

// SecondFactorPage asks for a further proof. The form's input is code: six digits
// of the authenticator app, or a recovery code; a button named cancel with value 1
// goes back to the client.
type SecondFactorPage struct {
	Page
	Form     Form
	Client   *ClientView
	User     UserView
	Notice   Notice
	Wait     time.Duration // with NoticeThrottled
	TOTP     bool          // an authenticator app is enrolled
	Recovery bool          // there are unused recovery codes
	Passkey  *Passkey      // nil where no passkey is enrolled
}

// ConsentPage asks whether a client may have what it asks for. The form's buttons
// are named decision, with the values allow and deny.
type ConsentPage struct {
	Page
	Form   Form
	Client ClientView
	User   UserView
	Scopes []ScopeView
	Notice Notice
	Switch string // URL where another account can be chosen
}

// ScopeView is one thing that a client asks for.
type ScopeView struct {
	Name        string
	Description Text // from the configuration; empty for a scope without words
	Granted     bool // the user has allowed it before
}

// AccountPage shows what belongs to a user. Each change is a form of its own; none
// has inputs but for those that are named here.
type AccountPage struct {
	Page
	User     UserView
	Notice   Notice
	Sessions []SessionView // the present one first, then the latest
	Apps     []AppView     // by name
	// Password has the inputs current_password, new_password and repeat_password;
	// nil for a user without a password.
	Password *Form
	TOTP     *TOTPView // nil while no authenticator app is enrolled
	AddTOTP  *Form     // nil while one is enrolled
	Passkeys []PasskeyView
	// AddPasskey has the further input name, what the user calls the passkey.
	AddPasskey    *Passkey
	RecoveryCodes int   // unused ones
	RenewCodes    *Form // makes new recovery codes; nil without a second factor
	SignOut       Form
}

// SessionView is a browser where a user is signed in.
type SessionView struct {
	Browser  string // "Firefox", or empty
	System   string // "Android", or empty
	SignedIn time.Time
	LastSeen time.Time
	Current  bool // it is the browser that asks
	End      Form
}

// AppView is a client that has access to a user's account.
type AppView struct {
	Client   ClientView
	Scopes   []ScopeView
	Since    time.Time
	LastUsed time.Time // zero where it is not known
	End      Form
}

// TOTPView is an enrolled authenticator app.
type TOTPView struct {
	Since  time.Time
	Remove Form
}

// PasskeyView is an enrolled passkey.
type PasskeyView struct {
	Name     string
	Since    time.Time
	LastUsed time.Time // zero for never
	Remove   Form
}

// EnrolTOTPPage enrols an authenticator app. The form's input is code.
type EnrolTOTPPage struct {
	Page
	Form   Form
	User   UserView
	Secret string // base32, for typing
	URI    string // otpauth, for the QR code
	Notice Notice
}

// RecoveryCodesPage shows recovery codes once.
type RecoveryCodesPage struct {
	Page
	User  UserView
	Codes []string
}

// ConfirmLogoutPage asks whether the user means to sign out. The form's buttons
// are named decision, with the values sign_out and stay.
type ConfirmLogoutPage struct {
	Page
	Form   Form
	Client *ClientView // who asked; nil where it is not known
	User   UserView
}

// SignedOutPage says that the session has ended. Each URL of Iframes is loaded in
// an invisible iframe (OpenID Connect Front-Channel Logout §2); Next, if there is
// one, is followed when they have loaded, or by the user.
type SignedOutPage struct {
	Page
	Client  *ClientView // who asked; nil where it is not known
	Iframes []string
	Next    string // post_logout_redirect_uri with state, or empty
}

// FormPostPage sends Fields to Action, the client's redirect_uri, by a form that
// submits itself (OAuth 2.0 Form Post Response Mode §2).
type FormPostPage struct {
	Page
	Client ClientView
	Action string
	Fields []Field
}

// ErrorKind is a mistake that the user is told about.
type ErrorKind string

// The kinds of errors.
const (
	ErrorRequest     ErrorKind = "request"     // the client made a mistake; Detail is for its developer
	ErrorCookies     ErrorKind = "cookies"     // the browser sends no cookies, or another browser began
	ErrorExpired     ErrorKind = "expired"     // the sign-in was left for too long; Next leads on
	ErrorDone        ErrorKind = "done"        // this sign-in was completed before
	ErrorForeign     ErrorKind = "foreign"     // the form came from another site
	ErrorDisabled    ErrorKind = "disabled"    // the account or the client can no longer be used
	ErrorNotFound    ErrorKind = "not_found"   // nothing is here
	ErrorThrottled   ErrorKind = "throttled"   // too many requests
	ErrorUnavailable ErrorKind = "unavailable" // the store does not answer; nothing is lost
	ErrorServer      ErrorKind = "server"      // a bug; the log has the details
)

// ErrorPage says what went wrong where the user cannot be sent back to the client.
type ErrorPage struct {
	Page
	Kind   ErrorKind
	Detail string      // English, for developers; may be empty
	Client *ClientView // nil where it is not known
	Next   string      // URL of ours where it goes on; empty for nowhere
	Wait   time.Duration
	Trace  string // by which operators find it in the log; may be empty
}
