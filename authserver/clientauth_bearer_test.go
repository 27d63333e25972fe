package authserver_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/verifier"

	"github.com/go-jose/go-jose/v4"
)

// verifierServer has the feed for resource servers alone, and two of them: "gateway",
// which has a key and no secret, and is the API; and "monitor", which is none.
func verifierServer(t *testing.T) (s *authservertest.Server, gatewayToken func(scope string) (string, error)) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &private.PublicKey, KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	service := []string{"client_credentials"}
	s = authservertest.New(t, authservertest.Options{Configure: func(c *authserver.Config) {
		c.Revocations = "authenticated"
		c.Resources = append(c.Resources, authserver.Resource{Identifier: "https://other.example.com"})
		c.Clients = append(c.Clients,
			authserver.Client{ClientID: "gateway", JWKS: string(set), GrantTypes: service, Scope: "verifier orders:read", Resource: authservertest.Audience},
			authserver.Client{ClientID: "monitor", ClientSecret: authservertest.Secret, GrantTypes: service, Scope: "verifier orders:read"})
	}})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, (&jose.SignerOptions{}).WithHeader("kid", "1"))
	if err != nil {
		t.Fatal(err)
	}
	return s, func(scope string) (string, error) {
		claims, _ := json.Marshal(map[string]any{"iss": "gateway", "sub": "gateway", "aud": s.Issuer, "jti": rand.Text(), "exp": time.Now().Add(time.Minute).Unix()})
		signed, err := signer.Sign(claims)
		if err != nil {
			return "", err
		}
		assertion, err := signed.CompactSerialize()
		if err != nil {
			return "", err
		}
		response, err := http.PostForm(s.Issuer+"/token", form("grant_type", "client_credentials", "scope", scope,
			"client_assertion_type", assertionType, "client_assertion", assertion))
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		var answer struct {
			AccessToken string `json:"access_token"`
			Scope       string
		}
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Scope != scope {
			return "", fmt.Errorf("%s, scope %q: %v", response.Status, answer.Scope, err)
		}
		return answer.AccessToken, nil
	}
}

func asClient(id string) string { return id + ":" + authservertest.Secret }

// A resource server with a key and no secret follows the feed, and introspects while
// the feed is not known, by an access token for the issuer.
func TestVerifierWithKey(t *testing.T) {
	s, gatewayToken := verifierServer(t)
	token := post(t, s.Issuer+"/token", asClient(authservertest.ServiceID), form("grant_type", "client_credentials")).text("access_token")
	for name, config := range map[string]verifier.Config{
		"feed": {},
		// Where no feed can be had, each token is introspected.
		"introspection": {WhenStale: verifier.Introspect, JWKSURI: s.Issuer + "/.well-known/jwks.json",
			RevocationsURI: s.Issuer + "/nowhere", IntrospectionURI: s.Issuer + "/introspect"},
	} {
		config.Issuer, config.Audience, config.Logger = s.Issuer, authservertest.Audience, slog.New(slog.DiscardHandler)
		config.Token = func(context.Context) (string, error) { return gatewayToken("verifier") }
		v, err := verifier.New(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		verifies(t, name, v, token, "")
		another := post(t, s.Issuer+"/token", asClient(authservertest.ServiceID), form("grant_type", "client_credentials")).text("access_token")
		verifies(t, name, v, another, "")
		post(t, s.Issuer+"/revoke", asClient(authservertest.ServiceID), form("token", another))
		verifies(t, name, v, another, verifier.Revoked)
		verifies(t, name, v, token, "")
	}
	v, err := verifier.New(t.Context(), verifier.Config{Issuer: s.Issuer, Audience: authservertest.Audience, Logger: slog.New(slog.DiscardHandler),
		Token: func(context.Context) (string, error) { return "", errors.New("the vault is shut") }})
	if err != nil {
		t.Fatal(err)
	}
	verifies(t, "no token", v, token, verifier.RevocationsUnavailable)
}

// verifies waits until a token is accepted, or refused for a reason.
func verifies(t *testing.T, name string, v *verifier.Verifier, token string, want verifier.Reason) {
	t.Helper()
	var got verifier.Reason
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		got = ""
		var refusal *verifier.Error
		if _, err := v.Verify(t.Context(), token); errors.As(err, &refusal) {
			got = refusal.Reason
		}
		if got == want {
			return
		}
	}
	t.Fatalf("%s: refused for %q, want %q", name, got, want)
}

