package authserver

import (
	"errors"

	"authserver/internal/intake"
)

// hintedSubject returns the sub of an id_token_hint: an ID token that was issued
// here to c, however old (OpenID Connect Core §3.1.2.1).
func (s *Server) hintedSubject(c *client, raw string) (string, error) {
	token, err := intake.Parse(raw)
	if err != nil {
		return "", err
	}
	algorithm, key, ok := s.keys.AccessKey(token.KeyID)
	if !ok {
		return "", errors.New("signed by no key of ours")
	}
	if err := token.Verify(intake.Key{ID: token.KeyID, Algorithm: algorithm, Public: key}); err != nil {
		return "", err
	}
	var claims struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience string `json:"aud"`
	}
	if err := intake.Decode(token.Payload, &claims); err != nil {
		return "", err
	}
	if claims.Issuer != s.issuer || claims.Audience != c.id || claims.Subject == "" {
		return "", errors.New("of another issuer or for another client")
	}
	return claims.Subject, nil
}
