package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/intake"
	"authserver/store"
)

// revocationLog is the log to which every revocation is appended before it is
// acknowledged.
const revocationLog = "revocations"

// revocation says what has ended. It is the record of a revoked access token and
// the event in the log.
type revocation struct {
	Token  string `json:"jti,omitempty"`      // one access token, or
	Grant  string `json:"grant_id,omitempty"` // all tokens of a grant
	Reason string `json:"reason"`
	At     int64  `json:"at"`    // seconds since 1970
	Until  int64  `json:"until"` // when the last token that it ends has expired
}

// handleRevoke is RFC 7009. A refresh token ends its grant; an access token ends
// itself. Unknown tokens are revoked already (§2.2).
func (s *Server) handleRevoke(w http.ResponseWriter, r *http.Request) (any, error) {
	f, err := parseForm(w, r)
	if err != nil {
		return nil, err
	}
	c, err := s.authenticateClient(r, f)
	if err != nil {
		return nil, err
	}
	raw := f.get("token")
	if raw == "" {
		return nil, invalidRequest("token is missing")
	}
	token, err := intake.Parse(raw)
	if err != nil {
		return nil, nil
	}
	if token.Type == refreshTokenType {
		return nil, s.revokeRefreshToken(r.Context(), c, token)
	}
	return nil, s.revokeAccessToken(r.Context(), c, token)
}

func (s *Server) revokeRefreshToken(ctx context.Context, c *client, token *intake.Token) error {
	claims, err := s.readRefreshToken(token)
	if err != nil {
		return nil
	}
	if claims.ClientID != c.id {
		return errNotYours
	}
	if err := s.endGrant(ctx, claims.GrantID, "revoked_by_client"); err != nil {
		return unavailable(err)
	}
	s.log.Info("grant revoked", "event", "revocation", "client_id", c.id, "sub", claims.Subject, "grant_id", claims.GrantID)
	return nil
}

func (s *Server) revokeAccessToken(ctx context.Context, c *client, token *intake.Token) error {
	claims, err := s.readAccessToken(token)
	if err != nil {
		return nil
	}
	if claims.ClientID != c.id {
		return errNotYours
	}
	if err := s.endToken(ctx, claims); err != nil {
		return unavailable(err)
	}
	s.log.Info("token revoked", "event", "revocation", "client_id", c.id, "sub", claims.Subject, "jti", claims.ID)
	return nil
}

// errNotYours: RFC 7009 §2.1 has such a request refused; the token lives on.
var errNotYours = invalidRequest("the token was issued to another client")

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
