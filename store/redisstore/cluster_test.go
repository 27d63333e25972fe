package redisstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
	"authserver/store"
	"authserver/store/storetest"
)

func TestContractOnReplicatedCluster(t *testing.T) {
	t.Parallel()
	url := redistest.StartCluster(t, 1, durable...).URL()
	storetest.Run(t, func(t *testing.T) store.Store { return openReplicated(t, url, 10*time.Second) })
}

// Slots move while records in them are written, with and without waiting for the
// replicas, and then a primary dies (ATTACKS FT-09, FT-10): every version that was
// acknowledged is there, and nobody's own work is taken for somebody else's.
func TestClusterReshardsAndLosesAPrimary(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 1, append([]string{"--cluster-require-full-coverage", "no"}, durable...)...)
	plain, replicated := open(t, cluster.URL()), openReplicated(t, cluster.URL(), 10*time.Second)
	ctx := t.Context()
	var all sync.WaitGroup
	stop := make(chan struct{})
	var writes, troubles atomic.Int64
	const moving = 150 // slots, and the records are in them
	node := connect(t, cluster.Servers[0])
	var keys []string
	for n := 0; len(keys) < 20; n++ {
		if key := fmt.Sprint("record ", n); node.ClusterKeySlot(ctx, "authserver:r:"+key).Val() < moving {
			keys = append(keys, key)
		}
	}
	acknowledged := make([]uint64, len(keys))
	for n, key := range keys {
		s := plain
		if n%2 == 1 {
			s = replicated
		}
		if err := s.Create(ctx, key, nil, store.Forever); err != nil {
			t.Fatal(err)
		}
		acknowledged[n] = 1
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
				record, err := s.Swap(ctx, key, acknowledged[n], nil, store.Forever)
				switch {
				case err == nil:
					writes.Add(1)
				case errors.Is(err, store.ErrConflict) && record.Version == acknowledged[n]+1 && troubles.Load() > 0: // ours, that nobody answered
				case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
					t.Errorf("%s: version %d was acknowledged: %v, version %d", key, acknowledged[n], err, record.Version)
					return
				default:
					troubles.Add(1)
					continue
				}
				acknowledged[n] = record.Version
			}
		})
	}
	cluster.Reshard(cluster.Servers[0], cluster.Servers[1], moving)
	cluster.Reshard(cluster.Servers[1], cluster.Servers[2], moving)
	during := writes.Load()
	if refused := troubles.Load(); during == 0 || refused > 10+during/100 {
		t.Errorf("%d writes while slots moved, and %d in trouble", during, refused)
	}
	close(stop)
	all.Wait()
	for n, key := range keys { // what was written without waiting is waited for by this
		if record, err := replicated.Swap(ctx, key, acknowledged[n], nil, store.Forever); err != nil {
			t.Errorf("%s: %v", key, err)
		} else {
			acknowledged[n] = record.Version
		}
	}
	elsewhere := ""
	for n := 0; elsewhere == ""; n++ { // of the second server, which stays
		key := fmt.Sprint("elsewhere ", n)
		if slot := node.ClusterKeySlot(ctx, "authserver:r:"+key).Val(); slot > 6000 && slot < 10000 {
			elsewhere = key
		}
	}
	if err := plain.Create(ctx, elsewhere, nil, store.Forever); err != nil {
		t.Fatal(err)
	}
	cluster.Servers[2].Kill()
	others, version := 0, uint64(1)
	timetest.Await(t, keys[0]+" can be read, and what is elsewhere written", func() bool {
		record, err := plain.Swap(ctx, elsewhere, version, nil, store.Forever)
		if err == nil {
			others++
		}
		if err == nil || errors.Is(err, store.ErrConflict) { // or our own, that nobody answered
			version = record.Version
		} else if strings.Contains(err.Error(), "CLUSTERDOWN") {
			t.Errorf("what is on another server cannot be written: %v", err)
		}
		_, err = plain.Get(ctx, keys[0])
		return err == nil && others > 0
	})
	for n, key := range keys {
		for _, s := range []store.Store{plain, replicated} {
			var found []store.Record
			timetest.Await(t, key+" can be read", func() (read bool) {
				records, err := s.Get(ctx, key)
				found = records
				return err == nil
			})
			if found[0].Version < acknowledged[n] {
				t.Errorf("%s: version %d was acknowledged, and %v found", key, acknowledged[n], found)
			}
		}
	}
	t.Logf("%d writes, %d in trouble", writes.Load(), troubles.Load())
}
