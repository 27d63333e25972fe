package authserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"authserver/keys"
	"authserver/store"
	"authserver/store/boltstore"
)

// breaking is a store in which one method goes wrong, but for the keys.
type breaking struct {
	store.Store
	get func() error
}

func (b breaking) Get(ctx context.Context, names ...string) ([]store.Record, error) {
	if !strings.HasPrefix(names[0], "keys") { // the key manager asks when it likes, from a goroutine of its own
		if err := b.get(); err != nil {
			return nil, err
		}
	}
	return b.Store.Get(ctx, names...)
}

// ATTACKS HT-16: a panic in a handler is a 500 in JSON that tells nothing; the server lives,
// nothing was issued, and the place of the request is free again.
func TestAttackHT16(t *testing.T) {
	opened, err := boltstore.Open(t.TempDir() + "/store.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	broken := false
	s := insideServer(t, breaking{opened, func() error {
		if broken {
			panic("of a bug, with a secret-0123456789")
		}
		return nil
	}}, keys.MasterKey{})
	s.admission.places = make(chan struct{}, 1)
	ask := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, tokenRequestFor(t, strings.NewReader("grant_type=password&username=alice&password=wonderland")))
		return w
	}
	s.clients.configured["web"].grantTypes = []string{"password"}
	broken = true
	for range 3 {
		w := ask()
		if w.Code != http.StatusInternalServerError || untraced(w.Body.String()) != `{"error":"server_error"}` || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	}
	// A page tells as little (ATTACKS JK-09).
	for _, target := range []string{"/authorize?client_id=unknown&redirect_uri=https://evil.example/", "/userinfo"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", target, nil)
		r.SetBasicAuth("unknown", "secret")
		s.ServeHTTP(w, r)
		if text := w.Body.String(); w.Header().Get("Server") != "" || w.Header().Get("Location") != "" || w.Code < 400 || strings.Contains(text, "of a bug") || strings.Contains(text, ".go") || strings.Contains(text, "goroutine") {
			t.Errorf("%s: %d %v %s", target, w.Code, w.Header(), w.Body)
		}
	}
	broken = false
	if w := ask(); w.Code == http.StatusInternalServerError || w.Code == http.StatusServiceUnavailable {
		t.Errorf("afterwards: %d %s", w.Code, w.Body)
	}
}

// ATTACKS BF-09: what counts as one address is the peer, or what the last proxy that
// is trusted says; nobody chooses his own, and loopback is an address as others are.
func TestAttackBF09(t *testing.T) {
	trusted := trustedProxies{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		peer      string
		forwarded []string
		want      string
	}{
		{"203.0.113.9:1", nil, "203.0.113.9"},
		{"203.0.113.9:1", []string{"1.2.3.4"}, "203.0.113.9"},             // by nobody who is trusted
		{"10.0.0.1:1", []string{"1.2.3.4"}, "1.2.3.4"},                    // by a proxy
		{"10.0.0.1:1", []string{"6.6.6.6, 1.2.3.4"}, "1.2.3.4"},           // in front of what the proxy adds
		{"10.0.0.1:1", []string{"6.6.6.6", "1.2.3.4"}, "1.2.3.4"},         // as a header of its own
		{"10.0.0.1:1", []string{"6.6.6.6, 1.2.3.4, 10.0.0.2"}, "1.2.3.4"}, // over two proxies
		{"10.0.0.1:1", []string{"10.9.9.9, 1.2.3.4"}, "1.2.3.4"},          // as if from a proxy
		{"10.0.0.1:1", []string{"6.6.6.6, nonsense"}, "10.0.0.1"},         // what cannot be read ends the way
		{"10.0.0.1:1", []string{"10.0.0.3"}, "10.0.0.3"},                  // from a proxy itself
		{"127.0.0.1:1", []string{"6.6.6.6"}, "127.0.0.1"},                 // loopback is not trusted by itself
		{"[::ffff:10.0.0.1]:1", []string{"1.2.3.4"}, "1.2.3.4"},           // mapped
		{"[2001:db8::1%eth0]:1", []string{"1.2.3.4"}, "2001:db8::1"},      // with a zone
	} {
		r := httptest.NewRequest("POST", "/token", nil)
		r.RemoteAddr = c.peer
		r.Header["X-Forwarded-For"] = c.forwarded
		if got := trusted.clientAddress(r).String(); got != c.want {
			t.Errorf("%s with %q: %s, want %s", c.peer, c.forwarded, got, c.want)
		}
	}
	if a, b := network(netip.MustParseAddr("2001:db8::1")), network(netip.MustParseAddr("2001:db8::ffff:1")); a != b {
		t.Errorf("one subscriber is %s and %s", a, b)
	}
	if network(netip.MustParseAddr("127.0.0.1")) == network(netip.MustParseAddr("127.0.0.2")) {
		t.Error("two addresses are one")
	}
	// It is what attempts are counted by: an address that has to wait does, whatever it says it is.
	s := insideServer(t, nil, keys.MasterKey{})
	s.clients.configured["web"].grantTypes = []string{"password"}
	if err := s.store.Create(t.Context(), "wait/address/127.0.0.1/32", nil, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for peer, want := range map[string]int{"127.0.0.1:1": http.StatusTooManyRequests, "127.0.0.2:1": http.StatusBadRequest} {
		for _, header := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP"} {
			r := tokenRequestFor(t, strings.NewReader("grant_type=password&username="+header+"&password=x"))
			r.RemoteAddr = peer
			r.Header.Set(header, "203.0.113.77")
			w := httptest.NewRecorder()
			if s.ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s with %s: %d %s", peer, header, w.Code, w.Body)
			}
		}
	}
}

