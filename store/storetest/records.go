package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"authserver/store"
)

const racers = 64

func createOnce(ctx context.Context, s store.Store, name string) error {
	before := time.Now()
	expires := inAnHour()
	if err := s.Create(ctx, name, []byte("first"), expires); err != nil {
		return err
	}
	if err := s.Create(ctx, name, []byte("second"), expires); !errors.Is(err, store.ErrExists) {
		return broken("a second Create returns ErrExists", "%v", err)
	}
	r, err := get(ctx, s, name)
	if err != nil {
		return err
	}
	switch {
	case r.Version != 1:
		return broken("Create makes version 1", "%d", r.Version)
	case string(r.Value) != "first":
		return broken("a refused Create changes nothing", "%q", r.Value)
	case r.Expires.UnixMilli() != expires.UnixMilli():
		return broken("Expires is what Create was given, in milliseconds", "%s, not %s", r.Expires, expires)
	case r.Changed.Before(before.Add(-time.Minute)) || r.Changed.After(time.Now().Add(time.Minute)):
		return broken("Changed is when the version was written", "%s", r.Changed)
	}
	return nil
}

func createRacing(ctx context.Context, s store.Store, name string) error {
	var won atomic.Int64
	err := race(func(i int) error {
		err := s.Create(ctx, name, fmt.Append(nil, i), inAnHour())
		if err == nil {
			won.Add(1)
		} else if !errors.Is(err, store.ErrExists) {
			return err
		}
		return nil
	})
	if err == nil && won.Load() != 1 {
		err = broken("of concurrent Creates exactly one succeeds", "%d did", won.Load())
	}
	return err
}

// race runs f at once in many goroutines and returns the first error.
func race(f func(i int) error) error {
	var wait sync.WaitGroup
	failures := make(chan error, racers)
	for i := range racers {
		wait.Go(func() {
			if err := f(i); err != nil {
				failures <- err
			}
		})
	}
	wait.Wait()
	close(failures)
	return <-failures
}

func getSeveral(ctx context.Context, s store.Store, name string) error {
	for _, suffix := range []string{"a", "c"} {
		if err := s.Create(ctx, name+suffix, []byte(suffix), inAnHour()); err != nil {
			return err
		}
	}
	records, err := s.Get(ctx, name+"a", name+"b", name+"c")
	if err != nil {
		return err
	}
	if len(records) != 3 || string(records[0].Value) != "a" || records[1].Exists() || string(records[2].Value) != "c" {
		return broken("Get returns one record per key in their order, the zero Record for none", "%v", records)
	}
	return nil
}

func swap(ctx context.Context, s store.Store, name string) error {
	if _, err := s.Swap(ctx, name, 1, nil, inAnHour()); !errors.Is(err, store.ErrNotFound) {
		return broken("Swap without a record returns ErrNotFound", "%v", err)
	}
	if err := s.Create(ctx, name, []byte("one"), inAnHour()); err != nil {
		return err
	}
	first, err := get(ctx, s, name)
	if err != nil {
		return err
	}
	expires := time.Now().Add(2 * time.Hour)
	second, err := s.Swap(ctx, name, 1, []byte("two"), expires)
	if err != nil {
		return err
	}
	if second.Version != 2 || string(second.Value) != "two" || second.Expires.UnixMilli() != expires.UnixMilli() || second.Changed.Before(first.Changed) {
		return broken("Swap returns the record as it now is", "%+v", second)
	}
	if read, err := get(ctx, s, name); err != nil || !same(read, second) {
		return broken("Swap returns the record as it now is", "%+v, but Get %+v, %v", second, read, err)
	}
	for _, version := range []uint64{0, 1, 3} {
		current, err := s.Swap(ctx, name, version, []byte("wrong"), inAnHour())
		if !errors.Is(err, store.ErrConflict) || !same(current, second) {
			return broken("a Swap from another version returns ErrConflict and the current record", "version %d: %+v, %v", version, current, err)
		}
	}
	third, err := s.Swap(ctx, name, 2, nil, inAnHour())
	if err != nil || third.Version != 3 || string(third.Value) != "two" {
		return broken("a nil value keeps the present one", "%+v, %v", third, err)
	}
	fourth, err := s.Swap(ctx, name, 3, []byte{}, inAnHour())
	if err != nil || fourth.Version != 4 || len(fourth.Value) != 0 {
		return broken("an empty value replaces the present one", "%+v, %v", fourth, err)
	}
	return nil
}

