package guard

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/store"
	"authserver/store/redisstore"
)

func onRedis(t *testing.T, server *redistest.Server) store.Store {
	t.Helper()
	s, err := redisstore.Open(t.Context(), redisstore.Options{URL: server.URL(), Timeout: 10 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// ATTACKS FT-03: when the power of Redis's machine goes, what was written and not synced
// is gone. With appendfsync always nothing of it was acknowledged.
func TestRedisPowerCut(t *testing.T) {
	t.Parallel()
	server, directory := redistest.StartTraced(t, "--appendfsync", "always"), t.TempDir()
	s := guarded(t, onRedis(t, server.Server), directory, 0)
	var mu sync.Mutex
	var acknowledged []string
	enough := make(chan struct{})
	var writers sync.WaitGroup
	for writer := range 8 {
		writers.Go(func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf("written/%d/%d", writer, n)
				err := s.Create(t.Context(), key, []byte(strings.Repeat("x", 100)), store.Forever)
				if err == nil && n%10 == 0 {
					err = s.tick(t.Context())
				}
				if err != nil {
					return // the power is gone
				}
				mu.Lock()
				if acknowledged = append(acknowledged, key); len(acknowledged) == 400 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	lost := server.CutPower()
	writers.Wait()
	server.Restart()
	again := guarded(t, onRedis(t, server.Server), directory, 0) // it is the store that it was
	for _, key := range acknowledged {
		if records, err := again.Get(t.Context(), key); err != nil || !records[0].Exists() {
			t.Errorf("%s was acknowledged and is gone: %v", key, err)
		}
	}
	t.Logf("%d acknowledged; %d bytes lost", len(acknowledged), lost)
}

// ATTACKS FT-03: with appendfsync everysec what was acknowledged can be lost. The server
// notices. It goes on only where it knew that this may happen, and then says so.
func TestRedisPowerCutEverySecond(t *testing.T) {
	t.Parallel()
	for round := 0; ; round++ {
		if round == 10 {
			t.Fatal("no power cut lost anything")
		}
		server, directory := redistest.StartTraced(t, "--appendfsync", "everysec"), t.TempDir()
		s := guarded(t, onRedis(t, server.Server), directory, time.Minute)
		server.Tell("CONFIG", "SET", "appendfsync", "always") // so that the first is there afterwards
		write(t, s, "written/0")
		server.Tell("CONFIG", "SET", "appendfsync", "everysec")
		for n := range 49 {
			write(t, s, fmt.Sprint("written/", n+1))
		}
		server.CutPower()
		server.Restart()
		inner := onRedis(t, server.Server)
		records, err := inner.Get(t.Context(), "written/49")
		if err != nil {
			t.Fatal(err)
		}
		if records[0].Exists() { // all was synced just then
			continue
		}
		if lost := lostBy(t, inner, directory); lost == nil {
			t.Error("a store that may lose nothing is not found to have lost something")
		}
		var log strings.Builder
		_, err = Open(t.Context(), inner, Options{Directory: directory, MayLose: time.Minute, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil || !strings.Contains(log.String(), "lost") {
			t.Errorf("%v; the log says %q", err, log.String())
		}
		return
	}
}
