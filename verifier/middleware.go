package verifier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

type contextKey struct{}

// FromContext returns the claims of the request's token in handlers behind
// Require or RequireRole, else nil.
func FromContext(ctx context.Context) *Claims {
	claims, _ := ctx.Value(contextKey{}).(*Claims)
	return claims
}

// Require lets requests through whose token has all of the scopes. Others get
// the answer of RFC 6750 §3.
func (v *Verifier) Require(scopes ...string) func(http.Handler) http.Handler {
	return v.require(strings.Join(scopes, " "), func(claims *Claims) error {
		for _, scope := range scopes {
			if !claims.HasScope(scope) {
				return &Error{"insufficient_scope", "the token was not granted " + strings.Join(scopes, " ")}
			}
		}
		return nil
	})
}

// RequireRole lets requests through whose user has one of the roles.
func (v *Verifier) RequireRole(roles ...string) func(http.Handler) http.Handler {
	return v.require("", func(claims *Claims) error {
		if !slices.ContainsFunc(roles, claims.HasRole) {
			return &Error{"insufficient_scope", "the user has none of the roles " + strings.Join(roles, ", ")}
		}
		return nil
	})
}

func (v *Verifier) require(scope string, allowed func(*Claims) error) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			claims, err := v.authenticate(r)
			if err == nil {
				err = allowed(claims)
			}
			if err != nil {
				writeError(w, err, scope)
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, claims)))
		})
	}
}

// errNoToken is the answer to a request without a token: a challenge without an
// error code (RFC 6750 §3.1).
var errNoToken = errors.New("no access token")

// authenticate verifies the token in the Authorization header, the only place
// that is looked at (RFC 6750 §2.1, FAPI 2.0 §5.3.4).
func (v *Verifier) authenticate(r *http.Request) (*Claims, error) {
	headers := r.Header.Values("Authorization")
	switch {
	case r.URL.Query().Has("access_token"):
		return nil, &Error{"invalid_request", "access tokens in the query are refused; send the Authorization header"}
	case len(headers) == 0:
		return nil, errNoToken
	case len(headers) > 1:
		return nil, &Error{"invalid_request", "more than one Authorization header"}
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110 §11.1: any case
		return nil, errNoToken
	}
	return v.Verify(r.Context(), token)
}

var statuses = map[string]int{
	"invalid_request":         http.StatusBadRequest,
	"invalid_token":           http.StatusUnauthorized,
	"insufficient_scope":      http.StatusForbidden,
	"temporarily_unavailable": http.StatusServiceUnavailable,
}

func writeError(w http.ResponseWriter, err error, scope string) {
	body := map[string]string{"error": "unauthorized", "error_description": "send an access token in the Authorization header"}
	status, challenge := http.StatusUnauthorized, "Bearer"
	var refusal *Error
	if errors.As(err, &refusal) {
		status = statuses[refusal.Code]
		challenge = fmt.Sprintf("Bearer error=%q, error_description=%q", refusal.Code, refusal.Description)
		if refusal.Code == "insufficient_scope" && scope != "" {
			challenge += fmt.Sprintf(", scope=%q", scope)
		}
		body["error"], body["error_description"] = refusal.Code, refusal.Description
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	} else {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
