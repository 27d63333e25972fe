package authserver

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxBody       = 64 << 10 // bytes of a request body
	maxParameters = 100      // parameters in one form

	formType = "application/x-www-form-urlencoded"
)

// form holds the parameters of one request. Each name has one value, but for the
// repeatable ones.
type form struct{ values url.Values }

// repeatable are the parameters that a request may carry more than once (RFC 8707 §2).
var repeatable = map[string]bool{"resource": true}

// parseForm reads the parameters of a POST request from its body, never from the
// query (OAuth 2.1 §3.2.2).
func parseForm(w http.ResponseWriter, r *http.Request) (form, error) {
	body, err := readFormBody(w, r)
	if err != nil {
		return form{}, err
	}
	f, err := parseParameters(body)
	if err != nil {
		return form{}, err
	}
	return f, f.wellFormed()
}

// readFormBody returns the body of a form POST, encoded.
func readFormBody(w http.ResponseWriter, r *http.Request) (string, error) {
	if contentType := r.Header.Get("Content-Type"); contentType != formType { // as nearly all have it
		mediaType, params, err := mime.ParseMediaType(contentType)
		if err != nil || mediaType != formType {
			return "", invalidRequest("the request body must be of Content-Type %s", formType)
		}
		if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
			return "", invalidRequest("the request body must be in UTF-8")
		}
	}
	if known, ok := r.Body.(*received); ok && known.err == nil && len(known.left) <= maxBody {
		return string(known.left), nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return "", &Error{Code: "invalid_request", Status: http.StatusRequestEntityTooLarge,
			Description: "the request body is larger than 65536 bytes"}
	} else if err != nil {
		return "", invalidRequest("the request body could not be read").because(err)
	}
	return string(body), nil
}

// parseParameters takes form encoding apart.
func parseParameters(encoded string) (form, error) {
	if strings.Count(encoded, "&") >= maxParameters {
		return form{}, invalidRequest("the request has more than %d parameters", maxParameters)
	}
	values, err := url.ParseQuery(encoded)
	if err != nil {
		return form{}, invalidRequest("the request is not valid form encoding").because(err)
	}
	return form{values}, nil
}

// wellFormed refuses repeated and malformed parameters, known or not.
func (f form) wellFormed() error {
	for name := range f.values {
		if f.repeated(name) { // OAuth 2.1 §3.1, RFC 6749 §3.2: not more than once.
			return invalidRequest("%s is given more than once", named(name)).because(fmt.Errorf("parameter %.100q", name))
		}
		if f.malformed(name) {
			return invalidRequest("%s holds control characters, such as a line break at its end, or is not UTF-8", named(name))
		}
	}
	return nil
}

// ownNames are the parameters that clients get wrong.
var ownNames = []string{"grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type", "code", "code_verifier", "redirect_uri",
	"refresh_token", "scope", "username", "password", "token", "token_type_hint", "resource"}

// named is what a refusal calls a parameter: by its name if it is one of ours, since it
// repeats nothing of the request.
func named(name string) string {
	if slices.Contains(ownNames, name) {
		return "the parameter " + name
	}
	return "a parameter"
}

func (f form) repeated(name string) bool { return len(f.values[name]) > 1 && !repeatable[name] }

func (f form) malformed(name string) bool {
	return !isText(name) || slices.ContainsFunc(f.values[name], func(value string) bool { return !isText(value) })
}

