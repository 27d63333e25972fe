package authserver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"authserver/store"
)

// interaction is an authorization request that waits for its user: a page asks who
// is there, another whether the client may. It is not stored but sealed, and
// travels as the parameter "interaction" of those pages. It opens only in the
// browser that began it, and is completed once.
type interaction struct {
	ID      string `json:"id"`
	Browser string `json:"browser"` // hash of the secret in the browser's cookie
	Expires int64  `json:"exp"`
	// Session is the sid of the session that this page speaks of: in which the user
	// signed in or chose to go on, or is asked for consent.
	Session string `json:"sid,omitempty"`
	// SignedIn says that he signed in there for this very request, so that
	// prompt=login and max_age are met by it.
	SignedIn bool `json:"signed_in,omitempty"`
	// Half says that the password was right and the second factor is missing.
	Half *halfSignIn `json:"half,omitempty"`
	// Switched says that consent is asked again because another account is signed in.
	Switched bool                 `json:"switched,omitempty"`
	Request  authorizationRequest `json:"request"`
}

// interactionLifetime is how long a page may be left alone. Nothing is stored
// meanwhile.
const interactionLifetime = time.Hour

// beginInteraction makes the interaction of a request, bound to the browser that
// sent r.
func (s *Server) beginInteraction(w http.ResponseWriter, r *http.Request, request authorizationRequest) *interaction {
	secret := s.cookieValue(r, "browser")
	if !isBase64URL(secret, 43) {
		secret = newSecret()
		http.SetCookie(w, s.cookie("browser", secret))
	}
	return &interaction{
		ID: newID(), Browser: hashOf(secret), Expires: time.Now().Add(interactionLifetime).Unix(), Request: request,
	}
}

// sealInteraction returns in as a parameter.
func (s *Server) sealInteraction(in *interaction) (string, error) {
	plaintext, err := json.Marshal(in)
	if err != nil {
		return "", fmt.Errorf("encoding an interaction: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(s.interactionBox.Seal(plaintext, []byte(s.issuer))), nil
}

// openInteraction returns the interaction that a page was asked for with, if it
// belongs to the browser that sent r and is not too old. An error is a *pageError.
func (s *Server) openInteraction(r *http.Request, sealed string) (*interaction, error) {
	if sealed == "" {
		return nil, &pageError{kind: ErrorRequest, status: http.StatusBadRequest,
			detail: "this page belongs to an authorization request: begin at the application that wants you to sign in"}
	}
	in, err := s.unsealInteraction(sealed)
	if err != nil {
		return nil, &pageError{kind: ErrorRequest, status: http.StatusBadRequest, cause: err,
			detail: "the parameter interaction is not one of this server's: the link was cut or altered"}
	}
	// ATTACKS AZ-29: the link works in no other browser.
	if hashOf(s.cookieValue(r, "browser")) != in.Browser {
		return nil, &pageError{kind: ErrorCookies, status: http.StatusForbidden, cause: errors.New("an interaction of another browser")}
	}
	if in.Expires <= time.Now().Unix() {
		return nil, s.over(in, ErrorExpired, errors.New("an expired interaction"))
	}
	return in, nil
}

// over refuses an interaction that is at its end, and leads to the same request from
// its beginning: who pressed a button twice, or came back from lunch, can go on.
func (s *Server) over(in *interaction, kind ErrorKind, cause error) error {
	anew := interaction{ID: newID(), Browser: in.Browser, Expires: time.Now().Add(interactionLifetime).Unix(), Request: in.Request}
	sealed, err := s.sealInteraction(&anew)
	if err != nil {
		return err
	}
	return &pageError{kind: kind, status: http.StatusBadRequest, cause: cause, client: in.Request.ClientID, next: s.loginURL(sealed)}
}

func (s *Server) loginURL(sealed string) string { return s.issuer + "/login?interaction=" + sealed }

func (s *Server) unsealInteraction(sealed string) (*interaction, error) {
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	if err != nil {
		return nil, err
	}
	plaintext, err := s.interactionBox.Open(decoded, []byte(s.issuer))
	if err != nil {
		return nil, err
	}
	var in interaction
	if err := json.Unmarshal(plaintext, &in); err != nil {
		return nil, fmt.Errorf("decoding an interaction: %w", err)
	}
	return &in, nil
}

// spend completes an interaction: the first caller succeeds, whatever it answers
// the client with (ATTACKS AZ-28).
func (s *Server) spend(ctx context.Context, in *interaction) error {
	err := s.spent.Create(ctx, in.ID, struct{}{}, time.Unix(in.Expires, 0).Add(markKept))
	switch {
	case errors.Is(err, store.ErrExists):
		return s.over(in, ErrorDone, errors.New("an interaction completed twice"))
	case err != nil:
		return unavailable(fmt.Errorf("completing an interaction: %w", err))
	}
	return nil
}

// toPage sends the browser to a page of ours that goes on with in.
func (s *Server) toPage(w http.ResponseWriter, path string, in *interaction) error {
	sealed, err := s.sealInteraction(in)
	if err != nil {
		return err
	}
	seeOther(w, s.issuer+path+"?"+url.Values{"interaction": {sealed}}.Encode())
	return nil
}

// seeOther redirects with 303, so that no browser repeats a POST with what was
// typed at the target (ATTACKS AZ-27, RFC 9700 §4.12).
func seeOther(w http.ResponseWriter, target string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer") // RFC 9700 §4.2
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusSeeOther)
}
