package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"authserver/internal/timetest"

	"github.com/go-jose/go-jose/v4"
)

// verify checks a token as a resource server does that holds the JWKS.
func verify(t testing.TB, document JWKS, token string) error {
	t.Helper()
	var jwks jose.JSONWebKeySet
	if err := json.Unmarshal(document.Body, &jwks); err != nil {
		t.Fatal(err)
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	header := signed.Signatures[0].Header
	found := jwks.Key(header.KeyID)
	if len(found) != 1 {
		return fmt.Errorf("%d keys %q", len(found), header.KeyID)
	}
	if found[0].Algorithm != header.Algorithm {
		return fmt.Errorf("algorithm %s, not %s", header.Algorithm, found[0].Algorithm)
	}
	_, err = signed.Verify(found[0])
	return err
}

func TestFirstStart(t *testing.T) {
	store := new(memory)
	m := open(t, testConfig(t, store, es256, eddsa))
	for _, ring := range []string{es256, eddsa, RefreshRing} {
		kids := m.kids(ring)
		if len(kids[active]) != 1 || len(kids[pending]) != 1 {
			t.Errorf("ring %s has %v, want an active key and a pending one", ring, kids)
		}
		token := must[string](t)(m.Sign(ring, "at+jwt", []byte(`{}`)))
		if err := verify(t, m.JWKS(), token); (err != nil) != (ring == RefreshRing) {
			t.Errorf("a token of ring %s: %v", ring, err)
		}
	}
	if got := m.JWKS().MaxAge; got != 10*time.Minute {
		t.Errorf("max-age %s, want 10m", got)
	}
	if store.saves != 2 {
		t.Errorf("%d saves, want 2: the set, and that its log is written", store.saves)
	}
	again := open(t, m.config)
	if store.saves != 2 {
		t.Error("opening what is as it has to be stored it again")
	}
	if !bytes.Equal(again.JWKS().Body, m.JWKS().Body) || again.JWKS().ETag != m.JWKS().ETag {
		t.Error("two instances answer differently")
	}
	if _, err := m.Sign("ES512", "at+jwt", nil); !errors.Is(err, ErrNoKey) {
		t.Errorf("signing for a ring that is not there: %v", err)
	}
}

// RS256 keys take long to make: until the first one is there nobody may cache a
// JWKS that lacks it.
func TestSlowKeyIsMadeInTheBackground(t *testing.T) {
	m := open(t, testConfig(t, new(memory), es256, rs256))
	if _, err := m.Sign(rs256, "at+jwt", nil); !errors.Is(err, ErrNoKey) {
		t.Fatalf("signing with the key that is not made yet: %v", err)
	}
	if got := m.JWKS().MaxAge; got != 0 {
		t.Fatalf("max-age %s while RS256 is not there, want 0", got)
	}
	must[string](t)(m.Sign(es256, "at+jwt", nil))
	stop := run(t, m)
	timetest.Await(t, "both RS256 keys", func() bool {
		kids := m.kids(rs256)
		return !slices.Contains(append(kids[active], kids[pending]...), "")
	})
	stop()
	token := must[string](t)(m.Sign(rs256, "at+jwt", []byte(`{}`)))
	if err := verify(t, m.JWKS(), token); err != nil {
		t.Error(err)
	}
	if got := m.JWKS().MaxAge; got != 10*time.Minute {
		t.Errorf("max-age %s, want 10m", got)
	}
}

func TestScheduledRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(bytes.Buffer)
		c := testConfig(t, new(memory), es256, eddsa)
		c.RotateEvery, c.TokenLifetime, c.RefreshLifetime = 30*time.Hour, time.Hour, 200*time.Hour
		c.PollEvery, c.Skew = 10*time.Second, time.Minute
		c.Logger = slog.New(slog.NewTextHandler(log, nil))
		m := open(t, c)
		stop := run(t, m)
		refresh := must[string](t)(m.Sign(RefreshRing, "rt+jwt", []byte(`{}`)))
		kids := map[string]bool{m.kids(es256)[active][0]: true}
		until := 30*time.Hour - time.Minute
		for range 4 {
			standby := m.kids(es256)[pending][0]
			time.Sleep(until)
			until = 30*time.Hour - time.Hour - 5*time.Minute - 90*time.Second // to a minute before the next
			token := must[string](t)(m.Sign(es256, "at+jwt", []byte(`{}`)))
			if _, kid := header(t, token); !kids[kid] {
				t.Error("rotated too early")
			}
			time.Sleep(90 * time.Second) // over the rotation, and what earlier ones were late
			if _, kid := header(t, must[string](t)(m.Sign(es256, "at+jwt", []byte(`{}`)))); kid != standby {
				t.Errorf("%s signs, not the standby %s", kid, standby)
			}
			kids[standby] = true
			time.Sleep(time.Hour)
			if err := verify(t, m.JWKS(), token); err != nil {
				t.Errorf("a token signed before the rotation: %v", err)
			}
			time.Sleep(5 * time.Minute)
			if err := verify(t, m.JWKS(), token); err == nil {
				t.Error("a key is published although its tokens have expired")
			}
		}
		_, kid := header(t, refresh)
		if _, _, ok := m.RefreshKey(kid); !ok || m.kids(RefreshRing)[active][0] == kid {
			t.Error("the refresh ring did not rotate, or forgot the key of a token that lives")
		}
		stop()
		for _, line := range []string{"from=pending to=active", "from=active to=retiring", "from=retiring to=gone", `from="" to=pending`} {
			if !strings.Contains(log.String(), line) {
				t.Errorf("the log lacks %q", line)
			}
		}
	})
}

