package authserver

import (
	"fmt"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"authserver/keys"
	"authserver/store/boltstore"
)

// ATTACKS BF-07: whoever guesses at the secret of a client, at whatever endpoint, must wait
// more and more, and learns nothing by it of the client. The client itself gets in all the
// while, with a long secret from where the guesses come, too, and with a short one from elsewhere.
func TestAttackBF07(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	const guesserAt, clientAt, short = "192.0.2.66", "198.51.100.7", "hunter22"
	weak := *s.clients.configured["service"]
	weak.id, weak.secrets, weak.longSecrets = "weak", []clientSecret{newClientSecret(short)}, false
	s.clients.configured["weak"] = &weak
	compiled, err := newClient(Client{ClientID: "weak", ClientSecret: short}, nil)
	if err != nil || compiled.longSecrets {
		t.Fatalf("a short secret is taken for a long one, error %v", err)
	}
	ask := func(from, endpoint, id, secret string, inBody bool) *httptest.ResponseRecorder {
		form := url.Values{"grant_type": {"client_credentials"}, "token": {"x"}}
		if inBody {
			form.Set("client_id", id)
			form.Set("client_secret", secret)
		}
		r := httptest.NewRequestWithContext(t.Context(), "POST", endpoint, strings.NewReader(form.Encode()))
		r.RemoteAddr = from + ":1234"
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if !inBody {
			r.SetBasicAuth(id, secret)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		w.Header().Del("Date")
		return w
	}
	endpoints := []string{"/token", "/introspect", "/revoke"}
	guess := func(id string, n int) (said string) {
		w := ask(guesserAt, endpoints[n%len(endpoints)], id, "guess%2Bed"+strconv.Itoa(n), n%2 == 0)
		return fmt.Sprint(w.Code, w.Header(), untraced(w.Body.String()))
	}
	wait := func(id string) *guessed {
		return s.guesses.byGuesser[guesser(id, network(netip.MustParseAddr(guesserAt)))].Value.(*guessed)
	}
	ids := []string{"service", "weak", "unknown"}
	for n := range freePerGuesser + 1 {
		for _, id := range ids {
			if said := guess(id, n); !strings.HasPrefix(said, "401") {
				t.Fatalf("guess %d at %s: %s", n+1, id, said)
			}
		}
	}
	for n := range 6 {
		for _, id := range ids {
			if of := wait(id); of.failed != freePerGuesser+1 {
				t.Errorf("of %s %d guesses are counted", id, of.failed)
			} else {
				of.next = time.Now().Add(time.Hour) // however slow this test is
			}
		}
		want := guess(ids[0], n)
		if !strings.HasPrefix(want, "429") || !strings.Contains(want, "Retry-After:[3600]") {
			t.Errorf("one too many: %s", want)
		}
		for _, id := range ids {
			if said := guess(id, n); said != want {
				t.Errorf("at %s: %s\nwant %s", id, said, want)
			}
		}
	}
	for _, c := range []struct {
		from, id, secret string
		status           int
	}{
		{guesserAt, "service", insideSecret, 200},
		{clientAt, "service", insideSecret, 200},
		{guesserAt, "weak", short, 429}, // or guesses would go on as if nothing were
		{clientAt, "weak", short, 200},
		{guesserAt, "web", "wrong", 401}, // another client of that network
	} {
		if w := ask(c.from, "/revoke", c.id, c.secret, false); w.Code != c.status {
			t.Errorf("%s from %s: %d %s, want %d", c.id, c.from, w.Code, w.Body, c.status)
		}
	}
	wait("weak").next = time.Time{} // it has passed
	if w := ask(guesserAt, "/revoke", "weak", short, true); w.Code != 200 {
		t.Errorf("a short secret after the wait: %d %s", w.Code, w.Body)
	}
	if s.guesses.byGuesser[guesser("weak", network(netip.MustParseAddr(guesserAt)))] != nil {
		t.Error("the guesses at a client that came in are remembered")
	}
}

// The first guesses are free, and each one beyond must wait twice as long as the one before,
// up to five minutes; what is too early does not count. After a quarter of an hour
// without one they are forgotten. There is a bound to what is remembered.
func TestGuessesAreSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses()
		for n := range freePerGuesser + 1 {
			if wait := g.attempt("a", false); wait != 0 {
				t.Fatalf("guess %d must wait for %s", n+1, wait)
			}
		}
		for n := range 12 {
			want := min(time.Second<<n, maxDelay)
			for range 3 {
				if wait := g.attempt("a", false); wait != want {
					t.Fatalf("guess %d beyond the free ones must wait for %s, want %s", n+1, wait, want)
				}
			}
			time.Sleep(want)
			if wait := g.attempt("a", false); wait != 0 {
				t.Fatalf("after the wait: %s", wait)
			}
		}
		if wait := g.attempt("b", false); wait != 0 {
			t.Errorf("another one must wait for %s", wait)
		}
		time.Sleep(throttleWindow + time.Second)
		for range freePerGuesser + 1 {
			if wait := g.attempt("a", false); wait != 0 {
				t.Fatalf("a quarter of an hour later: %s", wait)
			}
		}
		for n := range maxGuessers + 10 {
			g.attempt(strconv.Itoa(n), false)
		}
		if n := g.free.Len() + g.slowed.Len(); len(g.byGuesser) != maxGuessers || n != maxGuessers {
			t.Errorf("%d and %d are remembered, want %d", len(g.byGuesser), n, maxGuessers)
		}
		if wait := g.attempt("a", false); wait != time.Second {
			t.Errorf("guesses under other names have taken a wait away: %s are left", wait)
		}
		for n := range maxGuessers { // all of them have to wait
			for range freePerGuesser + 1 {
				g.attempt("slowed"+strconv.Itoa(n), false)
			}
		}
		if n := g.slowed.Len(); len(g.byGuesser) != maxGuessers || n != maxGuessers {
			t.Errorf("%d and %d of those who wait are remembered, want %d", len(g.byGuesser), n, maxGuessers)
		}
	})
}

// Who must wait is told nothing of a short secret by the time that its comparison takes.
func TestTooEarlyCostsTheSame(t *testing.T) {
	opened, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	var gets, adds atomic.Int64
	s := insideServer(t, asked{opened, &gets, &adds}, keys.MasterKey{})
	const short = "hunter+2"
	weak := *s.clients.configured["service"]
	weak.id, weak.secrets, weak.longSecrets = "weak", []clientSecret{newClientSecret(short)}, false
	s.clients.configured["weak"] = &weak
	questions := func(secret string) int64 {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/revoke", strings.NewReader("token=x"))
		r.Header.Set("Content-Type", formType)
		r.SetBasicAuth("weak", secret)
		gets.Store(0)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if n := gets.Load(); w.Code == 429 {
			return n
		}
		return -1
	}
	for range freePerGuesser + 1 {
		questions("wrong")
	}
	for _, place := range s.guesses.byGuesser {
		place.Value.(*guessed).next = time.Now().Add(time.Hour)
	}
	// By Basic a secret is read in two ways where they differ: as it is, and decoded.
	for _, c := range [][2]string{{"hunter+3", short}, {"hunter%2B3", "hunter%2B2"}} {
		wrong, right := questions(c[0]), questions(c[1])
		if wrong < 1 || right != wrong {
			t.Errorf("%s asks the store %d times, %s, which is right, %d times", c[0], wrong, c[1], right)
		}
	}
}
