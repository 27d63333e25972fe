package authserver_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/internal/timetest"
)

// Of any number who add one username at once, one does, and nothing is left of the others.
func TestAdminUserAddRace(t *testing.T) {
	o := operate(t, nil)
	hash, err := authserver.HashPassword("builder")
	if err != nil {
		t.Fatal(err)
	}
	codes := make([]string, 16)
	var wait sync.WaitGroup
	for i := range codes {
		wait.Go(func() {
			_, codes[i] = o.call(t, "/user/add", authserver.UserAdd{Username: []string{"bob", "BOB "}[i%2], PasswordHash: hash}, nil)
		})
	}
	wait.Wait()
	slices.Sort(codes)
	if codes[0] != "" || codes[1] != "exists" || codes[15] != "exists" {
		t.Errorf("%q", codes)
	}
	var page authserver.UserPage
	o.call(t, "/user/list", authserver.ListQuery{}, &page)
	if len(page.Users) != 2 {
		t.Errorf("%d users are listed, want alice and one bob: %+v", len(page.Users), page.Users)
	}
	if a := post(t, o.Issuer+"/token", web, form("grant_type", "password", "username", "Bob", "password", "builder")); a.status != 200 {
		t.Errorf("bob signs in: %s", a.raw)
	}
	// His name is free when he is gone, and his subject is not given again.
	if status, code := o.call(t, "/user/remove", authserver.UserRef{Username: "bob"}, nil); status != 200 {
		t.Fatal(code)
	}
	var again authserver.UserInfo
	if status, code := o.call(t, "/user/add", authserver.UserAdd{Username: "bob"}, &again); status != 200 || again.Subject == page.Users[1].Subject {
		t.Errorf("bob again: %d %s %s", status, code, again.Subject)
	}
	refused(t, "the new bob has no password", post(t, o.Issuer+"/token", web, form("grant_type", "password", "username", "bob", "password", "builder")), 400, "invalid_grant")
}

// What the configuration says is not changed by calls; what can be laid over it is.
func TestAdminConfigured(t *testing.T) {
	o := operate(t, func(c *authserver.Config) { c.Source = "authserver.yaml" })
	for _, path := range []string{"/client/remove", "/client/disable", "/client/enable", "/client/secret"} {
		if status, code := o.call(t, path, authserver.ClientRef{ClientID: authservertest.WebID}, nil); status != 409 || code != "configured" {
			t.Errorf("%s: %d %s", path, status, code)
		}
	}
	if _, code := o.call(t, "/client/add", map[string]any{"client_id": "web"}, nil); code != "exists" {
		t.Errorf("adding a configured client: %s", code)
	}
	if _, code := o.call(t, "/user/add", authserver.UserAdd{Username: "ALICE"}, nil); code != "exists" {
		t.Errorf("adding a configured user: %s", code)
	}
	alice := authserver.UserRef{Username: "alice"}
	if _, code := o.call(t, "/user/remove", alice, nil); code != "configured" {
		t.Errorf("removing a configured user: %s", code)
	}
	_, refreshToken := signIn(t, o.Server, "orders:read")
	hash, err := authserver.HashPassword("looking-glass")
	if err != nil {
		t.Fatal(err)
	}
	var info authserver.UserInfo
	if _, code := o.call(t, "/user/password", authserver.UserPassword{UserRef: alice, PasswordHash: hash}, &info); code != "" || info.Password != authserver.SourceStore {
		t.Errorf("%s %+v", code, info)
	}
	refused(t, "a token of before the password", refresh(t, o.Server, refreshToken), 400, "invalid_grant")
	try := func(password string) int {
		return post(t, o.Issuer+"/token", web, form("grant_type", "password", "username", "alice", "password", password)).status
	}
	if try(authservertest.Password) != 400 {
		t.Error("the configured password still counts")
	}
	timetest.AwaitNil(t, func() error {
		if status := try("looking-glass"); status != 200 {
			return fmt.Errorf("the new password: %d", status)
		}
		return nil
	})
	for _, path := range []string{"/user/disable", "/user/enable"} {
		want := map[string]int{"/user/disable": 400, "/user/enable": 200}[path]
		if status, code := o.call(t, path, alice, &info); status != 200 || info.Disabled != (want == 400) {
			t.Errorf("%s: %d %s %+v", path, status, code, info)
		}
		timetest.AwaitNil(t, func() error {
			if status := try("looking-glass"); status != want {
				return fmt.Errorf("after %s: %d", path, status)
			}
			return nil
		})
	}
	if strings.Contains(o.log.String(), "$argon2id$") {
		t.Error("a password hash is in the log")
	}
}

