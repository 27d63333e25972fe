package feed

import (
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"authserver/internal/accesstoken"
)

var claims = accesstoken.Claims{Issuer: "https://auth.example.com", ID: "j", GrantID: "g", SessionID: "s", Subject: "alice", ClientID: "web", IssuedAt: 1000, ClientEpoch: 2}

func entry(level Level, value string, before int64) Entry {
	return NewEntry(level, value, time.Minute, before)
}

// Every level ends the tokens that it names and no others, and those with an
// instant only what was issued until the end of its second.
func TestLevels(t *testing.T) {
	for _, c := range []struct {
		entry Entry
		want  Level
	}{
		{entry(Token, "j", 0), Token},
		{entry(Grant, "g", 0), Grant},
		{entry(Session, "s", 0), Session},
		{entry(KeyID, "k", 0), KeyID},
		{entry(Subject, "alice", 1000), Subject}, // of the same second: refused
		{entry(Subject, "alice", 1001), Subject},
		{entry(Subject, "alice", 999), ""},
		{entry(Client, "web", 1000), Client},
		{entry(Client, "web", 999), ""},
		{entry(Issuer, "https://auth.example.com", 1000), Issuer},
		{entry(Issuer, "https://auth.example.com", 999), ""},
		{entry(SubjectEpoch, EpochOf("alice", 0), 0), SubjectEpoch},
		{entry(SubjectEpoch, EpochOf("alice", 1), 0), ""},
		{entry(ClientEpoch, EpochOf("web", 2), 0), ClientEpoch},
		{entry(ClientEpoch, EpochOf("web", 1), 0), ""},
		{entry(ClientEpoch, EpochOf("alice", 0), 0), ""},
		{entry(Token, "g", 0), ""}, // one level's value at another
		{entry(Grant, "j", 0), ""},
		{entry(Session, "other", 0), ""},
		{entry(KeyID, "other", 0), ""},
		{entry(Subject, "bob", 1000), ""},
		{entry(Issuer, "https://other.example.com", 1000), ""},
	} {
		set := NewSet()
		if _, revoked := set.Revoked(SubjectsOf("k", &claims)); revoked {
			t.Fatal("an empty set ends a token")
		}
		set.Add([]Entry{c.entry})
		if level, revoked := set.Revoked(SubjectsOf("k", &claims)); level != c.want || revoked != (c.want != "") {
			t.Errorf("%+v: ended at %q, want %q", c.entry, level, c.want)
		}
	}
	set := NewSet() // a token without a grant, a session or a kid has no key for what is empty
	set.Add([]Entry{entry(Subject, "bob", 5000)})
	if level, revoked := set.Revoked(SubjectsOf("", &accesstoken.Claims{})); revoked {
		t.Errorf("a token that names nothing is ended at %q", level)
	}
}

// Times outside 32 bits are neither early nor late by a wrap.
func TestFarTimes(t *testing.T) {
	for _, c := range []struct {
		issued, before int64
		want           bool
	}{{1 << 40, 1000, false}, {1 << 33, 1 << 32, true}, {-5, 1000, true}, {1000, -5, false}} {
		set, token := NewSet(), claims
		token.IssuedAt = c.issued
		set.Add([]Entry{entry(Subject, "alice", c.before)})
		if _, revoked := set.Revoked(SubjectsOf("k", &token)); revoked != c.want {
			t.Errorf("iat %d, before %d: revoked %v", c.issued, c.before, revoked)
		}
	}
}

// A second revocation of one subject moves the instant on and never back.
func TestAddTakesTheLater(t *testing.T) {
	set := NewSet()
	set.Add([]Entry{entry(Subject, "alice", 500), entry(Subject, "alice", 1000), entry(Subject, "alice", 600)})
	if _, revoked := set.Revoked(SubjectsOf("k", &claims)); !revoked {
		t.Error("the later instant was lost")
	}
	if n := len(set.Entries()); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
}

// An entry is there for its TTL and is gone soon after, and so is its memory
// (ATTACKS IR-13, of which `make statistics` has the million).
func TestExpire(t *testing.T) {
	n := 100_000
	if text := os.Getenv("AUTHSERVER_TEST_SAMPLE"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		set := NewSet()
		time.Sleep(1700 * time.Millisecond)
		set.Add([]Entry{entry(Grant, "g", 0)})
		many := make([]Entry, n)
		for i := range many {
			many[i] = NewEntry(Token, strconv.Itoa(i), 10*time.Second, 0)
		}
		set.Add(many)
		full := len(*set.slots.Load())
		if full*16 > 42*n {
			t.Errorf("%d entries take %d bytes", n, full*16)
		}
		time.Sleep(time.Minute)
		if live := set.Expire(); live != 1 {
			t.Errorf("%d entries are live, want 1", live)
		}
		if now := len(*set.slots.Load()); now != smallest {
			t.Errorf("%d slots of %d are left", now, full)
		}
		if _, revoked := set.Revoked(SubjectsOf("k", &claims)); !revoked {
			t.Error("the entry went before its TTL had passed")
		}
		time.Sleep(2 * time.Second)
		if live := set.Expire(); live != 0 || len(set.Entries()) != 0 {
			t.Errorf("%d entries are live after their TTL", live)
		}
	})
}

// The set holds what a map would, whatever comes and goes.
func TestSetIsAMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		set, model := NewSet(), map[Key]time.Time{}
		for range 1000 {
			batch := make([]Entry, random.IntN(40))
			for i := range batch {
				key := Key(random.Uint64N(4000)*1024 + 1) // crowded: few low bits
				batch[i] = Entry{key, uint32(random.IntN(300)), always}
				if until := time.Now().Add(time.Duration(batch[i].TTL) * time.Second); until.After(model[key]) {
					model[key] = until
				}
			}
			set.Add(batch)
			time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
			if random.IntN(50) == 0 {
				set.Expire()
			}
		}
		live := 0
		for key, until := range model {
			if time.Now().Before(until) {
				live++
				if _, found := find(*set.slots.Load(), key); !found {
					t.Fatalf("a live entry is missing")
				}
			}
		}
		if got := set.Expire(); got < live || got > live+40 {
			t.Errorf("%d live entries, the model has %d", got, live)
		}
	})
}

// Readers see an entry from the moment that Add has returned, while the set grows
// and shrinks under them.
func TestConcurrentReaders(t *testing.T) {
	set := NewSet()
	var added atomic.Int64
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if n := added.Load(); n > 0 {
					id := strconv.FormatInt(rand.Int64N(n), 10)
					if _, revoked := set.Revoked(SubjectsOf("k", &accesstoken.Claims{ID: id})); !revoked {
						t.Errorf("token %s of %d was revoked and is not", id, n)
						return
					}
				}
			}
		})
	}
	for i := range int64(5_000) {
		set.Add([]Entry{entry(Token, strconv.FormatInt(i, 10), 0)})
		added.Store(i + 1)
		if i%1000 == 0 {
			set.Expire()
		}
	}
	close(done)
	readers.Wait()
}

func BenchmarkSet(b *testing.B) {
	set := NewSet()
	many := make([]Entry, 100_000)
	for i := range many {
		many[i] = entry(Token, strconv.Itoa(i), 0)
	}
	set.Add(many)
	subjects := SubjectsOf("k", &claims)
	b.Run("subjects", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			SubjectsOf("k", &claims)
		}
	})
	b.Run("revoked", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			set.Revoked(subjects)
		}
	})
}
