package authserver_test

import (
	"net/url"
	"testing"

	"authserver/authserver/authservertest"
)

// ATTACKS CA-10: an unknown client and a wrong secret get the same answer to the
// byte. That they take the same time is measured by `go run ./timing` in bench.
func TestUnknownClientLooksLikeWrongSecret(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	body := func(id string) url.Values {
		return url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {"wrong"}}
	}
	for _, endpoint := range []string{"/token", "/introspect", "/revoke"} {
		for name, request := range map[string]func(id string) answer{
			"Basic": func(id string) answer {
				return post(t, s.Issuer+endpoint, id+":wrong", url.Values{"grant_type": {"client_credentials"}, "token": {"x"}})
			},
			"post": func(id string) answer { return post(t, s.Issuer+endpoint, "", body(id)) },
		} {
			known, unknown := request(authservertest.ServiceID), request("nobody-has-this-id")
			for _, a := range []answer{known, unknown} {
				a.header.Del("Date")
			}
			if known.status != 401 || known.status != unknown.status || known.raw != unknown.raw || !equalHeaders(known, unknown) {
				t.Errorf("%s by %s: %d %v %s, for an unknown client %d %v %s", endpoint, name,
					known.status, known.header, known.raw, unknown.status, unknown.header, unknown.raw)
			}
		}
	}
}

func equalHeaders(a, b answer) bool {
	if len(a.header) != len(b.header) {
		return false
	}
	for name := range a.header {
		if a.header.Get(name) != b.header.Get(name) {
			return false
		}
	}
	return true
}
