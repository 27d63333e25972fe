package verifier

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// answers is an issuer's key endpoint in memory, so that hours pass at once.
type answers struct {
	mu      sync.Mutex
	status  int
	body    string
	maxAge  string
	hang    bool // until the request is given up
	takes   time.Duration
	fetches int
}

func (a *answers) set(change func(*answers)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

func (a *answers) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fetches
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	a.fetches++
	status, body, header, hang := a.status, a.body, http.Header{"Cache-Control": {a.maxAge}}, a.hang
	takes := a.takes
	a.mu.Unlock()
	time.Sleep(takes)
	if hang {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if status == http.StatusFound {
		header.Set("Location", "https://elsewhere.example.com/keys")
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// publish returns a key set with a new key for each kid.
func publish(t *testing.T, kids ...string) string {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, kid := range kids {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &private.PublicKey, KeyID: kid, Algorithm: "ES256", Use: "sig"})
	}
	body, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// publishWith returns a key set with one new key, and its private half.
func publishWith(t *testing.T, kid string) (string, *ecdsa.PrivateKey) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &private.PublicKey, KeyID: kid, Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(body), private
}

// bubble runs a test with a key set that fetches from an issuer, in fake time.
func bubble(t *testing.T, test func(*testing.T, *keySet, *answers)) {
	synctest.Test(t, func(t *testing.T) {
		issuer := &answers{status: 200, body: publish(t, "a"), maxAge: "max-age=600"}
		v, err := New(t.Context(), Config{Issuer: "https://auth.example.com", Audience: "https://api.example.com",
			JWKSURI: "https://auth.example.com/keys", HTTPClient: &http.Client{Transport: issuer, Timeout: 5 * time.Second},
			Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		test(t, v.keys, issuer)
	})
}

func knows(t *testing.T, keys *keySet, kid string) bool {
	t.Helper()
	_, err := keys.find(t.Context(), kid)
	return err == nil
}

// A new set replaces the old one whole, when its max-age says, without a token asking.
func TestRotation(t *testing.T) {
	bubble(t, func(t *testing.T, keys *keySet, issuer *answers) {
		if !knows(t, keys, "a") || issuer.count() != 1 {
			t.Fatalf("a is not known after %d fetches", issuer.count())
		}
		body := publish(t, "b")
		issuer.set(func(a *answers) { a.body = body })
		time.Sleep(599 * time.Second)
		synctest.Wait()
		if issuer.count() != 1 || !knows(t, keys, "a") {
			t.Fatalf("fetched %d times within max-age", issuer.count())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if issuer.count() != 2 || !knows(t, keys, "b") || knows(t, keys, "a") {
			t.Errorf("after max-age: %d fetches, b known %v, a known %v", issuer.count(), knows(t, keys, "b"), knows(t, keys, "a"))
		}
	})
}

// Bad answers leave the last good keys in use for a day, and no longer.
func TestOutage(t *testing.T) {
	bubble(t, func(t *testing.T, keys *keySet, issuer *answers) {
		good := publish(t, "b")
		bad := map[string]func(*answers){
			"error":     func(a *answers) { a.status = 500 },
			"redirect":  func(a *answers) { a.status = 302 },
			"HTML":      func(a *answers) { a.status, a.body = 200, "<html>" },
			"empty":     func(a *answers) { a.status, a.body = 200, "" },
			"no keys":   func(a *answers) { a.status, a.body = 200, `{"keys":[]}` },
			"cut short": func(a *answers) { a.status, a.body = 200, good[:len(good)-9] },
			"too large": func(a *answers) { a.status, a.body = 200, good+strings.Repeat(" ", 70_000) },
			"symmetric": func(a *answers) { a.status, a.body = 200, `{"keys":[{"kty":"oct","k":"AAAA","kid":"b"}]}` },
		}
		for name, change := range bad {
			before := issuer.count()
			issuer.set(change)
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			if issuer.count() == before {
				t.Errorf("%s: not fetched", name)
			}
			if !knows(t, keys, "a") {
				t.Errorf("%s: the good keys are gone", name)
			}
		}
		time.Sleep(9 * time.Hour)
		synctest.Wait()
		if _, err := keys.find(t.Context(), "a"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("after more than a day: %v, want ErrUnavailable", err)
		}
		issuer.set(func(a *answers) { a.status, a.body = 200, good })
		time.Sleep(time.Minute)
		synctest.Wait()
		if !knows(t, keys, "b") {
			t.Error("the issuer is back, and its key is not known")
		}
	})
}

// An issuer that allows no cache (max-age=0: a key that is made may sign at once) is
// asked for a kid that its answer lacks, whatever was asked for before.
func TestUnknownKidOfStaleAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, keys *keySet, issuer *answers) {
		issuer.set(func(a *answers) { a.maxAge = "max-age=0" })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if knows(t, keys, "made up") { // no other may be looked for within 30 s, if the keys are fresh
			t.Fatal("a made-up kid is known")
		}
		time.Sleep(2 * time.Second)
		before := issuer.count()
		body := publish(t, "a", "b")
		issuer.set(func(a *answers) { a.body = body })
		if _, err := keys.find(t.Context(), "b"); err != nil {
			t.Errorf("a key that signed at once: %v", err)
		}
		for range 100 {
			var refusal *Error
			if _, err := keys.find(t.Context(), rand.Text()); !errors.As(err, &refusal) || refusal.Reason != UnknownKey {
				t.Errorf("a made-up kid, of which the issuer has just said that it has none: %v", err)
			}
		}
		if n := issuer.count() - before; n != 1 {
			t.Errorf("%d fetches within a second, want 1", n)
		}
	})
}

// A kid that could not be asked for since the keys became stale is not called unknown:
// clients throw tokens away on that.
func TestUnknownKidWithoutIssuer(t *testing.T) {
	bubble(t, func(t *testing.T, keys *keySet, issuer *answers) {
		reason := func() Reason {
			_, err := keys.find(t.Context(), "b")
			var refusal *Error
			if !errors.As(err, &refusal) {
				t.Fatalf("an unknown kid: %v", err)
			}
			return refusal.Reason
		}
		issuer.set(func(a *answers) { a.status = 500 })
		time.Sleep(599 * time.Second)
		if got := reason(); got != UnknownKey {
			t.Errorf("within max-age: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := reason(); got != KeysUnavailable {
			t.Errorf("after max-age, while the issuer fails: %s", got)
		}
		if !knows(t, keys, "a") {
			t.Error("a known key is refused")
		}
		issuer.set(func(a *answers) { a.status = 200 })
		time.Sleep(time.Second)
		if got := reason(); got != UnknownKey {
			t.Errorf("the issuer is back and does not know it: %s", got)
		}
	})
}

// ATTACKS JW-04, JW-05: one fetch for all unknown kids in 30 seconds, together.
func TestUnknownKid(t *testing.T) {
	bubble(t, func(t *testing.T, keys *keySet, issuer *answers) {
		time.Sleep(time.Minute)
		body := publish(t, "a", "b")
		issuer.set(func(a *answers) { a.body = body })
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if !knows(t, keys, "b") {
					t.Error("the new key was not found")
				}
			})
		}
		all.Wait()
		if issuer.count() != 2 {
			t.Errorf("%d fetches for one new key, want 2 with the first", issuer.count())
		}
		for range 100 {
			knows(t, keys, rand.Text())
		}
		if issuer.count() != 2 {
			t.Errorf("%d fetches: made-up kids were asked for within 30 s", issuer.count())
		}
		time.Sleep(31 * time.Second)
		for range 100 {
			knows(t, keys, rand.Text())
		}
		if issuer.count() != 3 {
			t.Errorf("%d fetches after 30 s, want 3", issuer.count())
		}
	})
}

