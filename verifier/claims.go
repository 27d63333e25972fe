package verifier

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"authserver/internal/accesstoken"
)

// Claims are what a verified access token says (RFC 9068 §2.2).
type Claims struct {
	Issuer            string
	Subject           string // the user, or the client where no user is involved
	Audience          []string
	ClientID          string
	Scope             string // space-separated
	ID                string // jti
	IssuedAt          time.Time
	Expires           time.Time
	GrantID           string    // the authorization that the token comes from
	AuthTime          time.Time // when the user signed in; zero without a user
	ACR               string
	AMR               []string
	SessionID         string
	PreferredUsername string
	Roles             []string

	payload string
}

func newClaims(c accesstoken.Claims, payload string) *Claims {
	claims := &Claims{
		Issuer: c.Issuer, Subject: c.Subject, Audience: c.Audience, ClientID: c.ClientID, Scope: c.Scope, ID: c.ID,
		IssuedAt: time.Unix(c.IssuedAt, 0), Expires: time.Unix(c.Expires, 0), GrantID: c.GrantID,
		ACR: c.ACR, AMR: c.AMR, SessionID: c.SessionID, PreferredUsername: c.PreferredUsername, Roles: c.Roles,
		payload: payload,
	}
	if c.AuthTime != 0 {
		claims.AuthTime = time.Unix(c.AuthTime, 0)
	}
	return claims
}

// clone returns a copy of which nothing but the payload is shared.
func (c *Claims) clone() *Claims {
	claims := *c
	room := make([]string, 0, len(c.Audience)+len(c.AMR)+len(c.Roles))
	for _, list := range []*[]string{&claims.Audience, &claims.AMR, &claims.Roles} {
		from := len(room)
		room = append(room, *list...)
		*list = room[from:len(room):len(room)]
	}
	return &claims
}

// HasScope reports whether the token was granted scope, as a whole word.
func (c *Claims) HasScope(scope string) bool {
	for one := range strings.SplitSeq(c.Scope, " ") {
		if one == scope && one != "" {
			return true
		}
	}
	return false
}

// HasRole reports whether the token's user has role.
func (c *Claims) HasRole(role string) bool { return slices.Contains(c.Roles, role) }

// Decode reads all claims of the token, those without a field here too, into a
// struct or a map as encoding/json does.
func (c *Claims) Decode(into any) error {
	if err := json.Unmarshal([]byte(c.payload), into); err != nil {
		return fmt.Errorf("verifier: reading the claims: %w", err)
	}
	return nil
}
