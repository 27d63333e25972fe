package guard

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
	"authserver/store"
	"authserver/store/boltstore"
	"authserver/store/redisstore"
	"authserver/store/storetest"
)

func embedded(t *testing.T, path string) store.Store {
	t.Helper()
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func guarded(t *testing.T, inner store.Store, directory string, mayLose time.Duration) *Store {
	t.Helper()
	s, err := Open(t.Context(), inner, Options{Directory: directory, MayLose: mayLose, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lostBy returns what Open finds lost.
func lostBy(t *testing.T, inner store.Store, directory string) *LostError {
	t.Helper()
	_, err := Open(t.Context(), inner, Options{Directory: directory, Logger: slog.New(slog.DiscardHandler)})
	var lost *LostError
	if err != nil && !errors.As(err, &lost) {
		t.Fatal(err)
	}
	return lost
}

func write(t *testing.T, s *Store, key string) {
	t.Helper()
	if err := s.Create(t.Context(), key, nil, store.Forever); err != nil {
		t.Fatal(err)
	}
	if err := s.tick(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A guarded store keeps the contract.
func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return guarded(t, embedded(t, filepath.Join(t.TempDir(), "store.db")), t.TempDir(), 0)
	})
}

// ATTACKS FT-05: a store that is restored from a backup is refused, until an operator
// accepts it; other instances take his word.
func TestRolledBack(t *testing.T) {
	files, directory, another := t.TempDir(), t.TempDir(), t.TempDir()
	path, backup := filepath.Join(files, "store.db"), filepath.Join(files, "backup.db")
	inner := embedded(t, path)
	s := guarded(t, inner, directory, 0)
	write(t, s, "before")
	inner.Close()
	content, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(backup, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	inner = embedded(t, path)
	s = guarded(t, inner, directory, 0)
	write(t, s, "revocation")
	guarded(t, inner, another, 0)
	inner.Close()

	restored := embedded(t, backup)
	lost := lostBy(t, restored, directory)
	if lost == nil || lost.Emptied || lost.Another || !strings.Contains(lost.Error(), "backup") {
		t.Fatalf("a restored backup: %v", lost)
	}
	if lost = lostBy(t, restored, directory); lost == nil {
		t.Fatal("it is taken at the second try")
	}
	if standing, err := Inspect(t.Context(), restored, directory); err != nil || standing.Lost == nil || standing.Known == "" || standing.Found != standing.Known {
		t.Errorf("%+v %v", standing, err)
	}
	before := time.Now().Unix()
	if err := Accept(t.Context(), restored, directory, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{directory, another, t.TempDir()} {
		if s := guarded(t, restored, place, 0); s.NotBefore() < before {
			t.Errorf("what was granted before is not dead: %d", s.NotBefore())
		}
	}
}

// ATTACKS FT-04, FT-19: an emptied store is noticed while the server runs, at the
// first record that is missing and within a tick; and at the next start.
func TestEmptied(t *testing.T) {
	redis := redistest.Start(t)
	directory, another := t.TempDir(), t.TempDir()
	inner := openRedis(t, redis)
	s, other := guarded(t, inner, directory, time.Minute), guarded(t, inner, another, time.Minute)
	write(t, s, "grant")
	redis.Flush()
	_, err := s.Swap(t.Context(), "grant", 1, nil, store.Forever)
	if errors.Is(err, store.ErrNotFound) || err == nil {
		t.Errorf("the grant is gone, says a store that was emptied: %v", err)
	}
	if other.tick(t.Context()) == nil {
		t.Error("another instance does not notice")
	}
	for name, s := range map[string]*Store{"one": s, "other": other} {
		if s.Ping(t.Context()) == nil {
			t.Errorf("%s: ready", name)
		}
		if err := s.Create(t.Context(), "grant", nil, store.Forever); err == nil {
			t.Errorf("%s: writes into it", name)
		}
		if _, err := s.Tail(t.Context(), "log", 0, 0); err == nil {
			t.Errorf("%s: reads its log", name)
		}
		for _, err := range s.Linked(t.Context(), "index", store.Member{}) {
			if err == nil {
				t.Errorf("%s: reads its indexes", name)
			}
		}
	}
	if lost := lostBy(t, inner, directory); lost == nil || !lost.Emptied {
		t.Errorf("at the next start: %v", lost)
	}
	// An instance that knows nothing gives it a name. That does not help the others.
	guarded(t, inner, t.TempDir(), 0)
	if lost := lostBy(t, inner, directory); lost == nil || !lost.Another {
		t.Errorf("with a new name: %v", lost)
	}
	if err := Accept(t.Context(), inner, directory, time.Now()); err != nil {
		t.Fatal(err)
	}
	guarded(t, inner, directory, 0)
	guarded(t, inner, another, 0)
}

// What a store may lose by the way it is configured is no reason to stop.
func TestSmallLoss(t *testing.T) {
	inner, directory := embedded(t, filepath.Join(t.TempDir(), "store.db")), t.TempDir()
	s := guarded(t, inner, directory, 0)
	write(t, s, "one")
	known := s.mark()
	for ahead, tolerated := range map[time.Duration]bool{2 * time.Second: true, time.Minute: false} {
		later := known
		later.Mark, later.Ticked = known.Mark+1, known.Ticked+ahead.Milliseconds()
		if lost, _ := judge(later, known, 10*time.Second); (lost == nil) != tolerated {
			t.Errorf("%s lost of 10 s that may be: %v", ahead, lost)
		}
		if lost, _ := judge(later, known, 0); lost == nil {
			t.Errorf("%s lost of a store that loses nothing", ahead)
		}
	}
}

// Ticks and calls that look who the store is at the same time do not accuse it.
func TestManyLookAtOnce(t *testing.T) {
	inner := embedded(t, filepath.Join(t.TempDir(), "store.db"))
	one, two := guarded(t, inner, t.TempDir(), 0), guarded(t, inner, t.TempDir(), 0)
	var all sync.WaitGroup
	for _, s := range []*Store{one, two} {
		for range 4 {
			all.Go(func() {
				for range 50 {
					s.written.Store(true)
					if err := errors.Join(s.tick(t.Context()), s.confirm(t.Context())); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
}

// failing is a store whose Get fails or hangs as told.
type failing struct {
	store.Store
	asked int
	err   error
}

func (f *failing) Get(context.Context, ...string) ([]store.Record, error) {
	f.asked++
	return make([]store.Record, 1), f.err
}

// ATTACKS FT-12: a store in trouble is left alone but for one call now and then, and
// used again when it answers.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &failing{err: errors.New("hung")}
		s := &Store{inner: inner, breaker: breaker{log: slog.New(slog.DiscardHandler)}}
		get := func() error { _, err := s.Get(t.Context(), "key"); return err }
		for range 1000 {
			if get() == nil {
				t.Fatal("no error")
			}
		}
		if inner.asked != tripAfter {
			t.Errorf("asked %d times, want %d", inner.asked, tripAfter)
		}
		time.Sleep(probeEvery)
		for range 1000 {
			get()
		}
		if inner.asked != tripAfter+1 {
			t.Errorf("asked %d times after a while, want one more", inner.asked)
		}
		inner.err = nil
		time.Sleep(probeEvery)
		for range 2 {
			if err := get(); err != nil {
				t.Errorf("it answers again: %v", err)
			}
		}
		// Callers who give up do not count.
		inner.err = context.Canceled
		for range 1000 {
			get()
		}
		if inner.asked < 1000 {
			t.Error("callers who went away made the store look dead")
		}
	})
}

func openRedis(t *testing.T, redis *redistest.Server) store.Store {
	t.Helper()
	s, err := redisstore.Open(t.Context(), redisstore.Options{URL: redis.URL(), Timeout: 10 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// What an instance remembers is whole or refused.
func TestDamagedFile(t *testing.T) {
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, fileName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), embedded(t, filepath.Join(t.TempDir(), "store.db")), Options{Directory: directory, Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), fileName) {
		t.Errorf("%v", err)
	}
}

// A primary that has lost its replicas may have been replaced: it is not believed for
// longer than they confirmed it, also by those who only read (ATTACKS FT-06), and what
// it shows is only remembered when they have it.
func TestIsolatedPrimary(t *testing.T) {
	sentinels := redistest.StartSentinels(t, 1, "--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0")
	inner, err := redisstore.Open(t.Context(), redisstore.Options{
		URL: sentinels.Servers[0].URL(), Timeout: 3 * time.Second, Logger: slog.New(slog.DiscardHandler), Durability: redisstore.Replicated,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	s, err := Open(t.Context(), inner, Options{Directory: t.TempDir(), Replicated: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	defer running.Wait()
	defer stop()
	read := func() error { _, err := s.Get(ctx, "record"); return err }
	timetest.Await(t, "it can be read", func() bool { return read() == nil })
	sentinels.Servers[1].Stop()
	known := s.mark()
	timetest.Await(t, "it is not read while nobody confirms it", func() bool { return errors.Is(read(), errLeaseOver) })
	if _, err := inner.Swap(ctx, identityKey, known.Mark, nil, store.Forever); err == nil {
		t.Error("a write was acknowledged without a replica")
	}
	if err := s.confirm(ctx); err != nil || s.mark().Mark != known.Mark {
		t.Errorf("it remembers %d, which no replica has, %v", s.mark().Mark, err)
	}
	sentinels.Servers[1].Continue()
	timetest.Await(t, "it is read again", func() bool { return read() == nil })
	timetest.Await(t, "the mark is seen", func() bool { return s.mark().Mark == known.Mark+1 })
}

// A store that was accepted until clocks that are ahead are past is used from then on, so
// that nothing which is granted is taken for what has ended. A clock that is far off is
// said to be.
func TestAcceptedAheadOfClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		directory := t.TempDir()
		write(t, guarded(t, embedded(t, filepath.Join(t.TempDir(), "store.db")), directory, 0), "x")
		emptied, until := embedded(t, filepath.Join(t.TempDir(), "store.db")), time.Now().Add(4*time.Minute)
		if err := Accept(t.Context(), emptied, directory, until); err != nil {
			t.Fatal(err)
		}
		impatient, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		if _, err := Open(impatient, emptied, Options{Directory: directory, Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before that instant: %v", err)
		}
		s := guarded(t, emptied, directory, 0)
		if now := time.Now(); s.NotBefore() != until.Unix() || now.Unix() <= until.Unix() || now.After(until.Add(2*time.Second)) {
			t.Errorf("used at %s, accepted until %s", now, until)
		}
		write(t, s, "y")
		again := embedded(t, filepath.Join(t.TempDir(), "store.db"))
		if err := Accept(t.Context(), again, directory, time.Now().Add(-time.Minute)); err != nil { // a clock that is behind
			t.Fatal(err)
		}
		if standing, err := Inspect(t.Context(), again, directory); err != nil || standing.found.Accepted != until.Unix() {
			t.Errorf("accepted until %d, before until %d: %v", standing.found.Accepted, until.Unix(), err)
		}
		if err := Accept(t.Context(), again, directory, time.Now().Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), again, Options{Directory: directory, Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "the clock is wrong") {
			t.Errorf("accepted for hours to come: %v", err)
		}
	})
}

// listing is a store whose index fails half way, or does not answer at all.
type listing struct {
	store.Store
	asked   int
	members []string
	err     error
}

func (l *listing) Linked(_ context.Context, _ string, after store.Member) iter.Seq2[store.Member, error] {
	return func(yield func(store.Member, error) bool) {
		l.asked++
		for _, member := range l.members {
			if member > after.Name && !yield(store.Member{Name: member}, nil) {
				return
			}
		}
		if l.err != nil {
			yield(store.Member{}, l.err)
		}
	}
}

// What an index has is passed on as far as it is wanted, with the trouble at its end; that
// counts for the breaker, and while it is open nobody takes an error for an empty index.
func TestLinked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &listing{members: []string{"a", "b", "c"}}
		s := &Store{inner: inner, breaker: breaker{log: slog.New(slog.DiscardHandler)}}
		read := func(most int) (members []string, failed error) {
			for member, err := range s.Linked(t.Context(), "index", store.Member{}) {
				if err != nil {
					failed = err
				} else if members = append(members, member.Name); len(members) == most {
					break
				}
			}
			return members, failed
		}
		if members, err := read(0); len(members) != 3 || err != nil {
			t.Errorf("%q %v", members, err)
		}
		if members, err := read(2); len(members) != 2 || err != nil {
			t.Errorf("as far as it is wanted: %q %v", members, err)
		}
		inner.err, inner.asked = errors.New("hung"), 0
		for range tripAfter {
			if members, err := read(0); len(members) != 3 || !errors.Is(err, inner.err) {
				t.Errorf("half way: %q %v", members, err)
			}
		}
		for range 10 {
			if members, err := read(0); len(members) != 0 || !errors.Is(err, errOpen) {
				t.Errorf("while it is open: %q %v", members, err)
			}
		}
		if inner.asked != tripAfter {
			t.Errorf("asked %d times, want %d", inner.asked, tripAfter)
		}
		inner.err = nil
		time.Sleep(probeEvery)
		if members, err := read(0); len(members) != 3 || err != nil {
			t.Errorf("when it answers again: %q %v", members, err)
		}
		lost := errors.New("lost")
		s.lost.Store(&lost)
		if members, err := read(0); len(members) != 0 || !errors.Is(err, lost) {
			t.Errorf("of a store that is not the known one: %q %v", members, err)
		}
	})
}
