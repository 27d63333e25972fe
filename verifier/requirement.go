package verifier

import (
	"slices"
	"strings"
	"time"
)

// Requirement is what a route asks of an access token beyond being valid.
type Requirement struct {
	Scopes []string // all of them
	Roles  []string // one of them
	// ACR are the authentication context classes of which the user's sign-in must
	// have had one (RFC 9470).
	ACR []string
	// MaxAge is how long ago the user may have signed in, by auth_time (RFC 9470);
	// zero for any time.
	MaxAge time.Duration
	// WhenStale is what happens while revocations are not known up to the last
	// second; as in Config when zero.
	WhenStale WhenStale
}

// Check returns nil if the claims meet the requirement, else an *Error with the
// challenge for it. WhenStale plays no part.
func (r Requirement) Check(claims *Claims) error {
	for _, scope := range r.Scopes {
		if !claims.HasScope(scope) { // RFC 6750 §3.1
			all := strings.Join(r.Scopes, " ")
			return &Error{Code: "insufficient_scope", Description: "the token was not granted " + all, Reason: MissingScope, scope: all}
		}
	}
	if len(r.Roles) > 0 && !slices.ContainsFunc(r.Roles, claims.HasRole) {
		return &Error{Code: "insufficient_scope", Description: "the user has none of the roles " + strings.Join(r.Roles, ", "), Reason: MissingRole}
	}
	if len(r.ACR) > 0 && !slices.Contains(r.ACR, claims.ACR) {
		return r.stepUp("the user did not sign in in the way that this needs")
	}
	// Without auth_time nobody knows when the user signed in, if there is one.
	if r.MaxAge > 0 && (claims.AuthTime.IsZero() || time.Since(claims.AuthTime) > r.MaxAge) {
		return r.stepUp("the user signed in too long ago for this")
	}
	return nil
}

// stepUp is RFC 9470 §3: the challenge says what a new sign-in must be like.
func (r Requirement) stepUp(description string) error {
	e := &Error{Code: "insufficient_user_authentication", Description: description, Reason: WeakAuthentication, acrValues: r.ACR}
	if r.MaxAge > 0 {
		e.maxAge = &r.MaxAge
	}
	return e
}
