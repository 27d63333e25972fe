package authserver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"authserver/internal/accesstoken"
	"authserver/keys"
)

// tokenResponse is RFC 6749 §5.1.
type tokenResponse struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	RefreshToken string `json:"refresh_token,omitempty"`
	IDToken      string `json:"id_token,omitempty"` // OpenID Connect Core §3.1.3.3
	Scope        string `json:"scope,omitempty"`
}

func (t tokenResponse) members() (object, error) {
	o := make(object, 0, 128+len(t.AccessToken)+len(t.RefreshToken)+len(t.IDToken)+len(t.Scope))
	o.text("access_token", t.AccessToken)
	o.text("token_type", t.TokenType)
	o.number("expires_in", t.ExpiresIn)
	o.given("refresh_token", t.RefreshToken)
	o.given("id_token", t.IDToken)
	o.given("scope", t.Scope)
	return o, nil
}

// unsentTimeout bounds Authorization.unsent.
const unsentTimeout = 5 * time.Second

// handleToken is the token endpoint; serveToken is the rest of it.
func (s *Server) handleToken(w http.ResponseWriter, r *http.Request) (any, error) {
	f, err := parseForm(w, r)
	if err != nil {
		return nil, err
	}
	c, err := s.authenticateClient(r, f)
	if err != nil {
		return nil, err
	}
	answer, err := s.serveToken(r, c, f)
	return answer, c.refused(err)
}

// serveToken answers a client that is known, top to bottom.
func (s *Server) serveToken(r *http.Request, c *client, f form) (any, error) {
	name, grantType, err := s.grantType(f)
	if err != nil {
		return nil, err
	}
	if !c.may(name) {
		return nil, refusal("unauthorized_client", "the client is not registered for this grant_type")
	}
	authorization, err := grantType.Authorize(r.Context(), tokenRequest{c, f, s.proxies.clientAddress(r)})
	if err != nil {
		return nil, err
	}
	response, err := s.issue(r.Context(), c, authorization)
	if err != nil && authorization.unsent != nil {
		// Also for a client that has gone away: it will be back.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), unsentTimeout)
		defer cancel()
		err = errors.Join(err, authorization.unsent(ctx))
	}
	if err != nil {
		return nil, err
	}
	s.metrics.tokens.WithLabelValues(name).Inc()
	s.log.LogAttrs(r.Context(), slog.LevelInfo, "token issued", slog.String("event", "token"), slog.String("grant_type", name),
		slog.String("client_id", c.id), slog.String("sub", authorization.Grant.Subject), slog.String("grant_id", authorization.GrantID),
		slog.String("jti", authorization.TokenID), slog.String("scope", response.Scope), slog.String("aud", authorization.Resource))
	return response, nil
}

func (s *Server) grantType(f form) (string, GrantType, error) {
	name := f.get("grant_type")
	if name == "" {
		return "", nil, invalidRequest("grant_type is missing")
	}
	for _, known := range s.grantTypes {
		if known.name == name {
			return name, known.grant, nil
		}
	}
	return "", nil, refusal("unsupported_grant_type", "the grant_type is not one of %s", strings.Join(s.grantTypeNames(), ", "))
}

func (s *Server) grantTypeNames() []string {
	var names []string
	for _, known := range s.grantTypes {
		names = append(names, known.name)
	}
	return names
}

// issue is the only place that signs tokens.
func (s *Server) issue(ctx context.Context, c *client, a Authorization) (tokenResponse, error) {
	claims := accesstoken.Claims{
		Issuer:       s.issuer,
		Subject:      a.Grant.Subject,
		Audience:     accesstoken.Audience{a.Resource},
		ClientID:     a.Grant.ClientID,
		Scope:        strings.Join(a.Scope, " "),
		ID:           a.TokenID,
		IssuedAt:     a.IssuedAt.Unix(),
		Expires:      a.IssuedAt.Add(s.tokens.Access).Unix(),
		GrantID:      a.GrantID,
		AuthTime:     a.Grant.AuthTime,
		ACR:          a.Grant.ACR,
		AMR:          a.Grant.AMR,
		SessionID:    a.Grant.SessionID,
		Confirmation: a.Grant.Confirmation,
		ClientEpoch:  a.Grant.ClientEpoch,
		SubjectEpoch: a.Grant.SubjectEpoch,
	}
	if slices.Contains(a.Scope, "profile") {
		claims.PreferredUsername = a.User.username
	}
	if slices.Contains(a.Scope, "roles") {
		claims.Roles = a.User.roles
	}
	if s.resources.listed[a.Resource] {
		claims.Status = s.statuses.place()
	}
	access, err := s.sign(s.resources.algorithmFor(a.Resource), accesstoken.Type, signedClaims{&claims, a.Resource})
	if err != nil {
		return tokenResponse{}, err
	}
	if err := s.statuses.note(ctx, access, claims); err != nil {
		return tokenResponse{}, err
	}
	left := s.tokens.Access - a.Age.Truncate(time.Second)
	response := tokenResponse{
		AccessToken: access,
		TokenType:   "Bearer",                      // RFC 6750
		ExpiresIn:   max(int64(left.Seconds()), 1), // many clients take 0 for nothing said
		Scope:       claims.Scope,
	}
	if a.Refresh != nil {
		if response.RefreshToken, err = s.sign(keys.RefreshRing, refreshTokenType, s.refreshClaims(a)); err != nil {
			return tokenResponse{}, err
		}
		s.checkedRefresh.add(sha256.Sum256([]byte(response.RefreshToken)))
	}
	if slices.Contains(a.Scope, "openid") && a.Grant.Subject != a.Grant.ClientID {
		response.IDToken, err = s.sign(s.idTokenAlgorithm(c), idTokenType, s.idToken(a, c, access))
	}
	return response, err
}

// signedClaims are the claims of an access token as they are written: its audience is
// one resource, so a string (RFC 7519 §4.1.3).
type signedClaims struct {
	*accesstoken.Claims
	Audience string `json:"aud"`
}

func (c signedClaims) members() (o object, err error) {
	o = make(object, 0, 640)
	o.text("iss", c.Issuer)
	o.text("sub", c.Subject)
	o.text("client_id", c.ClientID)
	o.given("scope", c.Scope)
	o.text("jti", c.ID)
	o.number("iat", c.IssuedAt)
	o.number("exp", c.Expires)
	o.given("grant_id", c.GrantID)
	o.count("auth_time", uint64(c.AuthTime))
	o.given("acr", c.ACR)
	o.texts("amr", c.AMR)
	o.given("sid", c.SessionID)
	o.given("preferred_username", c.PreferredUsername)
	o.texts("roles", c.Roles)
	if c.Confirmation != nil {
		err = o.value("cnf", c.Confirmation)
	}
	if c.Status != nil {
		err = errors.Join(err, o.value("status", c.Status))
	}
	o.count("client_epoch", c.ClientEpoch)
	o.count("sub_epoch", c.SubjectEpoch)
	o.text("aud", c.Audience)
	return o, err
}

func (s *Server) sign(ring, typ string, claims any) (string, error) {
	payload, err := encode(claims)
	if err != nil {
		return "", fmt.Errorf("encoding claims: %w", err)
	}
	token, err := s.keys.Sign(ring, typ, payload)
	if keys.Passes(err) {
		return "", unavailable(fmt.Errorf("signing: %w", err))
	}
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	return token, nil
}
