package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"authserver/bench/internal/process"
	"authserver/bench/internal/report"

	"github.com/redis/go-redis/v9"
)

// family makes members as long as those of a user's grants: the key, from and to.
var family = redis.NewScript(`
local value = string.rep('v', 182)
for i = ARGV[1], ARGV[2] do redis.call('HSET', KEYS[1], string.format('%016d', i), value) end
return 1`)

// measureExpiring lets the grants of one user, who has not used them for long, expire
// together, and prints for how long Redis answers nobody else meanwhile.
func measureExpiring(s settings) error {
	table := report.NewTable(os.Stdout, "lazyfree-lazy-expire", "grants of one user", "others before, p50 / p99 / max ms", "while they expire, and until 3 s later")
	for _, live := range s.live {
		for _, lazy := range []string{"no", "yes"} {
			if err := measureExpiry(live, lazy, table); err != nil {
				return err
			}
		}
	}
	return nil
}

func measureExpiry(live int, lazy string, table report.Table) error {
	r, err := process.StartRedis(append(slices.Clone(process.Everysec), "--lazyfree-lazy-expire", lazy)...)
	if err != nil {
		return err
	}
	defer r.Stop()
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + r.Port, ReadTimeout: time.Minute})
	defer client.Close()
	const atOnce = 10_000
	for from := 1; from <= live; from += atOnce {
		if err := family.Run(ctx, client, []string{"family"}, from, min(from+atOnce-1, live)).Err(); err != nil {
			return err
		}
	}
	before, err := pings(ctx, client, time.Now().Add(3*time.Second))
	if err != nil {
		return err
	}
	if err := client.PExpire(ctx, "family", time.Second).Err(); err != nil {
		return err
	}
	during, err := pings(ctx, client, time.Now().Add(4*time.Second))
	if err != nil {
		return err
	}
	if n, err := client.DBSize(ctx).Result(); err != nil || n != 0 { // nobody has asked for it by name
		return fmt.Errorf("%d keys are left: %w", n, err)
	}
	table.Row(lazy, fmt.Sprint(live), before, during)
	return nil
}

// pings asks Redis for nothing until an instant, and says how long it took to answer.
func pings(ctx context.Context, client *redis.Client, until time.Time) (string, error) {
	var took []time.Duration
	for time.Now().Before(until) {
		began := time.Now()
		if err := client.Ping(ctx).Err(); err != nil {
			return "", err
		}
		took = append(took, time.Since(began))
		time.Sleep(time.Millisecond)
	}
	slices.Sort(took)
	ms := func(share int) float64 { return float64(took[(len(took)-1)*share/100].Microseconds()) / 1000 }
	return fmt.Sprintf("%.1f / %.1f / %.1f", ms(50), ms(99), ms(100)), nil
}
