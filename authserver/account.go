package authserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"authserver/store"
)

// freshFor is how old a sign-in may be for changes to how one signs in: whoever
// finds an open browser does not take the account over.
const freshFor = 10 * time.Minute

// accountVisit is a request of the account page by a user who is signed in.
type accountVisit struct {
	w       http.ResponseWriter
	r       *http.Request
	form    form
	user    user
	session *session
}

// accountAction is one thing that can be done on the account page. It writes its
// answer, or returns the notice of what was done, or an error.
type accountAction struct {
	needs freshness
	do    func(*Server, accountVisit) (Notice, error)
}

// freshness is what session an action needs, beyond one.
type freshness int

const (
	anySession  freshness = iota
	freshFactor           // who has a second factor has shown it in the last minutes
	freshSignIn           // likewise, and who has none has signed in in the last minutes
)

// accountActions are the values of the parameter action.
func accountActions() map[string]accountAction {
	return map[string]accountAction{
		"end_session":     {anySession, (*Server).endOwnSession},
		"end_app":         {anySession, (*Server).endOwnApp},
		"change_password": {freshFactor, (*Server).changeOwnPassword}, // it asks for the present one
		"begin_totp":      {freshSignIn, (*Server).beginTOTP},
		"confirm_totp":    {freshSignIn, (*Server).confirmTOTP},
		"remove_totp":     {freshSignIn, (*Server).removeTOTP},
		"renew_codes":     {freshSignIn, (*Server).renewCodes},
		"add_passkey":     {freshSignIn, (*Server).addOwnPasskey},
		"remove_passkey":  {freshSignIn, (*Server).removePasskey},
	}
}

// asksFor returns the sign-in that an action needs of a user with these credentials.
func (f freshness) asksFor(c credentials) (request authorizationRequest) {
	age := int64(freshFor / time.Second)
	if c.hasSecondFactor() && f != anySession {
		request.MaxAge, request.ACRValues = &age, []string{acrTwo}
	} else if f == freshSignIn {
		request.MaxAge = &age
	}
	return request
}

// handleAccount is the page of what belongs to a user.
func (s *Server) handleAccount(w http.ResponseWriter, r *http.Request) error {
	var f form
	if r.Method == http.MethodPost {
		var err error
		if f, err = s.pageForm(w, r); err != nil {
			return err
		}
	}
	current, err := s.sessionOf(r)
	if err != nil {
		return err
	}
	if current == nil {
		return s.beginAccountSignIn(w, r, authorizationRequest{})
	}
	u, err := s.users.bySubject(r.Context(), current.Subject)
	if err != nil {
		return err
	}
	visit := accountVisit{w, r, f, u, current}
	if r.Method != http.MethodPost {
		notice := Notice(r.URL.Query().Get("notice"))
		if !slices.Contains(doneNotices, notice) {
			notice = ""
		}
		return s.showAccount(visit, http.StatusOK, notice)
	}
	if err := s.checkToken(r, f); err != nil {
		return err
	}
	action, known := accountActions()[f.get("action")]
	if !known {
		return &pageError{kind: ErrorRequest, status: http.StatusBadRequest, detail: "the form has no known action"}
	}
	if action.needs != anySession {
		found, err := s.credentialsOf(r.Context(), u.subject)
		if err != nil {
			return err
		}
		if needed := action.needs.asksFor(found); !needed.metBy(current) {
			return s.beginAccountSignIn(w, r, needed)
		}
	}
	notice, err := action.do(s, visit)
	var failed *factorError
	switch {
	case errors.As(err, &failed):
		s.refuseAccount(visit, err)
		return s.showAccount(visit, http.StatusBadRequest, failed.notice)
	case err != nil:
		return err
	case notice != "": // so that a reload does not do it again
		s.auditAccount(visit)
		seeOther(w, s.pageURL("/account", notice))
	}
	return nil
}

// auditAccount writes the audit record of what a user has changed.
func (s *Server) auditAccount(v accountVisit) {
	s.log.Info("account changed", "event", "account", "action", v.form.get("action"), "sub", v.user.subject, "sid", v.session.ID,
		"address", s.proxies.clientAddress(v.r).String())
}

// refuseAccount writes that of a change that the user is asked to try again.
func (s *Server) refuseAccount(v accountVisit, cause error) {
	s.logRefusal(v.r, "account", &Error{Code: string(ErrorRequest), Description: "the account was not changed: " + v.form.get("action"),
		Status: http.StatusBadRequest, subject: v.user.subject, cause: cause})
}

// doneNotices are what the account page may be asked to say by its URL.
var doneNotices = []Notice{NoticePasswordSet, NoticeSessionEnded, NoticeAppEnded, NoticeFactorAdded, NoticeFactorRemoved}

// accountForm is a form of the account page.
func (s *Server) accountForm(v accountVisit, action string, more ...Field) Form {
	return Form{Action: s.issuer + "/account", Fields: append([]Field{{formToken, s.tokenOfSession(v.r)}, {"action", action}}, more...)}
}