// ATTACKS BF-01: guesses at one account count together, from however many addresses they
// come, and those from one address, at however many accounts; for a quarter of an hour.
func TestAttackBF01(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	address := func(i int) caller { return caller{address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})} }
	for name, c := range map[string]struct {
		counter string
		free    int
		attempt func(i int) error
	}{
		"one account": {"account/" + hashed("alice"), freePerAccount, func(i int) error { _, err := s.throttle.admit(t.Context(), "alice", address(i)); return err }},
		"one address": {"address/192.0.2.200/32", freePerAddress, func(i int) error {
			_, err := s.throttle.admit(t.Context(), fmt.Sprint("user-", i), address(200))
			return err
		}},
	} {
		for i := range c.free {
			if err := c.attempt(i); err != nil {
				t.Errorf("%s: attempt %d: %v", name, i, err)
			}
		}
		// Many more, so that the wait is longer than this test.
		if n, err := s.store.Add(t.Context(), "failures/"+c.counter, 20, throttleWindow); err != nil || n != int64(c.free)+20 {
			t.Fatalf("%s: %d were counted besides, %v", name, n-20, err)
		}
		if err := c.attempt(99); err != nil { // gets through, and starts it
			t.Errorf("%s: %v", name, err)
		}
		if err := c.attempt(100); err == nil || asError(err).Status != http.StatusTooManyRequests || asError(err).RetryAfter < time.Second {
			t.Errorf("%s: one too many: %v", name, err)
		}
	}
	if freePerAccount > 10 || throttleWindow < 15*time.Minute {
		t.Errorf("%d are free in %s", freePerAccount, throttleWindow)
	}
	for _, c := range []struct{ excess, least time.Duration }{{1, time.Second}, {2, 2 * time.Second}, {5, 16 * time.Second}, {11, maxDelay}, {1 << 40, maxDelay}} {
		if got := delayAfter(int64(c.excess)); got != c.least {
			t.Errorf("attempt %d too many waits for %s", c.excess, got)
		}
	}
}

// ATTACKS BF-11: while attempts cannot be counted, no password is looked at at all.
func TestAttackBF11(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	if err := PutUser(t.Context(), s.store, "alice-1", "alice", testHash, false); err != nil {
		t.Fatal(err)
	}
	for range cap(s.passwords.queue) { // whoever's password would be looked at is told that it cannot be now
		s.passwords.queue <- struct{}{}
	}
	guess := func() error {
		_, err := s.signIn(t.Context(), "alice", "x", caller{address: netip.MustParseAddr("203.0.113.9")})
		return err
	}
	if err := guess(); !errors.Is(err, errManySignIns) {
		t.Fatalf("while attempts are counted: %v", err)
	}
	down := errors.New("the store is down")
	s.throttle.store = breaking{s.store, func() error { return down }} // and all else is there
	for range 100 {
		err := guess()
		if refused := asError(err); err == nil || errors.Is(err, errManySignIns) || refused.Status != http.StatusServiceUnavailable || refused.RetryAfter == 0 {
			t.Fatalf("admitted without a count: %v", err)
		}
	}
}

// ATTACKS RT-23: what names a grant, and so its refresh tokens, has 192 random bits, and
// of many there are no two alike. That the store holds none of the tokens: TestAttackLG04.
func TestAttackRT23(t *testing.T) {
	sample := sampleOf(t, 50_000)
	seen := make(map[[24]byte]bool, sample)
	var ones [8 * 24]int
	for range sample {
		random, err := decodeSealed(newID())
		if err != nil || len(random) != len(ones)/8 {
			t.Fatalf("%d bytes, %v", len(random), err)
		}
		seen[[24]byte(random)] = true
		for bit := range ones {
			ones[bit] += int(random[bit/8] >> (bit % 8) & 1)
		}
	}
	if len(seen) != sample {
		t.Errorf("%d of %d differ", len(seen), sample)
	}
	most := 0.0
	for bit, n := range ones {
		off := math.Abs(float64(2*n-sample)) / math.Sqrt(float64(sample)) // in standard deviations
		if most = max(most, off); off > 10 {
			t.Errorf("bit %d is set in %d of %d", bit, n, sample)
		}
	}
	t.Logf("%d, all different; the bit that is furthest off is so by %.2f standard deviations", sample, most)
}

