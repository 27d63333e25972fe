package authserver

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// code is an authorization code. It is not stored but sealed, so that everything
// in it is checked before anything is spent; the store learns only, when it is
// redeemed, that it was. The grant that it will become has its id already, so that
// a replay can end it. It is CBOR, which is read three times as fast as JSON and shorter.
type code struct {
	ID             string   `cbor:"1,keyasint"`
	GrantID        string   `cbor:"2,keyasint"`
	Issued         int64    `cbor:"3,keyasint"` // milliseconds since 1970
	Expires        int64    `cbor:"4,keyasint"` // likewise
	ClientID       string   `cbor:"5,keyasint"`
	RedirectURI    string   `cbor:"6,keyasint"`
	RedirectSent   bool     `cbor:"7,keyasint,omitempty"` // the request named it
	Challenge      string   `cbor:"8,keyasint,omitempty"`
	Nonce          string   `cbor:"9,keyasint,omitempty"`
	Scope          []string `cbor:"10,keyasint,omitempty"`
	Resources      []string `cbor:"11,keyasint,omitempty"`
	IDTokenClaims  []string `cbor:"12,keyasint,omitempty"` // as in Grant
	UserInfoClaims []string `cbor:"13,keyasint,omitempty"`
	Subject        string   `cbor:"14,keyasint"`
	AuthTime       int64    `cbor:"15,keyasint"`
	ACR            string   `cbor:"16,keyasint,omitempty"`
	AMR            []string `cbor:"17,keyasint,omitempty"`
	SessionID      string   `cbor:"18,keyasint,omitempty"`
	ClientEpoch    *uint64  `cbor:"19,keyasint,omitempty"` // number of the client's epoch; nil in codes of an earlier version
}

// newCode returns the code for a request that the user of current allows, in an epoch
// of its client: 192 random bits, and a tag that nobody without the master key can
// make (OAuth 2.1 §7.7).
func (s *Server) newCode(c *client, begun epoch, request authorizationRequest, current *session) (sealed, grantID string, err error) {
	now := time.Now()
	minted := code{
		ID: newID(), GrantID: NewGrantID(current.Subject), Issued: now.UnixMilli(), Expires: now.Add(s.tokens.Code).UnixMilli(), ClientID: c.id,
		RedirectURI: request.RedirectURI, RedirectSent: request.RedirectSent, Challenge: request.Challenge, Nonce: request.Nonce, Scope: request.Scope, Resources: request.Resources,
		IDTokenClaims: slices.Sorted(maps.Keys(request.Claims.IDToken)), UserInfoClaims: slices.Sorted(maps.Keys(request.Claims.UserInfo)),
		Subject: current.Subject, AuthTime: current.AuthTime, ACR: current.ACR, AMR: current.AMR, SessionID: current.ID, ClientEpoch: &begun.number,
	}
	sealed, err = s.sealCode(minted)
	return sealed, minted.GrantID, err
}

func (s *Server) sealCode(minted code) (string, error) {
	plaintext, err := cbor.Marshal(minted)
	if err != nil {
		return "", fmt.Errorf("encoding a code: %w", err)
	}
	if len(plaintext) > maxCode {
		return "", errRequestTooLong
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
	if err := cbor.Unmarshal(plaintext, &opened); err != nil {
		return opened, fmt.Errorf("decoding a code: %w", err)
	}
	return opened, nil
}
