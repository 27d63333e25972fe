package authserver

import (
	"maps"
	"slices"

	"authserver/internal/intake"
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

// parseClaims reads the parameter. Its length was checked.
func parseClaims(text string) (claimsRequest, error) {
	var claims claimsRequest
	if err := intake.Decode([]byte(text), &claims); err != nil { // each member once, and no deeper than it has to be
		return claimsRequest{}, invalidRequest("claims is not a JSON object as in OpenID Connect Core section 5.5").because(err)
	}
	if len(claims.UserInfo)+len(claims.IDToken) > maxClaims {
		return claimsRequest{}, invalidRequest("claims asks for more than %d claims", maxClaims)
	}
	return claims, nil
}

// within drops what a client with these scopes cannot have: claims that a server
// cannot return are no reason to refuse (OpenID Connect Core §5.5).
func (c claimsRequest) within(scopes []string) claimsRequest {
	for _, asked := range []map[string]*claimRequest{c.UserInfo, c.IDToken} {
		maps.DeleteFunc(asked, func(name string, _ *claimRequest) bool {
			one := scopeOfClaim(name)
			return one != "" && !slices.Contains(scopes, one)
		})
	}
	return c
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

// scopeOf is claimScopes by claim.
var scopeOf = func() map[string]string {
	scopes := make(map[string]string)
	for scope, claims := range claimScopes {
		for _, claim := range claims {
			scopes[claim] = scope
		}
	}
	return scopes
}()

// protocolClaims are those of the token itself; nobody's consent is needed for them.
var protocolClaims = []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "azp", "at_hash", "sid"}

// scopeOfClaim returns the scope that lets a client have a claim. What an operator
// has thought up himself belongs to the profile.
func scopeOfClaim(name string) string {
	if slices.Contains(protocolClaims, name) {
		return ""
	}
	if scope, known := scopeOf[name]; known {
		return scope
	}
	return "profile"
}

// claimsOf returns what a scope and a list of single claims let a client know of a
// user (OpenID Connect Core §5.4, §5.5). Claims that the server itself makes are
// not the user's to have.
func claimsOf(u user, scope, single []string) map[string]any {
	claims := make(map[string]any)
	add := func(name string, value any) {
		one := scopeOfClaim(name)
		if one != "" && (slices.Contains(scope, one) || slices.Contains(single, name)) {
			claims[name] = value
		}
	}
	add("preferred_username", u.username)
	for name, value := range u.claims {
		add(name, value)
	}
	if len(u.roles) > 0 {
		add("roles", u.roles)
	}
	return claims
}