func TestTokensSurviveThreeRotations(t *testing.T) {
	m := open(t, testConfig(t, new(memory), es256, eddsa))
	tokens := []string{must[string](t)(m.Sign(es256, "at+jwt", []byte(`{}`))), must[string](t)(m.Sign(eddsa, "at+jwt", []byte(`{}`)))}
	kids := map[string]bool{m.kids(es256)[active][0]: true}
	for range 3 {
		if err := m.RotateForTesting(t.Context()); err != nil {
			t.Fatal(err)
		}
		kids[m.kids(es256)[active][0]] = true
		for _, token := range tokens {
			if err := verify(t, m.JWKS(), token); err != nil {
				t.Error(err)
			}
		}
	}
	if len(kids) != 4 {
		t.Errorf("%d keys signed, want 4", len(kids))
	}
}

// A server that was off for months goes on with what was published back then.
func TestMonthsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t, new(memory), es256)
		c.PollEvery = 10 * time.Second
		m := open(t, c)
		was := m.kids(es256)
		time.Sleep(400 * 24 * time.Hour)
		kids := open(t, c).kids(es256)
		if kids[active][0] != was[pending][0] || kids[retiring][0] != was[active][0] || len(kids[pending]) != 1 {
			t.Errorf("after months: %v, before: %v", kids, was)
		}
		// The one that was due meanwhile waits for its publication.
		edit(t, c, func(s *set) {
			k := s.Rings[0].find(active)
			k.Activated = k.Activated.Add(-400 * 24 * time.Hour)
		})
		m = open(t, c)
		run(t, m)
		time.Sleep(23 * time.Hour)
		if got := m.kids(es256)[active][0]; got != kids[active][0] {
			t.Error("a key signs that was published for 23 hours")
		}
		time.Sleep(2 * time.Hour)
		if got := m.kids(es256)[active][0]; got != kids[pending][0] {
			t.Error("the due key still signs although the next one is published for a day")
		}
	})
}

func TestAddedAlgorithmWaitsForCaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t, new(memory), es256)
		open(t, c)
		c.Algorithms = []string{es256, eddsa}
		m := open(t, c)
		run(t, m)
		_, err := m.Sign(eddsa, "at+jwt", nil)
		from := time.Now().Add(m.config.soonest(m.config.CacheFor)).UTC().Format(time.RFC3339)
		if !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), from) {
			t.Errorf("%v; want ErrNoKey that names %s", err, from)
		}
		if !strings.Contains(string(m.JWKS().Body), m.kids(eddsa)[pending][0]) {
			t.Error("the key is not published ahead of its use")
		}
		time.Sleep(m.config.soonest(m.config.CacheFor) - time.Second)
		if _, err := m.Sign(eddsa, "at+jwt", nil); !errors.Is(err, ErrNoKey) {
			t.Errorf("it signs too early: %v", err)
		}
		time.Sleep(3 * time.Second)
		must[string](t)(m.Sign(eddsa, "at+jwt", nil))

		c.Algorithms = []string{eddsa}
		m = open(t, c)
		must[string](t)(m.Sign(es256, "at+jwt", nil))
	})
}

// I14 and DESIGN §4: a compromised key is dead, and the standby signs.
func TestCompromisedKeyIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t, new(memory), es256)
		m := open(t, c)
		run(t, m)
		time.Sleep(time.Hour)
		token := must[string](t)(m.Sign(es256, "at+jwt", nil))
		was := m.kids(es256)
		edit(t, c, func(s *set) {
			k := s.Rings[0].find(active)
			k.State, k.Stopped = compromised, time.Now()
		})
		time.Sleep(2 * time.Second)
		if err := verify(t, m.JWKS(), token); err == nil {
			t.Error("it is still published")
		}
		if _, _, ok := m.AccessKey(was[active][0]); ok {
			t.Error("it still verifies")
		}
		if _, kid := header(t, must[string](t)(m.Sign(es256, "at+jwt", nil))); kid != was[pending][0] {
			t.Error("the standby does not sign")
		}
		// The next standby is young: until caches know it nothing signs.
		edit(t, c, func(s *set) {
			k := s.Rings[0].find(active)
			k.State, k.Stopped = compromised, time.Now()
		})
		time.Sleep(2 * time.Second)
		if _, err := m.Sign(es256, "at+jwt", nil); !errors.Is(err, ErrNoKey) {
			t.Errorf("signing with a key that caches lack: %v", err)
		}
		time.Sleep(25 * time.Minute)
		must[string](t)(m.Sign(es256, "at+jwt", nil))
		for _, k := range m.current.Load().set.Rings[0].Keys {
			if k.State == compromised && k.Private != nil {
				t.Error("the private half of a compromised key was kept")
			}
		}
	})
}

func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory)
		m := open(t, testConfig(t, store, es256))
		run(t, m)
		time.Sleep(time.Minute)
		store.set(func() { store.load = errBroken })
		time.Sleep(28 * time.Second)
		must[string](t)(m.Sign(es256, "at+jwt", nil))
		if got := m.JWKS().MaxAge; got != 10*time.Minute {
			t.Errorf("max-age %s within the lease", got)
		}
		time.Sleep(4 * time.Second)
		if _, err := m.Sign(es256, "at+jwt", nil); !errors.Is(err, ErrLease) {
			t.Errorf("signing without a lease: %v", err)
		}
		time.Sleep(10 * time.Minute)
		if got := m.JWKS(); len(got.Body) == 0 || got.MaxAge < 4*time.Minute || got.MaxAge > 6*time.Minute {
			t.Errorf("max-age %s after ten minutes off the store, want about half of 10m", got.MaxAge)
		}
		time.Sleep(time.Hour)
		if got := m.JWKS(); len(got.Body) == 0 || got.MaxAge != 0 {
			t.Errorf("max-age %s after an hour off the store, want 0", got.MaxAge)
		}
		if _, _, ok := m.AccessKey(m.kids(es256)[active][0]); !ok {
			t.Error("verification does not go on")
		}
		store.set(func() { store.load = nil })
		time.Sleep(2 * time.Second)
		must[string](t)(m.Sign(es256, "at+jwt", nil))
	})
}

