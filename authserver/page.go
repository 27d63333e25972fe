package authserver

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// pageError is a refusal that a person sees in a browser, where it cannot go back
// to the client. The cause is for the log.
type pageError struct {
	kind   ErrorKind
	status int
	detail string // English, for developers; never repeats input
	client string // client_id, where it is known
	next   string // URL of ours where it goes on
	cause  error
}

func (e *pageError) Error() string {
	text := string(e.kind)
	if e.detail != "" {
		text += ": " + e.detail
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

func (e *pageError) Unwrap() error { return e.cause }

// pageHandler is an endpoint for browsers. It writes its answer, or returns an
// error that the user is shown.
type pageHandler func(w http.ResponseWriter, r *http.Request) error

// servePage makes an http.Handler of an endpoint for browsers: one place sets the
// headers of pages and shows errors.
func (s *Server) servePage(endpoint string, h pageHandler) http.Handler {
	headers := http.Header{
		"Cache-Control":           {"no-store"},
		"Content-Security-Policy": {Page{}.Policy("", "")},
		"X-Frame-Options":         {"DENY"},        // RFC 9700 §4.16
		"Referrer-Policy":         {"same-origin"}, // with no-referrer, our own forms would come with Origin: null
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), headers)
		done, err := s.admission.enter(r)
		if err != nil { // a page would cost about as much as what is refused
			s.metrics.requests.WithLabelValues(endpoint, errBusy.Code).Inc()
			w.Header().Set("Retry-After", "1")
			http.Error(w, "The server has more to do than it can at this moment. Please try again in a few seconds.", http.StatusServiceUnavailable)
			return
		}
		defer done()
		err = h(w, r)
		if err != nil {
			s.showError(w, r, endpoint, err)
		}
	})
}

// page is the common part of a page's model.
func (s *Server) page(status int, uiLocales string) Page {
	return Page{Status: status, UILocales: uiLocales, Home: s.issuer + "/account"}
}

// showError shows a person what went wrong. What is no *pageError is one of the
// refusals that other endpoints answer in JSON.
func (s *Server) showError(w http.ResponseWriter, r *http.Request, endpoint string, err error) {
	var shown *pageError
	page := ErrorPage{Page: s.page(http.StatusBadRequest, "")}
	if errors.As(err, &shown) {
		page.Kind, page.Detail, page.Next = shown.kind, shown.detail, shown.next
		if shown.status != 0 {
			page.Status = shown.status
		}
		if c, err := s.clients.find(r.Context(), shown.client); err == nil {
			view := c.view("")
			page.Client = &view
		}
	} else {
		e := asError(err)
		page.Kind, page.Detail, page.Wait = ErrorRequest, e.Description, e.RetryAfter
		if e.Status != 0 {
			page.Status = e.Status
		}
		switch {
		case page.Status == http.StatusTooManyRequests:
			page.Kind, page.Detail = ErrorThrottled, ""
		case page.Status == http.StatusServiceUnavailable:
			page.Kind, page.Detail = ErrorUnavailable, ""
		case page.Status >= http.StatusInternalServerError:
			page.Kind, page.Detail = ErrorServer, ""
		}
	}
	if page.Wait > 0 {
		seconds := int64((page.Wait + time.Second - 1) / time.Second)
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	refused := &Error{Code: string(page.Kind), Description: page.Detail, Status: page.Status, cause: err}
	if page.Client != nil {
		refused.client = page.Client.ID
	}
	page.Trace = s.logRefusal(r, endpoint, refused)
	s.login.Error(w, r, page)
}

const maxShownName = 80 // characters of a client's name that are shown

// view is a client as a person sees it: where the answer goes decides more about
// whom he trusts than its name does.
func (c *client) view(redirectURI string) ClientView {
	view := ClientView{ID: c.id, Name: shownName(c.name), PolicyURI: c.policyURI, TosURI: c.tosURI}
	if view.Name == "" {
		view.Name = shownName(c.id)
	}
	if u, err := url.Parse(redirectURI); err == nil {
		if view.Host = u.Hostname(); view.Host == "" {
			view.Host = u.Scheme
		}
	}
	return view
}

// shownName cuts what could deceive out of a name (ATTACKS BR-08).
func shownName(name string) string {
	clean := strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, name))
	if runes := []rune(clean); len(runes) > maxShownName {
		return string(runes[:maxShownName-1]) + "…"
	}
	return clean
}

// formTargets are the sources that a form-action policy must name for a form to
// lead, at once or by a redirect, to a redirect URI. Chromium applies the policy to
// all redirects that follow, so a client whose callback sends the browser on to
// another host needs that host named as well. Nobody knows which it is, so any with
// TLS is: docs/decisions/0021-form-action.md.
func formTargets(redirectURI string) []string {
	u, err := url.Parse(redirectURI)
	switch {
	case err != nil:
		return nil
	case u.Scheme == "https":
		return []string{"https:"}
	case u.Scheme == "http" && !strings.Contains(u.Host, "["): // a policy cannot name [::1]
		return []string{"http://" + u.Host, "https:"}
	}
	return []string{u.Scheme + ":"}
}
