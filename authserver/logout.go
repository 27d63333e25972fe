package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"authserver/store"
)

// logoutRequest is a request of RP-initiated logout that was found to be in order
// (OpenID Connect RP-Initiated Logout 1.0 §2). It waits, sealed, for the user to
// confirm it, where that is needed.
type logoutRequest struct {
	ClientID  string `json:"client_id,omitempty"`
	Redirect  string `json:"redirect,omitempty"` // post_logout_redirect_uri with state
	UILocales string `json:"ui_locales,omitempty"`
	Expires   int64  `json:"exp"`

	hint *idTokenHint
}

// handleLogout is the end_session_endpoint, and where our own pages sign out. It
// works without a session too.
func (s *Server) handleLogout(w http.ResponseWriter, r *http.Request) error {
	values, err := logoutParameters(w, r)
	if err != nil {
		return &pageError{kind: ErrorRequest, status: asError(err).Status, detail: asError(err).Description, cause: err}
	}
	if values.get("decision") != "" {
		return s.confirmedLogout(w, r, values)
	}
	if r.Method == http.MethodPost && s.cookieValue(r, "session") == "" {
		// SameSite=Lax cookies do not come with a POST from another site, but with the
		// GET that it is redirected to.
		seeOther(w, s.issuer+"/logout?"+values.values.Encode())
		return nil
	}
	request, c, err := s.readLogoutRequest(r.Context(), values)
	if err != nil {
		return err
	}
	current, err := s.sessionOf(r)
	if err != nil {
		return err
	}
	if current == nil {
		s.forgetCookie(w)
		return s.signedOut(w, r, request, c, nil, "")
	}
	if request.hint != nil && c != nil && request.hint.Subject == s.subjectFor(c, current.Subject) &&
		(request.hint.Session == "" || request.hint.Session == current.ID) {
		// Who holds an ID token of this user, and of this session, may end it unasked.
		return s.endBrowserSession(w, r, request, c, current)
	}
	return s.askLogout(w, r, request, c, current)
}

func logoutParameters(w http.ResponseWriter, r *http.Request) (form, error) {
	f, err := authorizeParameters(w, r)
	if err != nil {
		return form{}, err
	}
	return f, f.wellFormed()
}

// readLogoutRequest reads the parameters. Whatever is wrong with them is shown and
// nobody is sent anywhere.
func (s *Server) readLogoutRequest(ctx context.Context, f form) (logoutRequest, *client, error) {
	request := logoutRequest{UILocales: f.get("ui_locales"), ClientID: f.get("client_id")}
	mistake := func(detail string, cause error) (logoutRequest, *client, error) {
		return logoutRequest{}, nil, &pageError{kind: ErrorRequest, status: http.StatusBadRequest, detail: detail, next: s.issuer + "/logout", cause: cause}
	}
	if raw := f.get("id_token_hint"); raw != "" {
		hint, err := s.readIDTokenHint(raw)
		if err != nil {
			return mistake("the id_token_hint is not an ID token that this server issued", err)
		}
		if request.ClientID != "" && request.ClientID != hint.Audience {
			return mistake("the id_token_hint was issued to another client than client_id names", nil)
		}
		request.ClientID, request.hint = hint.Audience, &hint
	}
	var c *client
	if request.ClientID != "" {
		found, err := s.clients.find(ctx, request.ClientID)
		if err != nil && !errors.Is(err, errNoClient) {
			return logoutRequest{}, nil, err
		}
		if err != nil {
			return mistake("the client is unknown here", err)
		}
		c = found
	}
	target := f.get("post_logout_redirect_uri")
	switch {
	case target == "":
		return request, c, nil
	case c == nil:
		// §3: without knowing who asks, nobody is redirected.
		return mistake("post_logout_redirect_uri needs id_token_hint or client_id beside it", nil)
	case !matchesRedirectURI(c.postLogoutRedirectURIs, target):
		return mistake("the post_logout_redirect_uri is not registered for this client; it is compared byte for byte", nil)
	}
	request.Redirect = withQuery(target, "state", f.get("state"))
	return request, c, nil
}

// withQuery adds a parameter to the query of a URI, if it has a value.
func withQuery(uri, name, value string) string {
	if value == "" {
		return uri
	}
	separator := "?"
	if u, err := url.Parse(uri); err == nil && (u.RawQuery != "" || u.ForceQuery) {
		separator = "&"
	}
	return uri + separator + url.Values{name: {value}}.Encode()
}

// askLogout asks the user, since another site may have sent him here (RP-Initiated
// Logout §6, ATTACKS BR-13).
func (s *Server) askLogout(w http.ResponseWriter, r *http.Request, request logoutRequest, c *client, current *session) error {
	u, err := s.users.bySubject(r.Context(), current.Subject)
	if err != nil {
		return err
	}
	request.Expires = time.Now().Add(interactionLifetime).Unix()
	encoded, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding a logout: %w", err)
	}
	sealed := encodeSealed(s.logoutBox.Seal(encoded, []byte(current.ID)))
	page := ConfirmLogoutPage{Page: s.page(http.StatusOK, request.UILocales), User: u.view(),
		Form: Form{Action: s.issuer + "/logout", Fields: []Field{{formToken, s.tokenOfSession(r)}, {"logout", sealed}}}}
	if c != nil {
		view := c.view(request.Redirect)
		page.Client = &view
	}
	if request.Redirect != "" {
		page.Targets = formTargets(request.Redirect)
	}
	s.login.ConfirmLogout(w, r, page)
	return nil
}