// A client's secrets: made by the server, kept as hashes, replaced without a gap.
func TestAdminClientSecrets(t *testing.T) {
	o := operate(t, nil)
	var first, second authserver.ClientSecretAnswer
	if status, code := o.call(t, "/client/add", map[string]any{"client_id": "shop", "grant_types": []string{"client_credentials"}, "scope": "orders:read"}, &first); status != 200 {
		t.Fatal(code)
	}
	own := func(secret string) int {
		return post(t, o.Issuer+"/token", "shop:"+secret, form("grant_type", "client_credentials")).status
	}
	if len(first.ClientSecret) != 43 || own(first.ClientSecret) != 200 {
		t.Errorf("the first secret %q does not work", first.ClientSecret)
	}
	request := authserver.ClientSecretRequest{ClientRef: authserver.ClientRef{ClientID: "shop"}, Overlap: 3600}
	o.call(t, "/client/secret", request, &second)
	timetest.AwaitNil(t, func() error {
		if own(first.ClientSecret) != 200 || own(second.ClientSecret) != 200 {
			return fmt.Errorf("while secrets overlap, one of them does not work")
		}
		return nil
	})
	if len(second.Client.Secrets) != 2 || second.Client.Secrets[0].Expires != 0 || second.Client.Secrets[1].Expires == 0 {
		t.Errorf("secrets: %+v", second.Client.Secrets)
	}
	request.Overlap = 0
	o.call(t, "/client/secret", request, &second)
	timetest.AwaitNil(t, func() error {
		if own(first.ClientSecret) != 401 || own(second.ClientSecret) != 200 {
			return fmt.Errorf("without an overlap, an old secret works or the new one does not")
		}
		return nil
	})
	records, err := o.Store.Get(t.Context(), "client/shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{string(records[0].Value), o.log.String()} {
		if strings.Contains(where, first.ClientSecret) || strings.Contains(where, second.ClientSecret) {
			t.Error("a secret is stored or logged in clear")
		}
	}
	for name, c := range map[string]map[string]any{
		"id of a user": {"client_id": claimsOf(t, func() string { a, _ := signIn(t, o.Server, ""); return a }())["sub"]},
		"scope":        {"scope": "unknown:scope"}, "redirect": {"redirect_uris": []string{"http://example.com/"}},
		"its own secret": {"client_secret": "chosen"}, "a bad id": {"client_id": "caf\u00e9"}, "grant": {"grant_types": []string{"implicit"}},
	} {
		if status, code := o.call(t, "/client/add", c, nil); status == 200 {
			t.Errorf("%s was taken (%s)", name, code)
		}
	}
	var public authserver.ClientSecretAnswer
	o.call(t, "/client/add", map[string]any{"client_id": "spa2", "token_endpoint_auth_method": "none", "redirect_uris": []string{"https://spa2.example.com/"}}, &public)
	if public.ClientSecret != "" {
		t.Error("a public client has a secret")
	}
	if _, code := o.call(t, "/client/secret", authserver.ClientRef{ClientID: "spa2"}, nil); code != "conflict" {
		t.Errorf("a secret for a public client: %s", code)
	}
}
