package authserver

import (
	"slices"
	"strings"
)

// userScopes are the scopes that speak about a user and belong to no resource
// server (OpenID Connect Core §5.4, §11, and roles).
var userScopes = []string{"openid", "profile", "email", "address", "phone", "offline_access", "roles"}

// resourceRegistry holds the resource servers; it does not change.
type resourceRegistry struct {
	described []Resource
	issuer    string
	algorithm map[string]string // by identifier: what signs its tokens
	listed    map[string]bool   // by identifier: its tokens have a place in a status list
	owner     map[string]string // by scope: the identifier of its resource server
	only      string            // the identifier when there is just one
	fallback  string            // the default algorithm
}

func newResourceRegistry(c Config, defaultAlgorithm string) resourceRegistry {
	registry := resourceRegistry{
		described: c.Resources,
		issuer:    c.Issuer,
		algorithm: make(map[string]string),
		owner:     make(map[string]string),
		listed:    make(map[string]bool),
		fallback:  defaultAlgorithm,
	}
	for _, resource := range c.Resources {
		registry.algorithm[resource.Identifier] = resource.Algorithm
		registry.listed[resource.Identifier] = resource.StatusList
		for _, scope := range resource.Scopes {
			registry.owner[scope] = resource.Identifier
		}
		registry.only = resource.Identifier
	}
	registry.owner[verifierScope] = c.Issuer
	if len(c.Resources) != 1 {
		registry.only = ""
	}
	return registry
}

// anyListed reports whether there are status lists at all.
func (r resourceRegistry) anyListed() bool {
	for _, listed := range r.listed {
		if listed {
			return true
		}
	}
	return false
}

// algorithmFor returns the algorithm that signs access tokens for resource.
func (r resourceRegistry) algorithmFor(resource string) string {
	if algorithm := r.algorithm[resource]; algorithm != "" {
		return algorithm
	}
	return r.fallback
}

// target picks the audience and the scope of an access token from the request
// (RFC 8707 §2.2, RFC 9068 §3). allowed are the scopes it may ask for; bound, when
// not empty, the resources that the grant is limited to.
func (r resourceRegistry) target(f form, allowed, bound []string) (resource string, scope []string, err error) {
	asked, err := parseScope(f.get("scope"))
	if err != nil {
		return "", nil, err
	}
	for _, one := range asked {
		if !slices.Contains(allowed, one) {
			return "", nil, refusal("invalid_scope", "the scope asks for something that is not allowed here%s", listedScopes(allowed))
		}
	}
	scope = asked
	if len(asked) == 0 { // RFC 6749 §3.3: the default is all of it, but for what is for the issuer
		scope = slices.DeleteFunc(slices.Clone(allowed), func(one string) bool { return one == verifierScope })
	}
	resource, err = r.resourceFor(f.all("resource"), scope, bound)
	if err != nil {
		return "", nil, err
	}
	foreign := func(one string) bool { return r.owner[one] != "" && r.owner[one] != resource }
	if len(asked) > 0 && slices.ContainsFunc(asked, foreign) {
		return "", nil, refusal("invalid_scope", "the scope asks for something that belongs to another resource than the requested one")
	}
	return resource, slices.DeleteFunc(slices.Clone(scope), foreign), nil
}

// resourceFor picks the audience: the requested resource, else the one that the
// scope or the grant speaks of, else the only one there is, else the issuer.
func (r resourceRegistry) resourceFor(requested, scope, bound []string) (string, error) {
	if len(requested) > 1 {
		return "", invalidTarget("an access token is for one resource; ask for each in a request of its own")
	}
	if len(requested) == 1 {
		_, known := r.algorithm[requested[0]]
		if !known || len(bound) > 0 && !slices.Contains(bound, requested[0]) {
			return "", invalidTarget("the resource is unknown here or not part of the grant%s", r.meant(requested[0]))
		}
		return requested[0], nil
	}
	fallback := r.issuer
	if r.only != "" {
		fallback = r.only
	}
	switch owners := r.ownersOf(scope, fallback); {
	case len(bound) == 1:
		return bound[0], nil
	case len(owners) > 1:
		return "", invalidTarget("the scope belongs to several resources; choose one with the resource parameter")
	default:
		return owners[0], nil
	}
}

// listedScopes ends a description with what could have been asked for, which repeats
// nothing of the request, unless that is too long to be read.
func listedScopes(allowed []string) string {
	switch text := strings.Join(allowed, " "); {
	case text == "":
		return ": no scope is"
	case len(text) <= 300:
		return "; allowed are: " + text
	}
	return ""
}

// meant ends a description with the resource that an unknown one was probably meant to
// be: with or without a slash at the end, or in other letters, as libraries that parse a
// URL write it anew.
func (r resourceRegistry) meant(unknown string) string {
	for _, known := range r.described {
		if strings.EqualFold(strings.TrimSuffix(known.Identifier, "/"), strings.TrimSuffix(unknown, "/")) && known.Identifier != unknown && isScopeToken(known.Identifier) {
			return "; did you mean " + known.Identifier + " ? It is compared byte for byte"
		}
	}
	return ""
}

// ownersOf returns the resources that a scope belongs to, or fallback when it
// belongs to none.
func (r resourceRegistry) ownersOf(scope []string, fallback string) []string {
	var owners []string
	for _, one := range scope {
		if owner := r.owner[one]; owner != "" && !slices.Contains(owners, owner) {
			owners = append(owners, owner)
		}
	}
	if len(owners) == 0 {
		return []string{fallback}
	}
	return owners
}

// parseScope splits a scope parameter and drops repetitions (RFC 6749 §3.3).
func parseScope(parameter string) ([]string, error) {
	var scope []string
	for _, one := range strings.Split(parameter, " ") {
		if one == "" {
			continue
		}
		if !isScopeToken(one) {
			return nil, refusal("invalid_scope", "the scope holds a character that scopes cannot have")
		}
		if !slices.Contains(scope, one) {
			scope = append(scope, one)
		}
		if len(scope) > 100 {
			return nil, refusal("invalid_scope", "the scope has more than 100 parts")
		}
	}
	return scope, nil
}

// isScopeToken is RFC 6749 appendix A.4.
func isScopeToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != 0x21 && (c < 0x23 || c > 0x5b) && (c < 0x5d || c > 0x7e) {
			return false
		}
	}
	return s != ""
}
