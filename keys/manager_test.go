package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// run starts m.Run for as long as the returned function is not called.
func run(m *Manager) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	return func() { cancel(); running.Wait() }
}

func TestFirstStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		m := open(t, testConfig(t, store, all...))
		for _, ring := range []string{RefreshRing, es256, eddsa} {
			sign(t, m, ring, "at+jwt", "{}")
		}
		if _, err := m.Sign(rs256, "at+jwt", nil); !errors.Is(err, ErrNoKey) {
			t.Fatalf("RS256 before its key: %v", err)
		}
		if age := m.JWKS().MaxAge; age != 0 {
			t.Fatalf("a key set without RS256 may be cached for %s", age)
		}
		defer run(m)()
		synctest.Wait()
		verify(t, sign(t, m, rs256, "at+jwt", "{}"), m.AccessKey)
		if age := m.JWKS().MaxAge; age != 2*time.Minute {
			t.Fatalf("max-age %s", age)
		}
		for _, r := range store.stored(t).Rings {
			if find(r.Keys, active) < 0 || find(r.Keys, pending) < 0 {
				t.Errorf("ring %s lacks a signer or a standby", r.Name)
			}
		}
	})
}

func TestRingAddedLaterWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		c := testConfig(t, store, es256)
		open(t, c)
		time.Sleep(time.Second)
		c.Algorithms = []string{es256, rs256}
		m := open(t, c)
		defer run(m)()
		synctest.Wait()
		if _, err := m.Sign(rs256, "at+jwt", nil); !errors.Is(err, ErrNoKey) {
			t.Fatalf("a new ring signed at once: %v", err)
		}
		time.Sleep(c.PublishBefore - time.Minute)
		if _, err := m.Sign(rs256, "at+jwt", nil); !errors.Is(err, ErrNoKey) {
			t.Fatalf("a new ring signed early: %v", err)
		}
		time.Sleep(2 * time.Minute)
		sign(t, m, rs256, "at+jwt", "{}")
	})
}

// A verifier that honours max-age, behind a cache that strips Age, never meets an
// unknown kid; old tokens verify for as long as they live.
func TestVerifiersNeverMeetAnUnknownKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{lose: 3} // every third save loses its answer
		c := testConfig(t, store, es256)
		var managers []*Manager
		for range 3 {
			m := open(t, c)
			managers = append(managers, m)
			defer run(m)()
		}
		type issued struct {
			token string
			at    time.Time
		}
		var access, refresh []issued
		var cached jose.JSONWebKeySet
		var staleAt time.Time
		kids := make(map[string]bool)
		for step := range 1000 {
			m := managers[step%3]
			if !time.Now().Before(staleAt) {
				jwks := managers[(step+1)%3].JWKS()
				cached = jose.JSONWebKeySet{}
				if err := json.Unmarshal(jwks.Body, &cached); err != nil {
					t.Fatal(err)
				}
				staleAt = time.Now().Add(2 * jwks.MaxAge)
			}
			access = append(access, issued{sign(t, m, es256, "at+jwt", "{}"), time.Now()})
			parsed, _ := jose.ParseSignedCompact(access[len(access)-1].token, []jose.SignatureAlgorithm{jose.ES256})
			kid := parsed.Signatures[0].Protected.KeyID
			kids[kid] = true
			if len(cached.Key(kid)) != 1 {
				t.Fatalf("step %d: key %s is not in the cached set", step, kid)
			}
			for len(access) > 0 && time.Since(access[0].at) > c.TokenLifetime {
				access = access[1:]
			}
			verify(t, access[0].token, m.AccessKey)
			if step%100 == 0 {
				refresh = append(refresh, issued{sign(t, m, RefreshRing, "rt+jwt", "{}"), time.Now()})
			}
			for len(refresh) > 0 && time.Since(refresh[0].at) > c.RefreshLifetime {
				refresh = refresh[1:]
			}
			verify(t, refresh[0].token, m.RefreshKey)
			time.Sleep(19*time.Second + time.Duration(step%7)*time.Second)
		}
		if len(kids) < 10 {
			t.Fatalf("only %d keys signed", len(kids))
		}
		if n := len(store.stored(t).Rings[1].Keys); n > 3 {
			t.Fatalf("%d keys are kept", n)
		}
	})
}

