package authserver

import (
	"errors"
	"strconv"
	"time"

	"authserver/internal/intake"
)

// refreshTokenType tells refresh tokens from all others; only the server reads them.
const refreshTokenType = "rt+jwt"

// refreshClaims are the claims of a refresh token. Scope, resources and the end
// of the grant are in it so that a request can be judged before the grant's
// record moves. Two tokens of one generation are equal to the byte.
type refreshClaims struct {
	Issuer       string   `json:"iss"`
	Audience     string   `json:"aud"` // the issuer
	Subject      string   `json:"sub"`
	ClientID     string   `json:"client_id"`
	Scope        string   `json:"scope,omitempty"`
	Resources    []string `json:"resources,omitempty"`
	GrantID      string   `json:"grant_id"`
	Generation   uint64   `json:"gen"`
	IssuedAt     int64    `json:"iat"`
	Expires      int64    `json:"exp"`
	GrantExpires int64    `json:"grant_exp"`
}

func (c refreshClaims) members() (object, error) {
	o := make(object, 0, 512)
	o.text("iss", c.Issuer)
	o.text("aud", c.Audience)
	o.text("sub", c.Subject)
	o.text("client_id", c.ClientID)
	o.given("scope", c.Scope)
	o.texts("resources", c.Resources)
	o.text("grant_id", c.GrantID)
	o.number("gen", int64(c.Generation))
	o.number("iat", c.IssuedAt)
	o.number("exp", c.Expires)
	o.number("grant_exp", c.GrantExpires)
	return o, nil
}

// set takes one claim: each of the type that it has here, and never null.
func (c *refreshClaims) set(name, value []byte) (err error) {
	switch string(name) {
	case "iss":
		c.Issuer, err = intake.Text(value)
	case "aud":
		c.Audience, err = intake.Text(value)
	case "sub":
		c.Subject, err = intake.Text(value)
	case "client_id":
		c.ClientID, err = intake.Text(value)
	case "scope":
		c.Scope, err = intake.Text(value)
	case "resources":
		c.Resources, err = intake.Texts(value)
	case "grant_id":
		c.GrantID, err = intake.Text(value)
	case "gen":
		c.Generation, err = strconv.ParseUint(string(value), 10, 64)
	case "iat":
		c.IssuedAt, err = intake.Integer(value)
	case "exp":
		c.Expires, err = intake.Integer(value)
	case "grant_exp":
		c.GrantExpires, err = intake.Integer(value)
	}
	return err
}

func (s *Server) refreshClaims(a Authorization) refreshClaims {
	return refreshClaims{
		Issuer:       s.issuer,
		Audience:     s.issuer,
		Subject:      a.Grant.Subject,
		ClientID:     a.Grant.ClientID,
		Scope:        a.Grant.Scope,
		Resources:    a.Grant.Resources,
		GrantID:      a.GrantID,
		Generation:   a.Refresh.Generation,
		IssuedAt:     a.IssuedAt.Unix(),
		Expires:      a.Refresh.Expires.Unix(),
		GrantExpires: a.Grant.Expires,
	}
}

// parseRefreshToken returns the claims of a refresh token of ours that has not
// expired. It asks nothing of the store, so junk costs the store nothing.
func (s *Server) parseRefreshToken(raw string) (refreshClaims, error) {
	token, err := intake.Parse(raw)
	if err != nil {
		return refreshClaims{}, err
	}
	return s.readRefreshToken(token)
}

func (s *Server) readRefreshToken(token *intake.Token) (refreshClaims, error) {
	var claims refreshClaims
	if token.Type != refreshTokenType {
		return claims, errors.New("not a refresh token")
	}
	algorithm, key, ok := s.keys.RefreshKey(token.KeyID)
	if !ok {
		return claims, errors.New("signed by no key of ours")
	}
	if err := s.checkedRefresh.verify(token, intake.Key{ID: token.KeyID, Algorithm: algorithm, Public: key}); err != nil {
		return claims, err
	}
	if err := intake.Members(token.Payload, claims.set); err != nil {
		return claims, err
	}
	switch {
	case claims.Issuer != s.issuer || claims.Audience != s.issuer:
		return claims, errors.New("of another issuer")
	case claims.GrantID == "" || claims.Generation == 0:
		return claims, errors.New("names no grant")
	case claims.Expires <= time.Now().Unix():
		return claims, errExpired
	}
	return claims, nil
}

var errExpired = errors.New("expired")
