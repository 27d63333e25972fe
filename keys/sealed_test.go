package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// refused opens what is stored and expects an error with words in it, and nothing
// stored. It returns the error.
func refused(t *testing.T, c Config, words ...string) error {
	t.Helper()
	store := c.Store.(*memory)
	before := bytes.Clone(store.value)
	m, err := Open(t.Context(), c)
	if err == nil {
		t.Fatalf("opened: %v", m.JWKS())
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error lacks %q: %v", word, err)
		}
	}
	if !bytes.Equal(store.value, before) {
		t.Error("what is stored was replaced")
	}
	return err
}

// FT-44.
func TestWrongOrMissingMasterKey(t *testing.T) {
	c := testConfig(t, new(memory), es256)
	open(t, c)
	right := c.MasterKey
	c.MasterKey = newMaster(t)
	if err := refused(t, c, right.ID(), c.MasterKey.ID()); !errors.Is(err, ErrMasterKey) {
		t.Error(err)
	}
	c.MasterKey = MasterKey{}
	if err := refused(t, c, right.ID()); !errors.Is(err, ErrMasterKey) {
		t.Error(err)
	}
	c.Store = new(memory)
	if err := refused(t, c); !errors.Is(err, ErrMasterKey) {
		t.Error(err)
	}
	c.Store, c.MasterKey = &memory{load: errBroken}, right
	if err := refused(t, c); !errors.Is(err, errBroken) {
		t.Error(err)
	}
}

// Who can write to the store but has no master key cannot change anything.
func TestAlteredSetIsRefused(t *testing.T) {
	c := testConfig(t, new(memory), es256, eddsa)
	open(t, c)
	store := c.Store.(*memory)
	good := bytes.Clone(store.value)
	mine := make256(t)
	for name, alter := range map[string]func(*envelope, *set){
		"a public key of somebody else": func(_ *envelope, s *set) {
			s.Rings[0].Keys = append(s.Rings[0].Keys, key{ID: mine.id, State: retiring, Stopped: time.Now(), Lifetime: time.Hour, Public: mine.public})
		},
		"a date":      func(_ *envelope, s *set) { s.Rings[0].Keys[0].Activated = time.Now().Add(-9000 * time.Hour) },
		"a state":     func(_ *envelope, s *set) { s.Rings[0].Keys[0].State = compromised },
		"a lost ring": func(_ *envelope, s *set) { s.Rings = s.Rings[1:] },
		"the tag":     func(e *envelope, _ *set) { e.Tag[0] ^= 1 },
		"no tag":      func(e *envelope, _ *set) { e.Tag = nil },
	} {
		t.Run(name, func(t *testing.T) {
			var e envelope
			var s set
			if err := errors.Join(json.Unmarshal(good, &e), json.Unmarshal(e.Set, &s)); err != nil {
				t.Fatal(err)
			}
			alter(&e, &s)
			e.Set = must[[]byte](t)(json.Marshal(s))
			store.value = must[[]byte](t)(json.Marshal(e))
			refused(t, c, "altered")
		})
	}
	for i := range good { // any one bit
		store.value = bytes.Clone(good)
		store.value[i] ^= 1 << (i % 7)
		if m, err := Open(t.Context(), c); err == nil && !bytes.Equal(m.JWKS().Body, open(t, withValue(c, good)).JWKS().Body) {
			t.Fatalf("byte %d altered, and other keys served", i)
		}
	}
}

// alter changes the box of the first key.
func alter(s *set, change func(*sealed)) {
	var box sealed
	where := s.Rings[0].Keys[0].Private
	if err := json.Unmarshal(where.Handle, &box); err != nil {
		panic(err)
	}
	change(&box)
	where.Handle, _ = json.Marshal(box)
}

// make256 returns a key for ES256 that belongs to nobody.
func make256(t *testing.T) material {
	key := must[crypto.Signer](t)(algorithms[0].generate())
	return must[material](t)(newMaterial(key.Public(), private{}, es256))
}

