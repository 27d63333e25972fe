package authserver

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// handleAuthorize is the authorization endpoint (OAuth 2.1 §4.1.1, OpenID Connect
// Core §3.1.2), top to bottom. What is wrong with the client or its redirect URI is
// shown on a page; everything else goes back to the client.
func (s *Server) handleAuthorize(w http.ResponseWriter, r *http.Request) error {
	f, err := authorizeParameters(w, r)
	if err != nil {
		return &pageError{kind: ErrorRequest, status: asError(err).Status, detail: asError(err).Description, cause: err}
	}
	c, request, err := s.redirectTarget(r.Context(), f)
	if err != nil {
		return err
	}
	if err := s.readAuthorizationRequest(f, c, &request); err != nil {
		return s.respondError(w, r, c, request, err)
	}
	if r.Method == http.MethodPost && s.cookieValue(r, "session") == "" {
		// SameSite=Lax cookies do not come with a POST from another site, but with
		// the GET that it is redirected to.
		seeOther(w, s.issuer+"/authorize?"+f.values.Encode())
		return nil
	}
	current, err := s.sessionOf(r)
	if err != nil {
		return s.respondError(w, r, c, request, err)
	}
	return s.proceed(w, r, c, nil, request, current, false)
}

// resume goes on with an interaction after its user has signed in, or has chosen to
// go on as who he is. signedIn says that it was a sign-in: a proof made for this
// very request.
func (s *Server) resume(w http.ResponseWriter, r *http.Request, in *interaction, current *session, signedIn bool) error {
	c, err := s.clientOf(r.Context(), in)
	if err != nil {
		return err
	}
	next := *in
	next.Session, next.SignedIn = current.ID, signedIn || in.SignedIn && in.Session == current.ID
	return s.proceed(w, r, c, &next, in.Request, current, false)
}

// allow goes on with an interaction whose user consents, and remembers that he did.
// If somebody else is signed in than when he was asked, or nobody, it asks again
// (ATTACKS BR-16).
func (s *Server) allow(w http.ResponseWriter, r *http.Request, in *interaction) error {
	c, err := s.clientOf(r.Context(), in)
	if err != nil {
		return err
	}
	current, err := s.sessionOf(r)
	if err != nil {
		return err
	}
	consented := current != nil && current.ID == in.Session
	if consented {
		if err := s.rememberConsent(r.Context(), current.Subject, c, in.Request.consentScope()); err != nil {
			return err
		}
	}
	return s.proceed(w, r, c, in, in.Request, current, consented)
}

// deny completes an interaction whose user does not want it: he does not consent,
// or will not sign in.
func (s *Server) deny(w http.ResponseWriter, r *http.Request, in *interaction) error {
	c, err := s.clientOf(r.Context(), in)
	if err != nil {
		return err
	}
	if err := s.spend(r.Context(), in); err != nil {
		return err
	}
	return s.respondError(w, r, c, in.Request, refusal("access_denied", "the user did not allow it"))
}

// clientOf returns the client of an interaction, as it is now (ATTACKS AZ-30).
func (s *Server) clientOf(ctx context.Context, in *interaction) (*client, error) {
	c, err := s.clients.find(ctx, in.Request.ClientID)
	switch {
	case err != nil && !errors.Is(err, errNoClient):
		return nil, err
	case err != nil || !c.may("authorization_code") || !matchesRedirectURI(c.redirectURIs, in.Request.RedirectURI):
		return nil, &pageError{kind: ErrorDisabled, status: http.StatusBadRequest,
			cause: errors.New("the client was removed or changed during an interaction")}
	}
	return c, nil
}

// proceed takes a request as far as it goes: to a page that asks for what is still
// needed, or to its answer. in is nil until a page was needed.
func (s *Server) proceed(w http.ResponseWriter, r *http.Request, c *client, in *interaction, request authorizationRequest, current *session, consented bool) error {
	page, err := s.decide(r.Context(), c, in, request, current, consented)
	if err == nil && page == "" {
		return s.answer(w, r, c, in, request, current)
	}
	if err != nil {
		if in != nil && asError(err).Status != http.StatusServiceUnavailable { // what can be repeated is not over
			if spendErr := s.spend(r.Context(), in); spendErr != nil {
				return spendErr
			}
		}
		return s.respondError(w, r, c, request, err)
	}
	next := in
	if in == nil {
		if !request.fits() {
			return s.respondError(w, r, c, request, errRequestTooLong)
		}
		next = s.beginInteraction(w, r, request)
	}
	if page == "/consent" {
		asked := *next // the answer counts only for whom the question is shown to
		asked.Session, asked.SignedIn = current.ID, asked.SignedIn && asked.Session == current.ID
		next = &asked
	}
	return s.toPage(w, page, next)
}

// decide returns the page that a request needs next, "" when it needs none, or the
// error with which it goes back to the client.
func (s *Server) decide(ctx context.Context, c *client, in *interaction, request authorizationRequest, current *session, consented bool) (page string, err error) {
	// What was done in the session of another user, or before, does not count.
	here := in != nil && current != nil && in.Session == current.ID
	signedIn := here && in.SignedIn
	if why := s.missing(c, request, current, here, signedIn); why != nil {
		if request.prompts("none") || signedIn {
			return "", why
		}
		return "/login", nil
	}
	if consented {
		return "", nil
	}
	needed, err := s.needsConsent(ctx, c, request, current)
	if err != nil || !needed {
		return "", err
	}
	if request.prompts("none") {
		return "", refusal("consent_required", "the user has not allowed this yet") // OpenID Connect Core §3.1.2.6
	}
	return "/consent", nil
}

