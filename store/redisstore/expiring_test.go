package redisstore_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/store"
	"authserver/store/storetest"

	"github.com/redis/go-redis/v9"
)

// What has expired leaves no key in Redis.
func TestNothingIsLeft(t *testing.T) {
	ctx, server := t.Context(), redistest.Start(t)
	s := open(t, server.URL())
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer client.Close()
	if err := s.Create(ctx, "stays", nil, store.Forever); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Second)
	if err := storetest.Expiring(ctx, s, 300, end); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(end))
	var left []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var err error
		if left, err = client.Keys(ctx, "*").Result(); err != nil {
			t.Fatal(err)
		}
		if len(left) == 1 {
			break
		}
	}
	if len(left) != 1 || !slices.Contains(left, "authserver:r:stays") {
		t.Errorf("%d keys are left: %q", len(left), left[:min(len(left), 10)])
	}
}

// What has expired in a family goes when others come, long before the family does.
func TestFamilyForgets(t *testing.T) {
	const dead, live = 60, 200
	ctx, server := t.Context(), redistest.Start(t)
	s := open(t, server.URL())
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer client.Close()
	soon := time.Now().Add(time.Second)
	if err := s.Create(ctx, store.MemberKey("family", "first"), nil, soon.Add(time.Hour)); err != nil { // which keeps the family
		t.Fatal(err)
	}
	for i := range dead {
		if err := s.Create(ctx, store.MemberKey("family", fmt.Sprint("dead ", i)), nil, soon); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Until(soon) + time.Millisecond)
	for i := range live {
		if err := s.Create(ctx, store.MemberKey("family", fmt.Sprint("live ", i)), nil, soon.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := client.HLen(ctx, "authserver:f:family").Result(); err != nil || n < live+1 || n > live+1+dead/3 {
		t.Errorf("%d members are kept of %d that live, %v", n, live+1, err)
	}
}

// A family is there for as long as the last of its members, whichever was written last,
// and for an hour more at most.
func TestFamilyIsKept(t *testing.T) {
	ctx, server := t.Context(), redistest.Start(t)
	s := open(t, server.URL())
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer client.Close()
	now := time.Now()
	write := func(member string, version uint64, expires time.Time) {
		t.Helper()
		var err error
		if version == 0 {
			err = s.Create(ctx, store.MemberKey("family", member), nil, expires)
		} else {
			_, err = s.Swap(ctx, store.MemberKey("family", member), version, nil, expires)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var last time.Time
	for i, step := range []struct {
		member  string
		version uint64
		lives   time.Duration
	}{
		{"a", 0, time.Hour}, {"a", 1, 23 * time.Hour}, {"a", 2, 48 * time.Hour}, {"a", 3, 48*time.Hour + time.Minute}, {"a", 4, 49 * time.Hour}, {"b", 0, time.Minute},
		{"b", 1, 50*time.Hour + 59*time.Minute}, {"a", 5, time.Hour}, {"a", 6, 51 * time.Hour}, {"a", 7, 51*time.Hour + time.Second}, {"b", 2, 52*time.Hour - time.Second}, {"b", 3, 1000 * time.Hour},
	} {
		expires := now.Add(step.lives)
		if write(step.member, step.version, expires); expires.After(last) {
			last = expires
		}
		kept, err := client.PExpireTime(ctx, "authserver:f:family").Result()
		if at := time.UnixMilli(kept.Milliseconds()); err != nil || at.UnixMilli() < last.UnixMilli() || at.After(last.Add(time.Hour)) {
			t.Errorf("step %d: the family is kept until %v, its last member until %v, %v", i, at, last, err)
		}
	}
}

// Who reads a family while Redis is killed and comes back sees all of it: where the one
// process was to go on means something else to the next.
func TestFamilyAcrossARestart(t *testing.T) {
	const members = 600 // of which a page has about a hundred
	ctx, server := t.Context(), redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	s := open(t, server.URL())
	for i := range members {
		if err := s.Create(ctx, store.MemberKey("family", fmt.Sprint("member ", i)), nil, store.Forever); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[string]bool)
	killed := false
	for member, err := range s.Members(ctx, "family") {
		if err != nil {
			t.Fatal(err)
		}
		if seen[member.Name] = true; !killed {
			killed = true
			server.Kill()
			server.Restart()
		}
	}
	if len(seen) != members {
		t.Errorf("%d of %d members were seen", len(seen), members)
	}
}

// Whether a member has expired is said by Redis's clock, wherever it is read, and not by that
// of an instance, which may be ahead or behind.
func TestMembersByTheClockOfRedis(t *testing.T) {
	const hour = 60 * 60
	ctx, server := t.Context(), redistest.Start(t)
	proxy := cutAnswers(t, server.Addr)
	s := open(t, "redis://"+proxy.addr)
	living, dead := store.MemberKey("family", "living"), store.MemberKey("family", "dead")
	if err := s.Create(ctx, living, nil, time.Now().Add(hour/2*time.Second)); err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer client.Close()
	for life := 50 * time.Millisecond; !client.HExists(ctx, "authserver:f:family", "dead").Val(); life *= 2 { // it has to come to Redis first
		soon := time.Now().Add(life)
		if err := s.Create(ctx, dead, nil, soon); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(soon) + time.Millisecond)
	}
	for _, test := range []struct {
		ahead        int64
		living, dead bool
	}{{0, true, false}, {hour, false, false}, {-hour, true, true}} {
		proxy.ahead.Store(test.ahead)
		listed := make(map[string]bool)
		for member, err := range s.Members(ctx, "family") {
			if err != nil {
				t.Fatal(err)
			}
			listed[member.Name] = true
		}
		records, err := s.Get(ctx, living, dead)
		if err != nil {
			t.Fatal(err)
		}
		if listed["living"] != test.living || listed["dead"] != test.dead || records[0].Exists() != test.living || records[1].Exists() != test.dead {
			t.Errorf("Redis is %d s ahead: listed %v, read %v; want living %t, dead %t", test.ahead, listed, records, test.living, test.dead)
		}
	}
}