func withValue(c Config, value []byte) Config {
	c.Store = &memory{value: value, version: 1}
	return c
}

// Even with the tag made anew, a sealed key opens in its own place only.
func TestSealedKeyIsBoundToItsPlace(t *testing.T) {
	for name, change := range map[string]func(*set){
		"ciphertext":    func(s *set) { alter(s, func(box *sealed) { box.Ciphertext[30] ^= 1 }) },
		"nonce":         func(s *set) { alter(s, func(box *sealed) { box.Ciphertext[0] ^= 1 }) },
		"cut short":     func(s *set) { alter(s, func(box *sealed) { box.Ciphertext = []byte{1} }) },
		"no handle":     func(s *set) { s.Rings[0].Keys[0].Private.Handle = nil },
		"swapped boxes": func(s *set) { k := s.Rings[0].Keys; k[0].Private, k[1].Private = k[1].Private, k[0].Private },
		"another ring": func(s *set) { // EdDSA's key signs refresh tokens
			s.Rings[1].Keys[0], s.Rings[2].Keys[0] = s.Rings[2].Keys[0], s.Rings[1].Keys[0]
		},
		"another public half": func(s *set) {
			a, b := &s.Rings[0].Keys[0], &s.Rings[0].Keys[1]
			a.ID, a.Public, b.ID, b.Public = b.ID, b.Public, a.ID, a.Public
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t, new(memory), es256, eddsa)
			open(t, c)
			edit(t, c, change)
			refused(t, c, "does not open")
		})
	}
}

func TestEveryPartOfAPlaceCounts(t *testing.T) {
	b, made := NewSealedBackend(newMaster(t)), must[crypto.Signer](t)(algorithms[0].generate())
	id := must[string](t)(Thumbprint(made.Public()))
	right := Place{issuer, es256, es256, id}
	handle := must[[]byte](t)(b.Import(t.Context(), right, made))
	if _, err := b.Open(t.Context(), right, handle); err != nil {
		t.Fatal(err)
	}
	parts := make(map[string]bool)
	for _, p := range []Place{
		right, {"x", es256, es256, id}, {issuer, "x", es256, id}, {issuer, es256, "x", id}, {issuer, es256, es256, "x"},
		{issuer + `","`, "", es256, id},
	} {
		if _, err := b.Open(t.Context(), p, handle); (err == nil) != (p == right) {
			t.Errorf("%+v: %v", p, err)
		}
		parts[string(p.additionalData())] = true
	}
	if len(parts) != 6 {
		t.Error("different places are bound alike")
	}
}

// FT-47 and what no version of this package can have stored.
func TestImpossibleSetIsRefused(t *testing.T) {
	for words, change := range map[string]func(*set){
		"two active keys": func(s *set) { s.Rings[0].Keys[1].State = active },
		"two rings":       func(s *set) { s.Rings = append(s.Rings, s.Rings[0]) },
		"twice": func(s *set) {
			s.Rings[0].Keys = append(s.Rings[0].Keys, s.Rings[0].Keys[0])
			s.Rings[0].Keys[2].State, s.Rings[0].Keys[2].Private = retiring, nil
		},
		"no private half":           func(s *set) { s.Rings[0].Keys[0].Private = nil },
		"was not destroyed":         func(s *set) { s.Rings[0].Keys[0].State = retiring },
		"unknown state":             func(s *set) { s.Rings[0].Keys[0].State = "sleeping" },
		"has no material":           func(s *set) { s.Rings[0].Keys[0] = key{State: retiring} },
		"not the thumbprint":        func(s *set) { s.Rings[0].Keys[0].ID = "other" },
		"no key for EdDSA":          func(s *set) { s.Rings[0].Algorithm = eddsa },
		`"PS256" is not offered`:    func(s *set) { s.Rings[0].Algorithm = "PS256" },
		"https://elsewhere.example": func(s *set) { s.Issuer = "https://elsewhere.example" },
	} {
		t.Run(words, func(t *testing.T) {
			c := testConfig(t, new(memory), es256)
			open(t, c)
			edit(t, c, change)
			refused(t, c, words)
		})
	}
	c := testConfig(t, new(memory), es256)
	open(t, c)
	store := c.Store.(*memory)
	store.value = bytes.Replace(store.value, []byte(`"format":2`), []byte(`"format":3`), 1)
	refused(t, c, "format 3", "format 2")
	store.value = []byte("{")
	refused(t, c, "not what was written")
	store.value = make([]byte, maxSetBytes+1)
	refused(t, c, "at most")
}

