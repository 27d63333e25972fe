package authserver

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// code is an authorization code. It is not stored but sealed, so that everything
// in it is checked before anything is spent; the store learns only, when it is
// redeemed, that it was. The grant that it will become has its id already, so that
// a replay can end it.
type code struct {
	ID           string        `json:"id"`
	GrantID      string        `json:"grant_id"`
	Issued       int64         `json:"iat"` // milliseconds since 1970
	Expires      int64         `json:"exp"` // likewise
	ClientID     string        `json:"client_id"`
	RedirectURI  string        `json:"redirect_uri"`
	RedirectSent bool          `json:"redirect_sent,omitempty"` // the request named it
	Challenge    string        `json:"code_challenge,omitempty"`
	Nonce        string        `json:"nonce,omitempty"`
	Scope        []string      `json:"scope,omitempty"`
	Resources    []string      `json:"resources,omitempty"`
	Claims       claimsRequest `json:"claims,omitzero"`
	Subject      string        `json:"sub"`
	AuthTime     int64         `json:"auth_time"`
	ACR          string        `json:"acr,omitempty"`
	AMR          []string      `json:"amr,omitempty"`
	SessionID    string        `json:"sid,omitempty"`
}

// newCode returns the code for a request that the user of current allows: 192
// random bits, and a tag that nobody without the master key can make (OAuth 2.1
// §7.7).
func (s *Server) newCode(c *client, request authorizationRequest, current *session) (sealed, grantID string, err error) {
	now := time.Now()
	minted := code{
		ID: newID(), GrantID: newID(), Issued: now.UnixMilli(), Expires: now.Add(s.tokens.Code).UnixMilli(), ClientID: c.id,
		RedirectURI: request.RedirectURI, RedirectSent: request.RedirectSent, Challenge: request.Challenge, Nonce: request.Nonce, Scope: request.Scope, Resources: request.Resources, Claims: request.Claims,
		Subject: current.Subject, AuthTime: current.AuthTime, ACR: current.ACR, AMR: current.AMR, SessionID: current.ID,
	}
	sealed, err = s.sealCode(minted)
	return sealed, minted.GrantID, err
}

func (s *Server) sealCode(minted code) (string, error) {
	plaintext, err := json.Marshal(minted)
	if err != nil {
		return "", fmt.Errorf("encoding a code: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(s.codeBox.Seal(plaintext, []byte(s.issuer))), nil
}

// openCode returns what is in a code of ours, however old it is.
func (s *Server) openCode(sealed string) (code, error) {
	var opened code
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	if err != nil {
		return opened, fmt.Errorf("reading a code: %w", err)
	}
	plaintext, err := s.codeBox.Open(decoded, []byte(s.issuer))
	if err != nil {
		return opened, fmt.Errorf("reading a code: %w", err)
	}
	if err := json.Unmarshal(plaintext, &opened); err != nil {
		return opened, fmt.Errorf("decoding a code: %w", err)
	}
	return opened, nil
}
