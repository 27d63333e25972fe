package authserver

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"slices"

	"authserver/internal/intake"
)

// idTokenType is the typ of ID tokens: no other token of ours has it.
const idTokenType = "JWT"

// idToken returns the claims of the ID token that goes with an access token
// (OpenID Connect Core §2, §3.1.3.6). Its audience is the one client, so that there
// is no azp. The claims of the scopes are in it as well as at /userinfo: many
// clients look nowhere else.
func (s *Server) idToken(a Authorization, c *client, access string) idTokenClaims {
	return idTokenClaims{
		Issuer: s.issuer, Subject: s.subjectFor(c, a.Grant.Subject), Audience: c.id,
		IssuedAt: a.IssuedAt.Unix(), Expires: a.IssuedAt.Add(s.tokens.ID).Unix(), AuthTime: a.Grant.AuthTime,
		AccessTokenHash: accessTokenHash(s.idTokenAlgorithm(c), access),
		Nonce:           a.Nonce, // only in the first one (OpenID Connect Core §12.2)
		ACR:             a.Grant.ACR, AMR: a.Grant.AMR,
		SessionID: a.Grant.SessionID, // OpenID Connect Front-Channel Logout §3
		ofUser:    claimsOf(a.User, a.Scope, a.Grant.IDTokenClaims),
	}
}

// idTokenClaims are those of ID tokens; ofUser has none of the others' names.
type idTokenClaims struct {
	Issuer, Subject, Audience   string
	IssuedAt, Expires, AuthTime int64
	AccessTokenHash, Nonce, ACR string
	AMR                         []string
	SessionID                   string
	ofUser                      map[string]any
}

func (c idTokenClaims) members() (object, error) {
	o := make(object, 0, 640)
	o.text("iss", c.Issuer)
	o.text("sub", c.Subject)
	o.text("aud", c.Audience)
	o.number("iat", c.IssuedAt)
	o.number("exp", c.Expires)
	o.number("auth_time", c.AuthTime)
	o.text("at_hash", c.AccessTokenHash)
	o.given("nonce", c.Nonce)
	o.given("acr", c.ACR)
	o.texts("amr", c.AMR)
	o.given("sid", c.SessionID)
	return o, o.rest(c.ofUser)
}

// idTokenAlgorithm is what signs the ID tokens of c. Without a wish of its own that
// is RS256 where there is such a key, as OpenID Connect Registration §2 has it: many
// clients expect it and look no further.
func (s *Server) idTokenAlgorithm(c *client) string {
	switch {
	case c.idTokenAlgorithm != "":
		return c.idTokenAlgorithm
	case slices.Contains(s.keys.Algorithms(), "RS256"):
		return "RS256"
	}
	return s.keys.Default()
}

// accessTokenHash is at_hash: half the hash that the ID token's algorithm has
// (OpenID Connect Core §3.1.3.6).
func accessTokenHash(algorithm, access string) string {
	if algorithm == "EdDSA" { // Ed25519 is with SHA-512
		hash := sha512.Sum512([]byte(access))
		return base64.RawURLEncoding.EncodeToString(hash[:32])
	}
	hash := sha256.Sum256([]byte(access))
	return base64.RawURLEncoding.EncodeToString(hash[:16])
}

// idTokenHint is what an id_token_hint says.
type idTokenHint struct {
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Issuer   string `json:"iss"`
	Session  string `json:"sid"`
}

// readIDTokenHint reads an ID token of ours, however old (OpenID Connect Core
// §3.1.2.1, RP-Initiated Logout §4).
func (s *Server) readIDTokenHint(raw string) (idTokenHint, error) {
	var hint idTokenHint
	token, err := intake.Parse(raw)
	if err != nil {
		return hint, err
	}
	algorithm, key, ok := s.keys.AccessKey(token.KeyID)
	if !ok {
		return hint, errors.New("signed by no key of ours")
	}
	if err := token.Verify(intake.Key{ID: token.KeyID, Algorithm: algorithm, Public: key}); err != nil {
		return hint, err
	}
	if !token.HasType(idTokenType) {
		return hint, errors.New("a token of ours, but no ID token")
	}
	if err := intake.Decode(token.Payload, &hint); err != nil {
		return hint, err
	}
	if hint.Issuer != s.issuer || hint.Subject == "" || hint.Audience == "" {
		return hint, errors.New("of another issuer, or no ID token")
	}
	return hint, nil
}

// hintedSubject returns the sub of an id_token_hint that was issued to c.
func (s *Server) hintedSubject(c *client, raw string) (string, error) {
	hint, err := s.readIDTokenHint(raw)
	if err == nil && hint.Audience != c.id {
		err = errors.New("for another client")
	}
	return hint.Subject, err
}
