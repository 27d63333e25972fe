package authserver

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/keys"
	"authserver/store/boltstore"
)

// signedIn returns a browser in which alice is signed in.
func signedIn(t *testing.T, s *Server) *browser {
	b := newBrowser(t, s)
	b.signIn("alice-1")
	return b
}

func (b *browser) active(client, token string) bool {
	b.t.Helper()
	return b.ask("POST", "/introspect", client, map[string][]string{"token": {token}}).body["active"] == true
}

// OAuth 2.1 §4.1.3, ATTACKS PK-11: the values of RFC 7636 appendix B.
func TestCodeExchange(t *testing.T) {
	b := signedIn(t, browserServer(t, nil))
	a := b.exchange("web", b.code())
	if a.status != 200 || a.text("token_type") != "Bearer" || a.text("scope") != "openid profile orders:read" || a.text("refresh_token") == "" || a.text("id_token") == "" {
		t.Fatalf("%d %v", a.status, a.body)
	}
	claims, typ := b.verified(a.text("access_token"), "ES256")
	if typ != "at+jwt" || claims["sub"] != "alice-1" || claims["client_id"] != "web" || claims["aud"] != "https://api.example.com" || claims["acr"] != "aal1" ||
		claims["sid"] != b.session().ID || claims["preferred_username"] != "alice" || claims["nonce"] != nil {
		t.Errorf("access token: %v", claims)
	}
	if !b.active("web", a.text("access_token")) || !b.active("web", a.text("refresh_token")) {
		t.Error("the tokens are not active")
	}
	// Without redirect_uri, as OAuth 2.1 has it; with parameters of other grants (AC-14).
	if a := b.exchange("web", b.code(), "redirect_uri", "-"); a.status != 200 {
		t.Errorf("without redirect_uri: %v", a.body)
	}
	if a := b.exchange("web", b.code(), "refresh_token", "x", "scope", "everything", "username", "bob"); a.status != 200 || a.text("scope") != "openid profile orders:read" {
		t.Errorf("with parameters of other grants: %v", a.body)
	}
	// AZ-13: the scope of a token is what was granted, whatever was asked for.
	a = b.exchange("web", b.code("scope", "openid groups orders:read"))
	if claims, _ := b.verified(a.text("access_token"), "ES256"); a.text("scope") != "openid orders:read" || claims["scope"] != "openid orders:read" {
		t.Errorf("of a scope that nobody knows: %v %v", a.body, claims)
	}
	// A client that may not refresh gets no refresh token, even for offline_access.
	a = b.exchange("first", b.code("client_id", "first", "scope", "openid offline_access"))
	if a.status != 200 || a.text("refresh_token") != "" || a.text("scope") != "openid" {
		t.Errorf("without the refresh grant: %v", a.body)
	}
}

