package authserver_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
)

// ATTACKS CA-10: an unknown client and a wrong secret get the same answer to the
// byte, but for its trace_id. That they take the same time is measured by `go run ./timing` in bench.
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
			if known.status != 401 || known.status != unknown.status || known.untraced() != unknown.untraced() || !equalHeaders(known, unknown) {
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

// ATTACKS CA-11: however much of a secret is right, it is refused in the same words.
// What is compared is no secret but its hash, of one length, in constant time; that
// the time tells nothing either is measured by `go run ./timing` in bench.
func TestAttackCA11(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{Configure: func(c *authserver.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}})
	asked := 0
	ask := func(secret string) answer {
		request, err := http.NewRequest("POST", s.Issuer+"/token", strings.NewReader("grant_type=client_credentials"))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.SetBasicAuth(authservertest.ServiceID, secret)
		asked++
		request.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", asked)) // guesses from one network are slowed down
		a := send(t, request)
		a.header.Del("Date")
		return a
	}
	right := authservertest.Secret
	if a := ask(right); a.status != 200 {
		t.Fatal(a.raw)
	}
	wrong := ask("X")
	for n := range len(right) {
		for _, secret := range []string{right[:n] + "X" + right[n+1:], right[:n] + "X", right[:n], right + right[:n+1]} {
			if a := ask(secret); a.status != 401 || a.untraced() != wrong.untraced() || !equalHeaders(a, wrong) {
				t.Errorf("%d right bytes of %d: %d %v %s", n, len(secret), a.status, a.header, a.raw)
			}
		}
	}
}
