package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"authserver/bench/internal/load"
	"authserver/bench/internal/process"
	"authserver/bench/internal/report"
)

// others is how many refreshes of other users begin in a second while all of one ends.
const others = 200

// measureEnding lists all grants of one user, ends them, and then those of one client, by one
// command each, and prints what others notice of it.
func measureEnding(s settings) error {
	table := report.NewTable(os.Stdout, "store", "what is done", "grants", "the command takes", "others before it, p50 / p99 / max ms", "while it runs and 5 s after, p50 / p99 / max ms")
	for _, kind := range []struct {
		name  string
		redis []string
	}{{"embedded", nil}, {"Redis everysec", process.Everysec}} {
		if !strings.Contains(kind.name, s.stores) {
			continue
		}
		if err := measureEnd(s, kind.name, kind.redis, table); err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
	}
	return nil
}

func measureEnd(s settings, name string, redisArgs []string, table report.Table) error {
	c, err := startAuthserver(name, s.binary, 1, redisArgs)
	if err != nil {
		return err
	}
	defer c.stop()
	output, err := c.command("user", "show", "user0", "-o", "json").Output()
	if err != nil {
		return fmt.Errorf("asking for a user: %w", err)
	}
	var user struct{ Sub string }
	if err := json.Unmarshal(output, &user); err != nil || user.Sub == "" {
		return fmt.Errorf("asking for a user: %w: %s", err, output)
	}
	for _, p := range c.run {
		p.Stop()
	}
	if _, err := fill(c, slices.Max(s.live), func(int) string { return user.Sub }); err != nil {
		return err
	}
	p, err := c.installation.Start()
	if err != nil {
		return err
	}
	c.run = []*process.Process{p}
	var refreshes cell
	if refreshes.operations, err = c.prepare(operations[1], s.clients); err != nil {
		return err
	}
	for _, end := range []struct {
		what string
		args []string
	}{
		{"a user listed", []string{"list", "-o", "json", "--user", "user0"}},
		{"a user ended", []string{"revoke", "--yes", "--user", "user0"}},
		{"a client ended", []string{"revoke", "--yes", "--client", process.ClientID}},
	} {
		if end.what == "a client ended" { // it ends those who refresh as well
			refreshes.operations = nil
			for range s.clients {
				refreshes.operations = append(refreshes.operations, c.server.NewClient().ClientCredentials)
			}
		}
		before, err := load.Open(refreshes.operations, others, 5*time.Second)
		if err != nil {
			return err
		}
		var took time.Duration
		var failed error
		over := make(chan struct{})
		go func() {
			defer close(over)
			began := time.Now()
			command, output := c.command(append([]string{"grant"}, end.args...)...), new(bytes.Buffer)
			command.Stderr = output
			if err := command.Run(); err != nil {
				failed = fmt.Errorf("%s: %w: %s", end.what, err, output)
			}
			took = time.Since(began)
		}()
		var during load.Result
		for ended := false; !ended; {
			select {
			case <-over:
				ended = true
			default:
			}
			part, err := load.Open(refreshes.operations, others, 5*time.Second)
			if err != nil {
				return errors.Join(err, failed)
			}
			during = load.Join(during, part)
		}
		if failed != nil {
			return failed
		}
		latencies := func(r load.Result) string {
			ms := func(p float64) float64 { return float64(r.Percentile(p).Microseconds()) / 1000 }
			return fmt.Sprintf("%.1f / %.1f / %.1f", ms(50), ms(99), ms(100))
		}
		table.Row(name, end.what, fmt.Sprint(slices.Max(s.live)), took.Round(time.Millisecond).String(), latencies(before), latencies(during))
	}
	return nil
}

// command is a command of ours in the installation's directory.
func (c *contender) command(args ...string) *exec.Cmd {
	command := exec.Command(c.installation.Binary, args...)
	command.Dir = c.installation.Directory
	return command
}