// FT-47: what is put in its place while the server runs is not taken either: it signs no
// longer than its lease, the keys are served on, nothing is stored over it, and the log
// says so. When what was there is back, it goes on.
func TestImpossibleSetWhileRunning(t *testing.T) {
	for name, change := range map[string]func(store *memory, c Config){
		"two active keys": func(_ *memory, c Config) { edit(t, c, func(s *set) { s.Rings[0].Keys[1].State = active }) },
		"a later format": func(store *memory, _ Config) {
			store.set(func() {
				store.value, store.version = bytes.Replace(store.value, []byte(`"format":2`), []byte(`"format":3`), 1), store.version+1
			})
		},
		"damage": func(store *memory, _ Config) {
			store.set(func() { store.value, store.version = []byte("{"), store.version+1 })
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			store, log := new(memory), new(bytes.Buffer)
			c := testConfig(t, store, es256)
			c.Logger = slog.New(slog.NewTextHandler(log, nil))
			m := open(t, c)
			stop := run(t, m)
			time.Sleep(time.Minute)
			must[string](t)(m.Sign(es256, "at+jwt", nil))
			good, version, served := bytes.Clone(store.value), store.version, m.JWKS().ETag
			change(store, c)
			bad := bytes.Clone(store.value)
			time.Sleep(c.withDefaults().Lease + 3*time.Second)
			if _, err := m.Sign(es256, "at+jwt", nil); !errors.Is(err, ErrLease) {
				t.Errorf("%s: it signs: %v", name, err)
			}
			if m.JWKS().ETag != served || !bytes.Equal(store.value, bad) {
				t.Errorf("%s: other keys are served, or it was stored over", name)
			}
			store.set(func() { store.value, store.version = good, version })
			time.Sleep(3 * time.Second)
			if _, err := m.Sign(es256, "at+jwt", nil); err != nil {
				t.Errorf("%s: when it is as it was: %v", name, err)
			}
			stop()
			if !strings.Contains(log.String(), "level=ERROR") && !strings.Contains(log.String(), "level=WARN") {
				t.Errorf("%s: the log is silent:\n%s", name, log)
			}
		})
	}
}

func TestParseMasterKey(t *testing.T) {
	master := newMaster(t)
	raw := master.bytes()
	for _, text := range []string{
		string(master.Text()), hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)) + "\r\n",
		base64.StdEncoding.EncodeToString(raw), base64.RawStdEncoding.EncodeToString(raw),
		" " + base64.URLEncoding.EncodeToString(raw) + "\n", base64.RawURLEncoding.EncodeToString(raw),
	} {
		got, err := ParseMasterKey([]byte(text))
		if err != nil || got.ID() != master.ID() {
			t.Errorf("%v, %v", got, err)
		}
	}
	secret := strings.TrimSpace(string(master.Text()))
	for _, text := range []string{
		"", "\n", secret + "\n" + secret, secret[:20], secret[1:], "!" + secret[1:],
		hex.EncodeToString(raw)[1:], hex.EncodeToString(raw[:31]) + "zz", secret + secret,
		strings.TrimRight(secret, "=")[:42] + "/", // bits beyond the 32 bytes
	} {
		got, err := ParseMasterKey([]byte(text))
		if err == nil {
			t.Errorf("%d characters were taken as %v", len(text), got)
		} else if len(text) > 8 && strings.Contains(err.Error(), text[:8]) {
			t.Errorf("the error quotes the key: %v", err)
		}
	}
	if bytes.Equal(master.Derive("a"), master.Derive("b")) || !bytes.Equal(master.Derive("a"), master.Derive("a")) {
		t.Error("what is derived does not go by the purpose")
	}
	if (MasterKey{}).ID() != "none" || !(MasterKey{}).IsZero() || master.IsZero() {
		t.Error("the zero key is not none")
	}
}

