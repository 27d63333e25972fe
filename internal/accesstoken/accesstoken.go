// Package accesstoken is the wire format of access tokens (RFC 9068), shared by
// the server that writes them and the verifier that reads them.
package accesstoken

import "encoding/json"

// Type is the media type in the typ header (RFC 9068 §2.1). Verifiers also take
// it with the prefix "application/", in any case.
const Type = "at+jwt"

// Claims are the claims of an access token. Times are seconds since 1970 UTC.
type Claims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience Audience `json:"aud"`
	ClientID string   `json:"client_id"`
	Scope    string   `json:"scope,omitempty"` // space-separated, RFC 8693 §4.2
	ID       string   `json:"jti"`
	IssuedAt int64    `json:"iat"`
	Expires  int64    `json:"exp"`
	GrantID  string   `json:"grant_id,omitempty"`

	AuthTime          int64         `json:"auth_time,omitempty"` // OpenID Connect Core §2
	ACR               string        `json:"acr,omitempty"`
	AMR               []string      `json:"amr,omitempty"` // RFC 8176
	SessionID         string        `json:"sid,omitempty"`
	PreferredUsername string        `json:"preferred_username,omitempty"`
	Roles             []string      `json:"roles,omitempty"` // RFC 9068 §2.2.3.1
	Confirmation      *Confirmation `json:"cnf,omitempty"`   // RFC 7800
	Status            *Status       `json:"status,omitempty"`
	// The epochs of the client and of the user that the token belongs to; 0 before all
	// of theirs was ended for the first time. See package feed.
	ClientEpoch  uint64 `json:"client_epoch,omitempty"`
	SubjectEpoch uint64 `json:"sub_epoch,omitempty"`

	NotBefore int64 `json:"nbf,omitempty"` // of other issuers; ours never set it
}

// Confirmation binds a token to a key of the client.
type Confirmation struct {
	JWKThumbprint  string `json:"jkt,omitempty"`      // RFC 9449 §6.1
	X509Thumbprint string `json:"x5t#S256,omitempty"` // RFC 8705 §3.1
}

// Status says where to look whether the token was revoked
// (draft-ietf-oauth-status-list §6.2).
type Status struct {
	List StatusListEntry `json:"status_list"`
}

// StatusListEntry is one place in one Token Status List.
type StatusListEntry struct {
	Index uint32 `json:"idx"`
	URI   string `json:"uri"`
}

// Audience is one or more resource identifiers: a JSON string when there is one,
// else an array of strings (RFC 7519 §4.1.3).
type Audience []string

// MarshalJSON writes a single audience as a string.
func (a Audience) MarshalJSON() ([]byte, error) {
	if len(a) == 1 {
		return json.Marshal(a[0])
	}
	return json.Marshal([]string(a))
}

// UnmarshalJSON reads a string or an array of strings.
func (a *Audience) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var one string
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		*a = Audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}
