package authserver_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
)

// Each decision is one record in the log, and what follows from it one record each:
// docs/audit.md. What is done by nobody's request (deliveries, changes of keys by their
// plan, the store) is tested where it is done.
func TestDecisionsAreRecorded(t *testing.T) {
	o := operate(t, func(c *authserver.Config) {
		const scope = "openid orders:read"
		code := []string{"authorization_code", "refresh_token"}
		window := withRetryWindow(0)
		window(c)
		c.Clients = append(c.Clients,
			authserver.Client{ClientID: "asks", ClientSecret: authservertest.Secret, Scope: scope, GrantTypes: code, RedirectURIs: []string{webCallback}},
			authserver.Client{ClientID: "own", ClientSecret: authservertest.Secret, Scope: scope, GrantTypes: code, SkipConsent: true, RedirectURIs: []string{webCallback}})
		bob := c.Users[0]
		bob.Username = "bob"
		c.Users = append(c.Users, bob)
	})
	s, token := o.Server, o.Issuer+"/token"
	seen := len(o.log.String())
	since := func() (records []map[string]any, events []string) {
		text := o.log.String()
		for line := range strings.Lines(text[seen:]) {
			var record map[string]any
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				t.Fatal(err, line)
			}
			// Keys also change by their plan, at any time.
			if event, is := record["event"].(string); is && (event != "key" || strings.Contains(text[seen:], `"action":"key `)) {
				records, events = append(records, record), append(events, event)
			}
		}
		seen = len(text)
		return records, events
	}
	// decision does something, which has to leave these records in this order.
	decision := func(what string, do func(), want ...string) []map[string]any {
		t.Helper()
		since()
		do()
		records, got := since()
		if !slices.Equal(got, want) {
			t.Errorf("%s: the records are %q, want %q: %v", what, got, want, records)
			return make([]map[string]any, len(want))
		}
		return records
	}
	has := func(record map[string]any, pairs ...string) {
		t.Helper()
		for i := 0; i < len(pairs); i += 2 {
			if record[pairs[i]] != pairs[i+1] {
				t.Errorf("%s is not %q in %v", pairs[i], pairs[i+1], record)
			}
		}
	}
	codeOf := func(page shown) string {
		t.Helper()
		answered(t, page, "")
		u, _ := url.Parse(page.to)
		return u.Query().Get("code")
	}

	// Signing in, and what clients get.
	v := newVisitor(t)
	page := v.get(authorizeURL(s, "asks"))
	decision("a wrong password", func() { v.signIn(page, "alice", "wrong-password") }, "sign_in_refused")
	decision("no such account", func() { v.signIn(page, "carol", "wrong-password") }, "sign_in_refused")
	records := decision("a right password", func() { page = v.signIn(page, "alice", authservertest.Password) }, "sign_in", "session")
	has(records[0], "method", "password", "address", "127.0.0.1")
	var code string
	records = decision("consent", func() { code = codeOf(v.submit(page, "decision", "decision", "allow")) }, "consent", "authorization")
	grantID, _ := records[1]["grant_id"].(string)
	page = v.get(authorizeURL(s, "asks", "prompt", "consent"))
	records = decision("no consent", func() { answered(t, v.submit(page, "decision", "decision", "deny"), "access_denied") }, "refused")
	has(records[0], "endpoint", "authorize", "client_id", "asks", "error", "access_denied")
	decision("no consent where nobody may be asked", func() { answered(t, newVisitor(t).get(authorizeURL(s, "asks", "prompt", "none")), "login_required") }, "refused")
	decision("a redirect URI of somebody else", func() { v.get(authorizeURL(s, "asks", "redirect_uri", "https://evil.example/")) }, "refused")

	exchange := func(code string) answer {
		return post(t, token, "asks:"+authservertest.Secret, form("grant_type", "authorization_code", "code", code,
			"redirect_uri", webCallback, "code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"))
	}
	var got answer
	records = decision("a code", func() { got = exchange(code) }, "token")
	has(records[0], "grant_type", "authorization_code", "grant_id", grantID, "client_id", "asks")
	renew := func(refreshToken string) answer {
		return post(t, token, "asks:"+authservertest.Secret, form("grant_type", "refresh_token", "refresh_token", refreshToken))
	}
	first := got.text("refresh_token")
	records = decision("a refresh", func() { got = renew(first) }, "token")
	has(records[0], "grant_type", "refresh_token", "grant_id", grantID)
	records = decision("a stolen refresh token", func() { renew(first) }, "refresh_theft", "revocation")
	has(records[0], "grant_id", grantID, "address", "127.0.0.1")
	has(records[1], "grant_id", grantID, "reason", "refresh_theft")
	records = decision("a refresh of what has ended", func() { renew(got.text("refresh_token")) }, "refused")
	has(records[0], "endpoint", "token", "client_id", "asks", "error", "invalid_grant")
	records = decision("a code, twice", func() { exchange(code) }, "code_replay", "revocation")
	has(records[0], "address", "127.0.0.1")
	decision("the client itself", func() { post(t, token, service, form("grant_type", "client_credentials")) }, "token")
	decision("a wrong secret", func() { post(t, token, "service:wrong-secret-0123", form("grant_type", "client_credentials")) }, "refused")
	records = decision("a password, by a client", func() {
		got = post(t, token, web, form("grant_type", "password", "username", "bob", "password", authservertest.Password))
	},
		"sign_in", "token")
	has(records[0], "client_id", "web")
	decision("a wrong password, by a client", func() {
		post(t, token, web, form("grant_type", "password", "username", "bob", "password", "wrong-password"))
	}, "sign_in_refused")

	// Revocation and what is asked about tokens.
	revoke := func(client, token string) func() {
		return func() { post(t, s.Issuer+"/revoke", client, form("token", token)) }
	}
	records = decision("revocation by another client", revoke(service, got.text("access_token")), "refused")
	has(records[0], "endpoint", "revoke", "client_id", "service")
	decision("introspection", func() { introspect(t, s, web, got.text("access_token")) })
	decision("introspection by nobody", func() {
		post(t, s.Issuer+"/introspect", "web:wrong-secret-0123", form("token", got.text("access_token")))
	}, "refused")
	decision("revocation of an access token", revoke(web, got.text("access_token")), "revocation", "revoke")
	decision("revocation of a refresh token", revoke(web, got.text("refresh_token")), "revocation", "revoke")
	decision("userinfo with a token that has ended", func() {
		post(t, s.Issuer+"/userinfo", "", form("access_token", got.text("access_token")))
	}, "refused")

	// The account page.
	account := func() shown { return v.get(s.Issuer + "/account") }
	password := func(current, repeated string) func() {
		return func() {
			v.submit(account(), "change_password", "current_password", current, "new_password", "longenough", "repeat_password", repeated)
		}
	}
	decision("two new passwords that differ", password(authservertest.Password, "longenougg"), "refused")
	decision("a wrong present password", password("wrong-password", "longenough"), "sign_in_refused")
	records = decision("a new password", password(authservertest.Password, "longenough"), "sign_in", "account")
	has(records[1], "action", "change_password")
	elsewhere := newVisitor(t)
	elsewhere.signIn(elsewhere.get(s.Issuer+"/account"), "alice", "longenough")
	records = decision("another session", func() { v.submit(account(), "end_session") }, "revocation", "logout", "account")
	has(records[1], "reason", "ended_by_user")
	renewed := exchange(codeOf(v.get(authorizeURL(s, "asks"))))
	if renewed.status != 200 {
		t.Fatal(renewed.raw)
	}
	decision("an app", func() { v.submit(account(), "end_app") }, "consent_revoked", "revocation", "account")
	var used string
	var recovery []string
	records = decision("a first second factor", func() { used, _, recovery = enrolTOTP(t, v, s.Issuer) }, "refused", "account")
	has(records[1], "action", "confirm_totp")
	second := newVisitor(t)
	half := second.signIn(second.get(authorizeURL(s, "own")), "alice", "longenough")
	decision("a code twice", func() { second.submit(half, `name="code"`, "code", used) }, "second_factor_refused")
	records = decision("a recovery code", func() { answered(t, second.submit(half, `name="code"`, "code", recovery[0]), "") },
		"second_factor", "session", "authorization")
	has(records[0], "method", "recovery_code")
	decision("new recovery codes", func() { second.submit(second.get(s.Issuer+"/account"), "renew_codes") }, "account")
	decision("no second factor", func() { second.submit(second.get(s.Issuer+"/account"), "remove_totp") }, "account")
	decision("signing out", func() { second.submit(second.get(s.Issuer+"/logout"), "decision", "decision", "sign_out") }, "revocation", "logout")

	// Operators.
	call := func(path string, request, answer any) func() {
		return func() {
			if status, code := o.call(t, path, request, answer); status != 200 {
				t.Errorf("%s: %d %s", path, status, code)
			}
		}
	}
	decision("client add", call("/client/add", map[string]any{"client_id": "shop", "grant_types": []string{"client_credentials"}, "scope": "orders:read"}, nil), "admin")
	records = decision("client disable", call("/client/disable", authserver.ClientRef{ClientID: "shop", Reason: "late"}, nil), "revocation", "admin")
	has(records[1], "action", "client disable", "whom", "shop", "why", "late", "result", "ok")
	decision("client enable", call("/client/enable", authserver.ClientRef{ClientID: "shop"}, nil), "admin")
	decision("client remove", call("/client/remove", authserver.ClientRef{ClientID: "shop"}, nil), "revocation", "admin")
	decision("client remove, of none", func() { o.call(t, "/client/remove", authserver.ClientRef{ClientID: "shop"}, nil) }, "admin")
	var added authserver.UserInfo
	decision("user add", call("/user/add", authserver.UserAdd{Username: "dave"}, &added), "admin")
	dave := authserver.UserRef{Username: "dave"}
	decision("user disable", call("/user/disable", dave, nil), "revocation", "admin")
	decision("user enable", call("/user/enable", dave, nil), "admin")
	decision("user remove", call("/user/remove", dave, nil), "revocation", "admin")
	_, kept := signInAs(t, s, "bob")
	decision("grant revoke", call("/grant/revoke", authserver.GrantRevoke{UserRef: authserver.UserRef{Username: "bob"}}, nil), "revocation", "admin")
	decision("a refresh after that", func() { refresh(t, s, kept) }, "refused")
	var keys authserver.KeyList
	decision("key list", call("/key/list", struct{}{}, &keys), "admin")
	since()
	kid := kidOf(t, o.clientToken(t, authservertest.ServiceID))
	call("/key/revoke", authserver.KeyRef{KeyID: kid, Reason: "leaked"}, nil)()
	last := make(map[any]map[string]any)
	records, _ = since()
	for _, record := range records {
		if record["event"] != "key" || record["kid"] == kid {
			last[record["event"]] = record
		}
	}
	has(last["key"], "to", "compromised")
	has(last["revocation"], "kid", kid, "reason", "leaked")
	has(last["admin"], "action", "key revoke", "why", "leaked", "result", "ok")
}

func signInAs(t *testing.T, s *authservertest.Server, username string) (access, refresh string) {
	t.Helper()
	a := post(t, s.Issuer+"/token", web, form("grant_type", "password", "username", username, "password", authservertest.Password))
	if a.status != 200 {
		t.Fatal(a.raw)
	}
	return a.text("access_token"), a.text("refresh_token")
}
