package guard

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
)

// overLink is a guarded store whose Redis is at the other end of a link.
func overLink(t *testing.T, timeout time.Duration) (*Store, *redistest.Link) {
	t.Helper()
	link := redistest.StartLink(t, redistest.Start(t))
	inner, err := redisstore.Open(t.Context(), redisstore.Options{URL: "redis://" + link.Addr, Timeout: timeout, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inner.Close() })
	return guarded(t, inner, t.TempDir(), 0), link
}

// swapper moves one record on, and sees that nobody else did.
type swapper struct {
	key          string
	version      uint64
	unsure       bool // the last answer did not come
	acknowledged int
}

// swap moves the record on. An answer that does not come leaves open whether it was
// moved; what it says afterwards must be one of the two.
func (w *swapper) swap(t *testing.T, s *Store) {
	if w.unsure {
		records, err := s.Get(t.Context(), w.key)
		if err != nil {
			return
		}
		if version := records[0].Version; version != w.version && version != w.version+1 {
			t.Errorf("%s is at version %d after one swap of %d that was not answered", w.key, version, w.version)
		}
		w.version, w.unsure = records[0].Version, false
	}
	record, err := s.Swap(t.Context(), w.key, w.version, nil, store.Forever)
	switch {
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
		t.Errorf("%s at version %d: its own swap was taken for somebody else's: %v", w.key, w.version, err)
	case err != nil:
		w.unsure = true
	case record.Version != w.version+1:
		t.Errorf("%s: version %d after %d", w.key, record.Version, w.version)
	default:
		w.version = record.Version
		w.acknowledged++
	}
}

func swappers(t *testing.T, s *Store, n int) (all []*swapper) {
	t.Helper()
	for i := range n {
		w := &swapper{key: fmt.Sprint("swapped/", i), version: 1}
		timetest.AwaitNil(t, func() error {
			err := s.Create(t.Context(), w.key, nil, store.Forever)
			if errors.Is(err, store.ErrExists) { // by a call before, whose answer was too late
				return nil
			}
			return err
		})
		all = append(all, w)
	}
	return all
}

// ATTACKS FT-21: requests arrive and answers do not. What was done is not known then, and
// never taken for somebody else's doing; and it goes on when answers come again.
func TestOnlyAnswersAreLost(t *testing.T) {
	t.Parallel()
	s, link := overLink(t, time.Second)
	all := swappers(t, s, 8)
	for range 3 {
		for _, mute := range []bool{true, false} {
			link.Mute(mute)
			var wait sync.WaitGroup
			for _, w := range all {
				wait.Go(func() { w.swap(t, s) })
			}
			wait.Wait()
			if mute && !all[0].unsure {
				t.Fatal("an answer came all the same")
			}
		}
	}
	timetest.Await(t, "it goes on when answers come again", func() bool {
		before := all[0].acknowledged
		all[0].swap(t, s)
		return all[0].acknowledged > before
	})
}

// ATTACKS FT-22: over a link that is down nobody dials for each call: the breaker opens
// after a few that failed, says so once, and lets a probe through now and then.
func TestBreakerOverALinkThatIsDown(t *testing.T) {
	t.Parallel()
	s, link := overLink(t, time.Second)
	var log lockedLog
	s.breaker.log = slog.New(slog.NewTextHandler(&log, nil))
	all := swappers(t, s, 8)
	before := link.Dials.Load()
	link.Down()
	const calls = 1000 // of each
	most := int64(len(all)) * calls / 10
	var wait sync.WaitGroup
	for _, w := range all {
		wait.Go(func() {
			for n := 0; n < calls && link.Dials.Load()-before <= most; n++ {
				w.swap(t, s)
			}
		})
	}
	wait.Wait()
	dialled := link.Dials.Load() - before
	if dialled > most {
		t.Errorf("%d connections were asked for by %d calls while the link was down", dialled, len(all)*calls)
	}
	if said := strings.Count(log.String(), "the store does not answer"); said != 1 {
		t.Errorf("the breaker said %d times that it opened:\n%s", said, log.String())
	}
	link.Up()
	timetest.Await(t, "it goes on when the link is up again", func() bool {
		before := all[0].acknowledged
		all[0].swap(t, s)
		return all[0].acknowledged > before
	})
	if !strings.Contains(log.String(), "the store answers again") {
		t.Errorf("the breaker does not say that it closed:\n%s", log.String())
	}
	t.Logf("%d connections for %d calls", dialled, len(all)*calls)
}

type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// ATTACKS FT-22: a link that comes and goes is not stormed with connections, whether it
// only holds up what is on its way or ends all connections each time; and what goes over
// it is done once.
func TestFlappingLink(t *testing.T) {
	t.Parallel()
	const callers, flaps, beat = 32, 12, 100 * time.Millisecond
	for name, scene := range map[string]struct {
		down    func(*redistest.Link) (up func())
		dialled int64 // at most
	}{
		"held up": {(*redistest.Link).Hold, 2 * callers}, // at its first use
		"cut":     {func(l *redistest.Link) func() { l.Down(); return l.Up }, flaps * 10 * callers},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, link := overLink(t, 20*time.Second)
			all := swappers(t, s, callers)
			stop := make(chan struct{})
			var wait sync.WaitGroup
			for _, w := range all {
				wait.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							w.swap(t, s)
						}
					}
				})
			}
			for range flaps {
				time.Sleep(beat)
				up := scene.down(link)
				time.Sleep(beat)
				up()
			}
			acknowledged := 0
			close(stop)
			wait.Wait()
			for _, w := range all {
				acknowledged += w.acknowledged
			}
			dialled := link.Dials.Load()
			if dialled > scene.dialled {
				t.Errorf("%d connections", dialled)
			}
			if acknowledged == 0 {
				t.Error("nothing was done over the link")
			}
			t.Logf("%d connections, %d swaps", dialled, acknowledged)
		})
	}
}
