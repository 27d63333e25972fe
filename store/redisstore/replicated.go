package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"authserver/store"

	"github.com/redis/go-redis/v9"
)

// What an acknowledged write survives, each more than the one before.
const (
	Async      = "async"      // a crash of authserver
	Fsync      = "fsync"      // a crash of Redis's machine, too
	Replicated = "replicated" // the loss of that machine, and a failover
)

// errNotReplicated is an outcome that is not known: the write may be kept or lost.
// Who repeats it finds its own work, and waits again.
var errNotReplicated = errors.New("too few replicas have confirmed a write in time; it is not acknowledged")

// replicate runs a script and waits, in the same round trip and on the same
// connection, until enough replicas have what it wrote. WAIT counts from the last
// write of its connection, so each script writes something also when it finds its
// work done by an attempt whose answer was lost: else that would be acknowledged
// without being waited for.
func (s *Store) replicate(ctx context.Context, script *redis.Script, keys []string, args []any) (any, error) {
	result, err := s.runAndWait(ctx, script.EvalSha, keys, args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		result, err = s.runAndWait(ctx, script.Eval, keys, args)
	}
	return result, err
}

type runScript = func(ctx context.Context, c redis.Scripter, keys []string, args ...any) *redis.Cmd

func (s *Store) runAndWait(ctx context.Context, run runScript, keys []string, args []any) (any, error) {
	node, err := s.primary(ctx, keys[0])
	if err != nil {
		return nil, err
	}
	asking := false
	for hop := 0; ; hop++ {
		result, err := s.runAndWaitOn(ctx, node, asking, run, keys, args)
		cluster, isCluster := s.client.(*redis.ClusterClient)
		moved, ask := redis.HasErrorPrefix(err, "MOVED"), redis.HasErrorPrefix(err, "ASK")
		if !isCluster || hop == 3 || !moved && !ask {
			return result, err
		}
		// A slot moves. The driver follows it for commands that have a key; WAIT has none.
		if moved {
			cluster.ReloadState(ctx)
		}
		where := strings.Fields(err.Error()) // MOVED slot host:port
		if node, err = nodeAt(ctx, cluster, where[len(where)-1]); err != nil {
			return nil, err
		}
		asking = ask
	}
}

// primary is the node that has a key.
func (s *Store) primary(ctx context.Context, key string) (redis.Cmdable, error) {
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, key)
	}
	return s.client, nil
}

// nodeAt is the primary of a Cluster with an address.
func nodeAt(ctx context.Context, cluster *redis.ClusterClient, address string) (redis.Cmdable, error) {
	found := make(chan redis.Cmdable, 1)
	err := cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		if node.Options().Addr == address {
			found <- node
		}
		return nil
	})
	select {
	case node := <-found:
		return node, nil
	default:
		return nil, errors.Join(fmt.Errorf("a slot is at %s, which is not known as a primary", address), err)
	}
}

func (s *Store) runAndWaitOn(ctx context.Context, node redis.Cmdable, asking bool, run runScript, keys []string, args []any) (any, error) {
	pipeline := node.Pipeline()
	if asking {
		pipeline.Do(ctx, "ASKING")
	}
	answer := run(ctx, pipeline, keys, args...)
	wait := s.timeout
	if deadline, found := ctx.Deadline(); found {
		wait = time.Until(deadline)
	}
	// So that Redis says how many they are before nobody listens any more. 0 would be for ever.
	confirmed := pipeline.Do(ctx, "WAIT", s.replicas, max((wait*4/5).Milliseconds(), 1))
	_, err := pipeline.Exec(ctx)
	if err := answer.Err(); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	n, err := confirmed.Int()
	if err != nil {
		return nil, err
	}
	if n < s.replicas {
		return nil, errNotReplicated
	}
	return answer.Val(), nil
}

// require refuses to promise more than Redis is configured to keep.
func (s *Store) require(durability string) error {
	switch promised := s.Durability(); {
	case durability == "" || durability == Async || durability == promised:
		return nil
	case durability == Fsync && promised == Replicated:
		return nil
	}
	err := fmt.Errorf("it is asked for durability %s and promises less: %s", durability, strings.Join(s.lacks, "; "))
	if slices.Equal(s.lacks, []string{noReplica}) { // they may all have been started together
		return &store.UnavailableError{Why: "Redis has no replica yet", Err: err}
	}
	return err
}
