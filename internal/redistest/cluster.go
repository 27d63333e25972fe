package redistest

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Cluster is a Redis Cluster of three primaries and their replicas.
type Cluster struct {
	Servers []*Server // the first three were the primaries at the start

	t testing.TB
}

// StartCluster runs a Cluster with a number of replicas for each primary.
func StartCluster(t testing.TB, replicas int, args ...string) *Cluster {
	t.Helper()
	all := &Cluster{t: t}
	args = append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--repl-diskless-sync-delay", "0"}, args...)
	create := []string{"--cluster", "create"}
	for range 3 * (1 + replicas) {
		s := Start(t, args...)
		all.Servers = append(all.Servers, s)
		create = append(create, s.Addr)
	}
	all.command(append(create, "--cluster-replicas", fmt.Sprint(replicas), "--cluster-yes")...)
	all.settle()
	for n, s := range all.Servers {
		await(t, "the cluster does not come up", func() bool { return strings.Contains(s.ask("CLUSTER INFO"), "cluster_state:ok") })
		await(t, "a replica does not follow its primary", func() bool {
			replication := s.ask("INFO replication")
			if n < 3 {
				return strings.Count(replication, "state=online") == replicas
			}
			return strings.Contains(replication, "master_link_status:up")
		})
	}
	return all
}

// URL is the store URL of the Cluster.
func (all *Cluster) URL() string {
	var addrs []string
	for _, s := range all.Servers {
		addrs = append(addrs, s.Addr)
	}
	return "redis+cluster://" + strings.Join(addrs, ",")
}

// Reshard moves a number of slots from one server to another, with what is in them.
func (all *Cluster) Reshard(from, to *Server, slots int) {
	all.t.Helper()
	id := func(s *Server) string { return s.Tell("CLUSTER", "MYID") }
	all.command("--cluster", "reshard", from.Addr, "--cluster-from", id(from), "--cluster-to", id(to), "--cluster-slots", fmt.Sprint(slots), "--cluster-yes")
	all.settle()
}

// settle waits until all servers tell the same of who has which slots: what moves slots
// or takes a server away before that finds a Cluster that does not agree.
func (all *Cluster) settle() {
	all.t.Helper()
	await(all.t, "the servers do not agree about the slots", func() bool {
		return exec.CommandContext(all.t.Context(), "redis-cli", "--cluster", "check", all.Servers[0].Addr).Run() == nil
	})
}

func (all *Cluster) command(args ...string) {
	all.t.Helper()
	ctx, cancel := context.WithTimeout(all.t.Context(), 5*time.Minute) // each slot is synced to the disk several times
	defer cancel()
	if output, err := exec.CommandContext(ctx, "redis-cli", args...).CombinedOutput(); err != nil {
		all.t.Fatalf("redis-cli %s: %v\n%s", strings.Join(args, " "), err, output)
	}
}
