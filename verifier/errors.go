package verifier

import (
	"fmt"
	"time"
)

// Reason says why a token was not accepted, for logs and metrics. The values do not
// change.
type Reason string

// The reasons.
const (
	NoToken                Reason = "no_token"                // the request has no Authorization: Bearer
	BadRequest             Reason = "bad_request"             // it has, and not as RFC 6750 wants it
	Malformed              Reason = "malformed"               // no token in canonical form, or a claim of the wrong type
	WrongType              Reason = "wrong_type"              // typ is not at+jwt
	UnknownKey             Reason = "unknown_key"             // the issuer publishes no key of this kid
	BadSignature           Reason = "bad_signature"           // not signed by the key, or by another algorithm than the key's
	WrongIssuer            Reason = "wrong_issuer"            //
	WrongAudience          Reason = "wrong_audience"          //
	MissingClaim           Reason = "missing_claim"           // one of those that RFC 9068 §2.2 requires
	Expired                Reason = "expired"                 //
	NotYetValid            Reason = "not_yet_valid"           // iat or nbf is in the future
	BoundToKey             Reason = "bound_to_key"            // cnf asks for a proof of possession, which is not checked here
	Revoked                Reason = "revoked"                 // or its grant, session, user, client or key
	MissingScope           Reason = "missing_scope"           //
	MissingRole            Reason = "missing_role"            //
	WeakAuthentication     Reason = "weak_authentication"     // acr or auth_time are not what the route asks for
	KeysUnavailable        Reason = "keys_unavailable"        // no keys of the issuer are known, or none young enough, or it could not be asked for this one
	RevocationsUnavailable Reason = "revocations_unavailable" // what was revoked lately is not known
)

// Error is why a request or a token was refused.
type Error struct {
	// Code is one of RFC 6750 §3.1 (invalid_request, invalid_token,
	// insufficient_scope), RFC 9470's insufficient_user_authentication, or
	// temporarily_unavailable: the token may be good, try later. It is empty when the
	// request has no token.
	Code string
	// Description says what was wrong, in characters that a header can hold.
	Description string
	Reason      Reason

	scope     string   // that the route needs
	acrValues []string // RFC 9470 §3
	maxAge    *time.Duration
}

func (e *Error) Error() string {
	if e.Code == "" {
		return e.Description
	}
	return e.Code + ": " + e.Description
}

// Is reports whether target is the same kind of error: errors.Is(err,
// ErrUnavailable) holds for every error of that code.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other == ErrUnavailable && e.Code == other.Code
}

// ErrUnavailable stands for all errors of the code temporarily_unavailable: the
// issuer's keys, or its revocations, are not known well enough at the moment.
var ErrUnavailable = &Error{Code: "temporarily_unavailable", Description: "the keys of the issuer could not be fetched", Reason: KeysUnavailable}

func invalidToken(reason Reason, format string, args ...any) error {
	return &Error{Code: "invalid_token", Description: fmt.Sprintf(format, args...), Reason: reason}
}

func invalidRequest(description string) error {
	return &Error{Code: "invalid_request", Description: description, Reason: BadRequest}
}