// secrets returns every private scalar and the master key in the forms in which
// they could leak.
func secrets(m *Manager) map[string]string {
	forms := make(map[string]string)
	add := func(name string, raw []byte) {
		forms[name+" hex"] = hex.EncodeToString(raw)
		forms[name+" HEX"] = strings.ToUpper(hex.EncodeToString(raw))
		forms[name+" base64"] = base64.RawStdEncoding.EncodeToString(raw)
		forms[name+" base64url"] = base64.RawURLEncoding.EncodeToString(raw)
		forms[name+" bytes"] = strings.Trim(fmt.Sprint(raw), "[]")
		forms[name+" Go"] = strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", raw), "[]byte{"), "}")
		forms[name+" raw"] = string(raw)
	}
	add("master key", m.config.MasterKey.bytes())
	for id, s := range m.current.Load().opened {
		switch private := s.private().(type) {
		case *ecdsa.PrivateKey:
			raw, _ := private.Bytes()
			add(id, raw)
			forms[id+" decimal"] = new(big.Int).SetBytes(raw).String()
		case *rsa.PrivateKey:
			add(id+" d", private.D.Bytes())
			add(id+" p", private.Primes[0].Bytes())
			forms[id+" decimal d"], forms[id+" decimal p"] = private.D.String(), private.Primes[0].String()
		case ed25519.PrivateKey:
			add(id, private.Seed())
		}
	}
	return forms
}

// I8, JK-02 and LG-01: nothing that is exported, logged, answered or stored shows a secret.
func TestNothingShowsASecret(t *testing.T) {
	m := manager(t)
	log := new(bytes.Buffer)
	var out strings.Builder
	look := func(values ...any) {
		for _, v := range values {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
				fmt.Fprintf(&out, verb+"\n", v)
			}
			if encoded, err := json.Marshal(v); err == nil {
				out.Write(encoded)
			}
			slog.New(slog.NewTextHandler(log, nil)).Info("text", "value", v, slog.Group("in", "a", v))
			slog.New(slog.NewJSONHandler(log, nil)).Info("json", "value", v)
		}
	}
	_, access, _ := m.AccessKey(m.kids(es256)[active][0])
	s := m.config.Store.(*memory)
	look(m, m.config.MasterKey, &m.config.MasterKey, m.config, &m.config, m.JWKS(), access,
		struct{ hidden MasterKey }{m.config.MasterKey}, struct{ hidden *Manager }{m}, m.current.Load(), m.current.Load().set,
		string(s.value), m.Default(), m.Algorithms(), m.config.Check())
	wrong := m.config
	wrong.MasterKey = newMaster(t)
	_, err := Open(t.Context(), wrong)
	look(err, errors.Unwrap(err))
	for range 2 {
		edit(t, m.config, func(s *set) { alter(s, func(box *sealed) { box.Ciphertext[40] ^= 1 }) })
		_, err = Open(t.Context(), m.config)
		look(err)
	}
	_, err = m.Sign("none", "at+jwt", nil)
	look(err)
	out.WriteString(log.String())
	forms := secrets(m)
	if len(forms) < 50 {
		t.Fatalf("only %d forms are looked for", len(forms))
	}
	for _, name := range slices.Sorted(maps.Keys(forms)) {
		if strings.Contains(out.String(), forms[name]) {
			t.Errorf("%s shows", name)
		}
	}
	// The search must find what is there: fmt follows even such pointers.
	shown := fmt.Sprint(&struct{ hidden []byte }{m.config.MasterKey.bytes()})
	if !strings.Contains(shown, forms["master key bytes"]) {
		t.Error("the search does not find a master key that is printed")
	}
}