// Only a live token of scope verifier, for the issuer, of a client for itself and
// alone in its request lets anybody follow or introspect (RFC 6750 §3.1, RFC 9068 §4).
func TestVerifierTokenRefusals(t *testing.T) {
	s, gatewayToken := verifierServer(t)
	tokenOf := func(id, scope string) string {
		return post(t, s.Issuer+"/token", asClient(id), form("grant_type", "client_credentials", "scope", scope)).text("access_token")
	}
	gateway, err := gatewayToken("verifier")
	if err != nil {
		t.Fatal(err)
	}
	monitor, revoked, orders := tokenOf("monitor", "verifier"), tokenOf("monitor", "verifier"), tokenOf("monitor", "orders:read")
	post(t, s.Issuer+"/revoke", asClient("monitor"), form("token", revoked))
	user := post(t, s.Issuer+"/token", asClient(authservertest.WebID), form("grant_type", "password", "username", authservertest.Username, "password", authservertest.Password))
	another := minted(t, s, "monitor", time.Hour, "https://other.example.com") // none is issued like this
	lost := minted(t, s, authservertest.ServiceID, time.Hour, s.Issuer)        // as from before the scope was taken from it
	const both = `Basic realm="authserver", Bearer realm="authserver", scope="verifier"`
	for _, c := range []struct {
		name, authorization string
		status              int
		challenge           string
	}{
		{"with a key", "Bearer " + gateway, 200, ""},
		{"case of the scheme", "bearer " + gateway, 200, ""},
		{"with a secret", "Bearer " + monitor, 200, ""},
		{"revoked", "Bearer " + revoked, 401, `error="invalid_token"`},
		{"for the issuer, of no scope", "Bearer " + tokenOf(authservertest.APIID, ""), 403, `error="insufficient_scope", scope="verifier"`},
		{"for an API", "Bearer " + orders, 401, `error="invalid_token"`},
		{"a user's", "Bearer " + user.text("access_token"), 401, `error="invalid_token"`},
		{"refresh token", "Bearer " + user.text("refresh_token"), 401, `error="invalid_token"`},
		{"junk", "Bearer junk", 401, `error="invalid_token"`},
		{"empty", "Bearer ", 401, `error="invalid_token"`},
		{"of the scope, for another audience", "Bearer " + another, 401, `error="invalid_token"`},
		{"of the scope, which its client has no more", "Bearer " + lost, 401, `error="invalid_token"`},
		{"signed here, like those two", "Bearer " + minted(t, s, "monitor", time.Hour, s.Issuer), 200, ""},
		{"expired", "Bearer " + minted(t, s, "monitor", -time.Minute, s.Issuer), 401, `error="invalid_token"`},
		{"nothing", "", 401, both},
		{"a wrong secret", "Basic bW9uaXRvcjp3cm9uZw", 401, both},
		{"altered", "Bearer " + monitor[:len(monitor)-8] + "AAAAAAAA", 401, `error="invalid_token"`},
	} {
		for _, endpoint := range []string{"/revocations", "/introspect"} {
			method, body := http.MethodGet, ""
			if endpoint == "/introspect" {
				method, body = http.MethodPost, form("token", orders).Encode()
			}
			request, err := http.NewRequestWithContext(t.Context(), method, s.Issuer+endpoint, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if c.authorization != "" {
				request.Header.Set("Authorization", c.authorization)
			}
			var response *http.Response
			for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				request.Body, _ = request.GetBody()
				if response, err = http.DefaultClient.Do(request); err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
				if response.StatusCode != http.StatusServiceUnavailable || time.Now().After(deadline) { // the log is being read
					break
				}
			}
			challenge := strings.Join(response.Header.Values("WWW-Authenticate"), ", ")
			if response.StatusCode != c.status || !strings.Contains(challenge, c.challenge) {
				t.Errorf("%s at %s: %s %q, want %d %q", c.name, endpoint, response.Status, challenge, c.status, c.challenge)
			}
		}
	}
	// A resource server learns about tokens for it, others about their own.
	for _, c := range []struct {
		caller, token string
		active        bool
	}{{gateway, orders, true}, {gateway, user.text("access_token"), true}, {monitor, orders, true}, {monitor, user.text("access_token"), false}} {
		if active := introspectedBy(t, s, c.caller, "token", c.token)["active"]; active != c.active {
			t.Errorf("introspection says active=%v, want %v", active, c.active)
		}
	}
	for _, beside := range [][]string{{"client_id", "monitor"}, {"client_id", "gateway", "client_secret", authservertest.Secret}, {"client_assertion", "x"}} {
		if refused := introspectedBy(t, s, gateway, append(beside, "token", orders)...); refused["error"] != "invalid_request" {
			t.Errorf("a token beside %s: %v", beside[0], refused)
		}
	}
	// The scope is not part of what a client gets when it asks for none.
	if answer := post(t, s.Issuer+"/token", asClient("monitor"), form("grant_type", "client_credentials")); answer.text("scope") != "orders:read" {
		t.Errorf("without a scope: %s", answer.raw)
	}
	if answer := post(t, s.Issuer+"/token", asClient("monitor"), form("grant_type", "client_credentials", "scope", "verifier", "resource", authservertest.Audience)); answer.text("error") != "invalid_scope" {
		t.Errorf("the scope for an API: %s", answer.raw)
	}
	if answer := post(t, s.Issuer+"/token", asClient(authservertest.ServiceID), form("grant_type", "client_credentials", "scope", "verifier")); answer.text("error") != "invalid_scope" {
		t.Errorf("a client without the scope: %s", answer.raw)
	}
}