// Each refusal, and that none of them spends the code (ATTACKS PK-06 to PK-09, AC-05,
// AC-06, AC-08, RU-19).
func TestCodeRefusals(t *testing.T) {
	b := signedIn(t, browserServer(t, nil))
	code := b.code()
	long := strings.Repeat("a", 129)
	for _, test := range []struct {
		name, client string
		pairs        []string
		want         string
	}{
		{"PK-06 no verifier", "web", []string{"code_verifier", "-"}, "invalid_grant"},
		{"PK-07 empty verifier", "web", []string{"code_verifier", ""}, "invalid_grant"},
		{"PK-07 another verifier", "web", []string{"code_verifier", strings.Replace(testVerifier, "d", "e", 1)}, "invalid_grant"},
		{"PK-07 the challenge as verifier", "web", []string{"code_verifier", testChallenge}, "invalid_grant"},
		{"PK-07 42 characters", "web", []string{"code_verifier", testVerifier[1:]}, "invalid_grant"},
		{"PK-07 129 characters", "web", []string{"code_verifier", long}, "invalid_grant"},
		{"PK-07 NUL", "web", []string{"code_verifier", testVerifier + "\x00"}, "invalid_request"},
		{"AC-05 another client", "first", nil, "invalid_grant"},
		{"AC-06 a public client", "", []string{"client_id", "native"}, "invalid_grant"},
		{"no client", "", nil, "invalid_client"},
		{"RU-19 another redirect_uri", "web", []string{"redirect_uri", testCallback + "/"}, "invalid_grant"},
		{"no code", "web", []string{"code", "-"}, "invalid_request"},
		{"AC-08 cut", "web", []string{"code", code[:len(code)-1]}, "invalid_grant"},
		{"AC-08 longer", "web", []string{"code", code + "A"}, "invalid_grant"},
		{"AC-08 flipped", "web", []string{"code", flip(code)}, "invalid_grant"},
		{"AC-08 another case", "web", []string{"code", strings.ToLower(code)}, "invalid_grant"},
		{"AC-08 padded", "web", []string{"code", code + "=="}, "invalid_grant"},
		{"resource of others", "web", []string{"resource", "https://other.example.com"}, "invalid_target"},
	} {
		if a := b.exchange(test.client, code, test.pairs...); a.text("error") != test.want || a.text("access_token") != "" {
			t.Errorf("%s: %d %v, want %s", test.name, a.status, a.body, test.want)
		}
	}
	// PK-09: the verifier twice, and in the query.
	for name, values := range map[string][]string{"one twice": {testVerifier, testVerifier}, "two": {long, testVerifier}} {
		a := b.token("web", map[string][]string{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {testCallback}, "code_verifier": values})
		if a.text("error") != "invalid_request" {
			t.Errorf("PK-09 %s: %d %v", name, a.status, a.body)
		}
	}
	a := b.ask("POST", "/token?code_verifier="+testVerifier, "web", map[string][]string{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {testCallback}})
	if a.status == 200 || a.text("error") != "invalid_grant" && a.text("error") != "invalid_request" {
		t.Errorf("PK-09 in the query: %d %v", a.status, a.body)
	}
	if a := b.exchange("web", code); a.status != 200 {
		t.Errorf("after all refusals the code is dead: %v", a.body)
	}
	// AC-08: whichever character is another one.
	for i := range code {
		for _, other := range []byte("AB_") {
			if changed := code[:i] + string(other) + code[i+1:]; changed != code {
				if _, err := b.server.openCode(changed); err == nil {
					t.Errorf("AC-08: character %d may be %c", i, other)
				}
			}
		}
	}
	for _, nonce := range []string{"n", "nn", "nnn"} { // with 0, 2 and 4 bits behind the last byte
		code, alphabet := b.code("nonce", nonce), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		last := strings.IndexByte(alphabet, code[len(code)-1])
		if _, err := b.server.openCode(code[:len(code)-1] + string(alphabet[last^1])); err == nil {
			t.Errorf("AC-08: a code of %d characters has another spelling", len(code))
		}
	}
	// PK-08: the challenge was taken out of the request on its way.
	exempt := []string{"client_id", "first", "code_challenge", "-", "code_challenge_method", "-"}
	code = b.code(exempt...)
	if a := b.exchange("first", code); a.text("error") != "invalid_request" {
		t.Errorf("a verifier without challenge: %v", a.body)
	}
	if a := b.exchange("first", code, "code_verifier", "-", "redirect_uri", "-"); a.text("error") != "invalid_request" {
		t.Errorf("neither PKCE nor redirect_uri: %v", a.body)
	}
	if a := b.exchange("first", code, "code_verifier", "-"); a.status != 200 {
		t.Errorf("an exempt client: %v", a.body)
	}
}

func flip(code string) string {
	i := len(code) / 2
	replacement := "A"
	if code[i] == 'A' {
		replacement = "B"
	}
	return code[:i] + replacement + code[i+1:]
}

