package redisstore_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
	"authserver/store"
	"authserver/store/redisstore"
	"authserver/store/storetest"
)

var durable = []string{"--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"}

func openReplicated(t *testing.T, url string, timeout time.Duration) *redisstore.Store {
	t.Helper()
	s, err := redisstore.Open(t.Context(), redisstore.Options{
		URL: url, Timeout: timeout, Logger: slog.New(slog.DiscardHandler), Durability: redisstore.Replicated,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if s.Durability() != redisstore.Replicated {
		t.Errorf("durability %q", s.Durability())
	}
	return s
}

func TestContractReplicated(t *testing.T) {
	t.Parallel()
	url := redistest.StartSentinels(t, 1, durable...).URL()
	storetest.Run(t, func(t *testing.T) store.Store { return openReplicated(t, url, 10*time.Second) })
}

// More than Redis is configured to keep is not promised, and the refusal says what is
// lacking.
func TestAskedForMore(t *testing.T) {
	t.Parallel()
	sentinels := redistest.StartSentinels(t, 1, durable...)
	forgetful := redistest.StartSentinels(t, 1, "--repl-diskless-sync-delay", "0")
	everySecond := redistest.Start(t, "--appendonly", "yes")
	alone := redistest.Start(t, durable...)
	for _, test := range []struct {
		name, url, durability, refused, promised string
	}{
		{"no replica", alone.URL(), redisstore.Replicated, "add replicas", ""},
		{"one that is alone", alone.URL(), redisstore.Fsync, "", redisstore.Fsync},
		{"no file", forgetful.URL(), redisstore.Replicated, "set appendonly yes", ""},
		{"every second", everySecond.URL(), redisstore.Fsync, "set appendfsync always", ""},
		{"every second, knowingly", everySecond.URL(), redisstore.Async, "", redisstore.Async},
		{"a failover", sentinels.URL(), redisstore.Fsync, "a failover can lose", ""},
		{"replicated is more than fsync", sentinels.Servers[0].URL(), redisstore.Replicated, "", redisstore.Replicated},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := promises(t, test.url, test.durability, test.promised, test.refused, "durability "+test.durability)
			if warned := strings.Contains(log, "min-replicas-to-write"); test.promised != "" && warned != (test.promised == redisstore.Replicated) {
				t.Errorf("log %s", log)
			}
		})
	}
	for url, waits := range map[string]bool{alone.URL(): true, forgetful.URL(): false} { // for replicas that were started at the same time
		_, err := redisstore.Open(t.Context(), redisstore.Options{URL: url, Timeout: 10 * time.Second, Durability: redisstore.Replicated, Logger: slog.New(slog.DiscardHandler)})
		if found := new(store.UnavailableError); errors.As(err, &found) != waits {
			t.Errorf("%v, may pass: %t", err, waits)
		}
	}
}

// What the replica does not have is not acknowledged, the second time as little as the
// first; and when it has it, who asks again finds his own work.
func TestReplicaGone(t *testing.T) {
	t.Parallel()
	sentinels := redistest.StartSentinels(t, 1, durable...)
	s := openReplicated(t, sentinels.Servers[0].URL(), 3*time.Second)
	ctx := t.Context()
	if err := errors.Join(s.Create(ctx, "record", nil, store.Forever), s.Create(ctx, "other", nil, store.Forever),
		s.Link(ctx, "index", "before", time.Now().Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	sentinels.Servers[1].Stop()
	calls := map[string]func() error{
		"create": func() error { return s.Create(ctx, "new", nil, store.Forever) },
		"swap":   func() error { _, err := s.Swap(ctx, "record", 1, nil, store.Forever); return err },
		"delete": func() error { return s.Delete(ctx, "other") },
		"add":    func() error { _, err := s.Add(ctx, "counter", 1, time.Hour); return err },
		"link":   func() error { return s.Link(ctx, "index", "member", time.Now().Add(time.Hour)) },
		"unlink": func() error { return s.Unlink(ctx, "index", "before") },
		"append": func() error { _, err := s.Append(ctx, "log", []byte("event"), store.KeepAll); return err },
		"ping":   func() error { return s.Ping(ctx) },
	}
	for _, time := range []string{"first", "second"} {
		var all sync.WaitGroup
		for name, call := range calls {
			all.Go(func() {
				if err := call(); err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound) {
					t.Errorf("%s, the %s time, without a replica: %v", name, time, err)
				}
			})
		}
		all.Wait()
	}
	sentinels.Servers[1].Continue()
	timetest.Await(t, "the replica comes back", func() bool { return s.Ping(ctx) == nil })
	if record, err := s.Swap(ctx, "record", 1, nil, store.Forever); !errors.Is(err, store.ErrConflict) || record.Version != 2 {
		t.Errorf("%+v, %v", record, err)
	}
	if err := s.Create(ctx, "new", nil, store.Forever); !errors.Is(err, store.ErrExists) {
		t.Error(err)
	}
	for _, name := range []string{"delete", "add", "link", "unlink", "append"} {
		if err := calls[name](); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A primary that dies right after it has acknowledged loses nothing (ATTACKS FT-07,
// FT-08): the replica that is promoted has it. The old primary comes back as a replica.
func TestFailoverLosesNothing(t *testing.T) {
	t.Parallel()
	sentinels := redistest.StartSentinels(t, 2, durable...)
	s := openReplicated(t, sentinels.URL(), 3*time.Second)
	ctx := t.Context()
	const writers = 8
	var all sync.WaitGroup
	var mu sync.Mutex
	acknowledged := make(map[string]uint64)
	dead := make(chan struct{})
	for writer := range writers {
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-dead:
					return
				default:
				}
				key := fmt.Sprint("record ", writer, " ", n)
				if s.Create(ctx, key, nil, store.Forever) != nil {
					continue
				}
				record, err := s.Swap(ctx, key, 1, nil, store.Forever)
				mu.Lock()
				if acknowledged[key] = 1; err == nil {
					acknowledged[key] = record.Version
				}
				mu.Unlock()
			}
		})
	}
	timetest.Await(t, "something is written", func() bool { mu.Lock(); defer mu.Unlock(); return len(acknowledged) > 100 })
	sentinels.Servers[0].Kill()
	close(dead)
	all.Wait()
	timetest.Await(t, "a replica is promoted", func() bool { return s.Create(ctx, fmt.Sprint(time.Now()), nil, store.Forever) == nil })
	check := func(when string) {
		for key, version := range acknowledged {
			var records []store.Record
			timetest.AwaitNil(t, func() (err error) { records, err = s.Get(ctx, key); return err })
			if records[0].Version < version {
				t.Errorf("%s: %s was acknowledged as version %d: %v", when, key, version, records)
			}
		}
	}
	check("after the failover")
	sentinels.Servers[0].Restart()
	old := connect(t, sentinels.Servers[0])
	timetest.Await(t, "the old primary becomes a replica", func() bool { return strings.Contains(old.Info(ctx, "replication").Val(), "role:slave") })
	timetest.Await(t, "something is written", func() bool { return s.Create(ctx, fmt.Sprint(time.Now()), nil, store.Forever) == nil })
	check("after the old primary came back")
}
