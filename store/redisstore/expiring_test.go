package redisstore_test

import (
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
