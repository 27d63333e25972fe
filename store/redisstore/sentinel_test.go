package redisstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
	"authserver/store"
	"authserver/store/redisstore"
	"authserver/store/storetest"

	"github.com/redis/go-redis/v9"
)

func TestContractThroughSentinel(t *testing.T) {
	t.Parallel()
	url := redistest.StartSentinels(t, 0).URL()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, url) })
	other := strings.TrimSuffix(url, "primary") + "other"
	if s, err := redisstore.Open(t.Context(), redisstore.Options{URL: other}); err == nil {
		s.Close()
		t.Error("a name that Sentinel does not know leads to a store")
	}
}

// The primary dies, the Sentinels promote the replica, and the store goes on there
// by itself, with its scripts, which the replica never saw. What the replica had
// received is there, each version as it was acknowledged; what the primary alone
// had acknowledged may be lost, and so the store promises no more than "async".
func TestFailover(t *testing.T) {
	t.Parallel()
	sentinels := redistest.StartSentinels(t, 1, "--appendonly", "yes", "--appendfsync", "always")
	var log bytes.Buffer
	s, err := redisstore.Open(t.Context(), redisstore.Options{URL: sentinels.URL(), Timeout: 10 * time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Durability() != "async" || !strings.Contains(log.String(), "failover") {
		t.Errorf("durability %q, log %s", s.Durability(), log.String())
	}
	ctx := t.Context()
	const records = 50
	for i := range records {
		if err := s.Create(ctx, fmt.Sprint(i), []byte("value"), store.Forever); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Swap(ctx, fmt.Sprint(i), 1, nil, store.Forever); err != nil {
			t.Fatal(err)
		}
	}
	position, err := s.Append(ctx, "revocations", []byte("before"), store.KeepAll)
	if err != nil {
		t.Fatal(err)
	}
	old, promoted := connect(t, sentinels.Servers[0]), connect(t, sentinels.Servers[1])
	// Replication is in order: with the marker the replica has all that came before.
	if err := old.Set(ctx, "marker", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	timetest.Await(t, "the replica has what the primary acknowledged", func() bool { return promoted.Exists(ctx, "marker").Val() == 1 })
	if err := promoted.ScriptFlush(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	sentinels.Servers[0].Kill()

	refused := 0
	for deadline := time.Now().Add(60 * time.Second); ; refused++ {
		// An outcome that is not known is repeated; it is never somebody else's.
		err := s.Create(ctx, fmt.Sprint("during ", refused), nil, store.Forever)
		if err == nil {
			break
		}
		if errors.Is(err, store.ErrExists) || time.Now().After(deadline) {
			t.Fatalf("after %d refusals: %v", refused, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if refused == 0 {
		t.Error("nothing was refused: the primary did not go")
	}
	for i := range records {
		if record, err := s.Swap(ctx, fmt.Sprint(i), 2, nil, store.Forever); err != nil || record.Version != 3 || string(record.Value) != "value" {
			t.Errorf("record %d: %+v, %v", i, record, err)
		}
	}
	after, err := s.Append(ctx, "revocations", []byte("after"), store.KeepAll)
	if err != nil || after <= position {
		t.Errorf("position %d after %d, %v", after, position, err)
	}
	if events, err := s.Tail(ctx, "revocations", 0, 0); err != nil || len(events) != 2 {
		t.Errorf("events %v, %v", events, err)
	}
}
func connect(t *testing.T, server *redistest.Server) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { client.Close() })
	return client
}
