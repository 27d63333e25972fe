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
func (s *Server) idToken(a Authorization, c *client, access string) map[string]any {
	claims := claimsOf(a.User, a.Scope, a.Grant.IDTokenClaims)
	claims["iss"] = s.issuer
	claims["sub"] = s.subjectFor(c, a.Grant.Subject)
	claims["aud"] = c.id
	claims["iat"] = a.IssuedAt.Unix()
	claims["exp"] = a.IssuedAt.Add(s.tokens.ID).Unix()
	claims["auth_time"] = a.Grant.AuthTime
	claims["at_hash"] = accessTokenHash(s.idTokenAlgorithm(c), access)
	if a.Nonce != "" { // only in the first one (OpenID Connect Core §12.2)
		claims["nonce"] = a.Nonce
	}
	if a.Grant.ACR != "" {
		claims["acr"] = a.Grant.ACR
	}
	if len(a.Grant.AMR) > 0 {
		claims["amr"] = a.Grant.AMR
	}
	if a.Grant.SessionID != "" { // OpenID Connect Front-Channel Logout §3
		claims["sid"] = a.Grant.SessionID
	}
	return claims
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
