package authserver

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Error is a refusal. Code and Description go to the client, the cause goes to
// the log only.
type Error struct {
	Code        string // an error code of RFC 6749 §5.2 or of the RFC that adds one
	Description string // printable ASCII without quote and backslash (RFC 6749 §5.2); never repeats input
	Status      int    // HTTP status; 400 when zero
	// RetryAfter, when set, is sent as Retry-After in whole seconds.
	RetryAfter time.Duration
	cause      error
	trace      string // names this one refusal, to the client and in the log; made when it is logged
	// Whom the refusal is about, for the log, where that is known.
	client, subject string
}

func (e *Error) Error() string {
	if e.cause != nil {
		return e.Code + ": " + e.Description + ": " + e.cause.Error()
	}
	return e.Code + ": " + e.Description
}

func (e *Error) Unwrap() error { return e.cause }

// because returns a copy of e with a cause for the log.
func (e *Error) because(cause error) *Error {
	with := *e
	with.cause = cause
	return &with
}

// refused returns err as a refusal that names in the log the client whose request it was.
func (c *client) refused(err error) error {
	if err == nil {
		return nil
	}
	e := *asError(err)
	e.client = c.id
	return &e
}

// newTrace returns the name of a refusal by which its record is found: 128 random bits in hex.
func newTrace() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// recorded is the cause of a refusal that has a record of its own in the log, which says
// more than that of every refusal would: a decision is one record.
type recorded struct{ error }

func (r recorded) Unwrap() error { return r.error }

func refusal(code, format string, args ...any) *Error {
	return &Error{Code: code, Description: fmt.Sprintf(format, args...)}
}

// RFC 6749 §5.2.
func invalidRequest(format string, args ...any) *Error {
	return refusal("invalid_request", format, args...)
}

func invalidGrant(format string, args ...any) *Error {
	return refusal("invalid_grant", format, args...)
}

// RFC 8707 §2.
func invalidTarget(format string, args ...any) *Error {
	return refusal("invalid_target", format, args...)
}

// invalidClient is the one answer to every failed client authentication, so that
// it does not tell unknown clients from wrong secrets. The cause is logged.
func invalidClient(cause error) *Error {
	return &Error{Code: "invalid_client", Status: http.StatusUnauthorized, cause: cause,
		Description: "client authentication failed: unknown client, or credentials or method that are not registered for it"}
}

// unavailable is the answer while the store or the keys cannot be reached. It is
// never invalid_grant: clients throw their tokens away on that.
func unavailable(cause error) *Error {
	return &Error{Code: "temporarily_unavailable", Status: http.StatusServiceUnavailable, RetryAfter: time.Second,
		Description: "the server cannot reach its storage or its keys right now; nothing is lost, repeat the same request", cause: cause}
}

// tooMany is the answer to attempts beyond the throttle. By our clock the wait may be over
// that the store, by its own, still knows of.
func tooMany(wait time.Duration) *Error {
	return &Error{Code: "temporarily_unavailable", Status: http.StatusTooManyRequests, RetryAfter: max(wait, time.Second),
		Description: "too many failed attempts; wait for the time in Retry-After"}
}

// asError turns any error into a refusal. What is none becomes a bare server_error.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: "server_error", Status: http.StatusInternalServerError,
		Description: "the server met an unexpected condition; its log has the details", cause: err}
}
