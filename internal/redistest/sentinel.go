package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Sentinels are three Sentinels and the servers that they watch under the name
// "primary".
type Sentinels struct {
	Servers []*Server // the first was the primary at the start, the others its replicas

	watching []*Server
}

// StartSentinels runs a primary, a number of replicas and the Sentinels, and
// returns when each knows all others.
func StartSentinels(t testing.TB, replicas int, args ...string) *Sentinels {
	t.Helper()
	return StartSentinelsWith(t, []string{
		"sentinel monitor primary 10.0.0.1 6379 2", // two must agree that it is gone
		"sentinel down-after-milliseconds primary 3000", "sentinel failover-timeout primary 5000",
	}, replicas, args...)
}

// StartSentinelsWith is StartSentinels with the lines of a sentinel.conf, for a primary
// at 10.0.0.1:6379.
func StartSentinelsWith(t testing.TB, config []string, replicas int, args ...string) *Sentinels {
	t.Helper()
	primary := Start(t, args...)
	host, port, _ := strings.Cut(primary.Addr, ":")
	all := &Sentinels{Servers: []*Server{primary}}
	for range replicas {
		all.Servers = append(all.Servers, Start(t, append(args, "--replicaof", host, port, "--repl-diskless-sync-delay", "0")...))
	}
	for range 3 {
		all.watching = append(all.watching, startSentinel(t, primary, config))
	}
	for _, replica := range all.Servers[1:] {
		await(t, "a replica does not follow its primary", func() bool { return strings.Contains(replica.ask("INFO replication"), "master_link_status:up") })
	}
	await(t, "the primary does not know its replicas", func() bool { return strings.Count(primary.ask("INFO replication"), "state=online") == replicas })
	want := fmt.Sprintf("slaves=%d,sentinels=3", replicas)
	for _, sentinel := range all.watching {
		await(t, "the Sentinels do not find each other", func() bool { return strings.Contains(sentinel.ask("INFO sentinel"), want) })
	}
	return all
}

func startSentinel(t testing.TB, primary *Server, lines []string) *Server {
	t.Helper()
	host, port, _ := strings.Cut(primary.Addr, ":")
	s := &Server{Addr: FreeAddress(t), t: t, dir: t.TempDir()}
	_, own, _ := strings.Cut(s.Addr, ":")
	config := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\n", own, s.dir)
	config += strings.ReplaceAll(strings.Join(lines, "\n"), "10.0.0.1 6379", host+" "+port) + "\n"
	path := filepath.Join(s.dir, "sentinel.conf") // Sentinel writes what it learns into it
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.args = []string{path, "--sentinel"}
	s.Restart()
	return s
}

// URL is the store URL of the Sentinels.
func (all *Sentinels) URL() string {
	var addrs []string
	for _, sentinel := range all.watching {
		addrs = append(addrs, sentinel.Addr)
	}
	return "redis+sentinel://" + strings.Join(addrs, ",") + "/primary"
}

func await(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !reached(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}
