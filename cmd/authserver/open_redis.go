package main

import (
	"context"
	"fmt"
	"log/slog"

	"authserver/store/redisstore"
)

func openRedis(ctx context.Context, config *config, log *slog.Logger) (*openedStore, error) {
	tls, key, err := config.storeTLS()
	if err != nil { // loadConfig has checked it; the files may have changed since
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	opened, err := redisstore.Open(ctx, redisstore.Options{URL: config.Store, Password: config.StorePassword, TLSConfig: tls, Logger: log})
	if err != nil {
		return nil, withHint(err, "check the key store; see docs/operating.md for how to set up Redis")
	}
	return &openedStore{opened, "redis", opened.Durability()}, nil
}