// An issuer that rotates quickly says so by a short max-age, and is followed.
func TestShortMaxAge(t *testing.T) {
	bubble(t, func(t *testing.T, keys *keySet, issuer *answers) {
		issuer.set(func(a *answers) { a.maxAge = "max-age=2" })
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		before := issuer.count()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := issuer.count() - before; n != 10 {
			t.Errorf("fetched %d times in 20 s of a max-age of 2 s, want 10", n)
		}
		issuer.set(func(a *answers) { a.status = 500 })
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := issuer.count() - before; n != 20 && n != 21 { // the first again after a second
			t.Errorf("fetched %d times in 20 s while it fails, want 10", n-10)
		}
		body := publish(t, "b")
		issuer.set(func(a *answers) { a.status, a.body = 200, body })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !knows(t, keys, "b") {
			t.Error("the issuer answers again, and its key is not known 2 s later")
		}
	})
}

// Fetches by max-age leave it open to look for an unknown kid once in 30 seconds, and
// made-up kids add no more than that to them, also while such a fetch is under way.
func TestUnknownKidBesideShortMaxAge(t *testing.T) {
	bubble(t, func(t *testing.T, keys *keySet, issuer *answers) {
		issuer.set(func(a *answers) { a.maxAge = "max-age=20" })
		time.Sleep(10*time.Minute + 10*time.Second) // halfway through the 20 s
		synctest.Wait()
		before := issuer.count()
		body := publish(t, "a", "b")
		issuer.set(func(a *answers) { a.body = body })
		if !knows(t, keys, "b") || issuer.count() != before+1 {
			t.Errorf("%d fetches for a new key 10 s after one by max-age, want 1", issuer.count()-before)
		}
		before = issuer.count()
		for range 600 { // a minute
			knows(t, keys, rand.Text())
			time.Sleep(100 * time.Millisecond)
		}
		if n := issuer.count() - before; n > 60/20+60/30 {
			t.Errorf("%d fetches in a minute of made-up kids, want 3 by max-age and 2 for them", n)
		}
	})
}

