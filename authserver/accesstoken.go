package authserver

import (
	"errors"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/intake"
)

// readAccessToken returns the claims of an access token of ours that has not
// expired. Whether it was revoked is for the caller to ask the store.
func (s *Server) readAccessToken(token *intake.Token) (accesstoken.Claims, error) {
	if !token.HasType(accesstoken.Type) {
		return accesstoken.Claims{}, errors.New("not an access token")
	}
	algorithm, key, ok := s.keys.AccessKey(token.KeyID)
	if !ok {
		return accesstoken.Claims{}, errors.New("signed by no key of ours")
	}
	if err := s.checkedAccess.verify(token, intake.Key{ID: token.KeyID, Algorithm: algorithm, Public: key}); err != nil {
		return accesstoken.Claims{}, err
	}
	claims, err := accesstoken.Decode(token.Payload)
	if err != nil {
		return claims, err
	}
	switch {
	case claims.Issuer != s.issuer:
		return claims, errors.New("of another issuer")
	case claims.ID == "" || claims.Subject == "" || claims.ClientID == "":
		return claims, errors.New("lacks required claims")
	case claims.Expires <= time.Now().Unix():
		return claims, errors.New("expired")
	}
	return claims, nil
}

// byClientItself reports whether the token was issued to a client for itself, so
// that no grant record stands behind it. Users never have a client's id as their
// subject; Config.Check sees to it.
func byClientItself(claims accesstoken.Claims) bool { return claims.Subject == claims.ClientID }
