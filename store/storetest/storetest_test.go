package storetest_test

import (
	"context"
	"iter"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/store"
	"authserver/store/boltstore"
	"authserver/store/storetest"
)

// Each fault is a store that breaks one promise. The suite has to notice, and to
// name the rule.
func TestSuiteBites(t *testing.T) {
	for _, fault := range []struct {
		name, check, rule string
		wrap              func(store.Store) store.Store
	}{
		{"a Create that lets two win", "create racing", "exactly one succeeds", func(s store.Store) store.Store { return &twoWin{Store: s} }},
		{"a Swap that ignores the version", "swap racing", "", func(s store.Store) store.Store { return anyVersion{s} }},
		{"a Swap that tells the caller's time", "swap tells the age", "by the store's clock", func(s store.Store) store.Store { return behind{s} }},
		{"a Swap that tells no time", "swap tells the age", "by the store's clock", func(s store.Store) store.Store { return timeless{s} }},
		{"a record that never expires", "record expiry", "ceases to exist", func(s store.Store) store.Store { return immortal{s} }},
		{"an index that outlives its members", "index expiry", "leaves its index", func(s store.Store) store.Store { return &clinging{Store: s} }},
		{"an index that is gone on with by count", "index order", "goes on after a member", func(s store.Store) store.Store { return &counting{Store: s} }},
		{"an index that begins anew", "index order", "goes on after a member", func(s store.Store) store.Store { return forgetting{s} }},
		{"a Tail that skips an event", "log order", "every event", func(s store.Store) store.Store { return skipping{s} }},
		{"a nil value that erases", "swap", "keeps the present one", func(s store.Store) store.Store { return erasing{s} }},
		{"a counter that is prolonged", "counter window", "window of its first Add", func(s store.Store) store.Store { return &prolonging{Store: s} }},
		{"names that end at a NUL", "names apart", "names are apart", func(s store.Store) store.Store { return cutting{s} }},
		{"a batch that goes on", "batch ends", "ends where a record exists", func(s store.Store) store.Store { return goingOn{s} }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			inner := open(t)
			for _, check := range storetest.Checks {
				if check.Name != fault.check {
					continue
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := check.Run(ctx, inner, "sound"); err != nil {
					t.Fatalf("the sound store fails: %v", err)
				}
				err := check.Run(ctx, fault.wrap(inner), "faulty")
				if err == nil || !strings.Contains(err.Error(), fault.rule) {
					t.Errorf("the suite says %v, want a breach of %q", err, fault.rule)
				}
				return
			}
			t.Errorf("there is no check %q", fault.check)
		})
	}
}

func open(t *testing.T) store.Store {
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

type cutting struct{ store.Store }

func (c cutting) Create(ctx context.Context, key string, value []byte, expires time.Time) error {
	key, _, _ = strings.Cut(key, "\x00")
	return c.Store.Create(ctx, key, value, expires)
}

type goingOn struct{ store.Store }

func (f goingOn) Do(ctx context.Context, b store.Batch) ([]store.Record, error) {
	var failed error
	for _, c := range b.Create {
		if _, err := store.Do(ctx, f.Store, store.Batch{Create: []store.Creation{c}}); err != nil {
			failed = err
		}
	}
	return nil, failed
}

type twoWin struct {
	store.Store
	once sync.Once
}

func (f *twoWin) Create(ctx context.Context, key string, value []byte, expires time.Time) error {
	err := f.Store.Create(ctx, key, value, expires)
	if err != nil {
		f.once.Do(func() { err = nil })
	}
	return err
}

type anyVersion struct{ store.Store }

func (f anyVersion) Swap(ctx context.Context, key string, _ uint64, value []byte, expires time.Time) (store.Record, error) {
	for {
		records, err := f.Store.Get(ctx, key)
		if err != nil {
			return store.Record{}, err
		}
		record, err := f.Store.Swap(ctx, key, records[0].Version, value, expires)
		if err == nil {
			return record, nil
		}
	}
}

// behind says when a record changed by another clock than when it answers.
type behind struct{ store.Store }

func (f behind) Swap(ctx context.Context, key string, version uint64, value []byte, expires time.Time) (store.Record, error) {
	record, err := f.Store.Swap(ctx, key, version, value, expires)
	record.Changed = record.Changed.Add(-time.Minute)
	return record, err
}

type timeless struct{ store.Store }

func (f timeless) Swap(ctx context.Context, key string, version uint64, value []byte, expires time.Time) (store.Record, error) {
	record, err := f.Store.Swap(ctx, key, version, value, expires)
	record.Now = time.Time{}
	return record, err
}

type immortal struct{ store.Store }

func (f immortal) Create(ctx context.Context, key string, value []byte, _ time.Time) error {
	return f.Store.Create(ctx, key, value, store.Forever)
}

type clinging struct{ store.Store }

func (f *clinging) Link(ctx context.Context, index, member string, expires time.Time) error {
	return f.Store.Link(ctx, index, member, expires.Add(time.Hour))
}

func (f *clinging) Linked(ctx context.Context, index string, after store.Member) iter.Seq2[store.Member, error] {
	return f.Store.Linked(ctx, index, after)
}

type counting struct {
	store.Store
	yielded int
}

func (f *counting) Linked(ctx context.Context, index string, after store.Member) iter.Seq2[store.Member, error] {
	return func(yield func(store.Member, error) bool) {
		if after.Name == "" {
			f.yielded = 0
		}
		skip := f.yielded
		for member, err := range f.Store.Linked(ctx, index, store.Member{}) {
			if skip > 0 {
				skip--
				continue
			}
			f.yielded++
			if !yield(member, err) {
				return
			}
		}
	}
}

type forgetting struct{ store.Store }

func (f forgetting) Linked(ctx context.Context, index string, _ store.Member) iter.Seq2[store.Member, error] {
	return f.Store.Linked(ctx, index, store.Member{})
}

type skipping struct{ store.Store }

func (f skipping) Tail(ctx context.Context, log string, after store.Position, wait time.Duration) ([]store.Event, error) {
	events, err := f.Store.Tail(ctx, log, after, wait)
	if len(events) > 3 {
		events = append(events[:2:2], events[3:]...)
	}
	return events, err
}

type erasing struct{ store.Store }

func (f erasing) Swap(ctx context.Context, key string, version uint64, value []byte, expires time.Time) (store.Record, error) {
	if value == nil {
		value = []byte{}
	}
	return f.Store.Swap(ctx, key, version, value, expires)
}

type prolonging struct {
	store.Store
	mu  sync.Mutex
	sum int64
}

func (f *prolonging) Add(_ context.Context, _ string, n int64, _ time.Duration) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sum += n
	return f.sum, nil
}