// ATTACKS AC-01, AC-04: a replay by whoever could redeem the code ends what it was
// exchanged for; any other is only refused.
func TestCodeReplay(t *testing.T) {
	b := signedIn(t, browserServer(t, nil))
	code := b.code()
	first := b.exchange("web", code)
	if first.status != 200 {
		t.Fatal(first.body)
	}
	alive := func() bool {
		return b.active("web", first.text("access_token")) && b.active("web", first.text("refresh_token"))
	}
	for name, a := range map[string]tokenAnswer{
		"wrong verifier": b.exchange("web", code, "code_verifier", strings.Repeat("v", 43)), "another client": b.exchange("first", code),
		"no client": b.exchange("", code), "another redirect": b.exchange("web", code, "redirect_uri", "https://evil.example/"),
		"wrong secret": b.exchange("", code, "client_id", "web", "client_secret", testSecret+"x"),
	} {
		if a.status == 200 || !alive() {
			t.Errorf("%s: %v, the tokens live: %t", name, a.body, alive())
		}
	}
	if a := b.exchange("web", code); a.text("error") != "invalid_grant" {
		t.Errorf("the replay: %v", a.body)
	}
	if b.active("web", first.text("access_token")) || b.active("web", first.text("refresh_token")) {
		t.Error("the tokens outlive the replay")
	}
	if a := b.ask("GET", "/userinfo", "Bearer "+first.text("access_token"), nil); a.status != 401 {
		t.Errorf("userinfo after the replay: %d", a.status)
	}
	refresh := b.token("web", map[string][]string{"grant_type": {"refresh_token"}, "refresh_token": {first.text("refresh_token")}})
	if refresh.text("error") != "invalid_grant" {
		t.Errorf("refreshed after the replay: %v", refresh.body)
	}
}

// ATTACKS AC-03, I2: of 200 parallel redemptions at two instances one succeeds, and
// since the others knew all that the client knows, what it got is dead.
func TestParallelRedemptions(t *testing.T) {
	s := browserServer(t, nil)
	b := signedIn(t, s)
	instances := []*browser{b, newBrowser(t, browserServerWith(t, s, nil))}
	code := b.code()
	answers := make([]tokenAnswer, 200)
	var wait sync.WaitGroup
	for i := range answers {
		wait.Go(func() { answers[i] = instances[i%2].exchange("web", code) })
	}
	wait.Wait()
	successes := 0
	for _, a := range answers {
		switch {
		case a.status == 200:
			successes++
			if b.active("web", a.text("access_token")) || b.active("web", a.text("refresh_token")) {
				t.Error("the tokens outlive the replays")
			}
		case a.text("error") != "invalid_grant":
			t.Errorf("%d %v", a.status, a.body)
		}
	}
	if successes != 1 {
		t.Errorf("%d redemptions succeeded", successes)
	}
}

