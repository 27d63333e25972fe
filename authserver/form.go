package authserver

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
)

// A form of ours is taken from a page of ours only. That is shown twice: the browser
// says that the request is not from another site, and the form holds something that
// no other site can know: an interaction, which opens in this browser only, or the
// token of this browser's session (ATTACKS BR-01 to BR-03, RFC 9700 §4.7).

var errForeignForm = &pageError{kind: ErrorForeign, status: http.StatusForbidden}

// pageForm reads a form that was posted from a page of ours.
func (s *Server) pageForm(w http.ResponseWriter, r *http.Request) (form, error) {
	if err := s.crossOrigin.Check(r); err != nil {
		return form{}, errForeignForm.because(err)
	}
	if r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "" {
		// Every browser since 2020 sends one of them with a POST.
		return form{}, errForeignForm.because(errors.New("neither Sec-Fetch-Site nor Origin"))
	}
	f, err := parseForm(w, r)
	if err != nil {
		return form{}, &pageError{kind: ErrorRequest, status: asError(err).Status, detail: asError(err).Description, cause: err}
	}
	return f, nil
}

// because returns a copy of e with a cause for the log.
func (e *pageError) because(cause error) *pageError {
	with := *e
	with.cause = cause
	return &with
}

// encodeSealed makes a parameter of sealed bytes, decodeSealed the contrary.
func encodeSealed(sealed []byte) string { return base64.RawURLEncoding.EncodeToString(sealed) }

func decodeSealed(text string) ([]byte, error) {
	return base64.RawURLEncoding.Strict().DecodeString(text)
}

const formToken = "form_token" // the parameter

// tokenOfSession returns what forms hold that belong to the session of the browser
// that sent r.
func (s *Server) tokenOfSession(r *http.Request) string {
	mac := hmac.New(sha256.New, []byte(s.cookieValue(r, "session")))
	mac.Write([]byte("form of a session"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// checkToken refuses a form that was made for another session than the browser has.
func (s *Server) checkToken(r *http.Request, f form) error {
	if subtle.ConstantTimeCompare([]byte(f.get(formToken)), []byte(s.tokenOfSession(r))) != 1 {
		refused := errForeignForm.because(errors.New("the form was made for another session"))
		refused.next = s.issuer + "/account" // a new sign-in in another tab makes the forms of this one old
		return refused
	}
	return nil
}
