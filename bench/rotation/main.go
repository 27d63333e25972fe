// Command rotation lets three servers on one Redis rotate their keys under load and
// kills one of them, as a power cut does, around the moment of every rotation. Clients
// get tokens and move chains of refresh tokens on through a balancer, and every access
// token is verified by package verifier and by coreos/go-oidc, at once and again
// shortly before it expires. No request may fail, no token be refused, and the key log
// must tell one history. The schedule is the shortest that the promises allow.
//
//	cd bench && go run ./rotation -for 10m
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"authserver/authserver"
	"authserver/bench/internal/process"
	"authserver/keys"
	"authserver/store/redisstore"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "instance" {
		log.Fatal(instance(context.Background()))
	}
	duration := flag.Duration("for", 10*time.Minute, "how long")
	people := flag.Int("people", 4, "chains of refresh tokens, and as many clients on their own")
	flag.Parse()
	if err := run(*duration, *people); err != nil {
		log.Fatal(err)
	}
}

// hasty are keys that rotate every ten seconds. Nothing in it is shorter than the
// promises allow.
func hasty(ctx context.Context) (keys.Config, *redisstore.Store, error) {
	opened, err := redisstore.Open(ctx, redisstore.Options{URL: os.Getenv("ROTATION_REDIS"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return keys.Config{}, nil, err
	}
	master, err := keys.ParseMasterKey([]byte(os.Getenv("ROTATION_MASTER")))
	return keys.Config{
		Store: authserver.KeyStore(opened), MasterKey: master, Issuer: os.Getenv("ROTATION_ISSUER"), Algorithms: []string{"ES256"},
		CacheFor: time.Second, PublishBefore: 6 * time.Second, RotateEvery: 10 * time.Second,
		TokenLifetime: lifetime, RefreshLifetime: 2 * time.Minute,
		Lease: 3 * time.Second, PollEvery: 100 * time.Millisecond, Skew: 100 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}, opened, err
}

const members = 3

func run(duration time.Duration, people int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	redis, err := process.StartRedis(process.Always...)
	if err != nil {
		return err
	}
	defer redis.Stop()
	master, err := keys.NewMasterKey()
	if err != nil {
		return err
	}
	b, err := newBalancer()
	if err != nil {
		return err
	}
	defer b.stop()
	for name, value := range map[string]string{"ROTATION_REDIS": "redis://127.0.0.1:" + redis.Port, "ROTATION_MASTER": string(master.Text()), "ROTATION_ISSUER": b.issuer} {
		os.Setenv(name, value)
	}
	for i := range members {
		if err := b.start(i); err != nil {
			return err
		}
	}
	config, opened, err := hasty(ctx)
	if err != nil {
		return err
	}
	defer opened.Close()
	load, err := newLoad(ctx, b.issuer)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := load.start(people); err != nil {
		return err
	}
	kills := 0
	for ; time.Since(began) < duration; kills++ {
		if err := killAround(ctx, b, config, kills%members); err != nil {
			return err
		}
	}
	load.stop()
	time.Sleep(config.Lease) // whoever was killed before it wrote the log is helped after a lease
	return report(ctx, config, load, b, kills, time.Since(began))
}

// killAround waits for the next rotation, kills a server around that moment, and
// starts it again while the others go on.
func killAround(ctx context.Context, b *balancer, config keys.Config, i int) error {
	watching, err := keys.Open(ctx, config)
	if err != nil {
		return err
	}
	var due time.Time
	for _, p := range watching.Plan() {
		if p.To == "active" && p.Ring == "ES256" && (due.IsZero() || p.At.Before(due)) {
			due = p.At
		}
	}
	if due.IsZero() {
		return errors.New("no rotation is planned")
	}
	time.Sleep(time.Until(due) - 50*time.Millisecond + rand.N(200*time.Millisecond))
	b.kill(i)
	time.Sleep(2 * time.Second)
	return b.start(i)
}

func report(ctx context.Context, config keys.Config, load *load, b *balancer, kills int, took time.Duration) error {
	manager, err := keys.Open(ctx, config)
	if err != nil {
		return err
	}
	verified, err := manager.VerifyLog(ctx)
	if err != nil {
		return err
	}
	entries, err := manager.Log(ctx)
	if err != nil {
		return err
	}
	taken := make(map[string]int) // keys that came to sign, by ring
	for _, e := range entries {
		if e.To == "active" {
			taken[e.Ring]++
		}
	}
	fmt.Println("| | |\n|---|---|")
	for _, row := range []struct {
		name  string
		value any
	}{
		{"time", took.Round(time.Second)},
		{"servers killed", kills},
		{"rotations of ES256", taken["ES256"] - 1},
		{"rotations of the refresh tokens' key", taken[keys.RefreshRing] - 1},
		{"tokens for clients", load.clients.Load()},
		{"refreshes", load.refreshes.Load()},
		{"requests that were sent on to another server, since theirs was killed", b.again.Load()},
		{"requests that failed", load.failed.Load()},
		{"verifications", load.verified.Load()},
		{"tokens refused", load.refused.Load()},
		{"keys that tokens were signed with", load.kids()},
		{"entries of the key log", verified.Entries},
		{"problems in it", len(verified.Problems)},
	} {
		fmt.Printf("| %s | %v |\n", row.name, row.value)
	}
	if load.failed.Load() > 0 || load.refused.Load() > 0 || len(verified.Problems) > 0 || load.kids() != taken["ES256"] {
		return errors.New("somebody has noticed a rotation")
	}
	return nil
}
