package authserver

import (
	"net/http"
	"net/url"
	"strings"
)

// corsPolicy says which pages may read an endpoint's answers (RFC 9700 §2.6).
type corsPolicy int

const (
	corsNone       corsPolicy = iota
	corsAny                   // public documents
	corsRegistered            // origins of registered redirect URIs
)

// allowOrigin sets the CORS headers of an answer and reports whether the request
// was a preflight, which is then answered. Credentials are never allowed:
// browsers must not attach cookies here.
func (s *Server) allowOrigin(w http.ResponseWriter, r *http.Request, route route) (preflight bool) {
	header := w.Header()
	origin := r.Header.Get("Origin")
	switch route.cors {
	case corsAny:
		header.Set("Access-Control-Allow-Origin", "*")
	case corsRegistered:
		header["Vary"] = varyOrigin
		if !s.clients.allows(r.Context(), origin) {
			origin = ""
			break
		}
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Expose-Headers", "WWW-Authenticate, Retry-After")
	case corsNone:
		origin = ""
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	if origin != "" {
		header.Set("Access-Control-Allow-Methods", strings.Join(route.methods, ", "))
		header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
		if route.cors == corsAny { // MCP clients, for one, send headers of their own along
			header.Set("Access-Control-Allow-Headers", "*, Authorization")
		}
		header.Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
	return true
}

// originOf returns the web origin of a redirect URI, or "" when it has none.
func originOf(redirectURI string) string {
	u, err := url.Parse(redirectURI)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	return u.Scheme + "://" + strings.ToLower(u.Host)
}
