package authserver

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// matchesRedirectURI reports whether a URI in a request is one of the registered
// ones: byte for byte (RFC 9700 §2.1, RFC 3986 §6.2.1), but that a loopback URI of
// a native app may have any port (OAuth 2.1 §8.4.2). It judges
// post_logout_redirect_uri as well.
func matchesRedirectURI(registered []string, requested string) bool {
	if slices.Contains(registered, requested) {
		return true
	}
	wanted, ok := withoutLoopbackPort(requested)
	return ok && slices.ContainsFunc(registered, func(one string) bool {
		without, ok := withoutLoopbackPort(one)
		return ok && without == wanted
	})
}

// withoutLoopbackPort cuts the port out of an http URI of a loopback host. It does
// not parse: what is not spelled exactly so is no such URI (ATTACKS RU-12).
func withoutLoopbackPort(uri string) (string, bool) {
	for _, host := range []string{"http://127.0.0.1", "http://[::1]", "http://localhost"} {
		rest, ok := strings.CutPrefix(uri, host)
		if !ok {
			continue
		}
		if after, hasPort := strings.CutPrefix(rest, ":"); hasPort {
			end := strings.IndexAny(after, "/?")
			if end < 0 {
				end = len(after)
			}
			if !isPort(after[:end]) {
				return "", false
			}
			rest = after[end:]
		}
		if rest == "" || rest[0] == '/' || rest[0] == '?' {
			return host + rest, true
		}
	}
	return "", false
}

// isPort reports whether text is a port as one writes it: 1 to 65535, without zeros
// in front.
func isPort(text string) bool {
	n, err := strconv.Atoi(text)
	return err == nil && n >= 1 && n <= 65535 && strconv.Itoa(n) == text
}

// responseParameters are those of authorization responses. A redirect URI that has
// one already would make a client read two (ATTACKS RU-08).
var responseParameters = []string{"code", "state", "iss", "error", "error_description", "error_uri", "response", "id_token", "access_token"}

// redirectURI checks a redirect URI at registration.
func (c *checker) redirectURI(key, uri string) {
	u, err := url.Parse(uri)
	switch {
	case strings.Contains(uri, "*"):
		c.error(key, "%q has a *; register each URI, they are compared byte for byte", uri)
	case err != nil || !u.IsAbs() || strings.ContainsFunc(uri, notVSCHAR) || strings.ContainsAny(uri, " \\"):
		c.error(key, "%q is not an absolute URI", uri)
	case strings.Contains(uri, "#"):
		c.error(key, "%q has a fragment (RFC 6749 section 3.1.2)", uri) // RFC 6749 §3.1.2
	case u.User != nil:
		c.error(key, "%q has a user part", uri)
	case u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()):
		c.webRedirectURI(key, uri, u)
	case u.Scheme == "http":
		c.error(key, "%q must be https; http is allowed for loopback hosts only", uri)
	case !strings.Contains(u.Scheme, "."): // OAuth 2.1 §8.4.3
		c.error(key, "%q has a scheme that is neither https nor a reversed domain name such as com.example.app", uri)
	}
	if err != nil {
		return
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		c.error(key, "%q has a query that cannot be read", uri)
	}
	for _, name := range responseParameters {
		if query.Has(name) {
			c.error(key, "%q has the parameter %s, which is one of the answer's", uri, name)
		}
	}
}

func (c *checker) webRedirectURI(key, uri string, u *url.URL) {
	switch {
	case u.Hostname() == "" || strings.Contains(u.Host, "%"): // RFC 6874 zones
		c.error(key, "%q has no host, or one with a percent sign", uri)
	case u.Port() != "" && !isPort(u.Port()) || strings.HasSuffix(u.Host, ":"):
		c.error(key, "%q has a port that is not between 1 and 65535", uri)
	case slices.ContainsFunc(strings.Split(u.Path, "/"), func(part string) bool { return strings.Trim(part, ".") == "" && part != "" }):
		c.error(key, "%q has dot segments in its path; write where it leads to", uri)
	}
}
