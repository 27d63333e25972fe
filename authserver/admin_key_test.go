package authserver_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/internal/timetest"
	"authserver/keys"
	"authserver/verifier"
)

// A revoked key: dead here, and in the log for verifiers, when the call returns; a
// repetition tells them again. Whoever asked is in the key log.
func TestAdminKeyRevoke(t *testing.T) {
	o := operate(t, nil)
	access, _ := signIn(t, o.Server, "orders:read")
	var list authserver.KeyList
	o.call(t, "/key/list", struct{}{}, &list)
	kid := list.Rings[0].Keys[0].KeyID
	if status, code := o.call(t, "/key/revoke", authserver.KeyRef{KeyID: kid}, nil); status != 409 || code != "conflict" {
		t.Errorf("without a reason: %d %s", status, code)
	}
	if introspect(t, o.Server, web, access).body["active"] != true {
		t.Fatal("the token is not active")
	}
	for i := range 2 {
		if status, code := o.call(t, "/key/revoke", authserver.KeyRef{KeyID: kid, Reason: "stolen"}, nil); status != 200 {
			t.Fatal(status, code)
		}
		events, err := o.Store.Tail(t.Context(), "revocations", 0, 0)
		if err != nil || len(events) != i+1 || !strings.Contains(string(events[i].Value), `"kid":"`+kid+`"`) {
			t.Errorf("%d events, %v", len(events), err)
		}
	}
	timetest.AwaitNil(t, func() error { // the other instance reads the key set
		if introspect(t, o.Server, web, access).body["active"] != false {
			return fmt.Errorf("a token of a revoked key is active")
		}
		return nil
	})
	var log authserver.KeyLog
	o.call(t, "/key/log", authserver.KeyLogQuery{Verify: true}, &log)
	named := fmt.Sprintf("(uid %d)", os.Geteuid())
	if !slices.ContainsFunc(log.Entries, func(e keys.Entry) bool {
		return e.Action == keys.ActionRevoke && e.KeyID == kid && e.Reason == "stolen" && strings.Contains(e.Caller, named)
	}) || log.Verified == nil || len(log.Verified.Problems) > 0 {
		t.Errorf("the key log: %+v", log)
	}
	if status, code := o.call(t, "/key/import", authserver.KeyImport{Ring: "ES256", Key: "-----BEGIN CANARY-----"}, nil); status != 400 {
		t.Errorf("no key: %d %s", status, code)
	}
	if strings.Contains(o.log.String(), "CANARY") {
		t.Error("what was given as a private key is in the log")
	}
}

// A leaked key that signs the feed as well does not silence it: another key signs that
// it was revoked, and verifiers that work offline refuse its tokens and no others.
func TestFeedOutlivesItsKey(t *testing.T) {
	o := operate(t, func(c *authserver.Config) {
		c.Resources = append(c.Resources, authserver.Resource{Identifier: "https://other.example.com", Scopes: []string{"other"}, Algorithm: "EdDSA"})
		c.Clients = append(c.Clients, authserver.Client{ClientID: "other", ClientSecret: authservertest.Secret, GrantTypes: []string{"client_credentials"}, Scope: "other"})
	}, "ES256", "EdDSA")
	verifierOf := func(audience string) *verifier.Verifier {
		v, err := verifier.New(t.Context(), verifier.Config{Issuer: o.Issuer, Audience: audience, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v, other := verifierOf(authservertest.Audience), verifierOf("https://other.example.com")
	token, kept := o.clientToken(t, authservertest.ServiceID), o.clientToken(t, "other")
	for who, token := range map[*verifier.Verifier]string{v: token, other: kept} {
		timetest.AwaitNil(t, func() error { _, err := who.Verify(t.Context(), token); return err })
	}
	if status, code := o.call(t, "/key/revoke", authserver.KeyRef{KeyID: kidOf(t, token), Reason: "leaked"}, nil); status != 200 {
		t.Fatalf("%d %s", status, code)
	}
	timetest.AwaitNil(t, func() error {
		_, err := v.Verify(t.Context(), token)
		if refusal := (*verifier.Error)(nil); errors.As(err, &refusal) && (refusal.Reason == verifier.Revoked || refusal.Reason == verifier.UnknownKey) {
			return nil
		}
		return fmt.Errorf("the token of a revoked key: %v", err)
	})
	timetest.AwaitNil(t, func() error {
		if _, err := other.Verify(t.Context(), kept); err != nil || other.Health().Stale >= time.Second {
			return fmt.Errorf("the token of another key: %v, %+v", err, other.Health())
		}
		return nil
	})
}

// What a call has done is told also when nobody can say where it is enforced: a secret
// is shown once.
func TestAdminWaitKeepsTheAnswer(t *testing.T) {
	o := operate(t, nil) // ES256 only, and its next key is too young to sign
	putShop(t, o.Server, false)
	if status, code := o.call(t, "/key/revoke", authserver.KeyRef{KeyID: kidOf(t, o.clientToken(t, authservertest.ServiceID)), Reason: "leaked"}, nil); status != 200 {
		t.Fatalf("%d %s", status, code)
	}
	var answer struct {
		Secret   string                 `json:"client_secret"`
		Enforced authserver.Enforcement `json:"enforced"`
	}
	request := authserver.ClientSecretRequest{ClientRef: authserver.ClientRef{ClientID: "shop"}}
	if status, code := o.call(t, "/client/secret?wait=enforced", request, &answer); status != 200 || answer.Secret == "" || answer.Enforced.Error == "" {
		t.Errorf("%d %s, %+v", status, code, answer)
	}
}

// clientToken returns a token that a client got for itself.
func (o *operated) clientToken(t *testing.T, client string) string {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, o.Issuer+"/token", strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(client, authservertest.Secret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if status, code := read(t, response, &body); status != 200 {
		t.Fatalf("a token: %d %s", status, code)
	}
	return body.AccessToken
}