// minted is a token of scope verifier that the server's key signs and nobody was issued.
func minted(t *testing.T, s *authservertest.Server, clientID string, life time.Duration, audience string) string {
	t.Helper()
	now := time.Now()
	payload, err := json.Marshal(map[string]any{"iss": s.Issuer, "sub": clientID, "client_id": clientID, "aud": audience, "scope": "verifier",
		"jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(life).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Keys.Sign("ES256", "at+jwt", payload)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A stream of the feed ends with the token that let it in, when that expires or is
// revoked, and with no other.
func TestFeedEndsWithItsToken(t *testing.T) {
	s, _ := verifierServer(t)
	tokenOf := func() string {
		return post(t, s.Issuer+"/token", asClient("monitor"), form("grant_type", "client_credentials", "scope", "verifier")).text("access_token")
	}
	follow := func(token string) *bufio.Scanner {
		for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Issuer+"/revocations", nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Authorization", "Bearer "+token)
			request.Header.Set("Accept", "text/event-stream")
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { response.Body.Close() })
			switch response.StatusCode {
			case http.StatusOK:
				return bufio.NewScanner(response.Body)
			case http.StatusUnauthorized:
				return nil
			}
			if response.StatusCode != http.StatusServiceUnavailable || time.Now().After(deadline) { // the log is being read
				t.Fatal(response.Status)
			}
		}
	}
	ends := func(name string, stream *bufio.Scanner) {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); stream.Scan(); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the stream goes on", name)
			}
		}
	}
	revokedToken := tokenOf()
	others, revoked := follow(tokenOf()), follow(revokedToken)
	if others == nil || revoked == nil {
		t.Fatal("a good token is refused")
	}
	var lines atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for others.Scan() {
			lines.Add(1)
		}
	}()
	post(t, s.Issuer+"/revoke", asClient("monitor"), form("token", revokedToken))
	ends("revoked", revoked)
	var expires time.Time
	var expiring *bufio.Scanner
	for life := 2 * time.Second; expiring == nil; life *= 2 { // it may have expired before it gets there
		expires = time.Now().Add(life).Truncate(time.Second)
		expiring = follow(minted(t, s, "monitor", life, s.Issuer))
	}
	ends("expired", expiring)
	if time.Now().Before(expires) {
		t.Error("the stream ended before its token")
	}
	for before, deadline := lines.Load(), time.Now().Add(60*time.Second); lines.Load() == before; time.Sleep(10 * time.Millisecond) {
		select {
		case <-ended:
			t.Fatal("the stream of a token that lives has ended")
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("the stream of a token that lives is silent")
		}
	}
}

func introspectedBy(t *testing.T, s *authservertest.Server, caller string, parameters ...string) (answer map[string]any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Issuer+"/introspect", strings.NewReader(form(parameters...).Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Authorization", "Bearer "+caller)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// The scope belongs to the issuer, and to clients that have no users.
func TestVerifierScopeIsChecked(t *testing.T) {
	config := authservertest.Config("https://auth.example.com")
	config.Resources[0].Scopes = append(config.Resources[0].Scopes, "verifier")
	config.Clients = append(config.Clients, authserver.Client{ClientID: "app", ClientSecret: authservertest.Secret,
		GrantTypes: []string{"client_credentials", "password"}, Scope: "verifier"})
	var found []string
	for _, problem := range config.Check() {
		if strings.Contains(problem.Text, `"verifier"`) {
			found = append(found, problem.Key)
		}
	}
	want := []string{fmt.Sprintf("resources[0].scopes[%d]", len(config.Resources[0].Scopes)-1), fmt.Sprintf("clients[%d].scope", len(config.Clients)-1)}
	if !slices.Equal(found, want) {
		t.Errorf("found %v, want %v", found, want)
	}
}