// missing returns why current is not enough for request, as the error that says so,
// or nil. here says that the user signed in or chose this account for the request,
// signedIn that he signed in.
func (s *Server) missing(c *client, request authorizationRequest, current *session, here, signedIn bool) error {
	loginRequired := func(why string) error { return refusal("login_required", "%s", why) }
	switch {
	case current == nil:
		return loginRequired("nobody is signed in")
	case request.prompts("login") && !signedIn, request.prompts("select_account") && !here:
		return loginRequired("the request asks for the user")
	case request.MaxAge != nil && !signedIn && time.Since(time.Unix(current.AuthTime, 0)) >= time.Duration(*request.MaxAge)*time.Second:
		return loginRequired("the sign-in is older than max_age")
	case request.Subject != "" && request.Subject != s.subjectFor(c, current.Subject):
		// OpenID Connect Core §3.1.2.1, id_token_hint: nobody else will do.
		return loginRequired("another user is signed in than the one that the request is about")
	case request.EssentialACR && len(request.ACRValues) > 0 && !reachesACR(request.ACRValues, current.ACR):
		// OpenID Connect Core §5.5.1.1: a level that nobody knows here cannot be met.
		return refusal("unmet_authentication_requirements", "the user has not signed in as the request demands")
	case !signedIn && !meetsACR(request.ACRValues, current.ACR):
		return loginRequired("the request asks for another way of signing in")
	}
	return nil
}

// meetsACR reports whether acr is, or is above, one of the wanted levels. Levels
// that nobody knows are no reason to ask: acr_values are wishes (OpenID Connect
// Core §3.1.2.1).
func meetsACR(wanted []string, acr string) bool {
	known := func(one string) bool { return slices.Contains(acrLevels, one) }
	return reachesACR(wanted, acr) || !slices.ContainsFunc(wanted, known)
}

// reachesACR reports whether acr is, or is above, one of the wanted levels.
func reachesACR(wanted []string, acr string) bool {
	return slices.ContainsFunc(wanted, func(one string) bool {
		level := slices.Index(acrLevels, one)
		return level >= 0 && slices.Index(acrLevels, acr) >= level
	})
}

// answer sends the client its code. The interaction is spent last, so that until then
// the page can be sent again.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, c *client, in *interaction, request authorizationRequest, current *session) error {
	begun, err := s.clients.epoch(r.Context(), c.id)
	if err != nil {
		return s.respondError(w, r, c, request, err)
	}
	// Whoever ends the session tells the client of it.
	noted := s.noteClient(r.Context(), current, c)
	if noted != nil && asError(noted).Status == http.StatusServiceUnavailable {
		return s.respondError(w, r, c, request, noted)
	}
	if in != nil {
		if err := s.spend(r.Context(), in); err != nil {
			return err
		}
	}
	if noted != nil {
		return s.respondError(w, r, c, request, noted)
	}
	code, grantID, err := s.newCode(c, begun, request, current)
	if err != nil {
		return s.respondError(w, r, c, request, err)
	}
	if s.challenges.repeated(c.id, request.Challenge) {
		s.metrics.constantChallenges.Inc()
	}
	s.log.LogAttrs(r.Context(), slog.LevelInfo, "authorized", slog.String("event", "authorization"), slog.String("client_id", c.id),
		slog.String("sub", current.Subject), slog.String("sid", current.ID), slog.String("grant_id", grantID), slog.String("scope", strings.Join(request.Scope, " ")))
	return s.respond(w, r, c, request, url.Values{"code": {code}})
}

// respondError sends an error to the client (OAuth 2.1 §4.1.2.1). When the store does not
// answer, the user is told instead and can reload: the client could do no more.
func (s *Server) respondError(w http.ResponseWriter, r *http.Request, c *client, request authorizationRequest, err error) error {
	e := asError(c.refused(err))
	if e.Status == http.StatusServiceUnavailable && !request.prompts("none") {
		return e
	}
	trace := s.logRefusal(r, "authorize", e)
	return s.respond(w, r, c, request, url.Values{"error": {e.Code}, "error_description": {e.Description}, "trace_id": {trace}})
}

// respond sends an authorization response to the client's redirect URI.
func (s *Server) respond(w http.ResponseWriter, r *http.Request, c *client, request authorizationRequest, values url.Values) error {
	values.Set("iss", s.issuer) // RFC 9207 §2
	if request.State != "" {
		values.Set("state", request.State)
	}
	if values.Has("code") {
		s.metrics.requests.WithLabelValues("authorize", "ok").Inc()
	}
	if request.ResponseMode != modeFormPost {
		separator := "?"
		if strings.Contains(request.RedirectURI, "?") {
			separator = "&" // RFC 6749 §3.1.2: its query is kept
		}
		seeOther(w, request.RedirectURI+separator+values.Encode())
		return nil
	}
	var fields []Field
	for _, name := range slices.Sorted(maps.Keys(values)) {
		fields = append(fields, Field{name, values.Get(name)})
	}
	page := FormPostPage{Page: s.page(http.StatusOK, request.UILocales), Client: c.view(request.RedirectURI), Action: request.RedirectURI, Fields: fields}
	page.Targets = formTargets(request.RedirectURI)
	s.login.FormPost(w, r, page)
	return nil
}
