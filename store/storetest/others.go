package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"authserver/store"
)

func counter(ctx context.Context, s store.Store, name string) error {
	for _, step := range []struct{ n, want int64 }{{0, 0}, {5, 5}, {2, 7}, {-4, 3}, {0, 3}} {
		got, err := s.Add(ctx, name, step.n, time.Hour)
		if err != nil {
			return err
		}
		if got != step.want {
			return broken("Add returns the new value", "%d after adding %d, want %d", got, step.n, step.want)
		}
	}
	if r, err := get(ctx, s, name); err != nil || r.Exists() {
		return broken("counters share no keys with records", "%+v, %v", r, err)
	}
	return nil
}

func counterRacing(ctx context.Context, s store.Store, name string) error {
	var highest atomic.Int64
	err := race(func(int) error {
		n, err := s.Add(ctx, name, 1, time.Hour)
		for {
			seen := highest.Load()
			if n <= seen || highest.CompareAndSwap(seen, n) {
				return err
			}
		}
	})
	if err == nil && highest.Load() != racers {
		err = broken("no concurrent Add is lost", "%d of %d counted", highest.Load(), racers)
	}
	return err
}

func counterWindow(ctx context.Context, s store.Store, name string) error {
	if _, err := s.Add(ctx, name, 100, short); err != nil {
		return err
	}
	// The polling adds, too: if that prolonged the window, it would never end.
	return eventually(ctx, "a counter lives for the window of its first Add", func() (bool, error) {
		n, err := s.Add(ctx, name, 1, short)
		return n < 100, err
	})
}

