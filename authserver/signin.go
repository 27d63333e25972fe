package authserver

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// handleLogin is the sign-in page. What it signs in for travels as the parameter
// interaction, in the URL at first and in the forms after that.
func (s *Server) handleLogin(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		sealed := r.URL.Query().Get("interaction")
		if sealed == "" { // somebody's bookmark
			seeOther(w, s.issuer+"/account")
			return nil
		}
		in, err := s.openInteraction(r, sealed)
		if err != nil {
			return err
		}
		return s.showSignIn(w, r, in, "", nil)
	}
	f, err := s.pageForm(w, r)
	if err != nil {
		return err
	}
	in, err := s.openInteraction(r, f.get("interaction"))
	if err != nil {
		return err
	}
	switch {
	case f.get("cancel") != "":
		return s.cancelSignIn(w, r, in)
	case f.get("continue") != "":
		return s.continueAs(w, r, in)
	case f.get("passkey") != "":
		return s.signInByPasskey(w, r, in, f)
	case in.Half != nil:
		return s.signInByCode(w, r, in, f)
	}
	return s.signInByPassword(w, r, in, f)
}

// toAccount reports whether nobody but the user himself wants him to sign in: in
// leads to the account page.
func (in *interaction) toAccount() bool { return in.Request.ClientID == "" }

// beginAccountSignIn sends the browser to the sign-in page and from there to the
// account page. request says how recent and strong it must be.
func (s *Server) beginAccountSignIn(w http.ResponseWriter, r *http.Request, request authorizationRequest) error {
	return s.toPage(w, "/login", s.beginInteraction(w, r, request))
}

func (s *Server) cancelSignIn(w http.ResponseWriter, r *http.Request, in *interaction) error {
	if in.toAccount() {
		seeOther(w, s.issuer+"/account")
		return nil
	}
	return s.deny(w, r, in)
}

// continueAs goes on with who is signed in already.
func (s *Server) continueAs(w http.ResponseWriter, r *http.Request, in *interaction) error {
	current, err := s.sessionOf(r)
	if err != nil {
		return err
	}
	if current == nil { // signed out in another tab
		return s.showSignIn(w, r, in, "", nil)
	}
	return s.afterSignIn(w, r, in, current, false)
}

func (s *Server) afterSignIn(w http.ResponseWriter, r *http.Request, in *interaction, current *session, signedIn bool) error {
	if in.toAccount() {
		seeOther(w, s.issuer+"/account")
		return nil
	}
	next := *in
	next.Half = nil
	return s.resume(w, r, &next, current, signedIn)
}

// signInByPassword checks a username and password, and asks for a second factor
// where the user has one.
func (s *Server) signInByPassword(w http.ResponseWriter, r *http.Request, in *interaction, f form) error {
	username, password := f.get("username"), f.get("password")
	shown, err := s.signIn(r.Context(), username, password, s.callerOf(r, username))
	if err != nil {
		if len(username) > maxUsername {
			username = ""
		}
		return s.showSignIn(w, r, in, username, err)
	}
	if shown.credentials.hasSecondFactor() {
		half := *in
		half.Half = shown.half()
		return s.showSecondFactor(w, r, &half, shown, nil)
	}
	return s.completeSignIn(w, r, in, shown.by([]string{"pwd"}, acrPassword))
}

// completeSignIn starts the session of a user who has proved himself, and goes on.
func (s *Server) completeSignIn(w http.ResponseWriter, r *http.Request, in *interaction, p proof) error {
	current, err := s.startSession(w, r, p)
	if err != nil && asError(err).Code == errSignIn.Code { // overtaken by a change
		again := *in
		again.Half = nil
		return s.showSignIn(w, r, &again, p.user.username, err)
	}
	if err != nil {
		return err
	}
	if err := s.rememberDevice(w, r, p.user); err != nil {
		return err
	}
	return s.afterSignIn(w, r, in, current, true)
}

// formTargetsOf are the sources that a form of an interaction may lead to.
func (s *Server) formTargetsOf(in *interaction) []string {
	if in.toAccount() {
		return nil
	}
	return formTargets(in.Request.RedirectURI)
}

