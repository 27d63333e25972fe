package authserver

import (
	"net/http"
	"slices"
)

// handleConsent is the page on which a user allows a client what it asks for.
func (s *Server) handleConsent(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		in, err := s.openInteraction(r, r.URL.Query().Get("interaction"))
		if err != nil {
			return err
		}
		return s.showConsent(w, r, in)
	}
	f, err := s.pageForm(w, r)
	if err != nil {
		return err
	}
	in, err := s.openInteraction(r, f.get("interaction"))
	if err != nil {
		return err
	}
	switch f.get("decision") {
	case "allow":
		current, err := s.sessionOf(r)
		if err != nil {
			return err
		}
		// Another account was signed in, in another tab: what this one's user would
		// allow is not that one's to decide (ATTACKS BR-16).
		in.Switched = current != nil && current.ID != in.Session
		return s.allow(w, r, in)
	case "deny":
		return s.deny(w, r, in)
	}
	return &pageError{kind: ErrorRequest, status: http.StatusBadRequest, detail: "the form has no decision: allow or deny"}
}

func (s *Server) showConsent(w http.ResponseWriter, r *http.Request, in *interaction) error {
	c, err := s.clientOf(r.Context(), in)
	if err != nil {
		return err
	}
	current, err := s.sessionOf(r)
	if err != nil {
		return err
	}
	if current == nil || current.ID != in.Session {
		return s.proceed(w, r, c, in, in.Request, current, false)
	}
	u, err := s.users.bySubject(r.Context(), current.Subject)
	if err != nil {
		return err
	}
	given, err := s.consented(r.Context(), current.Subject, c)
	if err != nil {
		return err
	}
	sealed, err := s.sealInteraction(in)
	if err != nil {
		return err
	}
	page := ConsentPage{
		Page: s.page(http.StatusOK, in.Request.UILocales), Client: c.view(in.Request.RedirectURI), User: u.view(),
		Form:   Form{Action: s.issuer + "/consent", Fields: []Field{{"interaction", sealed}}},
		Scopes: s.scopeViews(in.Request.consentScope(), given),
		Switch: s.loginURL(sealed),
	}
	page.Targets = formTargets(in.Request.RedirectURI)
	if in.Switched {
		page.Notice = NoticeOtherAccount
	}
	s.login.Consent(w, r, page)
	return nil
}

// scopeViews are scopes as people see them.
func (s *Server) scopeViews(scopes, given []string) []ScopeView {
	var views []ScopeView
	for _, scope := range scopes {
		views = append(views, ScopeView{Name: scope, Description: s.scopeTexts[scope], Granted: slices.Contains(given, scope)})
	}
	return views
}
