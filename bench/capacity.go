package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"authserver/authserver"
	"authserver/bench/internal/process"
	"authserver/bench/internal/report"
	"authserver/store"
	"authserver/store/boltstore"
	"authserver/store/redisstore"
)

// measureCapacity fills the store with grants, and prints what each takes there, and what
// a refresh and a restart cost among few and among many.
func measureCapacity(s settings) error {
	table := report.NewTable(os.Stdout, "store", "live grants", "bytes per grant", "made per second", "start to first answer, ms", "server MiB",
		"refreshes per second", "µs of server CPU", "p50 ms", "p99 ms")
	for _, kind := range []struct {
		name  string
		redis []string
	}{{"embedded", nil}, {"Redis everysec", process.Everysec}, {"Redis everysec, as it comes", slices.Concat(process.Everysec, process.AsItComes)}} {
		if !strings.Contains(kind.name, s.stores) {
			continue
		}
		for _, live := range append([]int{0}, s.live...) {
			if err := measureFull(s, kind.name, kind.redis, live, table); err != nil {
				return fmt.Errorf("%s, %d grants: %w", kind.name, live, err)
			}
		}
	}
	return nil
}

func measureFull(s settings, name string, redisArgs []string, live int, table report.Table) error {
	c, err := startAuthserver(name, s.binary, 1, redisArgs)
	if err != nil {
		return err
	}
	defer c.stop()
	for _, p := range c.run {
		p.Stop()
	}
	c.run = nil
	began := time.Now()
	bytes, err := fill(c, live, func(n int) string { return subjectOf(n / s.perUser) })
	took := time.Since(began)
	if err != nil {
		return err
	}
	p, err := c.installation.Start()
	if err != nil {
		return err
	}
	c.run = append(c.run, p)
	ready := sinceStart(p)
	var measured cell
	if measured.operations, err = c.prepare(operations[1], s.clients); err != nil {
		return err
	}
	floor := 0.0
	for round := range s.rounds + 1 {
		if err := measured.measure(c, s.each, round == 0, &floor); err != nil {
			return err
		}
	}
	each, made := "–", "–"
	if live > 0 {
		each, made = fmt.Sprintf("%.0f", bytes/float64(live)), fmt.Sprintf("%.0f", float64(live)/took.Seconds())
	}
	table.Row(name, fmt.Sprint(live), each, made, fmt.Sprintf("%.0f", ready), fmt.Sprintf("%.0f", p.PeakMiB()),
		measured.rate.Spread("%.0f"), measured.server.Spread("%.0f"), fmt.Sprintf("%.1f", measured.latency[0].Median()), fmt.Sprintf("%.1f", measured.latency[2].Median()))
	return nil
}

// fill makes grants as the server makes them, the nth of a user of subject(n), without the
// signing in, and returns by how many bytes the store has grown.
func fill(c *contender, live int, subject func(n int) string) (float64, error) {
	ctx := context.Background()
	database := filepath.Join(c.installation.Directory, "data", "store.db")
	size := func() (int64, error) {
		if c.redis != nil {
			return c.redis.Info("used_memory")
		}
		info, err := os.Stat(database)
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
	before, err := size()
	if err != nil {
		return 0, err
	}
	var s store.Store
	if c.redis != nil {
		s, err = redisstore.Open(ctx, redisstore.Options{URL: "redis://127.0.0.1:" + c.redis.Port, Timeout: 10 * time.Second})
	} else {
		s, err = boltstore.Open(database)
	}
	if err != nil {
		return 0, err
	}
	err = errors.Join(makeGrants(ctx, s, live, subject), s.Close())
	if err != nil {
		return 0, err
	}
	after, err := size()
	return float64(after - before), err
}

// newID is an id as the server makes them.
func newID() string {
	var b [24]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// subjectOf is the nth user's, as long and as random as an id.
func subjectOf(n int) string {
	hash := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	return base64.RawURLEncoding.EncodeToString(hash[:24])
}

const (
	// writers make grants at the same time; the embedded store writes theirs together.
	writers = 256
	// Lifetimes of grants, as they are by default.
	refreshIdle = 30 * 24 * time.Hour
	refreshMax  = 365 * 24 * time.Hour
)

func makeGrants(ctx context.Context, s store.Store, live int, subject func(n int) string) error {
	grants := authserver.Grants(s)
	var next atomic.Int64
	failures := make([]error, writers)
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			for failures[w] == nil {
				n := int(next.Add(1)) - 1
				if n >= live {
					return
				}
				of, now := subject(n), time.Now()
				expires, end := now.Add(refreshIdle), now.Add(refreshMax)
				grant := authserver.Grant{
					ClientID: process.ClientID, Subject: of, Scope: "openid profile orders:read", Resources: []string{process.Resource},
					AuthTime: now.Unix(), ACR: "1", AMR: []string{"pwd"}, SessionID: newID(),
					Created: now.Unix(), Expires: end.Unix(),
				}
				creation, err := grants.Creation(authserver.NewGrantID(of), grant, expires)
				if err == nil {
					_, err = store.Do(ctx, s, store.Batch{Create: []store.Creation{creation}})
				}
				failures[w] = err
			}
		})
	}
	wait.Wait()
	return errors.Join(failures...)
}
