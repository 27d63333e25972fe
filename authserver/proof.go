package authserver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"authserver/store"
)

// proof is what a user has proved himself by, and what the store said of him then.
// A sign-in takes a while, and what proves somebody may be changed, removed or ended
// in it: so the store is asked again when the session or the grant can be found by
// whoever does that. Of two that meet, one sees the other.
type proof struct {
	user        user
	credentials credentials
	password    string // identity of the password that was typed; see credentials.passwordID
	passkey     string // id of the passkey that was shown
	amr         []string
	acr         string
}

// by returns p as a sign-in of a kind.
func (p proof) by(amr []string, acr string) proof {
	p.amr, p.acr = amr, acr
	return p
}

// holds returns why p does not prove its user any more, or nil.
func (p proof) holds(now account) error {
	has := func(one passkey) bool { return one.id() == p.passkey }
	switch {
	case now.user.epoch != p.user.epoch:
		return errors.New("all of the user was ended")
	case p.password != "" && now.credentials.passwordID(now.user) != p.password:
		return errors.New("the password was changed")
	case p.passkey != "" && !slices.ContainsFunc(now.credentials.Passkeys, has):
		return errors.New("the passkey was removed")
	case p.acr == acrPassword && now.credentials.hasSecondFactor():
		return errors.New("a second factor was set up")
	}
	return nil
}

// account is a user and what he can prove himself with.
type account struct {
	user        user
	credentials credentials
}

// accountOf returns what the store says of a user at this instant, in one round
// trip. It returns errNoUser, wrapped, of somebody who may do nothing here.
func (s *Server) accountOf(ctx context.Context, subject string) (account, error) {
	records, err := s.store.Get(ctx, s.accountKeys(subject)...)
	if err != nil {
		return account{}, unavailable(fmt.Errorf("looking up an account: %w", err))
	}
	return s.readAccount(subject, records)
}

func (s *Server) accountKeys(subject string) []string {
	return append(s.users.keys(subject), s.credentialsTable().Key(subject))
}

// readAccount makes an account of the records of accountKeys.
func (s *Server) readAccount(subject string, records []store.Record) (account, error) {
	known, err := s.users.read(subject, records[:2])
	if err != nil {
		return account{}, err
	}
	found := account{}
	if records[2].Exists() {
		if found.credentials, err = s.credentialsTable().Decode(records[2]); err != nil {
			return account{}, err
		}
	}
	found.user, err = known.active()
	return found, err
}

// provesStill refuses a sign-in whose proof was overtaken by a change.
func (s *Server) provesStill(ctx context.Context, p proof) error {
	now, err := s.accountOf(ctx, p.user.subject)
	if err != nil && !errors.Is(err, errNoUser) {
		return err
	}
	if err == nil {
		err = p.holds(now)
	}
	if err != nil {
		return errSignIn.because(fmt.Errorf("overtaken: %w", err))
	}
	return nil
}
