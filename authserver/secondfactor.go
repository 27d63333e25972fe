package authserver

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// halfSignIn is the part of an interaction that says that the password was right
// and a second factor is still missing. It is nobody's session.
type halfSignIn struct {
	Subject  string `json:"sub"`
	At       int64  `json:"at"`              // seconds since 1970
	Password string `json:"password"`        // identity of the password
	Epoch    uint64 `json:"epoch,omitempty"` // number of the user's epoch
}

// half is the half-finished sign-in of a user who has proved himself by his password.
func (p proof) half() *halfSignIn {
	return &halfSignIn{Subject: p.user.subject, At: time.Now().Unix(), Password: p.password, Epoch: p.user.epoch.number}
}

const halfLifetime = 10 * time.Minute

// factorError is a further proof that was not accepted, with what the user is told.
type factorError struct{ notice Notice }

func (e *factorError) Error() string { return "second factor refused: " + string(e.notice) }

func (c credentials) hasSecondFactor() bool { return c.TOTP != nil || len(c.Passkeys) > 0 }

// showSecondFactor asks for the second factor of a half-finished sign-in.
func (s *Server) showSecondFactor(w http.ResponseWriter, r *http.Request, in *interaction, p proof, failure error) error {
	u, found := p.user, p.credentials
	fields, c, err := s.interactionForm(r, in)
	if err != nil {
		return err
	}
	status, notice, wait := s.noticeOf(w, r, failure)
	page := SecondFactorPage{
		Page: s.page(status, in.Request.UILocales), Form: fields, User: u.view(), Notice: notice, Wait: wait,
		TOTP: found.TOTP != nil, Recovery: len(found.RecoveryCodes) > 0,
	}
	page.Targets = s.formTargetsOf(in)
	if c != nil {
		view := c.view(in.Request.RedirectURI)
		page.Client = &view
	}
	if s.passkeys != nil && len(found.Passkeys) > 0 {
		owner := passkeyOwner{u.view(), u.subject, found.Passkeys}
		if page.Passkey, err = s.passkeys.ask(in.ID, fields, &owner); err != nil {
			return err
		}
	}
	s.login.SecondFactor(w, r, page)
	return nil
}

// halfUser returns what the user of a half-finished sign-in has proved himself by,
// and what he can go on with. The sign-in is begun again when it was left for too
// long.
func (s *Server) halfUser(ctx context.Context, in *interaction) (proof, error) {
	if time.Since(time.Unix(in.Half.At, 0)) > halfLifetime {
		return proof{}, &factorError{NoticeExpired}
	}
	found, err := s.accountOf(ctx, in.Half.Subject)
	if err != nil && !errors.Is(err, errNoUser) {
		return proof{}, err
	}
	u := found.user
	if err != nil || u.ended(in.Half.At) || u.epoch.number != in.Half.Epoch || found.credentials.passwordID(u) != in.Half.Password {
		return proof{}, errSignIn.because(errors.New("disabled, ended or another password between the password and the second factor"))
	}
	return proof{user: u, credentials: found.credentials, password: in.Half.Password}, nil
}

// signInByCode is the second step of a sign-in, by a code that was typed.
func (s *Server) signInByCode(w http.ResponseWriter, r *http.Request, in *interaction, f form) error {
	p, err := s.halfUser(r.Context(), in)
	if err != nil {
		again := *in
		again.Half = nil
		return s.showSignIn(w, r, &again, "", err)
	}
	if err := s.spendCode(r.Context(), p.user, f.get("code"), s.callerOf(r, p.user.username)); err != nil {
		return s.showSecondFactor(w, r, in, p, err)
	}
	return s.completeSignIn(w, r, in, p.by([]string{"pwd", "otp", "mfa"}, acrTwo)) // RFC 8176 §2
}

// spendCode accepts a code of the authenticator app or a recovery code, once over
// all instances (RFC 6238 §5.2, ATTACKS BF-05). Guessing it is slowed down like
// guessing a password.
func (s *Server) spendCode(ctx context.Context, u user, code string, from caller) error {
	code = cleanCode(code)
	attempt, err := s.throttle.admit(ctx, codeAccount(u.subject), from)
	if err != nil {
		return err
	}
	method := ""
	err = s.updateCredentials(ctx, u.subject, func(c *credentials) error {
		method = "totp"
		if len(code) == totpDigits && c.TOTP != nil {
			return s.spendTOTP(c.TOTP, u.subject, code)
		}
		method = "recovery_code"
		i := slices.Index(c.RecoveryCodes, recoveryHash(code)) // of 60 random bits: there is nothing to learn from the time
		if i < 0 {
			return &factorError{NoticeCode}
		}
		c.RecoveryCodes = slices.Delete(c.RecoveryCodes, i, i+1)
		return nil
	})
	if wrong := (*factorError)(nil); errors.As(err, &wrong) {
		s.log.Info("second factor refused", "event", "second_factor_refused", "sub", u.subject, "address", from.address.String(), "cause", err.Error())
		return recorded{err}
	} else if err != nil {
		return err
	}
	s.log.Info("second factor accepted", "event", "second_factor", "method", method, "sub", u.subject, "address", from.address.String())
	return s.throttle.succeeded(ctx, attempt)
}

// codeAccount is what guesses at a user's codes are counted for.
func codeAccount(subject string) string { return "second factor\x00" + subject }

// cleanCode is a code without the spaces that people type between its digits.
func cleanCode(code string) string { return strings.ReplaceAll(strings.TrimSpace(code), " ", "") }

// spendTOTP accepts a code once: no step that is not newer than the last one.
func (s *Server) spendTOTP(enrolled *totpEnrolment, subject, code string) error {
	secret, err := s.totpBox.Open(enrolled.Secret, []byte(subject))
	if err != nil {
		return err
	}
	step, matches := matchTOTP(secret, code, time.Now())
	switch {
	case !matches:
		return &factorError{NoticeCode}
	case step <= enrolled.Last:
		return &factorError{NoticeCodeUsed}
	}
	enrolled.Last = step
	// So that an old master key can be taken away some day.
	enrolled.Secret, _, err = s.totpBox.Reseal(enrolled.Secret, []byte(subject))
	return err
}
