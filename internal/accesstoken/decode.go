package accesstoken

import (
	"fmt"
	"math"

	"authserver/internal/intake"
)

// Decode reads the payload of an access token, in one pass: as strictly as
// intake.Decode, each claim of the type that it has in Claims and never null. It
// does not say whether the claims are there. Errors wrap intake.ErrMalformed.
func Decode(payload []byte) (Claims, error) { return DecodeText(string(payload)) }

// DecodeText is Decode of a string, of which the claims are parts.
func DecodeText(payload string) (Claims, error) {
	var claims Claims
	err := intake.Members(payload, claims.set)
	return claims, err
}

func (c *Claims) set(name, value string) (err error) {
	switch name {
	case "iss":
		c.Issuer, err = intake.Text(value)
	case "sub":
		c.Subject, err = intake.Text(value)
	case "aud":
		c.Audience, err = audience(value)
	case "client_id":
		c.ClientID, err = intake.Text(value)
	case "scope":
		c.Scope, err = intake.Text(value)
	case "jti":
		c.ID, err = intake.Text(value)
	case "iat":
		c.IssuedAt, err = intake.Integer(value)
	case "exp":
		c.Expires, err = intake.Integer(value)
	case "nbf":
		c.NotBefore, err = intake.Integer(value)
	case "grant_id":
		c.GrantID, err = intake.Text(value)
	case "auth_time":
		c.AuthTime, err = intake.Integer(value)
	case "acr":
		c.ACR, err = intake.Text(value)
	case "amr":
		c.AMR, err = intake.Texts(value)
	case "sid":
		c.SessionID, err = intake.Text(value)
	case "preferred_username":
		c.PreferredUsername, err = intake.Text(value)
	case "roles":
		c.Roles, err = intake.Texts(value)
	case "status":
		c.Status = new(Status)
		err = intake.Members(value, c.Status.set)
	case "client_epoch":
		c.ClientEpoch, err = number(value)
	case "sub_epoch":
		c.SubjectEpoch, err = number(value)
	case "cnf":
		c.Confirmation = new(Confirmation)
		err = intake.Members(value, c.Confirmation.set)
	}
	return err
}

// set takes the methods that are known here. With an unknown one the token is
// bound all the same.
func (c *Confirmation) set(name, value string) (err error) {
	switch name {
	case "jkt":
		c.JWKThumbprint, err = intake.Text(value)
	case "x5t#S256":
		c.X509Thumbprint, err = intake.Text(value)
	}
	return err
}

// set takes the kind of status that is known here.
func (s *Status) set(name, value string) error {
	if name != "status_list" {
		return nil
	}
	return intake.Members(value, s.List.set)
}

func (e *StatusListEntry) set(name, value string) (err error) {
	switch name {
	case "idx":
		var index int64
		if index, err = intake.Integer(value); err == nil && (index < 0 || index > math.MaxUint32) {
			err = fmt.Errorf("%w: idx is %d", intake.ErrMalformed, index)
		}
		e.Index = uint32(index)
	case "uri":
		e.URI, err = intake.Text(value)
	}
	return err
}

// number reads a count.
func number(value string) (uint64, error) {
	n, err := intake.Integer(value)
	if err == nil && n < 0 {
		err = fmt.Errorf("%w: an epoch is %d", intake.ErrMalformed, n)
	}
	return uint64(n), err
}

func audience(value string) (Audience, error) {
	if len(value) > 0 && value[0] == '[' {
		return intake.Texts(value)
	}
	one, err := intake.Text(value)
	return Audience{one}, err
}
