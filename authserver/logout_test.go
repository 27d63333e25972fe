package authserver_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"authserver/authserver/authservertest"
)

// idToken is an ID token of the server.
func idToken(t *testing.T, s *authservertest.Server, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": s.Issuer, "aud": "shop", "iat": time.Now().Unix(), "exp": time.Now().Add(-time.Hour).Unix()}
	for name, value := range claims {
		all[name] = value
	}
	payload, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Keys.Sign(s.Keys.Default(), "JWT", payload)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func logoutURL(s *authservertest.Server, more ...string) string {
	values := make(url.Values)
	for i := 0; i < len(more); i += 2 {
		values.Set(more[i], more[i+1])
	}
	return s.Issuer + "/logout?" + values.Encode()
}

// The modules of the OpenID Foundation's plan for RP-initiated logout, by their names
// (ATTACKS §8, BR-12, BR-13, RU-22).
func TestRPInitiatedLogout(t *testing.T) {
	const bye = "https://web.example.com/bye"
	s := pagesServer(t, nil)
	sub := claimsOf(t, accessOf(t, s))["sub"].(string)
	good := idToken(t, s, map[string]any{"sub": sub})
	signedIn := func() *visitor {
		v := newVisitor(t)
		answered(t, v.signIn(v.get(authorizeURL(s, "own")), "alice", authservertest.Password), "")
		return v
	}
	gone := func(v *visitor, want bool) {
		t.Helper()
		page := v.get(authorizeURL(s, "own", "prompt", "none"))
		if want {
			answered(t, page, "login_required")
		} else {
			answered(t, page, "")
		}
	}
	sent := func(page shown, to string) {
		t.Helper()
		if page.status != 303 || page.to != to {
			t.Fatalf("%d to %q, want %q: %s", page.status, page.to, to, page.text())
		}
	}
	// A page on which nobody is sent anywhere, and nobody signed out.
	refused := func(v *visitor, page shown, text string) {
		t.Helper()
		if page.expect(t, 400, text); page.to != "" {
			t.Errorf("sent to %s", page.to)
		}
		gone(v, false)
	}
	for _, test := range []struct {
		name string
		run  func(v *visitor)
	}{
		{"oidcc-rp-initiated-logout", func(v *visitor) {
			sent(v.get(logoutURL(s, "id_token_hint", good, "post_logout_redirect_uri", bye, "state", "a&b")), bye+"?state=a%26b")
			gone(v, true)
		}},
		{"by POST from another site", func(v *visitor) {
			v.header = map[string][]string{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://web.example.com"}}
			sent(v.post(s.Issuer+"/logout", url.Values{"id_token_hint": {good}, "post_logout_redirect_uri": {bye}}), bye)
			gone(v, true)
		}},
		{"a query that is kept", func(v *visitor) {
			sent(v.get(logoutURL(s, "id_token_hint", good, "post_logout_redirect_uri", bye+"?kept=1", "state", "x")), bye+"?kept=1&state=x")
		}},
		{"oidcc-rp-initiated-logout-bad-post-logout-redirect-uri", func(v *visitor) {
			refused(v, v.get(logoutURL(s, "id_token_hint", good, "post_logout_redirect_uri", "https://web.example.com/other")), "not registered")
		}},
		{"oidcc-rp-initiated-logout-query-added-to-post-logout-redirect-uri", func(v *visitor) {
			refused(v, v.get(logoutURL(s, "id_token_hint", good, "post_logout_redirect_uri", bye+"?x=1")), "not registered")
		}},
		{"oidcc-rp-initiated-logout-modified-id-token-hint", func(v *visitor) {
			modified := good[:len(good)-8] + "AAAAAAAA"
			refused(v, v.get(logoutURL(s, "id_token_hint", modified, "post_logout_redirect_uri", bye)), "not an ID token")
		}},
		{"oidcc-rp-initiated-logout-bad-id-token-hint", func(v *visitor) {
			refused(v, v.get(logoutURL(s, "id_token_hint", "eyJhbGciOiJub25lIn0.e30.", "post_logout_redirect_uri", bye)), "not an ID token")
			refused(v, v.get(logoutURL(s, "id_token_hint", idToken(t, s, map[string]any{"sub": sub, "iss": "https://evil.example"}))), "not an ID token")
			refused(v, v.get(logoutURL(s, "id_token_hint", accessOf(t, s))), "not an ID token")
			refused(v, v.get(logoutURL(s, "id_token_hint", good, "client_id", "own")), "issued to another client")
		}},
		{"oidcc-rp-initiated-logout-no-id-token-hint", func(v *visitor) {
			refused(v, v.get(logoutURL(s, "post_logout_redirect_uri", bye, "state", "x")), "needs id_token_hint or client_id")
		}},
		{"client_id in its place", func(v *visitor) { // the user's word confirms it
			page := v.get(logoutURL(s, "client_id", "shop", "post_logout_redirect_uri", bye, "state", "x")).expect(t, 200, "Do you want to sign out?")
			gone(v, false)
			sent(v.submit(page, "sign_out", "decision", "sign_out"), bye+"?state=x")
			gone(v, true)
			v.submit(page, "sign_out", "decision", "sign_out").expect(t, 200, "You are signed out") // pressed twice
		}},
		{"oidcc-rp-initiated-logout-no-params", func(v *visitor) {
			page := v.get(logoutURL(s)).expect(t, 200, "Do you want to sign out?")
			gone(v, false)
			v.submit(page, "sign_out", "decision", "stay").expect(t, 200, "Hello, alice")
			v.submit(page, "sign_out", "decision", "sign_out").expect(t, 200, "You are signed out")
			gone(v, true)
		}},
		{"oidcc-rp-initiated-logout-no-post-logout-redirect-uri", func(v *visitor) {
			v.get(logoutURL(s, "id_token_hint", good, "state", "x")).expect(t, 200, "You are signed out")
			gone(v, true)
		}},
		{"oidcc-rp-initiated-logout-no-state", func(v *visitor) {
			sent(v.get(logoutURL(s, "id_token_hint", good, "post_logout_redirect_uri", bye)), bye)
		}},
		{"oidcc-rp-initiated-logout-only-state", func(v *visitor) {
			v.get(logoutURL(s, "state", "x")).expect(t, 200, "Do you want to sign out?")
			gone(v, false)
		}},
		{"the hint of another session or user", func(v *visitor) {
			v.get(logoutURL(s, "id_token_hint", idToken(t, s, map[string]any{"sub": sub, "sid": "another"}))).expect(t, 200, "Do you want to sign out?")
			v.get(logoutURL(s, "id_token_hint", idToken(t, s, map[string]any{"sub": "another"}))).expect(t, 200, "Do you want to sign out?")
			gone(v, false)
		}},
		{"without a session", func(*visitor) {
			v := newVisitor(t)
			sent(v.get(logoutURL(s, "id_token_hint", good, "post_logout_redirect_uri", bye, "state", "x")), bye+"?state=x")
			v.get(logoutURL(s)).expect(t, 200, "You are signed out")
		}},
		{"a parameter twice", func(v *visitor) {
			refused(v, v.get(logoutURL(s, "state", "x")+"&state=y"), "more than once")
		}},
		{"a foreign form", func(v *visitor) {
			page := v.get(logoutURL(s))
			action, values := page.form(t, "sign_out", "decision", "sign_out")
			v.get(action+"?"+values.Encode()).expect(t, 403, "not ours")
			v.header = map[string][]string{"Sec-Fetch-Site": {"cross-site"}}
			v.post(action, values).expect(t, 403, "not ours")
			v.header = map[string][]string{"Sec-Fetch-Site": {"same-origin"}}
			values.Set("form_token", strings.Repeat("A", 43))
			v.post(action, values).expect(t, 403, "not ours")
			gone(v, false)
		}},
	} {
		t.Run(test.name, func(*testing.T) { test.run(signedIn()) })
	}
	// ATTACKS RU-22: the forms of a redirect URI that are not the registered one.
	v := signedIn()
	for _, uri := range []string{"https://web.example.com/bye/", "https://web.example.com/BYE", "HTTPS://web.example.com/bye", "https://web.example.com:443/bye",
		"https://web.example.com/./bye", "https://web.example.com@evil.example/bye", "https://web.example.com/bye?", "https://web.example.com/bye#x", "//evil.example",
		"javascript:alert(1)", "https://web.example.com/b%79e", "/bye", "\\evil",
		"https://web.example.com/bye2", "https://web.example.com/by", "https://web.example.com./bye", "https://web.example.com/bye/../evil", "https://web.example.com/bye/%2e%2e/evil",
		"https://web.example.com/bye/..;/evil", "https://web.example.com/bye//", "https://web.example.com/bye%2f", `https://web.example.com\@evil.example/bye`, "https://a@b@evil.example/",
		"https://web.example.com/bye?kept=1&x=2", "https://web.example.com/bye?%6bept=1", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "file:///bye", "about:blank",
		"http://web.example.com/bye", "http://127.0.0.1/bye", "http://127.0.0.1:4000/bye", "https://web.example.com:8443/bye", "web:/bye", "https://*.example.com/bye",
		"https://web。example.com/bye", "https://web.example.com⁄bye", "https://web.example.com/ bye"} {
		refused(v, v.get(logoutURL(s, "id_token_hint", good, "post_logout_redirect_uri", uri)), "not registered")
	}
}

// accessOf returns an access token of alice, by the password grant.
func accessOf(t *testing.T, s *authservertest.Server) string {
	t.Helper()
	access, _ := signIn(t, s, "orders:read")
	return access
}

// oidcc-rp-initiated-logout-discovery-endpoint-verification, and those of the back
// and front channel.
func TestLogoutMetadata(t *testing.T) {
	s := pagesServer(t, nil)
	var document map[string]any
	if err := json.Unmarshal([]byte(newVisitor(t).get(s.Issuer+"/.well-known/openid-configuration").body), &document); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"end_session_endpoint": s.Issuer + "/logout", "backchannel_logout_supported": true,
		"backchannel_logout_session_supported": true, "frontchannel_logout_supported": true, "frontchannel_logout_session_supported": true} {
		if document[name] != want {
			t.Errorf("%s is %v, want %v", name, document[name], want)
		}
	}
}
