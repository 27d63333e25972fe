package authserver

import (
	"context"
	"net/http"
	"strings"

	"authserver/internal/intake"
)

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
	return nil, c.refused(s.revoke(r.Context(), c, f.get("token")))
}

func (s *Server) revoke(ctx context.Context, c *client, raw string) error {
	if raw == "" {
		return invalidRequest("token is missing")
	}
	token, err := intake.Parse(raw)
	if err != nil && strings.Count(raw, ".") == 2 {
		// A caller who reads 200 believes that the token is dead, and another
		// spelling of it (padding, a space) may be alive: ATTACKS IR-11.
		return invalidRequest("the token is malformed; send it exactly as it was issued").because(err)
	} else if err != nil {
		return nil
	}
	if token.Type == refreshTokenType {
		return s.revokeRefreshToken(ctx, c, token)
	}
	return s.revokeAccessToken(ctx, c, token)
}

func (s *Server) revokeRefreshToken(ctx context.Context, c *client, token *intake.Token) error {
	claims, err := s.readRefreshToken(token)
	if err != nil {
		return nil
	}
	if claims.ClientID != c.id {
		return errNotYours
	}
	if err := s.endGrant(ctx, claims.GrantID, reasonByClient); err != nil {
		return unavailable(err)
	}
	s.log.Info("grant revoked", "event", "revoke", "client_id", c.id, "sub", claims.Subject, "grant_id", claims.GrantID)
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
	if err := s.endToken(ctx, claims, reasonByClient); err != nil {
		return unavailable(err)
	}
	s.log.Info("token revoked", "event", "revoke", "client_id", c.id, "sub", claims.Subject, "jti", claims.ID)
	return nil
}

// errNotYours: RFC 7009 §2.1 has such a request refused; the token lives on.
var errNotYours = invalidRequest("the token was issued to another client")
