package authserver

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"authserver/internal/accesstoken"
	"authserver/internal/intake"
)

// introspection is RFC 7662 §2.2.
type introspection struct {
	Active    bool                      `json:"active"`
	Scope     string                    `json:"scope,omitempty"`
	ClientID  string                    `json:"client_id,omitempty"`
	Username  string                    `json:"username,omitempty"`
	TokenType string                    `json:"token_type,omitempty"`
	Expires   int64                     `json:"exp,omitempty"`
	IssuedAt  int64                     `json:"iat,omitempty"`
	Subject   string                    `json:"sub,omitempty"`
	Audience  accesstoken.Audience      `json:"aud,omitempty"`
	Issuer    string                    `json:"iss,omitempty"`
	ID        string                    `json:"jti,omitempty"`
	GrantID   string                    `json:"grant_id,omitempty"`
	AuthTime  int64                     `json:"auth_time,omitempty"`
	ACR       string                    `json:"acr,omitempty"`
	AMR       []string                  `json:"amr,omitempty"`
	Roles     []string                  `json:"roles,omitempty"`
	Binding   *accesstoken.Confirmation `json:"cnf,omitempty"`
}

// inactive is all that is said about a token that is not, or not for the caller
// to know about (RFC 7662 §2.2).
var inactive = introspection{}

func (s *Server) handleIntrospect(w http.ResponseWriter, r *http.Request) (any, error) {
	f, err := parseForm(w, r)
	if err != nil {
		return nil, err
	}
	caller, _, err := s.authenticateVerifier(w, r, f)
	if err != nil {
		return nil, err
	}
	if caller.public() {
		// RFC 7662 §2.1: callers are authenticated, so that nobody can fish for tokens.
		return nil, caller.refused(invalidClient(errors.New("a public client at introspection")))
	}
	answer, err := s.introspect(r.Context(), caller, f.get("token"))
	return answer, caller.refused(err)
}

func (s *Server) introspect(ctx context.Context, caller *client, raw string) (any, error) {
	if raw == "" {
		return nil, invalidRequest("token is missing")
	}
	// token_type_hint only speeds up servers that must search (RFC 7662 §2.1).
	token, err := intake.Parse(raw)
	if err != nil {
		return inactive, nil
	}
	if token.Type == refreshTokenType {
		return s.introspectRefreshToken(ctx, caller, token)
	}
	return s.introspectAccessToken(ctx, caller, token)
}

func (s *Server) introspectAccessToken(ctx context.Context, caller *client, token *intake.Token) (any, error) {
	claims, err := s.readAccessToken(token)
	if err != nil {
		return inactive, nil
	}
	// A resource server learns about tokens meant for it, a client about its own.
	mine := claims.ClientID == caller.id || caller.resource != "" && slices.Contains(claims.Audience, caller.resource)
	if !mine {
		return inactive, nil
	}
	behind, live, err := s.accessTokenLive(ctx, claims)
	if err != nil || !live {
		return inactive, err
	}
	if claims.ClientID == caller.id && !byClientItself(claims) { // a client knows users by its own names for them
		claims.Subject = s.subjectFor(caller, claims.Subject)
	}
	return introspection{
		Active: true, Scope: claims.Scope, ClientID: claims.ClientID, Username: behind.user.username, TokenType: "Bearer",
		Expires: claims.Expires, IssuedAt: claims.IssuedAt, Subject: claims.Subject, Audience: claims.Audience,
		Issuer: claims.Issuer, ID: claims.ID, GrantID: claims.GrantID, AuthTime: claims.AuthTime, ACR: claims.ACR,
		AMR: claims.AMR, Roles: claims.Roles, Binding: claims.Confirmation,
	}, nil
}

func (s *Server) introspectRefreshToken(ctx context.Context, caller *client, token *intake.Token) (any, error) {
	claims, err := s.readRefreshToken(token)
	if err != nil || claims.ClientID != caller.id {
		return inactive, nil
	}
	found, err := s.standingOf(ctx, claims.ClientID, claims.Subject, "", s.grants.Key(claims.GrantID))
	if gone(err) {
		return inactive, nil
	} else if err != nil {
		return nil, err
	}
	_, live, err := s.grantLive(ctx, claims.GrantID, found.records[0], found)
	if err != nil || !live || found.records[0].Version != claims.Generation { // ended, or already exchanged
		return inactive, err
	}
	if ended, err := s.endedByLog(ctx, accesstoken.Claims{GrantID: claims.GrantID}); err != nil || ended {
		return inactive, err
	}
	return introspection{
		Active: true, Scope: claims.Scope, ClientID: claims.ClientID, Username: found.user.username, TokenType: "refresh_token",
		Expires: claims.Expires, IssuedAt: claims.IssuedAt, Subject: s.subjectFor(caller, claims.Subject),
		Audience: accesstoken.Audience{claims.Audience}, Issuer: claims.Issuer, GrantID: claims.GrantID,
	}, nil
}
