package authserver

import (
	"errors"
	"fmt"
	"net/http"
)

// AdminError is a refusal on the admin socket.
type AdminError struct {
	// Code is bad_request, forbidden, not_found, exists, configured, conflict,
	// unavailable or internal.
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what to do
	status  int
	cause   error
}

func (e *AdminError) Error() string {
	if e.cause != nil {
		return e.Message + ": " + e.cause.Error()
	}
	return e.Message
}

func (e *AdminError) Unwrap() error { return e.cause }

func (e *AdminError) hint(format string, args ...any) *AdminError {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

func adminRefusal(status int, code, format string, args ...any) *AdminError {
	return &AdminError{Code: code, status: status, Message: fmt.Sprintf(format, args...)}
}

func adminBadRequest(format string, args ...any) *AdminError {
	return adminRefusal(http.StatusBadRequest, "bad_request", format, args...)
}

func adminForbidden(format string, args ...any) *AdminError {
	return adminRefusal(http.StatusForbidden, "forbidden", format, args...)
}

func adminNotFound(format string, args ...any) *AdminError {
	return adminRefusal(http.StatusNotFound, "not_found", format, args...)
}

func adminExists(format string, args ...any) *AdminError {
	return adminRefusal(http.StatusConflict, "exists", format, args...)
}

// adminConfigured refuses to change what the configuration says.
func (s *Server) adminConfigured(what, key string) *AdminError {
	return adminRefusal(http.StatusConflict, "configured", "%s belongs to the configuration, which commands do not change", what).
		hint("edit %s in %s and restart the server", key, s.source)
}

// asAdminError turns any error into a refusal. What is none is for the log only.
func asAdminError(err error) *AdminError {
	var refusal *AdminError
	if errors.As(err, &refusal) {
		return refusal
	}
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusServiceUnavailable {
		return &AdminError{Code: "unavailable", status: e.Status, cause: err,
			Message: "the server cannot reach its storage right now",
			Hint:    "nothing is lost, and the server's log says why; repeat the same command, it goes on where this one ended"}
	}
	return &AdminError{Code: "internal", status: http.StatusInternalServerError, cause: err,
		Message: "the server met an unexpected condition", Hint: "its log has the details"}
}
