package authserver

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"authserver/store"
)

// UserInfo is what operators are shown of a user. Times are seconds since 1970.
type UserInfo struct {
	Subject  string         `json:"sub"`
	Username string         `json:"username"`
	Source   string         `json:"source"`
	Disabled bool           `json:"disabled"`
	Roles    []string       `json:"roles,omitempty"`
	Claims   map[string]any `json:"claims,omitempty"`
	Created  int64          `json:"created,omitempty"`
	// Password says where the password that counts was set: in the configuration or
	// the store. Empty when there is none.
	Password string `json:"password,omitempty"`
	// What he has besides: an authenticator app, passkeys and unused recovery codes.
	TOTP          bool `json:"totp,omitempty"`
	Passkeys      int  `json:"passkeys,omitempty"`
	RecoveryCodes int  `json:"recovery_codes,omitempty"`
}

// UserRef names a user in a call, by username or by subject.
type UserRef struct {
	Username string `json:"username,omitempty"`
	Subject  string `json:"sub,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

func (r UserRef) audited() adminRecord {
	if r.Subject != "" {
		return adminRecord{"sub " + r.Subject, r.Reason}
	}
	return adminRecord{r.Username, r.Reason}
}

// UserPage is the answer of /user/list.
type UserPage struct {
	Users []UserInfo `json:"users"`
	Next  string     `json:"next,omitempty"`
}

func (s *Server) adminUserList(ctx context.Context, page ListQuery) (UserPage, error) {
	subjects, next, err := s.adminPage(ctx, "user", s.users.catalogue, slices.Sorted(maps.Keys(s.users.configured)), page)
	if err != nil {
		return UserPage{}, err
	}
	answer := UserPage{Users: []UserInfo{}, Next: next}
	records, err := getAll(ctx, s.store, subjects, s.users.records.Key)
	if err != nil {
		return answer, err
	}
	passwords, err := getAll(ctx, s.store, subjects, s.credentialsTable().Key)
	if err != nil {
		return answer, err
	}
	for i, subject := range subjects {
		info, exists, err := s.userInfo(subject, records[i], passwords[i])
		if err != nil {
			return answer, err
		}
		if exists {
			answer.Users = append(answer.Users, info)
		}
	}
	return answer, nil
}

// userInfo describes a user by his configuration and records.
func (s *Server) userInfo(subject string, record, credentialsRecord store.Record) (info UserInfo, exists bool, err error) {
	var stored storedUser
	if record.Exists() {
		if stored, err = s.users.records.Decode(record); err != nil {
			return info, false, err
		}
	}
	known, err := s.users.read(subject, []store.Record{record, {}})
	if err != nil || !known.exists {
		return info, false, err
	}
	info = UserInfo{Subject: subject, Username: known.user.username, Source: SourceStore, Disabled: known.disabled,
		Roles: known.user.roles, Claims: known.user.claims, Created: stored.Created}
	if _, configured := s.users.configured[subject]; configured {
		info.Source = SourceConfiguration
	}
	var proofs credentials
	if credentialsRecord.Exists() {
		if proofs, err = s.credentialsTable().Decode(credentialsRecord); err != nil {
			return info, false, err
		}
	}
	info.TOTP, info.Passkeys, info.RecoveryCodes = proofs.TOTP != nil, len(proofs.Passkeys), len(proofs.RecoveryCodes)
	switch hash := proofs.passwordHash(known.user); {
	case hash == "":
	case hash == known.user.hash:
		info.Password = SourceConfiguration
	default:
		info.Password = SourceStore
	}
	return info, true, nil
}

// resolve finds the user that a call names.
func (s *Server) resolve(ctx context.Context, ref UserRef) (knownUser, error) {
	subject := ref.Subject
	if (ref.Username == "") == (subject == "") {
		return knownUser{}, adminBadRequest("a user is named by username or by sub, by one of them")
	}
	if ref.Username != "" {
		name := foldUsername(ref.Username)
		if subject = s.users.names[name]; subject == "" {
			found, exists, err := s.users.loadName(ctx, name)
			if err != nil {
				return knownUser{}, unavailable(fmt.Errorf("reading a username: %w", err))
			}
			if exists {
				subject = found
			}
		}
	}
	known, err := s.userRecord(ctx, subject)
	if err != nil {
		return known, err
	}
	if !known.exists || ref.Username != "" && foldUsername(known.user.username) != foldUsername(ref.Username) {
		return known, adminNotFound("there is no user %q", ref.Username+ref.Subject).hint("authserver user list shows all")
	}
	return known, nil
}

func (s *Server) adminUserShow(ctx context.Context, ref UserRef) (UserInfo, error) {
	known, err := s.resolve(ctx, ref)
	if err != nil {
		return UserInfo{}, err
	}
	return s.describeUser(ctx, known.user.subject)
}

func (s *Server) describeUser(ctx context.Context, subject string) (UserInfo, error) {
	records, err := s.store.Get(ctx, s.users.records.Key(subject), s.credentialsTable().Key(subject))
	if err != nil {
		return UserInfo{}, unavailable(fmt.Errorf("reading a user: %w", err))
	}
	info, _, err := s.userInfo(subject, records[0], records[1])
	return info, err
}

// UserAdd asks for a new user.
type UserAdd struct {
	Username     string         `json:"username"`
	Subject      string         `json:"sub,omitempty"`           // one is made when empty
	PasswordHash string         `json:"password_hash,omitempty"` // PHC string; without one he cannot sign in by password
	Roles        []string       `json:"roles,omitempty"`
	Claims       map[string]any `json:"claims,omitempty"`
}

func (a UserAdd) audited() adminRecord { return adminRecord{whom: a.Username} }

func (s *Server) adminUserAdd(ctx context.Context, request UserAdd) (UserInfo, error) {
	subject, err := s.addUser(ctx, newUser{request.Subject, request.Username, request.PasswordHash, request.Roles, request.Claims})
	if err != nil {
		return UserInfo{}, err
	}
	return s.describeUser(ctx, subject)
}

// UserPassword asks for another password.
type UserPassword struct {
	UserRef
	PasswordHash string `json:"password_hash"` // PHC string
	// KeepSessions leaves the user's sessions and grants alone. Else they end: who
	// knew the old password must not keep what it opened.
	KeepSessions bool `json:"keep_sessions,omitempty"`
}

func (s *Server) adminUserPassword(ctx context.Context, request UserPassword) (UserInfo, error) {
	known, err := s.resolve(ctx, request.UserRef)
	if err != nil {
		return UserInfo{}, err
	}
	hash, err := parsePasswordHash(request.PasswordHash)
	if err != nil {
		return UserInfo{}, adminBadRequest("the password hash is not valid: %v", err)
	}
	err = s.updateCredentials(ctx, known.user.subject, func(c *credentials) error {
		c.Password = newStoredPassword(known.user, hash)
		return nil
	})
	if err == nil && !request.KeepSessions {
		err = unavailableUnless(s.endSubject(ctx, known.user.subject, orReason(request.Reason, "password_changed")), "ending the sessions")
	}
	if err != nil {
		return UserInfo{}, err
	}
	return s.describeUser(ctx, known.user.subject)
}

// adminUserReset takes all second factors, passkeys and recovery codes from a user
// who has lost them, and ends his sessions: he signs in by his password alone and
// enrols again.
func (s *Server) adminUserReset(ctx context.Context, ref UserRef) (UserInfo, error) {
	known, err := s.resolve(ctx, ref)
	if err != nil {
		return UserInfo{}, err
	}
	err = s.updateCredentials(ctx, known.user.subject, func(c *credentials) error {
		*c = credentials{Password: c.Password}
		return nil
	})
	if err == nil {
		err = unavailableUnless(s.endSubject(ctx, known.user.subject, orReason(ref.Reason, "factors_reset")), "ending the sessions")
	}
	if err != nil {
		return UserInfo{}, err
	}
	return s.describeUser(ctx, known.user.subject)
}

func (s *Server) adminUserDisable(ctx context.Context, ref UserRef) (UserInfo, error) {
	known, err := s.resolve(ctx, ref)
	if err == nil {
		err = s.disableUser(ctx, known.user.subject, orReason(ref.Reason, reasonByOperator))
	}
	if err != nil {
		return UserInfo{}, err
	}
	return s.describeUser(ctx, known.user.subject)
}

func (s *Server) adminUserEnable(ctx context.Context, ref UserRef) (UserInfo, error) {
	known, err := s.resolve(ctx, ref)
	if err != nil {
		return UserInfo{}, err
	}
	if s.users.configured[known.user.subject].disabled {
		return UserInfo{}, s.adminConfigured(fmt.Sprintf("that user %q is disabled", known.user.username), "users")
	}
	err = s.updateUser(ctx, known.user.subject, func(u *storedUser) error { u.Disabled = false; return nil })
	if err != nil {
		return UserInfo{}, err
	}
	return s.describeUser(ctx, known.user.subject)
}

func (s *Server) adminUserRemove(ctx context.Context, ref UserRef) (UserInfo, error) {
	known, err := s.resolve(ctx, ref)
	if err != nil {
		return UserInfo{}, err
	}
	if _, configured := s.users.configured[known.user.subject]; configured {
		return UserInfo{}, s.adminConfigured(fmt.Sprintf("user %q", known.user.username), "users")
	}
	info, err := s.describeUser(ctx, known.user.subject)
	if err == nil {
		err = s.removeUser(ctx, known.user, orReason(ref.Reason, reasonByOperator))
	}
	return info, err
}
