package authserver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"authserver/store"
)

// signInByPasskey signs in by a passkey: alone, or as the second step after the
// password.
func (s *Server) signInByPasskey(w http.ResponseWriter, r *http.Request, in *interaction, f form) error {
	p, verified, err := s.provePasskey(r.Context(), in, f, caller{address: s.proxies.clientAddress(r)})
	switch {
	case err != nil && in.Half == nil:
		return s.showSignIn(w, r, in, "", err)
	case err != nil:
		half, halfErr := s.halfUser(r.Context(), in)
		if halfErr != nil {
			again := *in
			again.Half = nil
			return s.showSignIn(w, r, &again, "", halfErr)
		}
		return s.showSecondFactor(w, r, in, half, err)
	}
	amr := []string{"pop", "user", "mfa"} // RFC 8176 §2: a key, presence, several factors
	if in.Half != nil {
		amr = append([]string{"pwd"}, amr...)
	}
	acr := acrPhishing
	if !verified { // with the password, that makes two factors all the same
		acr = acrTwo
	}
	return s.completeSignIn(w, r, in, p.by(amr, acr))
}

// provePasskey returns the proof of a user whose passkey the browser has shown, and
// whether the passkey has verified him. It slows down guessing by address only: there is
// nothing to guess.
func (s *Server) provePasskey(ctx context.Context, in *interaction, f form, from caller) (p proof, verified bool, err error) {
	refused := func(cause error) (proof, bool, error) {
		return proof{}, false, s.refusePasskey(p.user.subject, from, cause)
	}
	if s.passkeys == nil {
		return refused(errors.New("there are no passkeys at an issuer without a name"))
	}
	var owner *passkeyOwner
	if in.Half != nil {
		if p, err = s.halfUser(ctx, in); err != nil {
			return proof{}, false, err
		}
		owner = &passkeyOwner{p.user.view(), p.user.subject, p.credentials.Passkeys}
	}
	var trouble error // of the store, which the library would turn into a refusal
	shown, err := s.passkeys.shown(in.ID, f, owner, func(handle []byte) (*passkeyOwner, error) {
		found, err := s.ownerOf(ctx, handle)
		if err != nil && !errors.Is(err, errNoUser) {
			trouble = err
		}
		return found, err
	})
	if trouble != nil {
		return proof{}, false, trouble
	}
	if err != nil {
		return refused(err)
	}
	if in.Half == nil {
		found, err := s.accountOf(ctx, shown.owner.subject)
		if errors.Is(err, errNoUser) {
			return refused(err)
		} else if err != nil {
			return proof{}, false, err
		}
		p = proof{user: found.user, credentials: found.credentials}
	}
	if err := s.spendChallenge(ctx, shown.challenge); errors.Is(err, errPasskeyUsed) {
		return refused(err)
	} else if err != nil {
		return proof{}, false, err
	}
	u := p.user
	err = s.updateCredentials(ctx, u.subject, func(c *credentials) error {
		for i := range c.Passkeys {
			if c.Passkeys[i].sameCredential(shown.credential) {
				c.Passkeys[i].Credential, c.Passkeys[i].LastUsed = *shown.credential, time.Now().Unix()
				p.passkey = c.Passkeys[i].id()
				return nil
			}
		}
		return errPasskeyGone
	})
	if errors.Is(err, errPasskeyGone) {
		return refused(err)
	} else if err != nil {
		return proof{}, false, err
	}
	s.auditSignIn(u, "passkey", from)
	return p, shown.userVerified, nil
}

var (
	errPasskeyGone = errors.New("the passkey was removed meanwhile")
	errPasskeyUsed = errors.New("the question was answered before")
)

// refusePasskey writes the audit record of a passkey that is not taken, to sign in or to
// be added, and returns what its user is told.
func (s *Server) refusePasskey(subject string, from caller, cause error) error {
	s.log.Info("passkey refused", "event", "passkey_refused", "sub", subject, "address", from.address.String(), "cause", cause.Error())
	return recorded{&factorError{NoticePasskey}}
}

// spendChallenge lets a question be answered once (WebAuthn §13.4.3).
func (s *Server) spendChallenge(ctx context.Context, challenge string) error {
	err := s.spent.Create(ctx, "passkey/"+hashed(challenge), struct{}{}, time.Now().Add(passkeyWait+markKept))
	if errors.Is(err, store.ErrExists) {
		return errPasskeyUsed
	}
	if err != nil {
		return unavailable(fmt.Errorf("spending a challenge: %w", err))
	}
	return nil
}

// passkeyOwnerKey is the key of the subject that a user handle stands for.
func passkeyOwnerKey(handle []byte) string {
	return "passkey-user/" + base64.RawURLEncoding.EncodeToString(handle)
}

const handleSize = 32 // bytes of our user handles

func (s *Server) ownerOf(ctx context.Context, handle []byte) (*passkeyOwner, error) {
	if len(handle) != handleSize {
		return nil, fmt.Errorf("%w: the user handle is none of ours", errNoUser)
	}
	records, err := s.store.Get(ctx, passkeyOwnerKey(handle))
	if err != nil {
		return nil, unavailable(fmt.Errorf("looking up a passkey's user: %w", err))
	}
	if !records[0].Exists() {
		return nil, fmt.Errorf("%w: nobody has the user handle", errNoUser)
	}
	u, err := s.users.bySubject(ctx, string(records[0].Value))
	if err != nil {
		return nil, err
	}
	found, err := s.credentialsOf(ctx, u.subject)
	return &passkeyOwner{u.view(), u.subject, found.Passkeys}, err
}

// addPasskey stores a passkey that the browser of u has made, with recovery codes
// if it is the first second factor. It reports whether it is.
func (s *Server) addPasskey(ctx context.Context, u user, made passkey, recovery []string) (first bool, err error) {
	// The way from the handle to the user comes first: without the passkey it leads nowhere.
	err = s.store.Create(ctx, passkeyOwnerKey(userHandle(u.subject)), []byte(u.subject), store.Forever)
	if err != nil && !errors.Is(err, store.ErrExists) {
		return false, unavailable(fmt.Errorf("storing a passkey: %w", err))
	}
	err = s.updateCredentials(ctx, u.subject, func(c *credentials) error {
		has := func(one passkey) bool { return one.sameCredential(&made.Credential) }
		if len(c.Passkeys) >= maxPasskeys || slices.ContainsFunc(c.Passkeys, has) {
			return &factorError{NoticePasskey}
		}
		c.Passkeys = append(c.Passkeys, made)
		if first = len(c.RecoveryCodes) == 0; first {
			c.RecoveryCodes = recovery
		}
		return nil
	})
	return first, err
}
