package redisstore

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"
)

// withoutPanics makes errors of the driver's panics: some answers that no Redis gives,
// such as a negative number where a list is due, make it panic, and one in a goroutine
// of ours would end the process.
func withoutPanics(client redis.UniversalClient) redis.UniversalClient {
	client.AddHook(calm{})
	if cluster, ok := client.(*redis.ClusterClient); ok { // it asks its nodes in goroutines of its own
		cluster.OnNewNode(func(node *redis.Client) { node.AddHook(calm{}) })
	}
	return client
}

type calm struct{}

func calmed(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the driver could not read what was answered (%v); does something else answer at its address?", p)
	}
}

func (calm) DialHook(next redis.DialHook) redis.DialHook {
	return next
}

func (calm) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, command redis.Cmder) (err error) {
		defer calmed(&err)
		return next(ctx, command)
	}
}

func (calm) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) (err error) {
		defer calmed(&err)
		return next(ctx, commands)
	}
}

// driverLog takes what the driver says, which writes to standard error itself otherwise. What
// comes of it is in the errors of calls, so that it is for looking closely.
type driverLog struct{ log *slog.Logger }

// Printf implements the driver's interface of a logger.
func (d driverLog) Printf(ctx context.Context, format string, values ...any) {
	if d.log.Enabled(ctx, slog.LevelDebug) {
		d.log.DebugContext(ctx, "the driver of Redis says", "said", fmt.Sprintf(format, values...))
	}
}