func members(ctx context.Context, s store.Store, name string) ([]string, error) {
	var found []string
	for member, err := range s.Linked(ctx, name, store.Member{}) {
		if err != nil {
			return nil, err
		}
		found = append(found, member.Name)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

func index(ctx context.Context, s store.Store, name string) error {
	for _, member := range []string{"a", "b", "c", "b"} {
		if err := s.Link(ctx, name, member, inAnHour()); err != nil {
			return err
		}
	}
	if err := s.Link(ctx, name+"x", "other", inAnHour()); err != nil {
		return err
	}
	if err := s.Unlink(ctx, name, "a"); err != nil {
		return err
	}
	if err := s.Unlink(ctx, name, "never there"); err != nil {
		return broken("Unlink of nothing is no error", "%v", err)
	}
	found, err := members(ctx, s, name)
	if err != nil {
		return err
	}
	if !slices.Equal(found, []string{"b", "c"}) {
		return broken("Linked yields the members of the index and no others", "%q", found)
	}
	return nil
}

func indexExpiry(ctx context.Context, s store.Store, name string) error {
	soonGone := time.Now().Add(short)
	for member, expires := range map[string]time.Time{"short": soonGone, "long": inAnHour(), "prolonged": soonGone} {
		if err := s.Link(ctx, name, member, expires); err != nil {
			return err
		}
	}
	if err := s.Link(ctx, name+"whole", "short", soonGone); err != nil {
		return err
	}
	if err := s.Link(ctx, name, "prolonged", inAnHour()); err != nil {
		return err
	}
	if err := s.Link(ctx, name, "long", soonGone); err != nil { // an earlier expiry changes nothing
		return err
	}
	err := eventually(ctx, "a member leaves its index when it expires", func() (bool, error) {
		found, err := members(ctx, s, name)
		return !slices.Contains(found, "short"), err
	})
	if err != nil {
		return err
	}
	if found, err := members(ctx, s, name); err != nil || !slices.Equal(found, []string{"long", "prolonged"}) {
		return broken("a member stays until the later of its expiries", "%q, %v", found, err)
	}
	return eventually(ctx, "an index exists while it has members", func() (bool, error) {
		found, err := members(ctx, s, name+"whole")
		return len(found) == 0, err
	})
}

func indexPages(ctx context.Context, s store.Store, name string) error {
	const many = 1200
	slots := make(chan struct{}, racers)
	failures := make(chan error, many)
	for i := range many {
		slots <- struct{}{}
		go func() {
			failures <- s.Link(ctx, name, fmt.Sprintf("member %d", i), inAnHour())
			<-slots
		}()
	}
	for range many {
		if err := <-failures; err != nil {
			return err
		}
	}
	found, err := members(ctx, s, name)
	if err == nil && len(found) != many {
		err = broken("Linked yields each member", "%d of %d", len(found), many)
	}
	return err
}

// indexOrder: who goes on after the last member that he has seen, by another question and
// after what happened since, misses none that was linked all the while.
func indexOrder(ctx context.Context, s store.Store, name string) error {
	const (
		many = 40
		rule = "Linked goes on after a member"
	)
	together := inAnHour()
	later := together.Add(time.Hour)
	member := func(i int) string { return fmt.Sprintf("%c member %d", "aZé\xff_"[i%6], i) } // no locale's order
	for i := range many {
		expires := together
		if i%4 == 0 {
			expires = expires.Add(time.Duration(many-i) * time.Second)
		}
		if err := s.Link(ctx, name, member(i), expires); err != nil {
			return err
		}
	}
	seen, gone := make(map[string]int), make(map[string]bool)
	var after store.Member
	for pages := 0; ; pages++ {
		if pages > 3*many {
			return broken(rule, "it does not come to an end: %d are seen", len(seen))
		}
		var page []store.Member
		for one, err := range s.Linked(ctx, name, after) {
			if err != nil {
				return err
			}
			if page = append(page, one); len(page) == 3 {
				break
			}
		}
		if len(page) == 0 {
			break
		}
		for _, one := range page {
			if seen[one.Name]++; seen[one.Name] > 2 || one == after {
				return broken(rule, "%q comes again", one.Name)
			}
		}
		after = page[len(page)-1]
		// The last one goes, and one is linked anew that has been seen or has not.
		if pages%2 == 0 {
			gone[after.Name] = true
			if err := s.Unlink(ctx, name, after.Name); err != nil {
				return err
			}
		}
		if i := pages % many; !gone[member(i)] {
			if err := s.Link(ctx, name, member(i), later); err != nil {
				return err
			}
		}
	}
	for i := range many {
		if seen[member(i)] == 0 {
			return broken(rule, "%q is passed over; %d of %d are seen", member(i), len(seen), many)
		}
	}
	return nil
}

func logOrder(ctx context.Context, s store.Store, name string) error {
	if events, err := s.Tail(ctx, name, 0, 0); err != nil || len(events) != 0 {
		return broken("an empty log has no events and is no error", "%v, %v", events, err)
	}
	var positions []store.Position
	for i := range 20 {
		position, err := s.Append(ctx, name, fmt.Append(nil, i), time.Hour)
		if err != nil {
			return err
		}
		positions = append(positions, position)
	}
	for start := range positions {
		after := store.Position(0)
		if start > 0 {
			after = positions[start-1]
		}
		events, err := s.Tail(ctx, name, after, 0)
		if err != nil {
			return err
		}
		if len(events) != len(positions)-start {
			return broken("Tail returns every event after a position", "%d of %d after event %d", len(events), len(positions)-start, start)
		}
		for i, event := range events {
			if event.Position != positions[start+i] || string(event.Value) != fmt.Sprint(start+i) {
				return broken("Tail returns events in their order with their positions", "%v at %d", event, start+i)
			}
		}
	}
	if !slices.IsSorted(positions) || positions[0] == 0 || len(slices.Compact(positions)) != 20 {
		return broken("positions grow with each event", "%v", positions)
	}
	return nil
}

func logRacing(ctx context.Context, s store.Store, name string) error {
	const each = 10
	read := make(chan error, 1)
	go func() { // a reader that follows while others append
		seen := make(map[string]bool)
		for after := store.Position(0); len(seen) < racers*each; {
			events, err := s.Tail(ctx, name, after, 100*time.Millisecond)
			if err == nil && ctx.Err() != nil {
				err = broken("a follower sees every event", "%d of %d", len(seen), racers*each)
			}
			if err != nil {
				read <- err
				return
			}
			for _, event := range events {
				if event.Position <= after {
					read <- broken("positions grow with each event", "%d after %d", event.Position, after)
					return
				}
				after = event.Position
				seen[string(event.Value)] = true
			}
			if len(events) == 0 && len(seen) > 0 {
				if all, err := s.Tail(ctx, name, 0, 0); err == nil && len(all) == racers*each && len(seen) < racers*each && after == all[len(all)-1].Position {
					read <- broken("a follower sees every event", "%d of %d when it reached the end", len(seen), racers*each)
					return
				}
			}
		}
		read <- nil
	}()
	err := race(func(i int) error {
		for j := range each {
			if _, err := s.Append(ctx, name, fmt.Appendf(nil, "%d/%d", i, j), time.Hour); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return <-read
}

func logPages(ctx context.Context, s store.Store, name string) error {
	const many = store.MaxTail + 50
	slots := make(chan struct{}, racers)
	failures := make(chan error, many)
	for range many {
		slots <- struct{}{}
		go func() {
			_, err := s.Append(ctx, name, []byte("event"), time.Hour)
			failures <- err
			<-slots
		}()
	}
	for range many {
		if err := <-failures; err != nil {
			return err
		}
	}
	first, err := s.Tail(ctx, name, 0, 0)
	if err != nil || len(first) != store.MaxTail {
		return broken("one Tail returns MaxTail events at most", "%d, %v", len(first), err)
	}
	rest, err := s.Tail(ctx, name, first[len(first)-1].Position, 0)
	if err != nil || len(rest) != many-store.MaxTail {
		return broken("the next Tail goes on where the last ended", "%d, %v", len(rest), err)
	}
	return nil
}

func logWakes(ctx context.Context, s store.Store, name string) error {
	result := make(chan error, 1)
	go func() {
		events, err := s.Tail(ctx, name, 0, soon)
		if err == nil && len(events) == 0 {
			err = broken("Tail returns when an event comes", "it returned none")
		}
		result <- err
	}()
	select { // give the reader time to wait; either order must work
	case <-time.After(short):
	case err := <-result:
		return broken("Tail waits for an event", "it returned at once: %v", err)
	}
	if _, err := s.Append(ctx, name, []byte("event"), time.Hour); err != nil {
		return err
	}
	return <-result
}

func logKeep(ctx context.Context, s store.Store, name string) error {
	if _, err := s.Append(ctx, name, []byte("old"), short); err != nil {
		return err
	}
	if _, err := s.Append(ctx, name+"kept", []byte("old"), store.KeepAll); err != nil {
		return err
	}
	err := eventually(ctx, "events older than keep are dropped", func() (bool, error) {
		if _, err := s.Append(ctx, name, []byte("new"), short); err != nil {
			return false, err
		}
		events, err := s.Tail(ctx, name, 0, 0)
		return len(events) > 0 && string(events[0].Value) == "new", err
	})
	if err != nil {
		return err
	}
	if events, err := s.Tail(ctx, name+"kept", 0, 0); err != nil || len(events) != 1 {
		return broken("KeepAll never drops an event", "%v, %v", events, err)
	}
	return nil
}
