package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
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
		return nil, withHint(err, "%s; docs/operating.md says how to set up Redis", config.storeHint(err))
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
func (c *config) storeHint(err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, "WRONGPASS"), strings.Contains(text, "NOAUTH"):
		return "is the user that of store, and the password that of store or store_password?"
	case errors.Is(err, context.DeadlineExceeded) && strings.HasPrefix(c.Store, "rediss"):
		return "does Redis speak TLS at that port, as store says with rediss://?"
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, new(*net.DNSError)):
		return "is Redis running, and are host and port of store right?"
	}
	return "look at store in the configuration"
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