func TestThreeRotationsOldTokensVerify(t *testing.T) {
	m := open(t, testConfig(t, &memory{}, all...))
	if err := m.refresh(t.Context(), pace{slow: true}); err != nil {
		t.Fatal(err)
	}
	tokens := make(map[string]string)
	for _, ring := range append([]string{RefreshRing}, all...) {
		tokens[ring] = sign(t, m, ring, "at+jwt", ring)
	}
	for range 3 {
		before := m.JWKS().ETag
		if err := m.RotateForTesting(t.Context()); err != nil {
			t.Fatal(err)
		}
		if m.JWKS().ETag == before {
			t.Fatal("the ETag did not change")
		}
	}
	for ring, token := range tokens {
		find, other := m.AccessKey, m.RefreshKey
		if ring == RefreshRing {
			find, other = other, find
		}
		verify(t, token, find)
		parsed, _ := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.EdDSA})
		if _, _, ok := other(parsed.Signatures[0].Protected.KeyID); ok {
			t.Errorf("a key of ring %s verifies the other kind of token", ring)
		}
		if sign(t, m, ring, "at+jwt", ring) == token {
			t.Errorf("ring %s was not rotated", ring)
		}
	}
}

// Managers on one store with failing saves rotate in parallel and agree.
func TestManagersOnOneStoreAgree(t *testing.T) {
	store := &memory{}
	c := testConfig(t, store, es256, eddsa)
	var managers [4]*Manager
	var opening sync.WaitGroup
	for i := range managers {
		opening.Go(func() { managers[i], _ = Open(t.Context(), c) })
	}
	opening.Wait()
	store.change(func(s *memory) { s.lose = 4 })
	var rotating sync.WaitGroup
	for _, m := range managers {
		rotating.Go(func() {
			for range 5 {
				if err := m.RotateForTesting(t.Context()); err != nil && !errors.Is(err, errDown) {
					t.Error(err)
				}
				if _, err := m.Sign(es256, "at+jwt", nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	rotating.Wait()
	for _, m := range managers {
		if err := m.refresh(t.Context(), pace{}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.JWKS().Body, managers[0].JWKS().Body) || sign(t, m, es256, "at+jwt", "{}") != sign(t, managers[0], es256, "at+jwt", "{}") {
			t.Fatal("two managers of one store disagree")
		}
	}
}

func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		m := open(t, testConfig(t, store, es256))
		defer run(m)()
		store.change(func(s *memory) { s.readOnly = true })
		time.Sleep(time.Hour)
		sign(t, m, es256, "at+jwt", "{}") // a store that only reads is enough
		store.change(func(s *memory) { s.down = true })
		time.Sleep(lease - follow - time.Second)
		sign(t, m, es256, "at+jwt", "{}")
		body := m.JWKS().Body
		time.Sleep(follow + 2*time.Second)
		if _, err := m.Sign(es256, "at+jwt", nil); !errors.Is(err, ErrLease) {
			t.Fatalf("signed without a lease: %v", err)
		}
		if !bytes.Equal(m.JWKS().Body, body) || m.JWKS().MaxAge == 0 {
			t.Fatal("the key set did not go on from memory")
		}
		time.Sleep(time.Hour) // a new key may sign by now
		if age := m.JWKS().MaxAge; age != 0 {
			t.Fatalf("max-age %s without knowing the keys", age)
		}
		store.change(func(s *memory) { s.down, s.readOnly = false, false })
		time.Sleep(2 * follow)
		sign(t, m, es256, "at+jwt", "{}")
	})
}

// The process is stopped in the middle of a signature.
func TestLeaseIsCheckedAfterSigning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, testConfig(t, &memory{}, es256))
		s := m.current.Load().signers[es256]
		signature := s.signature
		s.signature = func(input []byte) ([]byte, error) { time.Sleep(lease + time.Second); return signature(input) }
		if token, err := m.Sign(es256, "at+jwt", nil); !errors.Is(err, ErrLease) || token != "" {
			t.Fatalf("%q, %v", token, err)
		}
	})
}

func TestAnOlderSetIsNotAdopted(t *testing.T) {
	store := &memory{}
	m := open(t, testConfig(t, store, es256))
	value, version, _ := store.Load(t.Context())
	if err := m.RotateForTesting(t.Context()); err != nil {
		t.Fatal(err)
	}
	body := m.JWKS().Body
	for _, old := range []*memory{{value: value, version: version}, {}} {
		store.change(func(s *memory) { s.value, s.version = old.value, old.version })
		if err := m.refresh(t.Context(), pace{slow: true}); err == nil || !bytes.Equal(m.JWKS().Body, body) {
			t.Fatalf("version %d was adopted: %v", old.version, err)
		}
		if store.version != old.version {
			t.Fatal("the older set was written over")
		}
	}
}

func TestAfterMonthsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		c := testConfig(t, store, es256)
		open(t, c)
		time.Sleep(5000 * time.Hour)
		m := open(t, c)
		defer run(m)()
		sign(t, m, es256, "at+jwt", "{}")
		time.Sleep(c.PublishBefore - time.Minute)
		r, _ := store.stored(t).ring(es256)
		for _, k := range r.Keys {
			if k.State == active && k.Active-k.Created < int64(c.PublishBefore/time.Second) {
				t.Fatalf("key %s signs without having been published: %d s", k.ID, k.Active-k.Created)
			}
		}
	})
}

func TestMasterKeyWrongOrMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		c := testConfig(t, store, es256)
		right := c.MasterKey
		c.MasterKey = MasterKey{}
		if _, err := Open(t.Context(), c); !errors.Is(err, ErrMasterKey) || store.saves != 0 {
			t.Fatalf("first start without a master key: %v", err)
		}
		c.MasterKey = right
		open(t, c)
		time.Sleep(5000 * time.Hour) // a rotation is due, and must not happen
		value, _, _ := store.Load(t.Context())
		for _, wrong := range []MasterKey{{}, newMasterKey(t)} {
			c.MasterKey = wrong
			if _, err := Open(t.Context(), c); !errors.Is(err, ErrMasterKey) || !strings.Contains(err.Error(), right.ID()) {
				t.Errorf("%s: %v", wrong, err)
			}
			if !bytes.Equal(store.value, value) {
				t.Fatal("the stored keys were changed under a wrong master key")
			}
		}
		c.MasterKey, c.Issuer = right, "https://other.example.com"
		if _, err := Open(t.Context(), c); !errors.Is(err, ErrMasterKey) {
			t.Errorf("keys of another issuer: %v", err)
		}
		text := right.Text()
		if again, err := ParseMasterKey(text); err != nil || again.ID() != right.ID() {
			t.Errorf("%s: %v", again, err)
		}
		if _, err := ParseMasterKey(text[:20]); err == nil || strings.Contains(err.Error(), string(text[:20])) {
			t.Errorf("a cut master key: %v", err)
		}
	})
}

func TestDamagedSetsAreRefusedAndKept(t *testing.T) {
	store := &memory{}
	c := testConfig(t, store, es256, eddsa)
	open(t, c)
	good := string(store.value)
	swapped := store.stored(t)
	swapped.Rings[1].Keys[0].Sealed, swapped.Rings[1].Keys[1].Sealed = swapped.Rings[1].Keys[1].Sealed, swapped.Rings[1].Keys[0].Sealed
	exchanged, _ := json.Marshal(swapped)
	foreign := store.stored(t)
	foreign.Rings[1].Keys[0].Public = foreign.Rings[1].Keys[1].Public
	wrongPublic, _ := json.Marshal(foreign)
	for name, value := range map[string]string{
		"empty": "", "null": "null", "object": "{}", "no rings": `{"format":1,"rings":[]}`, "cut": good[:len(good)/2],
		"newer":          strings.Replace(good, `"format":1`, `"format":2,"unheard":true`, 1),
		"unknown member": strings.Replace(good, `"format":1`, `"format":1,"unheard":true`, 1),
		"two active":     strings.Replace(good, `"pending"`, `"active"`, 1),
		"unknown state":  strings.Replace(good, `"pending"`, `"resting"`, 1),
		"sealed swapped": string(exchanged), "other public key": string(wrongPublic),
	} {
		store.value = []byte(value)
		if _, err := Open(t.Context(), c); err == nil || string(store.value) != value {
			t.Errorf("%s: taken or changed: %v", name, err)
		} else if name == "newer" && !strings.Contains(err.Error(), "run the newer version") {
			t.Errorf("newer: %v", err)
		}
	}
	store.value = []byte(good)
	open(t, c)
}

func TestCompromisedKeyIsNeitherPublishedNorSigning(t *testing.T) {
	store := &memory{}
	m := open(t, testConfig(t, store, es256))
	bad := sign(t, m, es256, "at+jwt", "{}")
	stored := store.stored(t)
	r, _ := stored.ring(es256)
	kid := r.Keys[find(r.Keys, active)].ID
	r.Keys[find(r.Keys, active)].State = compromised // r shares its keys with stored
	store.value, _ = json.Marshal(stored)
	store.version++
	if err := m.refresh(t.Context(), pace{slow: true}); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := m.AccessKey(kid); ok || bytes.Contains(m.JWKS().Body, []byte(kid)) {
		t.Fatal("a compromised key still verifies")
	}
	if sign(t, m, es256, "at+jwt", "{}") == bad {
		t.Fatal("a compromised key still signs")
	}
	if r, _ := store.stored(t).ring(es256); r.Keys[find(r.Keys, compromised)].Sealed != nil {
		t.Fatal("its private half is still there")
	}
}