// Who waits while keys are fetched by max-age is answered by these.
func TestUnknownKidDuringFetch(t *testing.T) {
	bubble(t, func(t *testing.T, keys *keySet, issuer *answers) {
		body := publish(t, "a", "b")
		issuer.set(func(a *answers) { a.body, a.takes = body, time.Second })
		time.Sleep(600*time.Second + 500*time.Millisecond)
		if !knows(t, keys, "b") || issuer.count() != 2 {
			t.Errorf("%d fetches, want the first and the one by max-age", issuer.count())
		}
	})
}

// An issuer that never answers holds no token up for longer than firstWait, and
// none at all whose key is known.
func TestHungIssuer(t *testing.T) {
	bubble(t, func(t *testing.T, keys *keySet, issuer *answers) {
		keys.source.client.Timeout = 0 // as in http.DefaultClient
		time.Sleep(time.Minute)
		issuer.set(func(a *answers) { a.hang = true })
		go keys.find(t.Context(), "made up") // occupies the one that fetches
		synctest.Wait()
		start := time.Now()
		if knows(t, keys, "another"); time.Since(start) > firstWait {
			t.Errorf("an unknown kid waited for %s", time.Since(start))
		}
		start = time.Now()
		if !knows(t, keys, "a") || time.Since(start) != 0 {
			t.Errorf("a known key waited for %s", time.Since(start))
		}
		body := publish(t, "b")
		issuer.set(func(a *answers) { a.hang, a.body = false, body })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !knows(t, keys, "b") {
			t.Error("the issuer answers again, and nobody asks it")
		}
	})
}

// No goroutine is left when ctx ends (synctest would report it), and known keys go on.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		issuer := &answers{status: 500}
		v, err := New(ctx, Config{Issuer: "https://auth.example.com", Audience: "x", HTTPClient: &http.Client{Transport: issuer}, Logger: slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil))})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		start := time.Now()
		if _, err := v.keys.find(t.Context(), "a"); !errors.Is(err, ErrUnavailable) || time.Since(start) != 0 {
			t.Errorf("%v after %s, want ErrUnavailable at once", err, time.Since(start))
		}
	})
}

// RFC 9111 §4.2, within bounds.
func TestFreshness(t *testing.T) {
	for _, test := range []struct {
		control, age string
		want         time.Duration // until the next fetch
	}{
		{"", "", 5 * time.Minute},
		{"public, max-age=600", "", 10 * time.Minute},
		{"Max-Age=600", "100", 500 * time.Second},
		{"max-age=0", "", minAsked},
		{"max-age=0", "5", minAsked},
		{"max-age=600", "900", minFresh},
		{"max-age=2", "", 2 * time.Second},
		{"max-age=2", "2", minFresh},
		{"max-age=999999999", "", maxRefresh},
		{"max-age=-5", "", 5 * time.Minute},
		{"max-age=soon", "later", 5 * time.Minute},
	} {
		wantFresh := test.want
		if test.control == "max-age=0" {
			wantFresh = minFresh
		}
		fresh, next := freshness(http.Header{"Cache-Control": {test.control}, "Age": {test.age}})
		if next != test.want || fresh != wantFresh {
			t.Errorf("%q, Age %q: fresh for %s, fetched after %s, want %s and %s", test.control, test.age, fresh, next, wantFresh, test.want)
		}
	}
}
