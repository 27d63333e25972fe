package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"authserver/store"
)

// inFamily is a check of records, of one that is a member of a family: it keeps all that
// is promised of records.
func inFamily(run func(ctx context.Context, s store.Store, name string) error) func(context.Context, store.Store, string) error {
	return func(ctx context.Context, s store.Store, name string) error {
		return run(ctx, s, store.MemberKey(name, "member"))
	}
}

// familyOf returns the names of the members, sorted, and what the last one of each held.
func familyOf(ctx context.Context, s store.Store, name string) ([]string, map[string]store.Record, error) {
	records := make(map[string]store.Record)
	var names []string
	for member, err := range s.Members(ctx, name) {
		if err != nil {
			return nil, nil, err
		}
		names = append(names, member.Name)
		records[member.Name] = member.Record
	}
	slices.Sort(names)
	return slices.Compact(names), records, nil
}

func family(ctx context.Context, s store.Store, name string) error {
	const rule = "Members yields the records of a family and no others"
	if names, _, err := familyOf(ctx, s, name); err != nil || len(names) > 0 {
		return broken("a family without members is no error", "%q, %v", names, err)
	}
	until := inAnHour()
	for _, key := range []string{
		name, name + "\x00", "\x00" + name, store.MemberKey(name+"x", "other"), store.MemberKey(name[:len(name)-1], "other"),
		store.MemberKey(name, "a"), store.MemberKey(name, "b"), store.MemberKey(name, "b\x00c"), store.MemberKey(name, "gone"),
	} {
		if err := s.Create(ctx, key, []byte(key), until); err != nil {
			return err
		}
	}
	if err := s.Link(ctx, name, "linked", until); err != nil {
		return err
	}
	if err := s.Delete(ctx, store.MemberKey(name, "gone")); err != nil {
		return err
	}
	swapped, err := s.Swap(ctx, store.MemberKey(name, "b"), 1, []byte("swapped"), until.Add(time.Hour))
	if err != nil {
		return err
	}
	names, records, err := familyOf(ctx, s, name)
	if err != nil || !slices.Equal(names, []string{"a", "b", "b\x00c"}) {
		return broken(rule, "%q, %v", names, err)
	}
	if !same(records["b"], swapped) {
		return broken("Members yields records as they are", "%+v, not %+v", records["b"], swapped)
	}
	for _, member := range names {
		if r, err := get(ctx, s, store.MemberKey(name, member)); err != nil || !same(records[member], r) {
			return broken("Members yields records as they are", "%q is %+v, and Get says %+v, %v", member, records[member], r, err)
		}
		if err := s.Delete(ctx, store.MemberKey(name, member)); err != nil {
			return err
		}
	}
	if names, _, err := familyOf(ctx, s, name); err != nil || len(names) > 0 {
		return broken("a deleted record is no member", "%q, %v", names, err)
	}
	for _, bad := range []string{"", "a\x00b"} {
		if _, _, err := familyOf(ctx, s, bad); !errors.Is(err, store.ErrInvalid) {
			return broken("the name of a family has no NUL and is not empty", "%q: %v", bad, err)
		}
	}
	return nil
}

// familyExpiry: each member has an expiry of its own, and the family lasts as long as its
// last, whichever came first.
func familyExpiry(ctx context.Context, s store.Store, name string) error {
	soonGone, until := time.Now().Add(short), inAnHour()
	for _, one := range []struct {
		member  string
		expires time.Time
	}{{"early", soonGone}, {"long", until}, {"late", soonGone}, {"shortened", until}} {
		if err := s.Create(ctx, store.MemberKey(name, one.member), nil, one.expires); err != nil {
			return err
		}
	}
	if _, err := s.Swap(ctx, store.MemberKey(name, "shortened"), 1, nil, soonGone); err != nil {
		return err
	}
	if err := s.Create(ctx, store.MemberKey(name+"whole", "only"), nil, soonGone); err != nil {
		return err
	}
	err := eventually(ctx, "a member is gone when it expires", func() (bool, error) {
		names, _, err := familyOf(ctx, s, name)
		return slices.Equal(names, []string{"long"}), err
	})
	if err != nil {
		return err
	}
	for _, member := range []string{"early", "late", "shortened"} {
		if r, err := get(ctx, s, store.MemberKey(name, member)); err != nil || r.Exists() {
			return broken("a member is gone when it expires", "%s is %+v, %v", member, r, err)
		}
		if _, err := s.Swap(ctx, store.MemberKey(name, member), 1, nil, until); !errors.Is(err, store.ErrNotFound) {
			return broken("an expired member cannot be swapped", "%s: %v", member, err)
		}
	}
	err = eventually(ctx, "a family is gone with its last member", func() (bool, error) {
		names, _, err := familyOf(ctx, s, name+"whole")
		return len(names) == 0, err
	})
	if err != nil {
		return err
	}
	// What has expired is in nobody's way, and comes back to nobody.
	if err := s.Create(ctx, store.MemberKey(name, "early"), []byte("again"), until); err != nil {
		return broken("an expired member does not exist for Create", "%v", err)
	}
	names, records, err := familyOf(ctx, s, name)
	if err != nil || !slices.Equal(names, []string{"early", "long"}) || string(records["early"].Value) != "again" {
		return broken("an expired member can be created again", "%q, %v", names, err)
	}
	return nil
}

func familyPages(ctx context.Context, s store.Store, name string) error {
	const many = 1200
	slots := make(chan struct{}, racers)
	failures := make(chan error, many)
	for i := range many {
		slots <- struct{}{}
		go func() {
			failures <- s.Create(ctx, store.MemberKey(name, fmt.Sprintf("member %d", i)), nil, inAnHour())
			<-slots
		}()
	}
	for range many {
		if err := <-failures; err != nil {
			return err
		}
	}
	names, _, err := familyOf(ctx, s, name)
	if err == nil && len(names) != many {
		err = broken("Members yields each member", "%d of %d", len(names), many)
	}
	return err
}
