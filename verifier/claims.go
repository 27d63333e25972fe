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

func (c *Claims) fill(from *accesstoken.Claims, payload string) {
	*c = Claims{
		Issuer: from.Issuer, Subject: from.Subject, Audience: from.Audience, ClientID: from.ClientID, Scope: from.Scope, ID: from.ID,
		IssuedAt: time.Unix(from.IssuedAt, 0), Expires: time.Unix(from.Expires, 0), GrantID: from.GrantID,
		ACR: from.ACR, AMR: from.AMR, SessionID: from.SessionID, PreferredUsername: from.PreferredUsername, Roles: from.Roles,
		payload: payload,
	}
	if from.AuthTime != 0 {
		c.AuthTime = time.Unix(from.AuthTime, 0)
	}
}

// clone returns a copy of which nothing but the payload is shared. The lists are few
// and short as a rule, and then the copy is one piece of memory.
func (c *Claims) clone() *Claims {
	var copied struct {
		Claims
		room [6]string
	}
	copied.Claims = *c
	room := copied.room[:0]
	for _, list := range []*[]string{&copied.Audience, &copied.AMR, &copied.Roles} {
		from := len(room)
		room = append(room, *list...)
		*list = room[from:len(room):len(room)]
	}
	return &copied.Claims
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
