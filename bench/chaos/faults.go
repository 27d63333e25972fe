package main

import (
	"context"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"
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
	{"kill -9 of a server", func(w *world, i *instance, last time.Duration) { i.kill(); time.Sleep(last / 4); i.start() }},
	{"SIGTERM of a server", func(w *world, i *instance, last time.Duration) { i.terminate(); time.Sleep(last / 4); i.start() }},
	{"SIGSTOP of a server", func(w *world, i *instance, last time.Duration) { i.pause(); time.Sleep(last); i.resume() }},
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
	{"kill -9 of Redis", func(w *world, i *instance, last time.Duration) { w.redis.kill(); time.Sleep(last / 2); w.redis.start() }},
	{"SIGSTOP of Redis", func(w *world, i *instance, last time.Duration) {
		w.redis.signal(syscall.SIGSTOP)
		time.Sleep(last)
		w.redis.signal(syscall.SIGCONT)
	}},
	{"scripts of Redis flushed", func(w *world, i *instance, _ time.Duration) { w.redis.tell("SCRIPT FLUSH") }},
	{"Redis out of memory", func(w *world, i *instance, last time.Duration) {
		w.redis.tell("CONFIG SET maxmemory 1")
		time.Sleep(last)
		w.redis.tell("CONFIG SET maxmemory 0")
	}},
	{"Redis without its replicas", func(w *world, i *instance, last time.Duration) {
		w.redis.tell("CONFIG SET min-replicas-to-write 1")
		time.Sleep(last)
		w.redis.tell("CONFIG SET min-replicas-to-write 0")
	}},
}

func (r *redis) signal(s syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process != nil {
		r.process.Signal(s)
	}
}

// perHistory bounds the faults of one history, so that it comes to an end.
const perHistory = 12

// trouble makes one fault after the other until ctx ends.
func trouble(ctx context.Context, w *world, h *history, dice *rand.Rand) {
	faults := ofServers
	if w.redis != nil {
		faults = append(append([]fault(nil), ofServers...), ofRedis...)
	}
	for n := 0; ctx.Err() == nil && n < perHistory; n++ {
		for _, i := range w.instances {
			i.mourn(h)
			i.start()
		}
		f, i := faults[dice.IntN(len(faults))], w.instances[dice.IntN(len(w.instances))]
		last := time.Duration(50+dice.IntN(600)) * time.Millisecond
		quiet := time.Duration(100+dice.IntN(500)) * time.Millisecond
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
