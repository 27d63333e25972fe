package main

import (
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"authserver/bench/internal/load"
	"authserver/bench/internal/oauth"
	"authserver/bench/internal/process"
	"authserver/bench/internal/report"
)

// measureStarts prints how long a server takes from exec to its first answer and
// its first token, and what it holds in memory idle and at full load.
func measureStarts(s settings) error {
	table := report.NewTable(os.Stdout, "store", "start", "exec to first answer, ms", "exec to first token, ms", "idle MiB", "MiB at most, clients' own tokens", "MiB at most, with refreshes and the sign-ins before")
	for _, kind := range []struct {
		name  string
		redis []string
	}{{"embedded", nil}, {"Redis everysec", process.Everysec}} {
		if !strings.Contains(kind.name, s.stores) {
			continue
		}
		var answer, token, idle, clients, peak [2]report.Samples // of first starts and of later ones
		for range s.rounds {
			if err := measureStart(s, kind.redis, &answer, &token, &idle, &clients, &peak); err != nil {
				return err
			}
		}
		for i, start := range []string{"nothing there, keys are made", "keys present"} {
			table.Row(kind.name, start, answer[i].Spread("%.0f"), token[i].Spread("%.0f"), idle[i].Spread("%.0f"), clients[i].Spread("%.0f"), peak[i].Spread("%.0f"))
		}
	}
	return nil
}

// measureStart starts one installation twice.
func measureStart(s settings, redisArgs []string, answer, token, idle, clients, peak *[2]report.Samples) error {
	var options process.Options
	if redisArgs != nil {
		redis, err := process.StartRedis(redisArgs...)
		if err != nil {
			return err
		}
		defer redis.Stop()
		options.RedisPort = redis.Port
	}
	installation, err := process.Install(s.binary, options)
	if err != nil {
		return err
	}
	defer installation.Remove()
	for i := range 2 {
		if err := startOnce(s, installation, i, answer, token, idle, clients, peak); err != nil {
			return err
		}
	}
	return nil
}

func startOnce(s settings, installation *process.Installation, i int, answer, token, idle, clients, peak *[2]report.Samples) error {
	p, err := installation.Execute(installation.Port)
	if err != nil {
		return err
	}
	defer p.Stop()
	if err := process.Await(func() error { return get(installation.Base + "/healthz") }, 10*time.Second); err != nil {
		return err
	}
	answer[i] = append(answer[i], sinceStart(p))
	server := &oauth.Server{
		Endpoints: ours, Hosts: []string{"localhost:" + installation.Port}, ClientID: process.ClientID, Secret: process.Secret,
	}
	client := server.NewClient()
	if err := process.Await(client.ClientCredentials, 10*time.Second); err != nil {
		return err
	}
	token[i] = append(token[i], sinceStart(p))
	time.Sleep(2 * time.Second) // RS256 keys are made in the background
	idle[i] = append(idle[i], p.ResidentMiB())
	// No password is checked yet: two hashes at a time are 38 MiB.
	var operations []load.Operation
	for range 4 * s.clients {
		operations = append(operations, server.NewClient().ClientCredentials)
	}
	if _, err := load.Closed(operations, s.each); err != nil {
		return err
	}
	clients[i] = append(clients[i], p.PeakMiB())
	operations = nil
	for range 4 * s.clients {
		client := server.NewClient()
		if len(operations)%2 == 0 {
			operations = append(operations, client.ClientCredentials)
			continue
		}
		form := url.Values{"grant_type": {"password"}, "username": {process.Username}, "password": {process.Password}}
		first, err := client.RequestToken(form)
		if err != nil {
			return fmt.Errorf("signing in: %w", err)
		}
		operations = append(operations, client.Refresher(first))
	}
	if _, err := load.Closed(operations, s.each); err != nil {
		return err
	}
	peak[i] = append(peak[i], p.PeakMiB())
	return nil
}

func sinceStart(p *process.Process) float64 {
	return float64(time.Since(p.Started).Microseconds()) / 1000
}
