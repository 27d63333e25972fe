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
	Subject string `json:"sub"`
	At      int64  `json:"at"` // seconds since 1970
}

const halfLifetime = 10 * time.Minute

// factorError is a further proof that was not accepted, with what the user is told.
type factorError struct{ notice Notice }

func (e *factorError) Error() string { return "second factor refused: " + string(e.notice) }

func (c credentials) hasSecondFactor() bool { return c.TOTP != nil || len(c.Passkeys) > 0 }

// showSecondFactor asks for the second factor of a half-finished sign-in.
func (s *Server) showSecondFactor(w http.ResponseWriter, r *http.Request, in *interaction, u user, found credentials, failure error) error {
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

// halfUser returns the user of a half-finished sign-in and what he can prove
// himself with. The sign-in is begun again when it was left for too long.
func (s *Server) halfUser(ctx context.Context, in *interaction) (user, credentials, error) {
	if time.Since(time.Unix(in.Half.At, 0)) > halfLifetime {
		return user{}, credentials{}, &factorError{NoticeExpired}
	}
	u, err := s.users.bySubject(ctx, in.Half.Subject)
	if errors.Is(err, errNoUser) || err == nil && u.ended(in.Half.At) {
		return user{}, credentials{}, errSignIn.because(errors.New("disabled or ended between the password and the second factor"))
	}
	if err != nil {
		return user{}, credentials{}, err
	}
	found, err := s.credentialsOf(ctx, u.subject)
	return u, found, err
}

// signInByCode is the second step of a sign-in, by a code that was typed.
func (s *Server) signInByCode(w http.ResponseWriter, r *http.Request, in *interaction, f form) error {
	u, found, err := s.halfUser(r.Context(), in)
	if err != nil {
		again := *in
		again.Half = nil
		return s.showSignIn(w, r, &again, "", err)
	}
	if err := s.spendCode(r.Context(), u, f.get("code"), s.callerOf(r, u.username)); err != nil {
		return s.showSecondFactor(w, r, in, u, found, err)
	}
	return s.completeSignIn(w, r, in, u, []string{"pwd", "otp", "mfa"}, acrTwo) // RFC 8176 §2
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
	err = s.updateCredentials(ctx, u.subject, func(c *credentials) error {
		if len(code) == totpDigits && c.TOTP != nil {
			return s.spendTOTP(c.TOTP, u.subject, code)
		}
		i := slices.Index(c.RecoveryCodes, recoveryHash(code)) // of 60 random bits: there is nothing to learn from the time
		if i < 0 {
			return &factorError{NoticeCode}
		}
		c.RecoveryCodes = slices.Delete(c.RecoveryCodes, i, i+1)
		return nil
	})
	if err != nil {
		s.log.Info("second factor refused", "event", "second_factor_refused", "sub", u.subject, "address", from.address.String(), "cause", err.Error())
		return err
	}
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