// What an instance promises must be stored before it relies on it: an instance with
// other numbers may be the one that rotates.
func TestPromisesAreStoredFirst(t *testing.T) {
	c := testConfig(t, new(memory), es256)
	m := open(t, c)
	store := c.Store.(*memory)
	store.unsaved = errBroken
	edit(t, c, func(s *set) {
		s.LongestCache = time.Minute
		s.Rings[0].find(active).Lifetime = time.Hour - 1
	})
	if err := m.step(t.Context(), nil); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	if _, err := m.Sign(es256, "at+jwt", nil); !errors.Is(err, ErrNoKey) {
		t.Errorf("a token that outlives what its key is kept for: %v", err)
	}
	if got := m.JWKS().MaxAge; got != time.Minute {
		t.Errorf("max-age %s, want the one that is stored", got)
	}
	store.unsaved = nil
	if err := m.step(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	must[string](t)(m.Sign(es256, "at+jwt", nil))
	if got := m.JWKS().MaxAge; got != 10*time.Minute {
		t.Errorf("max-age %s, want 10m", got)
	}
}

// A process that was stopped while it signed must not hand out what it signed,
// although Run has adopted the newer keys by then.
func TestZombieDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, testConfig(t, new(memory), es256))
		run(t, m)
		n := m.current.Load()
		slow := newSigner("slow", algorithms[0], stopped{n.signers[es256]}, new(usage))
		n.signers[es256] = slow
		result := make(chan error)
		go func() {
			_, err := m.Sign(es256, "at+jwt", nil)
			result <- err
		}()
		synctest.Wait()
		edit(t, m.config, func(s *set) { s.LongestCache++ })
		if err := <-result; !errors.Is(err, ErrLease) {
			t.Errorf("a token signed over %s: %v", stop, err)
		}
		if m.current.Load() == n {
			t.Error("no newer set was adopted: this shows nothing")
		}
	})
}

// A store that was restored from a backup, or emptied, does not take a running
// server back.
func TestRollback(t *testing.T) {
	for _, emptied := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := new(memory)
			log := new(bytes.Buffer)
			c := testConfig(t, store, es256)
			c.Logger = slog.New(slog.NewTextHandler(log, nil))
			m := open(t, c)
			stop := run(t, m)
			old, version := store.value, store.version
			if emptied {
				old, version = nil, 0
			}
			if err := m.RotateForTesting(t.Context()); err != nil {
				t.Fatal(err)
			}
			was := m.JWKS().ETag
			store.set(func() { store.value, store.version = old, version })
			time.Sleep(time.Minute)
			if m.JWKS().ETag != was {
				t.Error("it went back")
			}
			if _, err := m.Sign(es256, "at+jwt", nil); !errors.Is(err, ErrLease) {
				t.Errorf("it signs with keys that are not stored: %v", err)
			}
			if store.version != version {
				t.Error("it overwrote what is stored")
			}
			stop()
			if n := strings.Count(log.String(), "went back"); n != 1 {
				t.Errorf("%d lines about it, want 1:\n%s", n, log)
			}
		})
	}
}

