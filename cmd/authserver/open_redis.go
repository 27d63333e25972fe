package main

import (
	"context"
	"log/slog"

	"authserver/store/redisstore"
)

func openRedis(ctx context.Context, config *config, log *slog.Logger) (*openedStore, error) {
	opened, err := redisstore.Open(ctx, redisstore.Options{URL: config.Store, Password: config.StorePassword, Logger: log})
	if err != nil {
		return nil, withHint(err, "check the key store; see docs/operating.md for how to set up Redis")
	}
	return &openedStore{opened, "redis", opened.Durability()}, nil
}
