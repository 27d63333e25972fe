package verifier_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"authserver/verifier"
	"authserver/verifier/verifiertest"
)

// ATTACKS JW-32: whatever is sent, no panic, a reason for every refusal, and no
// token but the good one is accepted, be it in the cache or not.
func FuzzVerify(f *testing.F) {
	issuer := verifiertest.New(f)
	v := issuer.Verifier(f, audience)
	good := issuer.Token(verifiertest.Claims{"aud": audience})
	f.Add(good)
	for _, wrong := range issuer.WrongTokens(audience) {
		f.Add(wrong)
	}
	f.Fuzz(func(t *testing.T, token string) {
		reason := reasonOf(t, v, token)
		// Another signature of the same content could be a good one, too.
		if reason == "" && !strings.HasPrefix(token, good[:strings.LastIndexByte(good, '.')+1]) {
			t.Fatalf("%q is accepted", token)
		}
	})
}

// Whatever the Authorization header and the query, no panic and never an open door.
func FuzzRequest(f *testing.F) {
	issuer := verifiertest.New(f)
	v := issuer.Verifier(f, audience)
	good := issuer.Token(verifiertest.Claims{"aud": audience})
	for _, seed := range []string{"Bearer", "Bearer ", "bearer " + "x", "Bearer\tx", "Bearer a, Bearer b", "Basic eDp5", "DPoP x", "Bearer,DPoP x"} {
		f.Add(seed, "")
	}
	f.Add("Bearer x", "access_token=x")
	f.Fuzz(func(t *testing.T, header, query string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.RawQuery = query
		r.Header["Authorization"] = []string{header}
		w := ask(v.Require(), r)
		if w.Code == 204 && !strings.HasSuffix(strings.TrimRight(header, " "), good) {
			t.Fatalf("%q %q comes in", header, query)
		}
		if challenge := w.Header().Get("WWW-Authenticate"); w.Code != 204 && (!strings.HasPrefix(challenge, "Bearer") || strings.ContainsAny(challenge, "\r\n")) {
			t.Fatalf("%q %q: %d %q", header, query, w.Code, challenge)
		}
		if _, err := v.Authenticate(r, verifier.Requirement{}); err == nil && w.Code != 204 {
			t.Fatal("two answers to one request")
		}
	})
}
