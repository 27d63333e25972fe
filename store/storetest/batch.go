package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"authserver/store"
)

// batch does everything in its order, and what it created can be read in it.
func batch(ctx context.Context, s store.Store, name string) error {
	const rule = "Do creates, links and reads in this order"
	until := inAnHour()
	if err := s.Create(ctx, name+" before", []byte("0"), until); err != nil {
		return err
	}
	records, err := store.Do(ctx, s, store.Batch{
		Create: []store.Creation{{Key: name + " a", Value: []byte("1"), Expires: until}, {Key: name + " b", Expires: until.Add(time.Hour)}},
		Link:   []store.Membership{{Index: name, Member: "m", Expires: until}, {Index: name, Member: "n", Expires: until}},
		Get:    []string{name + " b", name + " none", name + " before", name + " a"},
	})
	if err != nil {
		return err
	}
	again, err := s.Get(ctx, name+" b", name+" none", name+" before", name+" a")
	if err != nil {
		return err
	}
	if len(records) != len(again) {
		return broken(rule, "%d records of %d", len(records), len(again))
	}
	for i, r := range again {
		if got := records[i]; got.Version != r.Version || string(got.Value) != string(r.Value) || !got.Expires.Equal(r.Expires) || !got.Changed.Equal(r.Changed) {
			return broken(rule, "record %d is %+v, Get says %+v", i, got, r)
		}
	}
	if a := again[3]; a.Version != 1 || string(a.Value) != "1" || again[0].Version != 1 || again[1].Exists() || a.Expires.UnixMilli() != until.UnixMilli() {
		return broken(rule, "there is %+v", again)
	}
	for _, member := range []string{"m", "n"} {
		if linked, err := contains(ctx, s, name, member); err != nil || !linked {
			return errors.Join(err, broken(rule, "%s is linked: %t", member, linked))
		}
	}
	if records, err := store.Do(ctx, s, store.Batch{}); err != nil || len(records) != 0 {
		return broken("an empty batch does nothing", "%v, %v", records, err)
	}
	return nil
}

func contains(ctx context.Context, s store.Store, index, member string) (bool, error) {
	found := false
	for one, err := range s.Linked(ctx, index, store.Member{}) {
		if err != nil {
			return false, err
		}
		found = found || one.Name == member
	}
	return found, nil
}

// batchEnds: where a record exists, nothing after it is done, and which one is told.
func batchEnds(ctx context.Context, s store.Store, name string) error {
	const rule = "Do ends where a record exists"
	if err := s.Create(ctx, name+" there", []byte("first"), inAnHour()); err != nil {
		return err
	}
	_, err := store.Do(ctx, s, store.Batch{
		Create: []store.Creation{{Key: name + " there", Value: []byte("second"), Expires: inAnHour()}, {Key: name + " after", Expires: inAnHour()}},
		Link:   []store.Membership{{Index: name, Member: "m", Expires: inAnHour()}},
		Get:    []string{name + " there"},
	})
	exists := new(store.ExistsError)
	if !errors.As(err, &exists) || !errors.Is(err, store.ErrExists) || exists.Key != name+" there" {
		return broken(rule, "Do returned %v", err)
	}
	records, err := s.Get(ctx, name+" there", name+" after")
	if err != nil {
		return err
	}
	if string(records[0].Value) != "first" || records[1].Exists() {
		return broken(rule, "there is %+v", records)
	}
	if linked, err := contains(ctx, s, name, "m"); err != nil || linked {
		return errors.Join(err, broken(rule, "the member is linked: %t", linked))
	}
	for _, bad := range []store.Batch{
		{Create: []store.Creation{{Expires: inAnHour()}}}, {Create: []store.Creation{{Key: name + " x"}}},
		{Create: []store.Creation{{Key: name + " x", Expires: inAnHour()}}, Link: []store.Membership{{Index: name, Member: "x"}}},
		{Link: []store.Membership{{Member: "x", Expires: inAnHour()}}}, {Get: []string{""}},
	} {
		if _, err := store.Do(ctx, s, bad); !errors.Is(err, store.ErrInvalid) {
			return broken("what no store takes is ErrInvalid", "%+v: %v", bad, err)
		}
	}
	return nil
}

// batchRacing: of many batches that create the same record one gets through, and only
// what it created after that is there.
func batchRacing(ctx context.Context, s store.Store, name string) error {
	const callers = 16
	errs := make([]error, callers)
	var wait sync.WaitGroup
	for i := range callers {
		wait.Go(func() {
			_, errs[i] = store.Do(ctx, s, store.Batch{Create: []store.Creation{
				{Key: name, Expires: inAnHour()}, {Key: fmt.Sprintf("%s %d", name, i), Expires: inAnHour()},
			}})
		})
	}
	wait.Wait()
	won := 0
	for i, err := range errs {
		if err != nil && !errors.Is(err, store.ErrExists) {
			return err
		}
		r, getErr := get(ctx, s, fmt.Sprintf("%s %d", name, i))
		if getErr != nil {
			return getErr
		}
		if r.Exists() != (err == nil) {
			return broken("Do ends where a record exists", "Do returned %v, and what comes after it exists: %t", err, r.Exists())
		}
		if err == nil {
			won++
		}
	}
	if won != 1 {
		return broken("of concurrent callers exactly one succeeds", "%d did", won)
	}
	return nil
}
