package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"authserver/store/redisstore"
)

// asyncLoss is what a Redis may lose that does not fsync each write, or of which a
// replica was promoted: a second or two by its documentation, and what clocks differ by.
const asyncLoss = 10 * time.Second

func openRedis(ctx context.Context, config *config, log *slog.Logger) (*openedStore, error) {
	tls, key, err := config.storeTLS()
	if err != nil { // loadConfig has checked it; the files may have changed since
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	opened, err := redisstore.Open(ctx, redisstore.Options{URL: config.Store, Password: config.StorePassword, TLSConfig: tls, Logger: log})
	if err != nil {
		return nil, withHint(err, "check the key store; see docs/operating.md for how to set up Redis")
	}
	if err := makeDirectory(config.Data, log); err != nil { // the guard would remember the store there
		log.Warn("no data directory", "error", err.Error())
	}
	durability, mayLose := opened.Durability(), time.Duration(0)
	if durability != durable {
		mayLose = asyncLoss
	}
	return &openedStore{opened, "redis", mayLose, durability}, nil
}
