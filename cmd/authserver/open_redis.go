package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
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
	opened, err := redisstore.Open(ctx, redisstore.Options{URL: config.Store, Password: config.StorePassword, TLSConfig: tls, Durability: config.Durability,
		InsecureCleartext: config.InsecureStore, Logger: log})
	if err != nil {
		return nil, withHint(err, "%s", storeHint(err))
	}
	if err := makeDirectory(config.Data, log); err != nil { // the guard would remember the store there
		log.Warn("no data directory", "error", err.Error())
	}
	durability, mayLose := opened.Durability(), time.Duration(0)
	if durability == redisstore.Async {
		mayLose = asyncLoss
	}
	return &openedStore{Store: opened, description: "redis", mayLose: mayLose, durability: durability}, nil
}

// storeHint says what to look at when Redis cannot be used.
func storeHint(err error) string {
	hint := "look at store in the configuration"
	if text := err.Error(); strings.Contains(text, "WRONGPASS") || strings.Contains(text, "NOAUTH") {
		hint = "see whether the user is the one in store, and the password the one in store or store_password"
	}
	return hint + "; docs/operating.md says how to set up Redis"
}

// checkDurability refuses what no store could keep. What Redis can is asked at the start.
func (c *config) checkDurability(d *decoder) {
	switch c.Durability {
	case "", redisstore.Async, redisstore.Fsync:
	case redisstore.Replicated:
		if c.Store == "" {
			d.mistake("durability", "replicated is for Redis with replicas, and no store is named; the embedded store keeps fsync")
		}
	default:
		d.mistake("durability", "is %q; it can be fsync, replicated or async", c.Durability)
	}
}

// describeDurability says what an acknowledged write survives.
func (c *config) describeDurability() string {
	switch {
	case c.Store == "":
		return "every acknowledged write is on the disk (fsync)"
	case c.Durability == redisstore.Replicated:
		return "an acknowledged write is on the disks of more than half of Redis's machines (replicated), or the server does not start"
	case c.Durability == redisstore.Fsync:
		return "an acknowledged write is on Redis's disk (fsync), or the server does not start"
	}
	return "what Redis is configured for; the server asks at the start and logs it"
}
