package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"authserver/bench/internal/load"
	"authserver/bench/internal/process"
	"authserver/bench/internal/report"
)

// cell is what was measured of one contender and operation.
type cell struct {
	operations []load.Operation
	rate       report.Samples
	server     report.Samples // µs of the server's CPU per operation
	redis      report.Samples // µs of Redis's
	floor      report.Samples // server, as a multiple of the floor's in the same round
	latency    [4]report.Samples
	offered    report.Samples    // operations a second of the open loop
	open       [4]report.Samples // its latencies
}

var percentiles = [4]float64{50, 95, 99, 100}

// measureOperations compares ours, the floor and the peers.
func measureOperations(s settings) error {
	var all []*contender
	defer func() {
		for _, c := range all {
			c.stop()
		}
	}()
	floor, err := startFloor(s)
	if err != nil {
		return err
	}
	all = append(all, floor)
	for _, ours := range []struct {
		name  string
		redis []string
	}{
		{"authserver, embedded", nil},
		{"authserver, Redis everysec", process.Everysec},
		{"authserver, Redis always", process.Always},
	} {
		c, err := startAuthserver(ours.name, s.binary, 1, ours.redis)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	for _, p := range peers {
		if _, err := os.Stat(filepath.Join(s.tools, p.needs)); err != nil {
			fmt.Printf("%s is left out: %v\n\n", p.name, err)
			continue
		}
		c, err := p.start(s)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		all = append(all, c)
	}
	return compare(s, all)
}

// compare runs every operation on every contender, in turns, and prints the table.
func compare(s settings, all []*contender) error {
	var measured []cell
	var names []string
	var of []*contender
	table := report.NewTable(os.Stdout, "operation", "server", "per second", "µs of server CPU", "times the floor", "µs of Redis CPU", "p50 ms", "p95 ms", "p99 ms", "max ms")
	for _, o := range operations {
		if !strings.Contains(o.name, s.operations) {
			continue
		}
		cells := make([]cell, len(all))
		for i, c := range all {
			var err error
			if cells[i].operations, err = c.prepare(o, s.clients); err != nil {
				return err
			}
		}
		for round := range s.rounds + 1 {
			floor := 0.0
			for i, c := range all {
				if cells[i].operations == nil {
					continue
				}
				err := cells[i].measure(c, s.each, round == 0, &floor)
				if err == nil && round > 0 && s.open > 0 {
					err = cells[i].measureOpen(s.open, s.each)
				}
				if err != nil {
					return fmt.Errorf("%s, %s: %w", c.name, o.name, err)
				}
			}
		}
		for i, c := range all {
			cells[i].print(table, o.name, c)
			if cells[i].offered != nil {
				measured, names, of = append(measured, cells[i]), append(names, o.name), append(of, c)
			}
		}
	}
	if measured == nil {
		return nil
	}
	fmt.Printf("\nAt %.2f of these rates, begun when due whatever becomes of the earlier ones; latencies count from then:\n\n", s.open)
	table = report.NewTable(os.Stdout, "operation", "server", "per second", "p50 ms", "p95 ms", "p99 ms", "max ms")
	for i, c := range measured {
		row := []string{names[i], of[i].name, fmt.Sprintf("%.0f", c.offered.Median())}
		for _, l := range c.open {
			row = append(row, fmt.Sprintf("%.1f", l.Median()))
		}
		table.Row(row...)
	}
	return nil
}

// measureOpen offers a share of the rate that the closed loop has just had.
func (c *cell) measureOpen(share float64, each time.Duration) error {
	runtime.GC()
	rate := share * c.rate[len(c.rate)-1]
	result, err := load.Open(c.operations, rate, each)
	if err != nil || result.Done() == 0 {
		return err
	}
	c.offered = append(c.offered, rate)
	for i, p := range percentiles {
		c.open[i] = append(c.open[i], float64(result.Percentile(p).Microseconds())/1000)
	}
	return nil
}

// measure runs one round. The first one warms up and does not count.
func (c *cell) measure(of *contender, each time.Duration, warm bool, floor *float64) error {
	if warm {
		each = min(each, 300*time.Millisecond)
	}
	runtime.GC() // the generator's garbage is not the next one's burden
	server, redis := of.cpu()
	result, err := load.Closed(c.operations, each)
	if err != nil || warm {
		return err
	}
	serverAfter, redisAfter := of.cpu()
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(result.Done()) }
	used := per(serverAfter - server)
	c.rate = append(c.rate, result.Rate())
	c.server = append(c.server, used)
	c.redis = append(c.redis, per(redisAfter-redis))
	if of.name == "floor" {
		*floor = used
	}
	if *floor > 0 {
		c.floor = append(c.floor, used / *floor)
	}
	for i, p := range percentiles {
		c.latency[i] = append(c.latency[i], float64(result.Percentile(p).Microseconds())/1000)
	}
	return nil
}

func (c *cell) print(table report.Table, operation string, of *contender) {
	if c.operations == nil {
		return
	}
	redis, floor := "–", "–"
	if of.redis != nil {
		redis = fmt.Sprintf("%.0f", c.redis.Median())
	}
	if len(c.floor) > 0 {
		floor = fmt.Sprintf("%.2f", c.floor.Median())
	}
	row := []string{operation, of.name, fmt.Sprintf("%.0f", c.rate.Median()), c.server.Spread("%.0f"), floor, redis}
	for _, l := range c.latency {
		row = append(row, fmt.Sprintf("%.1f", l.Median()))
	}
	table.Row(row...)
}

// measureInstances shows what a second and a third instance on one Redis change.
func measureInstances(s settings) error {
	var all []*contender
	defer func() {
		for _, c := range all {
			c.stop()
		}
	}()
	for n := 1; n <= 3; n++ {
		c, err := startAuthserver(fmt.Sprintf("%d instances", n), s.binary, n, process.Everysec)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	return compare(s, all)
}