// The same in the one order that parallel requests seldom take: the replay has made
// its mark and found no grant to end yet.
func TestReplayDuringRedemption(t *testing.T) {
	b := signedIn(t, browserServer(t, nil))
	code := b.code()
	opened, err := b.server.openCode(code)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.server.store.Create(t.Context(), endedGrantKey(opened.GrantID), nil, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	a := b.exchange("web", code)
	if a.status != 200 || b.active("web", a.text("access_token")) || b.active("web", a.text("refresh_token")) {
		t.Errorf("%d %v, and the tokens live", a.status, a.body)
	}
}

// ATTACKS AC-07: a code is good for 59 s, and not for 61.
func TestCodeLifetime(t *testing.T) {
	b := signedIn(t, browserServer(t, nil))
	reseal := func(age time.Duration) string {
		opened, err := b.server.openCode(b.code())
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(time.UnixMilli(opened.Expires)); left > time.Minute || left < 50*time.Second {
			t.Errorf("a new code lives for %s", left)
		}
		opened.Expires -= age.Milliseconds()
		sealed, err := b.server.sealCode(opened)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	if a := b.exchange("web", reseal(0)); a.status != 200 {
		t.Errorf("a new code: %v", a.body)
	}
	for deadline := time.Now().Add(time.Minute); ; { // again when the second that is left was not enough
		begun := time.Now()
		a := b.exchange("web", reseal(59*time.Second))
		if a.status == 200 {
			break
		}
		if time.Since(begun) < 900*time.Millisecond || time.Now().After(deadline) {
			t.Fatalf("after 59 s: %v", a.body)
		}
	}
	if a := b.exchange("web", reseal(61*time.Second)); a.text("error") != "invalid_grant" {
		t.Errorf("after 61 s: %v", a.body)
	}
}

// sampleOf is how many are drawn where a million are asked for: `make statistics`
// draws them, other tests fewer.
func sampleOf(t *testing.T, fewer int) int {
	t.Helper()
	text := os.Getenv("AUTHSERVER_TEST_SAMPLE")
	if text == "" {
		return fewer
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < fewer {
		t.Fatalf("AUTHSERVER_TEST_SAMPLE is %q", text)
	}
	return n
}

// ATTACKS AC-09: codes are all different and alike in form, and show nothing of what
// is in them. That the store never sees one: TestAttackLG04.
func TestAttackAC09(t *testing.T) {
	b := signedIn(t, browserServer(t, nil))
	seen := make(map[[24]byte]bool) // the nonces: what differs in two codes of one content
	current, request := b.session(), authorizationRequest{ClientID: "web", RedirectURI: testCallback, Scope: []string{"openid"}}
	c, err := b.server.clients.find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	n := sampleOf(t, 10_000)
	ones, bits, length := 0, 0, 0
	for range n {
		code, _, err := b.server.newCode(c, epoch{}, request, current)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := base64.RawURLEncoding.DecodeString(code)
		if err != nil || strings.Contains(code, "alice") || bytes.Contains(decoded, []byte("alice")) || length != 0 && len(code) != length {
			t.Fatalf("code %q, %v", code, err)
		}
		length = len(code)
		for _, one := range decoded {
			bits += 8
			for ; one != 0; one &= one - 1 {
				ones++
			}
		}
		seen[[24]byte(decoded)] = true
	}
	if len(seen) != n {
		t.Errorf("%d different codes of %d", len(seen), n)
	}
	// NIST SP 800-22 §2.1, far beyond any p that could be chance.
	deviation := 2*ones - bits
	if deviation*deviation > 50*bits {
		t.Errorf("%d ones in %d bits", ones, bits)
	}
	t.Logf("%d codes of %d characters, %d ones in %d bits: %.2f standard deviations", n, length, ones, bits, float64(deviation)/math.Sqrt(float64(bits)))
}

// ATTACKS AC-14: a refresh token beside a code is neither used nor spent nor ended, and
// what comes is the code's.
func TestAttackAC14(t *testing.T) {
	s := browserServer(t, nil)
	b := signedIn(t, s)
	other := newBrowser(t, s)
	other.signIn("bob-1")
	bobs := other.exchange("web", other.code("scope", "openid orders:write"))
	a := b.exchange("web", b.code("scope", "openid orders:read"), "refresh_token", bobs.text("refresh_token"), "scope", "orders:write",
		"username", "bob", "password", "x", "client_assertion_x", "y")
	claims, _ := b.verified(a.text("access_token"), "ES256")
	if a.status != 200 || claims["sub"] != "alice-1" || claims["scope"] != "openid orders:read" {
		t.Errorf("%d %v %v", a.status, a.body, claims)
	}
	refreshed := b.refresh(bobs)
	claims, _ = b.verified(refreshed.text("access_token"), "ES256")
	if refreshed.status != 200 || claims["sub"] != "bob-1" {
		t.Errorf("the refresh token: %d %v %v", refreshed.status, refreshed.body, claims)
	}
	if theirs, _ := b.verified(a.text("access_token"), "ES256"); theirs["grant_id"] == claims["grant_id"] {
		t.Error("both are of one grant")
	}
	if after := b.refresh(a); after.status != 200 {
		t.Errorf("the code's own refresh token: %v", after.body)
	}
}

// ATTACKS AC-11: another issuer with the same master key.
func TestCodeOfAnotherIssuer(t *testing.T) {
	opened, err := boltstore.Open(filepath.Join(t.TempDir(), "other.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	master, err := keys.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for i := range 2 {
		issuer := fmt.Sprintf("https://%d.example.com", i)
		manager, err := keys.Open(t.Context(), keys.Config{Store: KeyStore(opened), MasterKey: master, Issuer: issuer, Algorithms: []string{"ES256"}})
		if err != nil {
			t.Fatal(err)
		}
		config := browserConfig()
		config.Issuer, config.Store, config.Keys = issuer, opened, manager
		s := serverOf(t, config, nil)
		c, _ := s.clients.find(t.Context(), "web")
		code, _, err := s.newCode(c, epoch{}, authorizationRequest{}, &session{})
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range codes {
			if _, err := s.openCode(other); err == nil {
				t.Error("a code of another issuer opens")
			}
		}
		codes = append(codes, code)
		if err := opened.Delete(t.Context(), "keys"); err != nil {
			t.Fatal(err)
		}
	}
}

// ATTACKS AZ-31, AZ-30: whoever is gone between the code and its redemption.
func TestCodeOfSomebodyGone(t *testing.T) {
	s := browserServer(t, nil)
	b := signedIn(t, s)
	codes := []string{b.code(), b.code(), b.code(), b.code()}
	b.server = browserServerWith(t, s, func(c *Config) { c.Users[0].Disabled = true })
	if a := b.exchange("web", codes[0]); a.text("error") != "invalid_grant" {
		t.Errorf("a disabled user: %v", a.body)
	}
	b.server = browserServerWith(t, s, func(c *Config) { c.Clients = c.Clients[1:] })
	if a := b.exchange("web", codes[0]); a.text("error") != "invalid_client" {
		t.Errorf("a client that is gone: %v", a.body)
	}
	b.server = s
	if a := b.exchange("web", codes[0]); a.status != 200 {
		t.Errorf("nothing was spent, and now both are back: %v", a.body)
	}
	if err := s.endSession(t.Context(), "alice-1", b.session().ID, "test"); err != nil {
		t.Fatal(err)
	}
	if a := b.exchange("web", codes[1]); a.text("error") != "invalid_grant" {
		t.Errorf("a session that has ended: %v", a.body)
	}
	b.signIn("alice-1")
	code := b.code()
	if err := s.endSubject(t.Context(), "alice-1", "test"); err != nil {
		t.Fatal(err)
	}
	if a := b.exchange("web", code); a.text("error") != "invalid_grant" {
		t.Errorf("a user of whom all was ended: %v", a.body)
	}
}

// What a code carries fits into the URL that brings it back, whatever was asked for.
func TestCodeIsBounded(t *testing.T) {
	b := signedIn(t, browserServer(t, nil))
	var resources []string
	for range 10 {
		resources = append(resources, "https://api.example.com/"+strings.Repeat("r", 1000))
	}
	request := authorizationRequest{ClientID: "web", RedirectURI: "https://web.example.com/cb", Resources: resources}
	if _, _, err := b.server.newCode(&client{id: "web"}, epoch{}, request, &session{Subject: "alice-1"}); !errors.Is(err, errRequestTooLong) {
		t.Errorf("a code of 10 KB: %v", err)
	}
	request.Resources = resources[:5]
	if _, _, err := b.server.newCode(&client{id: "web"}, epoch{}, request, &session{Subject: "alice-1"}); err != nil {
		t.Errorf("a code of 5 KB: %v", err)
	}
}