func TestJWKSHasPublicMembersOnly(t *testing.T) {
	store := &memory{}
	c := testConfig(t, store, all...)
	m := open(t, c)
	if err := m.refresh(t.Context(), pace{slow: true}); err != nil {
		t.Fatal(err)
	}
	var list struct{ Keys []map[string]string }
	if err := json.Unmarshal(m.JWKS().Body, &list); err != nil || len(list.Keys) != 6 {
		t.Fatalf("%d keys, %v", len(list.Keys), err)
	}
	members := map[string]string{"EC": "alg crv kid kty use x y", "RSA": "alg e kid kty n use", "OKP": "alg crv kid kty use x"}
	for _, k := range list.Keys {
		if want := len(strings.Fields(members[k["kty"]])); len(k) != want {
			t.Errorf("members %v", k)
		}
		for _, member := range strings.Fields(members[k["kty"]]) {
			if k[member] == "" {
				t.Errorf("%s is missing in %v", member, k)
			}
		}
		if _, _, ok := m.RefreshKey(k["kid"]); ok {
			t.Error("a refresh key is published")
		}
	}
	if other := open(t, c).JWKS(); !bytes.Equal(other.Body, m.JWKS().Body) || other.ETag != m.JWKS().ETag {
		t.Error("two instances answer differently")
	}
}

func TestSecretsAreNotFormatted(t *testing.T) {
	c := testConfig(t, &memory{}, es256, eddsa)
	var log bytes.Buffer
	c.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	m := open(t, c)
	if err := m.RotateForTesting(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"ring":"ES256"`, `"from":"pending","to":"active"`, `"from":"active","to":"retiring"`, `"why":`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	var shown strings.Builder
	values := []any{c, &c, c.MasterKey, &c.MasterKey, m, struct{ M *Manager }{m}, m.current.Load(), m.signers}
	for _, k := range m.signers {
		values = append(values, k, *k)
	}
	for _, value := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			fmt.Fprintf(&shown, verb+"\n", value)
		}
		encoded, _ := json.Marshal(value)
		shown.Write(encoded)
		for _, h := range []slog.Handler{slog.NewJSONHandler(&shown, nil), slog.NewTextHandler(&shown, nil)} {
			slog.New(h).Info("x", "value", value)
		}
	}
	// In every notation in which bytes are shown.
	for _, secret := range secrets(t, c) {
		for _, form := range []string{fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), strings.Trim(fmt.Sprint(secret), "[]"),
			strings.Trim(fmt.Sprintf("%#v", secret)[len("[]byte"):], "{}"), base64Of(secret)} {
			if strings.Contains(shown.String(), form) || strings.Contains(log.String(), form) {
				t.Fatalf("a secret is shown as %.12s…", form)
			}
		}
	}
}

func TestCheckNamesTheNumber(t *testing.T) {
	good := testConfig(t, &memory{}, es256)
	if problems := good.Check(); len(problems) > 0 {
		t.Fatal(problems)
	}
	for want, spoil := range map[string]func(*Config){
		"algorithms is empty":        func(c *Config) { c.Algorithms = nil },
		`algorithms has "HS256"`:     func(c *Config) { c.Algorithms = []string{"HS256"} },
		"algorithms has ES256 twice": func(c *Config) { c.Algorithms = []string{es256, es256} },
		"cache_for is 25h":           func(c *Config) { c.CacheFor, c.PublishBefore, c.RotateEvery = 25*time.Hour, 60*time.Hour, 90*time.Hour },
		"raise publish_before":       func(c *Config) { c.PublishBefore = 5 * time.Minute },
		"raise rotate_every":         func(c *Config) { c.RotateEvery = c.PublishBefore },
		"access tokens is 0s":        func(c *Config) { c.TokenLifetime = 0 },
		"refresh tokens that live":   func(c *Config) { c.RefreshLifetime = 1001 * c.RotateEvery },
	} {
		c := good
		spoil(&c)
		if problems := c.Check(); len(problems) != 1 || !strings.Contains(problems[0].Error(), want) {
			t.Errorf("want %q, found %v", want, problems)
		}
		if _, err := Open(t.Context(), c); err == nil {
			t.Errorf("%s: opened", want)
		}
	}
}