// Several instances with restarts on one store that loses answers and fails: one
// history, and everything that was signed verifies.
func TestInstancesAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory)
		calls := 0
		store.save = func() error {
			if calls++; calls%3 == 0 {
				return errBroken // saved, and the answer lost
			}
			return nil
		}
		active1 := make(map[string]int)
		c := testConfig(t, store, es256)
		store.observed = func(value []byte) {
			s, err := decodeSet(value, masterKeys{c.MasterKey}, c.Issuer)
			if err != nil {
				t.Errorf("stored what cannot be read: %v", err)
			}
			for _, r := range s.Rings {
				if k := r.find(active); k != nil && r.Name == es256 {
					active1[k.ID]++
				}
			}
		}
		c.RotateEvery, c.PublishBefore, c.TokenLifetime = 2*time.Hour, time.Hour, 10*time.Minute
		c.PollEvery = 5 * time.Second
		managers, stops := make([]*Manager, 3), make([]func(), 3)
		start := func(i int) {
			for range 5 {
				m, err := Open(t.Context(), c)
				if err == nil {
					managers[i], stops[i] = m, run(t, m)
					return
				}
				if !errors.Is(err, errBroken) {
					t.Fatal(err)
				}
			}
			t.Fatal("cannot be opened")
		}
		for i := range managers {
			start(i)
		}
		for round := range 200 {
			i := round % 3
			store.set(func() { store.unsaved = nil })
			if round%7 == 0 {
				stops[i]()
				start(i)
			}
			if round%11 < 2 {
				store.set(func() { store.unsaved = errBroken })
			}
			time.Sleep(7*time.Minute + 13*time.Second)
			token := must[string](t)(managers[i].Sign(es256, "at+jwt", []byte(`{}`)))
			for _, m := range managers {
				if err := verify(t, m.JWKS(), token); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			}
		}
		store.set(func() { store.unsaved, store.save = nil, nil })
		time.Sleep(time.Minute)
		checkLog(t, managers[0])
		for _, m := range managers {
			if m.current.Load().version != store.version || m.JWKS().ETag != managers[0].JWKS().ETag {
				t.Error("the instances did not come together")
			}
		}
		if len(active1) < 10 || len(active1) > 13 {
			t.Errorf("%d keys signed in a day, want one each two hours", len(active1))
		}
		for _, stop := range stops {
			stop()
		}
	})
}

// FT-23: instances that rotate at the same instant.
func TestRacingFirstStartsAndRotations(t *testing.T) {
	store := new(memory)
	c := testConfig(t, store, es256, eddsa)
	managers := make([]*Manager, 8)
	var all sync.WaitGroup
	for i := range managers {
		all.Go(func() {
			var err error
			if managers[i], err = Open(context.Background(), c); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	if got := managers[0].current.Load().set.Log.Count; got != 6 {
		t.Errorf("%d keys were made, want 6", got)
	}
	for range 20 {
		edit(t, c, func(s *set) {
			for _, r := range s.Rings {
				r.find(active).Activated = time.Time{}
				r.find(pending).Published = time.Time{}
			}
		})
		before, was := managers[0].current.Load().set.Log.Count, managers[0].kids(es256)[pending][0]
		for _, m := range managers {
			all.Go(func() {
				if err := m.step(context.Background(), nil); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if got := managers[0].current.Load().set.Log.Count - before; got != 9 {
			t.Errorf("%d changes of state, want 9: a key each of three rings is made, signs and retires", got)
		}
		for _, m := range managers {
			if got := m.kids(es256)[active]; len(got) != 1 || got[0] != was {
				t.Errorf("%v signs, not %s", got, was)
			}
		}
	}
	checkLog(t, managers[0])
}

func TestSignWhileRotating(t *testing.T) {
	m := open(t, testConfig(t, new(memory), es256, eddsa))
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				ring := []string{es256, eddsa}[i%2]
				token, err := m.Sign(ring, fmt.Sprint("typ", i), []byte(`{}`))
				if err != nil {
					t.Error(err)
					return
				}
				if err := verify(t, m.JWKS(), token); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		if err := m.RotateForTesting(t.Context()); err != nil {
			t.Error(err)
		}
	}
	cancel()
	all.Wait()
}

func TestRunOnlyOnce(t *testing.T) {
	m := open(t, testConfig(t, new(memory), es256))
	run(t, m)
	timetest.Await(t, "Run", m.running.Load)
	if err := m.Run(t.Context()); err == nil {
		t.Error("it ran twice")
	}
}
