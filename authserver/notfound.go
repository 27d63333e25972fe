package authserver

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// serveUnknown answers where nothing is: what was probably meant, and where the endpoints
// are listed. It repeats nothing of the request, and is readable for pages of other
// origins: clients look for metadata in several places, and see a failed connection
// otherwise. Strangers ask for anything, so it is counted and not logged.
func (s *Server) serveUnknown(handlers map[string]http.Handler, issuer *url.URL) http.Handler {
	asked := s.metrics.requests.WithLabelValues("unknown", "not_found")
	listed := "the endpoints are listed at " + issuer.JoinPath("/.well-known/openid-configuration").String()
	public := route{methods: getAndPost, cors: corsAny}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Inc()
		if preflight := s.allowOrigin(w, r, public); preflight {
			return
		}
		text := "nothing is at this address; " + listed
		if meant := likely(handlers, issuer.Path, r.URL.EscapedPath()); meant != "" {
			text = "nothing is at this address; did you mean " + (&url.URL{Scheme: issuer.Scheme, Host: issuer.Host, Path: meant}).String() + " ? "
			if issuer.Path != "" && !strings.HasPrefix(r.URL.Path, issuer.Path) {
				text += "If that was asked for, a proxy in front takes " + issuer.Path + " away, and has to leave it there; "
			}
			text += listed
		}
		if s.login == nil || r.Method != http.MethodGet || !strings.Contains(r.Header.Get("Accept"), "text/html") {
			w.Header().Set("Cache-Control", "no-store")
			writeJSON(w, http.StatusNotFound, errorBody{Error: "invalid_request", Description: text})
			return
		}
		s.servePage("unknown", func(w http.ResponseWriter, r *http.Request) error {
			s.login.Error(w, r, ErrorPage{Page: s.page(http.StatusNotFound, ""), Kind: ErrorNotFound, Detail: text})
			return nil
		}).ServeHTTP(w, r)
	})
}

// likely returns the path of ours that a path was probably meant to be, or "": in another
// case, with a slash too many, without the issuer's path, or below another one.
func likely(handlers map[string]http.Handler, issuerPath, asked string) string {
	if len(asked) > 200 {
		return ""
	}
	clean := path.Clean("/" + strings.ToLower(asked))
	for _, candidate := range []string{clean, issuerPath + clean, issuerPath + "/" + path.Base(clean), issuerPath + "/.well-known/" + path.Base(clean)} {
		if handlers[candidate] != nil {
			return candidate
		}
	}
	return ""
}
