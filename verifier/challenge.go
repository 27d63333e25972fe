package verifier

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

var statuses = map[string]int{
	"":                                 http.StatusUnauthorized,
	"invalid_request":                  http.StatusBadRequest,
	"invalid_token":                    http.StatusUnauthorized,
	"insufficient_scope":               http.StatusForbidden,
	"insufficient_user_authentication": http.StatusUnauthorized, // RFC 9470 §3
	"temporarily_unavailable":          http.StatusServiceUnavailable,
}

// WriteError writes the answer to a request that was refused: the status and the
// challenge of RFC 6750 §3, RFC 9470 §3 and RFC 9728 §5.1, and a JSON body that says
// the same. Require and Protect use it; it is there for handlers that call Verify
// or Authenticate themselves.
func (v *Verifier) WriteError(w http.ResponseWriter, err error) {
	var refusal *Error
	if !errors.As(err, &refusal) || statuses[refusal.Code] == 0 {
		refusal = ErrUnavailable
	}
	body := map[string]string{"error": "unauthorized", "error_description": refusal.Description}
	if refusal.Code != "" {
		body["error"] = refusal.Code
	}
	status := statuses[refusal.Code]
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	} else {
		w.Header().Set("WWW-Authenticate", v.challenge(refusal))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

func (v *Verifier) challenge(e *Error) string {
	var parameters []string
	add := func(name, value string) {
		if value != "" {
			parameters = append(parameters, fmt.Sprintf("%s=%q", name, value))
		}
	}
	if e.Code != "" { // RFC 6750 §3.1: nothing about an error where there is no token
		add("error", e.Code)
		add("error_description", e.Description)
	}
	add("scope", e.scope)
	add("acr_values", strings.Join(e.acrValues, " "))
	if e.maxAge != nil {
		parameters = append(parameters, fmt.Sprintf("max_age=%d", int64(e.maxAge.Seconds())))
	}
	add("resource_metadata", v.metadataURL)
	return strings.TrimSpace("Bearer " + strings.Join(parameters, ", "))
}