func isText(s string) bool {
	for i := range len(s) { // in UTF-8 no byte of a longer character looks like a control one
		if isControl(rune(s[i])) {
			return false
		}
	}
	return utf8.ValidString(s)
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// get returns the value of name, or "" when it is absent. A parameter without a
// value is absent (RFC 6749 §3.2).
func (f form) get(name string) string { return f.values.Get(name) }

// all returns the non-empty values of a repeatable parameter.
func (f form) all(name string) []string {
	var values []string
	for _, value := range f.values[name] {
		if value != "" {
			values = append(values, value)
		}
	}
	return values
}

// Values of headers that Header.Set would make anew for each answer.
var (
	noStore    = []string{"no-store"}
	jsonType   = []string{"application/json"}
	varyOrigin = []string{"Origin"}
)

// handler is an endpoint that returns its answer: a jwtAnswer, or any other value,
// written as JSON.
type handler func(w http.ResponseWriter, r *http.Request) (any, error)

// serveJSON makes an http.Handler of an endpoint for tokens: one place writes
// answers and refusals.
func (s *Server) serveJSON(endpoint string, h handler) http.Handler {
	answered := s.metrics.requests.WithLabelValues(endpoint, "ok")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Cache-Control"] = noStore // RFC 6749 §5.1; OAuth 2.1 §3.2.3.
		done, err := s.admission.enter(r)
		if err != nil {
			s.writeError(w, r, endpoint, err)
			return
		}
		defer done()
		answer, err := h(w, r)
		if err != nil {
			s.writeError(w, r, endpoint, err)
			return
		}
		answered.Inc()
		if answer == nil {
			w.WriteHeader(http.StatusOK)
			return
		}
		if token, ok := answer.(jwtAnswer); ok {
			writeBody(w, r, "application/jwt", []byte(token))
			return
		}
		writeJSON(w, http.StatusOK, answer)
	})
}

// jwtAnswer is an answer that is a signed JWT.
type jwtAnswer string

func writeJSON(w http.ResponseWriter, status int, value any) {
	body, err := encode(value)
	if err != nil { // our own types; a failure is a bug that the log should show
		slog.Error("encoding an answer", "error", err)
		http.Error(w, `{"error":"server_error"}`, http.StatusInternalServerError)
		return
	}
	w.Header()["Content-Type"] = jsonType
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

type errorBody struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
	Trace       string `json:"trace_id,omitempty"` // of the record in the log
}

const basicChallenge = `Basic realm="authserver"`

// described is a challenge that says why (RFC 6750 §3): some libraries, openid-client
// among them, show nothing of the body beside one.
func described(challenge, code, description string) string {
	return challenge + `, error="` + code + `", error_description="` + description + `"`
}

// writeError is the only function that writes refusals.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, endpoint string, err error) {
	e := asError(err)
	if e.Status == 0 {
		e = e.because(e.cause)
		e.Status = http.StatusBadRequest
	}
	status := e.Status
	if status == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") == "" {
		// RFC 6749 §5.2: a client that used the Authorization header is told the scheme.
		w.Header().Set("WWW-Authenticate", described(basicChallenge, e.Code, e.Description))
	}
	if e.RetryAfter > 0 {
		seconds := int64((e.RetryAfter + time.Second - 1) / time.Second)
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	trace := ""
	if e == errBusy {
		s.metrics.requests.WithLabelValues(endpoint, e.Code).Inc() // admission has logged it
	} else {
		trace = s.logRefusal(r, endpoint, e)
	}
	writeJSON(w, status, errorBody{e.Code, e.Description, trace})
}

// logRefusal counts what was refused, and logs it with why unless that was recorded. It
// returns the trace of the record.
func (s *Server) logRefusal(r *http.Request, endpoint string, e *Error) (trace string) {
	s.metrics.requests.WithLabelValues(endpoint, e.Code).Inc()
	if known := (recorded{}); errors.As(e.cause, &known) {
		return e.trace
	}
	if trace = e.trace; trace == "" {
		trace = newTrace()
	}
	level := slog.LevelInfo
	if e.Status >= 500 {
		level = slog.LevelError
	}
	attrs := []any{"event", "refused", "trace_id", trace, "endpoint", endpoint, "error", e.Code, "status", e.Status, "description", e.Description,
		"address", s.proxies.clientAddress(r).String()}
	if e.client != "" {
		attrs = append(attrs, "client_id", e.client)
	}
	if e.subject != "" {
		attrs = append(attrs, "sub", e.subject)
	}
	if e.cause != nil {
		attrs = append(attrs, "cause", e.cause.Error())
	}
	s.log.Log(r.Context(), level, "refused", attrs...)
	return trace
}
