package verifier

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

type contextKey struct{}

// FromContext returns the claims of the request's token in handlers behind
// Require, RequireRole or Protect, else nil. They are the request's own.
func FromContext(ctx context.Context) *Claims {
	claims, _ := ctx.Value(contextKey{}).(*Claims)
	return claims
}

// Require lets requests through whose token has all of the scopes. Others get the
// answer of RFC 6750 §3.
func (v *Verifier) Require(scopes ...string) func(http.Handler) http.Handler {
	return v.Protect(Requirement{Scopes: scopes})
}

// RequireRole lets requests through whose user has one of the roles.
func (v *Verifier) RequireRole(roles ...string) func(http.Handler) http.Handler {
	return v.Protect(Requirement{Roles: roles})
}

// Protect lets requests through whose token meets the requirement.
func (v *Verifier) Protect(requirement Requirement) func(http.Handler) http.Handler {
	if requirement.WhenStale == AcceptUntilExpiry {
		v.noLease.Store(true)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			claims, err := v.Authenticate(r, requirement)
			if err != nil {
				v.WriteError(w, err)
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, claims)))
		})
	}
}

// Authenticate returns the claims of the request's token if it is valid and meets
// the requirement, else an *Error for WriteError. Protect is this as a middleware.
func (v *Verifier) Authenticate(r *http.Request, requirement Requirement) (*Claims, error) {
	token, err := tokenOf(r)
	if err != nil {
		v.observe(err, false, nil)
		return nil, withScope(err, requirement)
	}
	return v.verify(r.Context(), token, requirement, r)
}

// withScope lets a challenge without an error say which scope to ask for.
func withScope(err error, requirement Requirement) error {
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Code != "" {
		return err
	}
	with := *refusal
	with.scope = strings.Join(requirement.Scopes, " ")
	return &with
}

// errNoToken is the answer to a request without a token: a challenge without an
// error code (RFC 6750 §3.1).
var errNoToken = &Error{Description: "send an access token in the header Authorization: Bearer TOKEN", Reason: NoToken}

// tokenOf returns the token in the Authorization header, the only place that is
// looked at (RFC 6750 §2.1, FAPI 2.0 §5.3.4).
func tokenOf(r *http.Request) (string, error) {
	headers := r.Header.Values("Authorization")
	switch {
	case strings.Contains(r.URL.RawQuery, "access_token") && r.URL.Query().Has("access_token"):
		return "", invalidRequest("access tokens in the query are refused; send the Authorization header")
	case len(headers) == 0:
		return "", errNoToken
	case len(headers) > 1:
		return "", invalidRequest("there is more than one Authorization header")
	}
	// credentials = auth-scheme 1*SP token68 (RFC 9110 §11.4, RFC 6750 §2.1).
	scheme, token, _ := strings.Cut(headers[0], " ")
	switch {
	case strings.ContainsAny(scheme, "\t,;=\""):
		return "", invalidRequest("the Authorization header is malformed")
	case !strings.EqualFold(scheme, "Bearer"): // RFC 9110 §11.1: any case
		return "", errNoToken
	}
	token = strings.Trim(token, " ")
	if token == "" { // no authentication is missing, but a part of it: RFC 6750 §3.1, "otherwise malformed"
		return "", invalidRequest("there is no token behind Bearer in the Authorization header")
	}
	if strings.ContainsFunc(token, notToken68) {
		return "", invalidRequest("what follows Bearer in the Authorization header is not one token")
	}
	return token, nil
}

// notToken68 is RFC 9110 §11.2.
func notToken68(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._~+/=", r)
}

const maxPeek = 64 << 10 // bytes of a form that are looked at

// tokenInBody reports whether a form in the body has an access token beside the
// one in the header (RFC 6750 §2: not more than one method). The body stays
// readable for the handler.
func tokenInBody(r *http.Request) bool {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/x-www-form-urlencoded" || r.Body == nil {
		return false
	}
	read, _ := io.ReadAll(io.LimitReader(r.Body, maxPeek)) // an error comes again when the handler reads on
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(read), r.Body), r.Body}
	form, _ := url.ParseQuery(string(read))
	return form.Has("access_token")
}