func (s *Server) showAccount(v accountVisit, status int, notice Notice) error {
	ctx := v.r.Context()
	page := AccountPage{Page: s.page(status, ""), User: v.user.view(), Notice: notice,
		SignOut: Form{Action: s.issuer + "/logout", Fields: []Field{{formToken, s.tokenOfSession(v.r)}, {"decision", "sign_out"}}}}
	sessions, err := s.sessionsOfUser(ctx, v.user)
	if err != nil {
		return err
	}
	for _, one := range sessions {
		view := SessionView{SignedIn: time.Unix(one.AuthTime, 0), LastSeen: time.Unix(one.LastSeen, 0), Current: one.ID == v.session.ID,
			End: s.accountForm(v, "end_session", Field{"session", one.ID})}
		view.Browser, view.System = device(one.Agent)
		page.Sessions = append(page.Sessions, view)
	}
	slices.SortStableFunc(page.Sessions, func(a, b SessionView) int {
		if a.Current != b.Current {
			return map[bool]int{true: -1, false: 1}[a.Current]
		}
		return b.LastSeen.Compare(a.LastSeen)
	})
	if page.Apps, err = s.appsOf(v); err != nil {
		return err
	}
	if err := s.showFactors(&page, v); err != nil {
		return err
	}
	s.login.Account(v.w, v.r, page)
	return nil
}

// showFactors fills in what the user signs in with.
func (s *Server) showFactors(page *AccountPage, v accountVisit) error {
	found, err := s.credentialsOf(v.r.Context(), v.user.subject)
	if err != nil {
		return err
	}
	if found.passwordHash(v.user) != "" {
		form := s.accountForm(v, "change_password")
		page.Password = &form
	}
	if found.TOTP != nil {
		page.TOTP = &TOTPView{Since: time.Unix(found.TOTP.Since, 0), Remove: s.accountForm(v, "remove_totp")}
	} else {
		form := s.accountForm(v, "begin_totp")
		page.AddTOTP = &form
	}
	for _, one := range found.Passkeys {
		view := PasskeyView{Name: one.Name, Since: time.Unix(one.Since, 0), Remove: s.accountForm(v, "remove_passkey", Field{"id", one.id()})}
		if one.LastUsed > 0 {
			view.LastUsed = time.Unix(one.LastUsed, 0)
		}
		page.Passkeys = append(page.Passkeys, view)
	}
	if found.hasSecondFactor() {
		form := s.accountForm(v, "renew_codes")
		page.RecoveryCodes, page.RenewCodes = len(found.RecoveryCodes), &form
	}
	if s.passkeys != nil && len(found.Passkeys) < maxPasskeys {
		owner := passkeyOwner{v.user.view(), v.user.subject, found.Passkeys}
		page.AddPasskey, err = s.passkeys.offer(v.session.ID, s.accountForm(v, "add_passkey"), &owner)
	}
	return err
}

// sessionsOfUser returns the sessions in which u is signed in.
func (s *Server) sessionsOfUser(ctx context.Context, u user) ([]session, error) {
	var live []session
	for member, err := range s.store.Linked(ctx, sessionsOf(u.subject), store.Member{}) {
		id := member.Name
		if err != nil {
			return nil, unavailable(fmt.Errorf("listing sessions: %w", err))
		}
		one, _, err := s.sessions.Get(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, unavailable(fmt.Errorf("listing sessions: %w", err))
		}
		if !u.ended(one.AuthTime) && one.Subject == u.subject && !slices.ContainsFunc(live, func(o session) bool { return o.ID == one.ID }) {
			live = append(live, one)
		}
	}
	return live, nil
}

// appsOf returns the clients that have access to the user's account: by consent or
// by a grant.
func (s *Server) appsOf(v accountVisit) ([]AppView, error) {
	ctx, subject := v.r.Context(), v.user.subject
	apps := make(map[string]*AppView)
	app := func(clientID string) *AppView {
		if apps[clientID] == nil {
			c, err := s.clients.find(ctx, clientID)
			if err != nil { // a client that is gone has access to nothing
				return nil
			}
			apps[clientID] = &AppView{Client: c.view(""), End: s.accountForm(v, "end_app", Field{"client_id", clientID})}
		}
		return apps[clientID]
	}
	add := func(a *AppView, scope []string, since time.Time) {
		for _, view := range s.scopeViews(scope, nil) {
			if !slices.ContainsFunc(a.Scopes, func(o ScopeView) bool { return o.Name == view.Name }) {
				a.Scopes = append(a.Scopes, view)
			}
		}
		if a.Since.IsZero() || since.Before(a.Since) {
			a.Since = since
		}
	}
	for member, err := range s.store.Linked(ctx, consentsOf(subject), store.Member{}) {
		clientID := member.Name
		if err != nil {
			return nil, unavailable(fmt.Errorf("listing consents: %w", err))
		}
		given, record, err := s.consents.Get(ctx, consentKey(subject, clientID))
		if err == nil && record.Exists() {
			if a := app(clientID); a != nil {
				add(a, given.Scope, time.Unix(given.Given, 0))
			}
		} else if !errors.Is(err, store.ErrNotFound) {
			return nil, unavailable(fmt.Errorf("listing consents: %w", err))
		}
	}
	err := s.eachGrant(ctx, subject, func(_ string, grant Grant, record store.Record) error {
		client, err := s.clients.epoch(ctx, grant.ClientID)
		if err != nil {
			return err
		}
		if s.grantEnded(grant, client, v.user) != nil {
			return nil // and will be deleted
		}
		if a := app(grant.ClientID); a != nil {
			add(a, strings.Fields(grant.Scope), time.Unix(grant.Created, 0))
			if record.Changed.After(a.LastUsed) { // each refresh moves the record
				a.LastUsed = record.Changed
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all []AppView
	for _, a := range apps {
		all = append(all, *a)
	}
	slices.SortFunc(all, func(a, b AppView) int { return strings.Compare(a.Client.Name+a.Client.ID, b.Client.Name+b.Client.ID) })
	return all, nil
}
