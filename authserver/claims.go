package authserver

import (
	"encoding/json"
	"slices"
)

// claimsRequest is the parameter claims (OpenID Connect Core §5.5).
type claimsRequest struct {
	UserInfo map[string]*claimRequest `json:"userinfo,omitempty"`
	IDToken  map[string]*claimRequest `json:"id_token,omitempty"`
}

// claimRequest is what is asked about one claim; nil asks for it and no more.
type claimRequest struct {
	Essential bool  `json:"essential,omitempty"`
	Value     any   `json:"value,omitempty"`
	Values    []any `json:"values,omitempty"`
}

const maxClaims = 50 // in one request

func (c claimsRequest) empty() bool { return len(c.UserInfo) == 0 && len(c.IDToken) == 0 }

// wanted returns the values that are asked for, where they are strings.
func (c claimRequest) wanted() []string {
	var values []string
	for _, value := range append([]any{c.Value}, c.Values...) {
		if text, ok := value.(string); ok {
			values = append(values, text)
		}
	}
	return values
}

// parseClaims reads the parameter. Its length was checked, and with it its depth.
func parseClaims(text string) (claimsRequest, error) {
	var claims claimsRequest
	if err := json.Unmarshal([]byte(text), &claims); err != nil {
		return claimsRequest{}, invalidRequest("claims is not a JSON object as in OpenID Connect Core section 5.5").because(err)
	}
	if len(claims.UserInfo)+len(claims.IDToken) > maxClaims {
		return claimsRequest{}, invalidRequest("claims asks for more than %d claims", maxClaims)
	}
	return claims, nil
}

// claimScopes are the claims of each scope (OpenID Connect Core §5.4).
var claimScopes = map[string][]string{
	"profile": {"name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile", "picture",
		"website", "gender", "birthdate", "zoneinfo", "locale", "updated_at"},
	"email":   {"email", "email_verified"},
	"address": {"address"},
	"phone":   {"phone_number", "phone_number_verified"},
	"roles":   {"roles"},
}

// protocolClaims are those of the token itself; nobody's consent is needed for them.
var protocolClaims = []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "azp", "at_hash", "sid"}

// scopeOfClaim returns the scope that lets a client have a claim. What an operator
// has thought up himself belongs to the profile.
func scopeOfClaim(name string) string {
	if slices.Contains(protocolClaims, name) {
		return ""
	}
	for scope, claims := range claimScopes {
		if slices.Contains(claims, name) {
			return scope
		}
	}
	return "profile"
}