// asked is a store that counts what is asked of it, but for the keys.
type asked struct {
	store.Store
	gets, adds *atomic.Int64
}

func (a asked) Get(ctx context.Context, names ...string) ([]store.Record, error) {
	if !strings.HasPrefix(names[0], "keys") { // the key manager asks when it likes
		a.gets.Add(1)
	}
	return a.Store.Get(ctx, names...)
}

func (a asked) Add(ctx context.Context, name string, n int64, window time.Duration) (int64, error) {
	a.adds.Add(1)
	return a.Store.Add(ctx, name, n, window)
}

// ATTACKS BF-06: whoever there is or not, a refused password costs one hash and as many
// questions to the store, and the refusal is the same.
func TestAttackBF06(t *testing.T) {
	opened, err := boltstore.Open(t.TempDir() + "/store.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	var gets, adds atomic.Int64
	s := insideServer(t, asked{opened, &gets, &adds}, keys.MasterKey{})
	s.clients.configured["web"].grantTypes = []string{"password"}
	for name, disabled := range map[string]bool{"known": false, "disabled": true} {
		if err := PutUser(t.Context(), s.store, name+"-1", name, testHash, disabled); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.addUser(t.Context(), newUser{subject: "passkey-1", username: "passkey"}); err != nil { // has no password
		t.Fatal(err)
	}
	s.users.configured["configured-1"] = configuredUser{user: user{subject: "configured-1", username: "configured", hash: testHash}}
	s.users.names["configured"] = "configured-1"
	refusal := func(username string) string {
		gets.Store(0)
		adds.Store(0)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, tokenRequestFor(t, strings.NewReader(url.Values{"grant_type": {"password"}, "username": {username}, "password": {"wrong"}}.Encode())))
		w.Header().Del("Date")
		return fmt.Sprint(w.Code, w.Header(), untraced(w.Body.String()), " after ", gets.Load(), " reads and ", adds.Load(), " counts")
	}
	for _, full := range []bool{false, true} { // where no hash can be made, who needs none would be told something else
		want := ""
		for range cap(s.passwords.queue) {
			if full {
				s.passwords.queue <- struct{}{}
			}
		}
		for _, username := range []string{"known", "disabled", "passkey", "configured", "unknown", "another"} {
			found := refusal(username)
			if want == "" {
				want = found
			}
			if found != want || strings.HasPrefix(found, "503") != full {
				t.Errorf("%s, no place for a hash: %t\n%s\nwant %s", username, full, found, want)
			}
		}
	}
}

// ATTACKS CA-27: of the secrets that a client has while one replaces the other, each is
// good until it expires, and not a second longer.
func TestAttackCA27(t *testing.T) {
	at := time.Now().Unix()
	secretUntil := func(secret string, expires int64) clientSecret {
		one := newClientSecret(secret)
		one.Expires = expires
		return one
	}
	c, err := newClient(Client{ClientID: "machine"}, []clientSecret{newClientSecret("new"), secretUntil("old", at+3600), secretUntil("older", at-1), secretUntil("oldest", 1)})
	if err != nil {
		t.Fatal(err)
	}
	for secret, want := range map[string]error{"new": nil, "old": nil, "older": errSecretExpired, "oldest": errSecretExpired, "": errWrongSecret, "other": errWrongSecret} {
		if wrong := c.hasSecret(secret); wrong != want {
			t.Errorf("the secret %q: %v, want %v", secret, wrong, want)
		}
	}
	if one := c.secrets[1]; !one.live(time.Unix(at+3599, 0)) || one.live(time.Unix(at+3600, 0)) || one.live(time.Unix(at+3601, 0)) {
		t.Error("a secret lives longer than it says, or shorter")
	}
}

// ATTACKS CA-28: a client's secret has 256 random bits and is stored as SHA-256: a client
// that shows it waits for no password's hash, however many there are.
func TestAttackCA28(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	c, secret, err := s.addClient(t.Context(), Client{ClientID: "machine", GrantTypes: []string{"client_credentials"}}, store.Forever)
	if err != nil {
		t.Fatal(err)
	}
	random, err := decodeSealed(secret)
	hash := sha256.Sum256([]byte(secret))
	if err != nil || len(random) != 32 || len(c.Secrets) != 1 || !bytes.Equal(c.Secrets[0].Hash, hash[:]) {
		t.Errorf("the secret has %d bytes (%v), stored are %+v", len(random), err, c.Secrets)
	}
	for range cap(s.passwords.turns) {
		s.passwords.turns <- struct{}{}
	}
	for range cap(s.passwords.queue) {
		s.passwords.queue <- struct{}{}
	}
	for shown, want := range map[string]int{secret: http.StatusOK, secret + "x": http.StatusUnauthorized} {
		w := httptest.NewRecorder()
		r := tokenRequestFor(t, strings.NewReader("grant_type=client_credentials"))
		r.SetBasicAuth("machine", shown)
		s.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%d %s, want %d", w.Code, w.Body, want)
		}
	}
}