// confirmedLogout is the answer to askLogout, or the button on the account page.
func (s *Server) confirmedLogout(w http.ResponseWriter, r *http.Request, f form) error {
	if r.Method != http.MethodPost {
		return errForeignForm.because(errors.New("a decision by GET"))
	}
	if err := s.crossOrigin.Check(r); err != nil {
		return errForeignForm.because(err)
	}
	current, err := s.sessionOf(r)
	if err != nil {
		return err
	}
	if current == nil { // pressed twice, or signed out in another tab
		s.forgetCookie(w)
		return s.signedOut(w, r, logoutRequest{}, nil, nil, "")
	}
	if err := s.checkToken(r, f); err != nil {
		return err
	}
	var request logoutRequest
	if sealed := f.get("logout"); sealed != "" {
		if request, err = s.openLogout(sealed, current.ID); err != nil {
			return err
		}
	}
	if f.get("decision") != "sign_out" {
		seeOther(w, s.issuer+"/account")
		return nil
	}
	var c *client
	if request.ClientID != "" {
		if c, err = s.clients.find(r.Context(), request.ClientID); errors.Is(err, errNoClient) {
			request.Redirect = "" // removed meanwhile
		} else if err != nil {
			return err
		}
	}
	return s.endBrowserSession(w, r, request, c, current)
}

func (s *Server) openLogout(sealed, sessionID string) (logoutRequest, error) {
	var request logoutRequest
	decoded, err := decodeSealed(sealed)
	if err == nil {
		decoded, err = s.logoutBox.Open(decoded, []byte(sessionID))
	}
	if err == nil {
		err = json.Unmarshal(decoded, &request)
	}
	if err != nil {
		return request, errForeignForm.because(err)
	}
	if request.Expires <= time.Now().Unix() {
		return request, &pageError{kind: ErrorExpired, status: http.StatusBadRequest, next: s.issuer + "/logout"}
	}
	return request, nil
}

// endBrowserSession ends the session of the browser that sent r.
func (s *Server) endBrowserSession(w http.ResponseWriter, r *http.Request, request logoutRequest, c *client, current *session) error {
	clients, err := s.toldClients(r.Context(), current)
	if err != nil {
		return err
	}
	if err := s.logOut(r.Context(), current, reasonSignedOut); err != nil {
		return err
	}
	s.forgetCookie(w)
	return s.signedOut(w, r, request, c, clients, current.ID)
}

// signedOut sends the browser on, or says that it is signed out and tells the
// clients by iframes (OpenID Connect Front-Channel Logout 1.0 §2, §3).
func (s *Server) signedOut(w http.ResponseWriter, r *http.Request, request logoutRequest, c *client, clients []*client, sessionID string) error {
	page := SignedOutPage{Page: s.page(http.StatusOK, request.UILocales), Next: request.Redirect}
	for _, one := range clients {
		if one.frontchannelLogoutURI == "" {
			continue
		}
		frame := withQuery(withQuery(one.frontchannelLogoutURI, "iss", s.issuer), "sid", sessionID)
		page.Iframes = append(page.Iframes, frame)
		page.Frames = append(page.Frames, originOf(frame))
	}
	if len(page.Iframes) == 0 && request.Redirect != "" {
		seeOther(w, request.Redirect)
		return nil
	}
	if c != nil {
		view := c.view(request.Redirect)
		page.Client = &view
	}
	s.login.SignedOut(w, r, page)
	return nil
}

// forgetCookie makes the browser forget its session.
func (s *Server) forgetCookie(w http.ResponseWriter) {
	gone := s.cookie("session", "")
	gone.MaxAge = -1
	http.SetCookie(w, gone)
}

// maxTold bounds how many clients are told of the end of one session; beyond it the
// one that came first is not.
const maxTold = 100

// noteClient notes in the session that a client is to be told of its end, before the
// client gets a code. It is written once in a session, and for clients that do not
// want to be told never.
func (s *Server) noteClient(ctx context.Context, current *session, c *client) error {
	if c.backchannelLogoutURI == "" && c.frontchannelLogoutURI == "" || slices.Contains(current.Told, c.id) {
		return nil
	}
	_, _, err := s.sessions.Change(ctx, current.ID, func(stored *session) error {
		if !slices.Contains(stored.Told, c.id) {
			stored.Told = append(stored.Told, c.id)
		}
		stored.Told = stored.Told[max(0, len(stored.Told)-maxTold):]
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return refusal("login_required", "the session has just ended")
	}
	if err != nil {
		return unavailable(fmt.Errorf("noting the client of a session: %w", err))
	}
	return nil
}

// toldClients returns the clients to be told of the end of a session: those that got
// tokens in it and wanted to be told then.
func (s *Server) toldClients(ctx context.Context, ending *session) ([]*client, error) {
	now, _, err := s.sessions.Get(ctx, ending.ID)
	if errors.Is(err, store.ErrNotFound) {
		now, err = *ending, nil
	} else if err != nil {
		return nil, unavailable(fmt.Errorf("listing the clients of a session: %w", err))
	}
	var clients []*client
	for _, id := range now.Told {
		c, err := s.clients.find(ctx, id)
		if errors.Is(err, errNoClient) {
			continue
		}
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
	}
	return clients, nil
}

// logOut ends a session, wherever it is, with its grants. Its clients are told soon.
func (s *Server) logOut(ctx context.Context, ended *session, reason string) error {
	ctx, cancel := withoutCaller(ctx, logOutWithin)
	defer cancel()
	clients, err := s.toldClients(ctx, ended)
	if err != nil {
		return err
	}
	if err := s.backchannel.announce(ctx, ended, clients); err != nil {
		return err
	}
	if err := s.endSession(ctx, ended.Subject, ended.ID, reason); err != nil {
		return unavailable(err)
	}
	s.backchannel.soon()
	s.log.Info("session ended", "event", "logout", "sub", ended.Subject, "sid", ended.ID, "reason", reason)
	return nil
}
