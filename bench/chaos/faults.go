package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"authserver/bench/internal/process"
)

// fault makes trouble, lets it be for a while and ends it.
type fault struct {
	name string
	do   func(w *world, i *instance, last time.Duration)
}

func (i *instance) pause() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.process != nil {
		i.process.Signal(syscall.SIGSTOP)
		i.stopped = true
	}
}

func (i *instance) resume() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.process != nil && i.stopped {
		i.process.Signal(syscall.SIGCONT)
	}
	i.stopped = false
}

// ofServers are the faults of any server.
var ofServers = []fault{
	{"kill -9 of a server", func(w *world, i *instance, last time.Duration) {
		i.kill()
		time.Sleep(last / 4)
		i.start()
	}},
	{"SIGTERM of a server", func(w *world, i *instance, last time.Duration) {
		i.terminate()
		time.Sleep(last / 4)
		i.start()
	}},
	{"SIGSTOP of a server", func(w *world, i *instance, last time.Duration) {
		i.pause()
		time.Sleep(last)
		i.resume()
	}},
}

// ofRedis are the faults of Redis and of the way to it.
var ofRedis = []fault{
	{"answers of Redis lost", func(w *world, i *instance, last time.Duration) {
		i.proxy.drop.Store(50)
		time.Sleep(last)
		i.proxy.drop.Store(0)
	}},
	{"every third answer of Redis lost", func(w *world, i *instance, last time.Duration) {
		i.proxy.drop.Store(333)
		time.Sleep(last)
		i.proxy.drop.Store(0)
	}},
	{"Redis cut off", func(w *world, i *instance, last time.Duration) {
		i.proxy.refused.Store(true)
		i.proxy.cut()
		time.Sleep(last)
		i.proxy.refused.Store(false)
	}},
	{"Redis slow by 100 ms", func(w *world, i *instance, last time.Duration) {
		i.proxy.delay.Store(int64(100 * time.Millisecond))
		time.Sleep(last)
		i.proxy.delay.Store(0)
	}},
	{"Redis slow by 700 ms", func(w *world, i *instance, last time.Duration) {
		i.proxy.delay.Store(int64(700 * time.Millisecond))
		time.Sleep(last)
		i.proxy.delay.Store(0)
	}},
	{"Redis hung", func(w *world, i *instance, last time.Duration) {
		i.proxy.hung.Store(true)
		time.Sleep(last)
		i.proxy.hung.Store(false)
	}},
	{"connections to Redis cut", func(w *world, i *instance, _ time.Duration) { i.proxy.cut() }},
	{"kill -9 of Redis", func(w *world, i *instance, last time.Duration) {
		w.redis.kill()
		time.Sleep(last / 2)
		w.redis.start()
	}},
	{"SIGSTOP of Redis", func(w *world, i *instance, last time.Duration) {
		w.redis.signal(syscall.SIGSTOP)
		time.Sleep(last)
		w.redis.signal(syscall.SIGCONT)
	}},
	{"scripts of Redis flushed", func(w *world, i *instance, _ time.Duration) { w.redis.tell("SCRIPT FLUSH") }},
}

// refusal is a state in which Redis refuses writes with an error that begins like this.
type refusal struct {
	name, answer string
	begin, end   func(*redis) error
}

func told(command string) func(*redis) error {
	return func(r *redis) error { return r.tell(command) }
}

var refusals = []refusal{
	{"Redis out of memory", "OOM", told("CONFIG SET maxmemory 1"), told("CONFIG SET maxmemory 0")},
	{"Redis without its replicas", "NOREPLICAS", told("CONFIG SET min-replicas-to-write 1"), told("CONFIG SET min-replicas-to-write 0")},
	{"Redis made a replica", "READONLY", told("REPLICAOF 127.0.0.1 1"), told("REPLICAOF NO ONE")},
	{"Redis unable to save", "MISCONF", (*redis).cannotSave, (*redis).canSave},
	{"Redis loading", "LOADING", (*redis).loads, (*redis).loaded},
}

func (one refusal) fault() fault {
	return fault{one.name, func(w *world, i *instance, last time.Duration) {
		one.begin(w.redis)
		time.Sleep(last)
		one.end(w.redis)
	}}
}

// cannotSave has a snapshot fail, for there is a directory where it should be.
func (r *redis) cannotSave() error {
	if err := os.Mkdir(r.snapshot(), 0o700); err != nil {
		return err
	}
	if err := errors.Join(r.tell(`CONFIG SET save "3600 1"`), r.tell("BGSAVE")); err != nil {
		return err
	}
	return r.await("persistence", "rdb_last_bgsave_status:err")
}

func (r *redis) canSave() error {
	return errors.Join(r.tell(`CONFIG SET save ""`), os.RemoveAll(r.snapshot()))
}

func (r *redis) snapshot() string { return filepath.Join(r.directory, "dump.rdb") }

// loads kills it and starts it so that it takes about a second to load what it has.
func (r *redis) loads() error {
	err := r.tell("BGREWRITEAOF") // of a log it does not say how many entries it has
	if err == nil {
		err = r.await("persistence", "aof_rewrite_in_progress:0")
	}
	size, sizeErr := r.ask("DBSIZE")
	if err = errors.Join(err, sizeErr); err != nil {
		return err
	}
	var keys int
	fmt.Sscanf(size, ":%d", &keys)
	r.kill()
	return r.start("--key-load-delay", fmt.Sprint(1_000_000/max(keys, 100)), "--loading-process-events-interval-bytes", "1024")
}

func (r *redis) loaded() error { return r.await("persistence", "loading:0") }

// await waits until a section of INFO says something.
func (r *redis) await(section, says string) error {
	return process.Await(func() error {
		info, err := r.ask("INFO " + section)
		if err == nil && !strings.Contains(info, "\n"+says+"\r\n") {
			err = fmt.Errorf("it does not say %s", says)
		}
		return err
	}, 20*time.Second)
}

// perHistory bounds the faults of one history, so that it comes to an end.
const perHistory = 12

// trouble makes one fault after the other until ctx ends.
func trouble(ctx context.Context, w *world, h *history, dice *rand.Rand) {
	faults, most := ofServers, perHistory
	switch {
	case w.timepiece != nil:
		faults = slices.Concat(ofServers, ofClocks(h))
	case w.redis != nil:
		faults = slices.Concat(ofServers, ofRedis)
		for _, one := range refusals {
			faults = append(faults, one.fault())
		}
	case w.sentinels != nil: // a failover takes seconds
		faults, most = slices.Concat(ofServers, ofSentinels), perHistory/2
	}
	for n := 0; ctx.Err() == nil && n < most; n++ {
		for _, i := range w.instances {
			i.mourn(h)
			i.start()
		}
		f, i := faults[dice.IntN(len(faults))], w.instances[dice.IntN(len(w.instances))]
		last := time.Duration(50+dice.IntN(600)) * time.Millisecond
		quiet := time.Duration(100+dice.IntN(500)) * time.Millisecond
		if strings.HasPrefix(f.name, "failover") && !mayFailOver(ctx, w) {
			continue
		}
		h.inject(f.name, "instance %d, %s", i.number, last)
		if strings.Contains(f.name, "kill") {
			h.killed()
		}
		if strings.Contains(f.name, "Redis") {
			w.storeTrouble.Add(1)
		}
		f.do(w, i, last)
		if strings.Contains(f.name, "Redis") {
			w.storeTrouble.Add(-1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(quiet):
		}
	}
}
