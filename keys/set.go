package keys

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// RefreshRing is the name of the ring that signs refresh tokens. Its keys are
// never published.
const RefreshRing = "refresh"

// set is all rings of an issuer: the stored value.
type set struct {
	Issuer string `json:"issuer"`
	// LongestCache is the longest max-age that any instance ever gave the JWKS.
	LongestCache time.Duration `json:"longest_cache"`
	Rings        []ring        `json:"rings"`
	Discarded    []discarded   `json:"discarded,omitempty"`
	Log          journal       `json:"log"`
}

// advance returns the set as it has to be at now. It is pure like next. The keys
// of a set that was never stored are wanted active: nobody can have cached a JWKS
// without them. Rings that are not configured here may be elsewhere, or have been:
// they are rotated all the same, until an operator ends them. An instance that
// has a ring configured objects to its end.
func advance(s set, c Config, now time.Time) set {
	first := len(s.Rings) == 0
	s.Issuer = c.Issuer
	s.LongestCache = max(s.LongestCache, c.CacheFor)
	s = s.clone()
	add := func(name, algorithm string) {
		if slices.ContainsFunc(s.Rings, func(r ring) bool { return r.Name == name }) {
			return
		}
		r := ring{Name: name, Algorithm: algorithm}
		if first {
			r.Keys = []key{{State: active}}
		}
		s.Rings = append(s.Rings, r)
	}
	for _, algorithm := range c.Algorithms {
		add(algorithm, algorithm)
	}
	add(RefreshRing, eddsa)
	for i, r := range s.Rings {
		if slices.Contains(c.Algorithms, r.Name) {
			r.Retire = time.Time{}
		}
		s.Rings[i] = next(r, c.policyOf(r.Name, s.LongestCache), now)
	}
	s.Rings = slices.DeleteFunc(s.Rings, func(r ring) bool { return !r.Retire.IsZero() && len(r.Keys) == 0 })
	return s
}

// clone returns a copy whose rings and keys can be changed.
func (s set) clone() set {
	s.Rings = slices.Clone(s.Rings)
	for i := range s.Rings {
		s.Rings[i].Keys = slices.Clone(s.Rings[i].Keys)
	}
	return s
}

// ring returns a ring of the set by its name, or nil.
func (s set) ring(name string) *ring {
	i := slices.IndexFunc(s.Rings, func(r ring) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return &s.Rings[i]
}

// key returns a key and its ring by its kid, or nils.
func (s set) key(id string) (*ring, *key) {
	for i := range s.Rings {
		for j := range s.Rings[i].Keys {
			if k := &s.Rings[i].Keys[j]; k.ID == id && !k.wanted() {
				return &s.Rings[i], k
			}
		}
	}
	return nil, nil
}

// signs reports whether k signs for r: it is active, and it is stored that it will
// be kept for tokens as long as those that are configured here.
func (r ring) signs(k key, c Config) bool {
	return k.State == active && !k.wanted() && k.Lifetime >= c.policyOf(r.Name, 0).lifetime
}

const (
	format      = 2       // of the envelope and the set in it
	maxSetBytes = 1 << 20 // some hundred times what a set has
)

// envelope is the stored encoding of a set. The tag authenticates all of it, so
// that who can write to the store cannot add a public key or change a date.
type envelope struct {
	Format    int             `json:"format"`
	MasterKey string          `json:"master_key"` // id of the one that made the tag
	Tag       []byte          `json:"tag"`        // HMAC-SHA256 of Set
	Set       json.RawMessage `json:"set"`
}

func (s set) encode(master MasterKey) ([]byte, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encoding the key set: %w", err)
	}
	value, err := json.Marshal(envelope{format, master.ID(), tag(master, body), body})
	if err != nil {
		return nil, fmt.Errorf("encoding the key set: %w", err)
	}
	if len(value) > maxSetBytes {
		return nil, fmt.Errorf("the key set would have %d bytes; at most %d are stored", len(value), maxSetBytes)
	}
	return value, nil
}

// decodeSet reads what encode wrote. It opens no private keys.
func decodeSet(value []byte, masters masterKeys, issuer string) (set, error) {
	if len(value) > maxSetBytes {
		return set{}, fmt.Errorf("the stored key set has %d bytes; at most %d are read", len(value), maxSetBytes)
	}
	var e envelope
	if err := json.Unmarshal(value, &e); err != nil {
		return set{}, fmt.Errorf("the stored key set is not what was written: %w", err)
	}
	if e.Format != format {
		return set{}, fmt.Errorf("the stored key set has format %d and this version reads format %d: run the version that wrote it, or a newer one",
			e.Format, format)
	}
	master, err := masters.named(e.MasterKey)
	if err != nil {
		return set{}, err
	}
	if !hmac.Equal(e.Tag, tag(master, e.Set)) {
		return set{}, errors.New("the stored key set was altered: its tag does not match; restore it from a backup")
	}
	var s set
	if err := json.Unmarshal(e.Set, &s); err != nil {
		return set{}, fmt.Errorf("the stored key set is not what was written: %w", err)
	}
	if s.Issuer != issuer {
		return set{}, fmt.Errorf("the stored keys are those of issuer %q, not of %q: keys are bound to their issuer, give another one another store",
			s.Issuer, issuer)
	}
	return s, s.check()
}

func tag(master MasterKey, body []byte) []byte {
	mac := hmac.New(sha256.New, master.Derive("key set tag"))
	mac.Write(body)
	return mac.Sum(nil)
}

// check refuses a set that no version of next can have made.
func (s set) check() error {
	seen := make(map[string]bool)
	unique := func(name string) bool {
		had := seen[name]
		seen[name] = true
		return !had
	}
	for _, r := range s.Rings {
		if !unique("ring " + r.Name) {
			return fmt.Errorf("the stored key set has two rings %q", r.Name)
		}
		for _, k := range r.Keys {
			if err := k.check(r); err != nil {
				return fmt.Errorf("the stored key set, ring %q, key %q: %w", r.Name, k.ID, err)
			}
			once := k.State == active || k.State == pending
			if once && !unique(r.Name+" "+string(k.State)) {
				return fmt.Errorf("the stored key set has two %s keys in ring %q", k.State, r.Name)
			}
			if !k.wanted() && !unique("key "+k.ID) {
				return fmt.Errorf("the stored key set has key %q twice", k.ID)
			}
		}
	}
	return nil
}

// checkState refuses a key whose state and private half do not go together.
func (k key) checkState() error {
	signs := k.State == pending || k.State == active
	switch {
	case !signs && k.State != retiring && k.State != compromised:
		return fmt.Errorf("unknown state %q", k.State)
	case k.wanted() && !signs:
		return errors.New("has no material")
	case signs && !k.wanted() && k.Private == nil:
		return errors.New("has no private half")
	case k.State == retiring && k.Private != nil:
		return errors.New("its private half was not destroyed")
	}
	return nil
}

func (k key) check(r ring) error {
	if err := k.checkState(); err != nil || k.wanted() {
		return err
	}
	public, err := parsePublic(k.Public, r.Algorithm)
	if err != nil {
		return err
	}
	if id, err := Thumbprint(public); err != nil || id != k.ID {
		return errors.New("is not the thumbprint of its public half (RFC 7638)")
	}
	return nil
}