// swapTells is about Record.Now.
func swapTells(ctx context.Context, s store.Store, name string) error {
	if err := s.Create(ctx, name, nil, inAnHour()); err != nil {
		return err
	}
	second, err := s.Swap(ctx, name, 1, nil, inAnHour())
	if err != nil {
		return err
	}
	if age := second.Now.Sub(second.Changed); age < 0 || age >= time.Minute {
		return broken("a record that Swap wrote is new by the store's clock", "%s old", age)
	}
	time.Sleep(short)
	current, err := s.Swap(ctx, name, 1, nil, inAnHour())
	if !errors.Is(err, store.ErrConflict) {
		return broken("a Swap from another version returns ErrConflict", "%v", err)
	}
	if age := current.Now.Sub(current.Changed); age < short*9/10 || age >= time.Minute { // clocks do not run alike to a hair
		return broken("Swap tells how old the current record is, by the store's clock", "%s old, %s after it was written", age, short)
	}
	return nil
}

func same(a, b store.Record) bool {
	return a.Version == b.Version && bytes.Equal(a.Value, b.Value) && a.Changed.Equal(b.Changed) && a.Expires.Equal(b.Expires)
}

func swapRacing(ctx context.Context, s store.Store, name string) error {
	if err := s.Create(ctx, name, []byte("start"), inAnHour()); err != nil {
		return err
	}
	var won atomic.Int64
	err := race(func(i int) error {
		mine := fmt.Append(nil, i)
		record, err := s.Swap(ctx, name, 1, mine, inAnHour())
		switch {
		case err == nil:
			won.Add(1)
			if !bytes.Equal(record.Value, mine) {
				return broken("a Swap that succeeds returns its own value", "%q", record.Value)
			}
		case !errors.Is(err, store.ErrConflict):
			return err
		}
		if record.Version != 2 {
			return broken("all racers see the winner's version", "%d", record.Version)
		}
		return nil
	})
	if err == nil && won.Load() != 1 {
		err = broken("of concurrent Swaps from one version exactly one succeeds", "%d did", won.Load())
	}
	return err
}

const short = 150 * time.Millisecond

func recordExpiry(ctx context.Context, s store.Store, name string) error {
	if err := s.Create(ctx, name, []byte("old"), time.Now().Add(short)); err != nil {
		return err
	}
	gone := func() (bool, error) { r, err := get(ctx, s, name); return !r.Exists(), err }
	if err := eventually(ctx, "a record ceases to exist when it expires", gone); err != nil {
		return err
	}
	if _, err := s.Swap(ctx, name, 1, nil, inAnHour()); !errors.Is(err, store.ErrNotFound) {
		return broken("an expired record cannot be swapped", "%v", err)
	}
	if err := s.Create(ctx, name, []byte("new"), inAnHour()); err != nil {
		return broken("an expired record does not exist for Create", "%v", err)
	}
	if r, err := get(ctx, s, name); err != nil || r.Version != 1 || string(r.Value) != "new" {
		return broken("a record made anew begins at version 1", "%+v, %v", r, err)
	}
	return nil
}

func swapMovesExpiry(ctx context.Context, s store.Store, name string) error {
	var expires time.Time
	for life := short; ; life *= 2 { // until it lives for as long as a slow machine takes to swap it
		expires = time.Now().Add(life)
		if err := s.Create(ctx, name, nil, expires); err != nil {
			return err
		}
		if _, err := s.Swap(ctx, name, 1, nil, inAnHour()); err == nil {
			break
		} else if !errors.Is(err, store.ErrNotFound) || time.Now().Before(expires) {
			return err
		}
	}
	if err := s.Create(ctx, name+"witness", nil, expires.Add(short)); err != nil {
		return err
	}
	gone := func() (bool, error) { r, err := get(ctx, s, name+"witness"); return !r.Exists(), err }
	if err := eventually(ctx, "a record ceases to exist when it expires", gone); err != nil {
		return err
	}
	if r, err := get(ctx, s, name); err != nil || !r.Exists() {
		return broken("a Swap with a later expiry keeps the record alive", "%+v, %v", r, err)
	}
	if _, err := s.Swap(ctx, name, 2, nil, time.Now().Add(-time.Second)); err != nil {
		return err
	}
	if r, err := get(ctx, s, name); err != nil || r.Exists() {
		return broken("an expiry that has passed ends the record", "%+v, %v", r, err)
	}
	return nil
}

func forever(ctx context.Context, s store.Store, name string) error {
	if err := s.Create(ctx, name, nil, store.Forever); err != nil {
		return err
	}
	if r, err := get(ctx, s, name); err != nil || !r.Exists() || !r.Expires.Equal(store.Forever) {
		return broken("Forever is kept", "%+v, %v", r, err)
	}
	return s.Delete(ctx, name)
}

func deleteRecord(ctx context.Context, s store.Store, name string) error {
	if err := s.Delete(ctx, name); err != nil {
		return broken("Delete of nothing is no error", "%v", err)
	}
	if err := s.Create(ctx, name, nil, inAnHour()); err != nil {
		return err
	}
	if err := s.Delete(ctx, name); err != nil {
		return err
	}
	if r, err := get(ctx, s, name); err != nil || r.Exists() {
		return broken("a deleted record does not exist", "%+v, %v", r, err)
	}
	return s.Create(ctx, name, nil, inAnHour())
}

