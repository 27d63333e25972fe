package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"authserver/bench/internal/process"
)

// sentinels are three Redis, of which one is the primary, and three Sentinels that watch
// them, as docs/operating.md says.
type sentinels struct {
	servers  []*redis
	watching []*redis
}

const machines = 3

func startSentinels() (*sentinels, error) {
	all := new(sentinels)
	for n := range machines {
		config := "save \"\"\nappendonly yes\nappendfsync always\nmin-replicas-to-write 1\nmin-replicas-max-lag 1\nrepl-diskless-sync-delay 0\n"
		if n > 0 {
			config += "replicaof 127.0.0.1 " + all.servers[0].port + "\n"
		}
		s, err := startConfigured("redis.conf", config)
		if s != nil {
			all.servers = append(all.servers, s)
		}
		if err != nil {
			return all, err
		}
	}
	for range machines {
		s, err := startConfigured("sentinel.conf", "sentinel monitor primary 127.0.0.1 "+all.servers[0].port+" 2\n"+
			"sentinel down-after-milliseconds primary 5000\nsentinel failover-timeout primary 10000\n", "--sentinel")
		if s != nil {
			all.watching = append(all.watching, s)
		}
		if err != nil {
			return all, err
		}
	}
	return all, all.await("the Sentinels do not find each other", func() bool {
		for _, s := range all.watching {
			if info, err := s.ask("INFO sentinel"); err != nil || !strings.Contains(info, fmt.Sprintf("slaves=%d,sentinels=%d", machines-1, machines)) {
				return false
			}
		}
		return all.whole()
	})
}

// startConfigured starts a redis-server on a configuration that it, and whoever tells it
// what it is, may rewrite.
func startConfigured(name, config string, args ...string) (*redis, error) {
	port, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	directory, err := os.MkdirTemp("", "authserver-chaos-redis-")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(directory, name)
	r := &redis{port: port, directory: directory, args: append([]string{path}, args...)}
	config = fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\n%s", port, directory, config)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return r, err
	}
	return r, r.start()
}

// url is that of the store for an instance.
func (all *sentinels) url() string {
	var addresses []string
	for _, s := range all.watching {
		addresses = append(addresses, "127.0.0.1:"+s.port)
	}
	return "redis+sentinel://" + strings.Join(addresses, ",") + "/primary"
}

func (all *sentinels) end() {
	for _, r := range append(all.watching, all.servers...) {
		r.signal(syscall.SIGCONT)
		r.end()
	}
}

func (all *sentinels) await(what string, reached func() bool) error {
	for began := time.Now(); !reached(); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			return errors.New(what)
		}
	}
	return nil
}

// primary is the server that most Sentinels call so; nil while they do not agree.
func (all *sentinels) primary() *redis {
	votes := make(map[string]int)
	for _, s := range all.watching {
		answer, err := s.ask("SENTINEL GET-MASTER-ADDR-BY-NAME primary")
		for _, r := range all.servers {
			if err == nil && strings.Contains(answer, "\r\n"+r.port+"\r\n") {
				if votes[r.port]++; votes[r.port] > machines/2 {
					return r
				}
			}
		}
	}
	return nil
}

// replicas is how many follow the primary and have all that it has.
func (all *sentinels) replicas() int {
	if p := all.primary(); p != nil {
		if info, err := p.ask("INFO replication"); err == nil && strings.Contains(info, "role:master") {
			return strings.Count(info, "state=online")
		}
	}
	return 0
}

func (all *sentinels) whole() bool { return all.replicas() == machines-1 }

// heal starts what was killed and waits until writes are taken.
func (all *sentinels) heal() error {
	for _, r := range append(all.servers, all.watching...) {
		r.signal(syscall.SIGCONT)
		if err := r.start(); err != nil {
			return err
		}
	}
	return all.await("no Redis takes writes after the trouble", func() bool { return all.replicas() > 0 })
}

// mayFailOver waits until the one that was the primary before follows again.
func mayFailOver(ctx context.Context, w *world) bool {
	for began := time.Now(); ctx.Err() == nil && time.Since(began) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
		if w.sentinels.whole() {
			return true
		}
	}
	return false
}

// failover takes the primary away until another one is promoted, and lets it come back.
func (all *sentinels) failover(away, back func(*redis), last time.Duration) {
	old := all.primary()
	if old == nil {
		return
	}
	away(old)
	all.await("", func() bool { now := all.primary(); return now != nil && now != old })
	time.Sleep(last)
	back(old)
}

// replica is one that is not the primary.
func (all *sentinels) replica(n int) *redis {
	primary := all.primary()
	for {
		if r := all.servers[n%machines]; r != primary {
			return r
		}
		n++
	}
}

func pauseRedis(r *redis)  { r.signal(syscall.SIGSTOP) }
func resumeRedis(r *redis) { r.signal(syscall.SIGCONT) }
func startAgain(r *redis)  { r.start() }

// ofSentinels are the faults of Redis behind Sentinel. SENTINEL FAILOVER is none of them:
// it loses what is acknowledged meanwhile (docs/operating.md).
var ofSentinels = []fault{
	{"failover of Redis by kill -9 of the primary", func(w *world, i *instance, last time.Duration) {
		w.sentinels.failover((*redis).kill, startAgain, last)
	}},
	{"failover of Redis by SIGSTOP of the primary", func(w *world, i *instance, last time.Duration) {
		w.sentinels.failover(pauseRedis, resumeRedis, last)
	}},
	{"failover of Redis by SIGTERM of the primary", func(w *world, i *instance, last time.Duration) {
		w.sentinels.failover((*redis).terminate, startAgain, last)
	}},
	{"kill -9 of Redis's primary, back at once", func(w *world, i *instance, last time.Duration) {
		if p := w.sentinels.primary(); p != nil {
			p.kill()
			time.Sleep(last / 2)
			p.start()
		}
	}},
	{"kill -9 of a replica of Redis", func(w *world, i *instance, last time.Duration) {
		r := w.sentinels.replica(i.number)
		r.kill()
		time.Sleep(last)
		r.start()
	}},
	{"SIGSTOP of both replicas of Redis", func(w *world, i *instance, last time.Duration) {
		p := w.sentinels.primary()
		for _, r := range w.sentinels.servers {
			if r != p {
				r.signal(syscall.SIGSTOP)
				defer r.signal(syscall.SIGCONT)
			}
		}
		time.Sleep(2 * last)
	}},
	{"kill -9 of a Sentinel of Redis", func(w *world, i *instance, last time.Duration) {
		s := w.sentinels.watching[i.number]
		s.kill()
		time.Sleep(last)
		s.start()
	}},
	{"scripts of Redis flushed", func(w *world, i *instance, _ time.Duration) {
		if p := w.sentinels.primary(); p != nil {
			p.tell("SCRIPT FLUSH")
		}
	}},
}