// showSignIn shows the sign-in page, again after a failure.
func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request, in *interaction, username string, failure error) error {
	fields, c, err := s.interactionForm(r, in)
	if err != nil {
		return err
	}
	status, notice, wait := s.noticeOf(w, r, failure)
	page := SignInPage{Page: s.page(status, in.Request.UILocales), Form: fields, Login: username, Notice: notice, Wait: wait}
	page.Targets = s.formTargetsOf(in)
	if c != nil {
		view := c.view(in.Request.RedirectURI)
		page.Client = &view
	}
	if page.Login == "" {
		page.Login = in.Request.LoginHint
	}
	// Trouble with the store hides these; the form still works when it is over.
	if current, err := s.sessionOf(r); err == nil && current != nil {
		if u, err := s.users.bySubject(r.Context(), current.Subject); err == nil {
			s.offerCurrent(&page, in, c, current, u)
		}
	}
	if s.passkeys != nil {
		if page.Passkey, err = s.passkeys.ask(in.ID, fields, nil); err != nil {
			return err
		}
	}
	s.login.SignIn(w, r, page)
	return nil
}

// offerCurrent lets the user who is signed in go on as himself where that is
// enough, and says why not where it is not.
func (s *Server) offerCurrent(page *SignInPage, in *interaction, c *client, current *session, u user) {
	view := u.view()
	page.Current = &view
	enough := in.toAccount() && in.Request.metBy(current)
	if c != nil {
		enough = s.missing(c, in.Request, current, true, false) == nil
	}
	switch {
	case enough:
		page.Continue = &Form{Action: page.Form.Action, Fields: append(slices.Clone(page.Form.Fields), Field{"continue", "1"})}
	case page.Notice == "":
		page.Notice = NoticeReauthenticate
		if page.Login == "" {
			page.Login = u.username
		}
	}
}

// tooOld reports whether the last authentication of a session is older than max_age.
func (a authorizationRequest) tooOld(current *session) bool {
	return a.MaxAge != nil && time.Since(time.Unix(current.AuthTime, 0)) >= time.Duration(*a.MaxAge)*time.Second
}

// metBy reports whether a sign-in to the account page is recent and strong enough.
func (a authorizationRequest) metBy(current *session) bool {
	return !a.tooOld(current) && meetsACR(a.ACRValues, current.ACR)
}

// interactionForm returns a form of the sign-in page, and the client of in if it
// has one.
func (s *Server) interactionForm(r *http.Request, in *interaction) (Form, *client, error) {
	var c *client
	if !in.toAccount() {
		found, err := s.clientOf(r.Context(), in)
		if err != nil {
			return Form{}, nil, err
		}
		c = found
	}
	sealed, err := s.sealInteraction(in)
	return Form{Action: s.issuer + "/login", Fields: []Field{{"interaction", sealed}}}, c, err
}

// noticeOf says to the user what a failed attempt means, and sets Retry-After.
func (s *Server) noticeOf(w http.ResponseWriter, r *http.Request, failure error) (status int, notice Notice, wait time.Duration) {
	if failure == nil {
		return http.StatusOK, "", 0
	}
	if known := (*factorError)(nil); errors.As(failure, &known) {
		s.logRefusal(r, "login", errSignIn.because(failure))
		return http.StatusBadRequest, known.notice, 0
	}
	e := asError(failure)
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	s.logRefusal(r, "login", e)
	switch {
	case e.Code == errSignIn.Code:
		return http.StatusBadRequest, NoticeCredentials, 0
	case e.Status == http.StatusTooManyRequests:
		return e.Status, NoticeThrottled, e.RetryAfter
	case e.Status == http.StatusServiceUnavailable:
		return e.Status, NoticeBusy, 0
	}
	return http.StatusInternalServerError, NoticeBusy, 0
}

// view is a user as he sees himself.
func (u user) view() UserView {
	view := UserView{Username: u.username, Name: u.username}
	if name, ok := u.claims["name"].(string); ok && shownName(name) != "" {
		view.Name = shownName(name)
	}
	return view
}

// pageURL is the URL of a page of ours with a notice.
func (s *Server) pageURL(path string, notice Notice) string {
	if notice == "" {
		return s.issuer + path
	}
	return s.issuer + path + "?" + url.Values{"notice": {string(notice)}}.Encode()
}
