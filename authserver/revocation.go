package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"authserver/internal/accesstoken"
	"authserver/store"
)

// revocationLog is the log to which every revocation is appended before it is
// acknowledged.
const revocationLog = "revocations"

// revocation says what has ended: exactly one of a token, a grant, a session, a
// subject, a client or a key. It is the event in the log, and the record of a
// revoked access token. Times are seconds since 1970.
type revocation struct {
	Token   string `json:"jti,omitempty"`       // one access token
	Grant   string `json:"grant_id,omitempty"`  // all tokens of a grant
	Session string `json:"sid,omitempty"`       // all tokens of a session
	Subject string `json:"sub,omitempty"`       // all tokens of a user that were issued at or before Before
	Client  string `json:"client_id,omitempty"` // all tokens of a client that were issued at or before Before
	Key     string `json:"kid,omitempty"`       // all tokens that a key signed
	Before  int64  `json:"before,omitempty"`
	Reason  string `json:"reason"`
	At      int64  `json:"at"`
	Until   int64  `json:"until"` // when the last token that it ends has expired
}

// endGrant ends a grant and with it all its tokens: its record is gone when it
// returns, and the revocation is in the log.
func (s *Server) endGrant(ctx context.Context, grantID, reason string) error {
	if err := s.grants.Delete(ctx, grantID); err != nil {
		return fmt.Errorf("ending a grant: %w", err)
	}
	return s.publish(ctx, revocation{Grant: grantID, Reason: reason, Until: time.Now().Add(s.tokens.Access).Unix()})
}

// endToken ends one access token.
func (s *Server) endToken(ctx context.Context, claims accesstoken.Claims) error {
	r := revocation{Token: claims.ID, Reason: "revoked_by_client", At: time.Now().Unix(), Until: claims.Expires}
	err := s.revoked.Create(ctx, claims.ID, r, time.Unix(claims.Expires, 0).Add(time.Minute))
	if err != nil && !errors.Is(err, store.ErrExists) {
		return fmt.Errorf("revoking an access token: %w", err)
	}
	return s.publish(ctx, r)
}

func (s *Server) publish(ctx context.Context, r revocation) error {
	r.At = time.Now().Unix()
	event, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding a revocation: %w", err)
	}
	// A revocation matters as long as a token that it ends could be accepted.
	if _, err := s.store.Append(ctx, revocationLog, event, s.tokens.Access+2*time.Minute); err != nil {
		return fmt.Errorf("logging a revocation: %w", err)
	}
	return nil
}