func limits(ctx context.Context, s store.Store, name string) error {
	long, large := strings.Repeat("k", store.MaxKey+1), make([]byte, store.MaxValue+1)
	calls := map[string]func() error{
		"an empty key":   func() error { return s.Create(ctx, "", nil, inAnHour()) },
		"a long key":     func() error { return s.Create(ctx, long, nil, inAnHour()) },
		"a large value":  func() error { return s.Create(ctx, name, large, inAnHour()) },
		"no expiry":      func() error { return s.Create(ctx, name, nil, time.Time{}) },
		"Get":            func() error { _, err := s.Get(ctx, ""); return err },
		"Swap":           func() error { _, err := s.Swap(ctx, name, 1, large, inAnHour()); return err },
		"Delete":         func() error { return s.Delete(ctx, long) },
		"Add":            func() error { _, err := s.Add(ctx, "", 1, time.Hour); return err },
		"Link":           func() error { return s.Link(ctx, name, "", inAnHour()) },
		"Link no expiry": func() error { return s.Link(ctx, name, "member", time.Time{}) },
		"Unlink":         func() error { return s.Unlink(ctx, "", "member") },
		"Append":         func() error { _, err := s.Append(ctx, name, large, time.Hour); return err },
		"Tail":           func() error { _, err := s.Tail(ctx, "", 0, 0); return err },
	}
	for what, call := range calls {
		if err := call(); !errors.Is(err, store.ErrInvalid) {
			return broken("what the limits forbid is ErrInvalid", "%s: %v", what, err)
		}
	}
	exact := strings.Repeat("k", store.MaxKey-len(name)) + name
	value := bytes.Repeat([]byte{0, 255}, store.MaxValue/2)
	if err := s.Create(ctx, exact, value, inAnHour()); err != nil {
		return broken("what the limits allow is stored", "%v", err)
	}
	if r, err := get(ctx, s, exact); err != nil || !bytes.Equal(r.Value, value) {
		return broken("values are stored byte for byte", "%d bytes, %v", len(r.Value), err)
	}
	return nil
}

// namesApart is for names that strangers have a part in (ATTACKS OP-05): what patterns,
// hash tags, scripts and protocols take for more than text is text.
func namesApart(ctx context.Context, s store.Store, name string) error {
	hostile := []string{"", "*", "?", "[a-z]", "{", "}", "{}", "{x}", "{x}y", "x}{y", "\x00", "\x00x", "\r\n", "\r\nDEL *\r\n", "$1\r\na", "'\"", "\\", "/", "../", "%00",
		"]] redis.call('FLUSHALL') --", "\xff", " ", strings.Repeat("x", 200)}
	for i, suffix := range hostile {
		if err := s.Create(ctx, name+suffix, fmt.Append(nil, i), inAnHour()); err != nil {
			return broken("names are apart, whatever is in them", "Create %q: %v", suffix, err)
		}
		if err := s.Link(ctx, name, name+suffix, inAnHour()); err != nil {
			return err
		}
	}
	for i, suffix := range hostile {
		r, err := get(ctx, s, name+suffix)
		if err != nil || string(r.Value) != fmt.Sprint(i) {
			return broken("names are apart, whatever is in them", "%q holds %q, %v", suffix, r.Value, err)
		}
	}
	linked := make(map[string]bool)
	for member, err := range s.Linked(ctx, name, store.Member{}) {
		if err != nil {
			return err
		}
		linked[member.Name] = true
	}
	for i, suffix := range hostile {
		if !linked[name+suffix] || len(linked) != len(hostile) {
			return broken("names are apart, whatever is in them", "%d of %d are linked, %q: %t", len(linked), len(hostile), suffix, linked[name+suffix])
		}
		if err := s.Delete(ctx, name+suffix); err != nil {
			return err
		}
		for _, other := range hostile[i+1:] {
			if r, err := get(ctx, s, name+other); err != nil || !r.Exists() {
				return broken("names are apart, whatever is in them", "with %q went %q, %v", suffix, other, err)
			}
		}
	}
	return nil
}

func contextEnds(ctx context.Context, s store.Store, name string) error {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Get(ended, name); err == nil {
		return broken("a call with an ended context fails", "Get did not")
	}
	if err := s.Create(ended, name, nil, inAnHour()); err == nil {
		return broken("a call with an ended context fails", "Create did not")
	}
	waiting, cancel := context.WithTimeout(ctx, short)
	defer cancel()
	if _, err := s.Tail(waiting, name, 0, time.Hour); err == nil {
		return broken("Tail ends with its context", "it returned no error")
	}
	return nil
}

func ping(ctx context.Context, s store.Store, _ string) error { return s.Ping(ctx) }
