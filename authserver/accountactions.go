package authserver

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"authserver/store"
)

const minPassword = 8 // characters of a new password (NIST SP 800-63B §3.1.1.2)

// What the user ends himself.
const (
	reasonByUser     = "ended_by_user"
	reasonPassword   = "password_changed"
	reasonSignedOut  = "signed_out"
	reasonAppRemoved = "app_removed_by_user"
	reasonFactor     = "second_factor_added"
)

func (s *Server) endOwnSession(v accountVisit) (Notice, error) {
	ctx, id := v.r.Context(), v.form.get("session")
	if !isBase64URL(id, 32) {
		return "", &pageError{kind: ErrorRequest, status: http.StatusBadRequest, detail: "the form names no session"}
	}
	one, _, err := s.sessions.Get(ctx, id)
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && one.Subject != v.user.subject:
		return NoticeSessionEnded, nil // it is not there (any more)
	case err != nil:
		return "", unavailable(fmt.Errorf("looking up a session: %w", err))
	}
	return NoticeSessionEnded, s.logOut(ctx, &one, reasonByUser)
}

// endOthers ends whatever else than the session of the page is signed in as its user,
// and the grants that are of no session: who knew how to sign in keeps nothing.
func (s *Server) endOthers(v accountVisit, reason string) error {
	ctx := v.r.Context()
	sessions, err := s.sessionsOfUser(ctx, v.user)
	if err != nil {
		return err
	}
	for _, one := range sessions {
		if one.ID != v.session.ID {
			if err := s.logOut(ctx, &one, reason); err != nil {
				return err
			}
		}
	}
	return s.eachGrant(ctx, v.user.subject, func(id string, grant Grant, _ store.Record) error {
		if grant.SessionID == v.session.ID {
			return nil
		}
		return unavailableUnless(s.endGrant(ctx, id, reason), "ending a grant")
	})
}

// changeOwnPassword takes a new password from who knows the present one, and signs
// all other browsers out: before, so that a change that fails can be repeated, and
// afterwards those who came in meanwhile.
func (s *Server) changeOwnPassword(v accountVisit) (Notice, error) {
	ctx, changed := v.r.Context(), v.form.get("new_password")
	if v.form.get("repeat_password") != changed {
		return "", &factorError{NoticePasswordMatch}
	}
	if len([]rune(changed)) < minPassword || len(changed) > maxPassword {
		return "", &factorError{NoticePasswordShort}
	}
	// The same door as at the sign-in, so that it is no way around the throttle.
	shown, err := s.signIn(ctx, v.user.username, v.form.get("current_password"), s.callerOf(v.r, v.user.username))
	if err != nil {
		if asError(err).Code == errSignIn.Code {
			return "", errors.Join(&factorError{NoticePassword}, err)
		}
		return "", err
	}
	if shown.user.subject != v.user.subject {
		return "", &factorError{NoticePassword}
	}
	hash, err := s.passwords.hash(ctx, changed)
	if err != nil {
		return "", err
	}
	if err := s.endOthers(v, reasonPassword); err != nil {
		return "", err
	}
	err = s.updateCredentials(ctx, shown.user.subject, func(c *credentials) error {
		if c.passwordID(shown.user) != shown.password { // changed by somebody else meanwhile
			return &factorError{NoticePassword}
		}
		c.Password = newStoredPassword(shown.user, hash)
		return nil
	})
	if err != nil {
		return "", err
	}
	return NoticePasswordSet, s.endOthers(v, reasonPassword)
}

// service is the name of this server in authenticator apps.
func (s *Server) service() string {
	u, err := url.Parse(s.issuer)
	if err != nil {
		return s.issuer
	}
	return u.Host
}

// beginTOTP shows a new secret. It is stored with the first code that shows that
// the app has it; until then it travels in the form, sealed for this session.
func (s *Server) beginTOTP(v accountVisit) (Notice, error) {
	return "", s.showEnrolTOTP(v, newTOTPSecret(), "")
}

func (s *Server) showEnrolTOTP(v accountVisit, secret []byte, notice Notice) error {
	sealed := encodeSealed(s.totpBox.Seal(secret, []byte("enrol\x00"+v.session.ID)))
	status := http.StatusOK
	if notice != "" {
		status = http.StatusBadRequest
	}
	s.login.EnrolTOTP(v.w, v.r, EnrolTOTPPage{
		Page: s.page(status, ""), User: v.user.view(), Notice: notice, Secret: base32Text(secret),
		URI: totpURI(s.service(), v.user.username, secret), Form: s.accountForm(v, "confirm_totp", Field{"secret", sealed}),
	})
	return nil
}

func (s *Server) confirmTOTP(v accountVisit) (Notice, error) {
	sealed, err := decodeSealed(v.form.get("secret"))
	if err != nil {
		return "", errForeignForm.because(err)
	}
	secret, err := s.totpBox.Open(sealed, []byte("enrol\x00"+v.session.ID))
	if err != nil {
		return "", errForeignForm.because(err)
	}
	step, matches := matchTOTP(secret, cleanCode(v.form.get("code")), time.Now())
	if !matches {
		s.refuseAccount(v, &factorError{NoticeCode})
		return "", s.showEnrolTOTP(v, secret, NoticeCode)
	}
	if err := s.beforeFactor(v); err != nil {
		return "", err
	}
	codes, hashes := newRecoveryCodes()
	first := false
	err = s.updateCredentials(v.r.Context(), v.user.subject, func(c *credentials) error {
		first = len(c.RecoveryCodes) == 0
		c.TOTP = &totpEnrolment{Secret: s.totpBox.Seal(secret, []byte(v.user.subject)), Since: time.Now().Unix(), Last: step}
		if first {
			c.RecoveryCodes = hashes
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return s.factorAdded(v, first, codes)
}

// beforeFactor signs all other browsers out before the first second factor is set up:
// from then on the password alone opens nothing, and what it has opened ends. Those
// who have a factor have shown it everywhere.
func (s *Server) beforeFactor(v accountVisit) error {
	found, err := s.credentialsOf(v.r.Context(), v.user.subject)
	if err != nil || found.hasSecondFactor() {
		return err
	}
	return s.endOthers(v, reasonFactor)
}

// factorAdded shows the recovery codes that came with the first second factor.
func (s *Server) factorAdded(v accountVisit, first bool, codes []string) (Notice, error) {
	if !first {
		return NoticeFactorAdded, nil
	}
	s.auditAccount(v)
	// Those who came in since beforeFactor. The codes are shown in any case: they are
	// shown once.
	if err := s.endOthers(v, reasonFactor); err != nil {
		s.log.Error("who signed in while a second factor was set up may be signed in still", "sub", v.user.subject, "error", err.Error())
	}
	s.showRecoveryCodes(v, codes)
	return "", nil
}

func (s *Server) showRecoveryCodes(v accountVisit, codes []string) {
	s.login.RecoveryCodes(v.w, v.r, RecoveryCodesPage{Page: s.page(http.StatusOK, ""), User: v.user.view(), Codes: codes})
}

func (s *Server) removeTOTP(v accountVisit) (Notice, error) {
	return NoticeFactorRemoved, s.updateCredentials(v.r.Context(), v.user.subject, func(c *credentials) error {
		c.TOTP = nil
		c.dropCodesWithoutFactor()
		return nil
	})
}

// dropCodesWithoutFactor forgets recovery codes that stand in for nothing any more.
func (c *credentials) dropCodesWithoutFactor() {
	if !c.hasSecondFactor() {
		c.RecoveryCodes = nil
	}
}

func (s *Server) renewCodes(v accountVisit) (Notice, error) {
	codes, hashes := newRecoveryCodes()
	err := s.updateCredentials(v.r.Context(), v.user.subject, func(c *credentials) error {
		if !c.hasSecondFactor() {
			return &pageError{kind: ErrorRequest, status: http.StatusBadRequest, detail: "without a second factor there are no recovery codes"}
		}
		c.RecoveryCodes = hashes
		return nil
	})
	if err != nil {
		return "", err
	}
	s.auditAccount(v)
	s.showRecoveryCodes(v, codes)
	return "", nil
}

func (s *Server) addOwnPasskey(v accountVisit) (Notice, error) {
	ctx := v.r.Context()
	if s.passkeys == nil {
		return "", &factorError{NoticePasskey}
	}
	found, err := s.credentialsOf(ctx, v.user.subject)
	if err != nil {
		return "", err
	}
	owner := passkeyOwner{v.user.view(), v.user.subject, found.Passkeys}
	made, challenge, err := s.passkeys.created(v.session.ID, v.form, &owner)
	if err != nil {
		return "", s.refusePasskey(v.user.subject, s.callerOf(v.r, ""), err)
	}
	if err := s.spendChallenge(ctx, challenge); errors.Is(err, errPasskeyUsed) {
		return "", s.refusePasskey(v.user.subject, s.callerOf(v.r, ""), err)
	} else if err != nil {
		return "", err
	}
	name := shownName(v.form.get("name"))
	if name == "" {
		browser, system := device(v.session.Agent)
		if name = shownName(browser + " " + system); name == "" {
			name = "Passkey"
		}
	}
	if err := s.beforeFactor(v); err != nil {
		return "", err
	}
	codes, hashes := newRecoveryCodes()
	first, err := s.addPasskey(ctx, v.user, passkey{Name: name, Since: time.Now().Unix(), Credential: made}, hashes)
	if err != nil {
		return "", err
	}
	return s.factorAdded(v, first, codes)
}

func (s *Server) removePasskey(v accountVisit) (Notice, error) {
	id := v.form.get("id")
	return NoticeFactorRemoved, s.updateCredentials(v.r.Context(), v.user.subject, func(c *credentials) error {
		c.Passkeys = slices.DeleteFunc(c.Passkeys, func(one passkey) bool { return one.id() == id })
		c.dropCodesWithoutFactor()
		return nil
	})
}
