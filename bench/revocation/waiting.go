package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"authserver/bench/internal/process"
	"authserver/bench/internal/report"
)

// waiting measures how long `wait=enforced` takes with n followers that hold leases,
// of which some never acknowledge: one row.
func waiting(table report.Table, binary string, n, mutes, rounds int) error {
	scene, err := newScene(binary)
	if err != nil {
		return err
	}
	defer scene.close()
	crowd := scene.crowd
	crowd.parameters, crowd.mutes = "&lease=1", mutes
	if err := crowd.join(n); err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	socket := filepath.Join(scene.installed.Directory, "data", "admin.sock")
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	var all []time.Duration
	verifiers, acknowledged := 0, 0
	for i := range rounds {
		began := time.Now()
		body := fmt.Appendf(nil, `{"username":%q,"sid":"bench-%d"}`, process.Username, i)
		response, err := client.Post("http://authserver/grant/revoke?wait=enforced", "application/json", bytes.NewReader(body))
		if err != nil {
			return err
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s %s: %w", response.Status, text, err)
		}
		all = append(all, time.Since(began))
		var answer struct {
			Enforced struct{ Verifiers, Acknowledged int }
		}
		if err := json.Unmarshal(text, &answer); err != nil {
			return err
		}
		verifiers += answer.Enforced.Verifiers
		acknowledged += answer.Enforced.Acknowledged
		time.Sleep(pace)
	}
	table.Row(fmt.Sprint(n), fmt.Sprint(mutes), spread(all), fmt.Sprintf("%.1f of %.1f", float64(acknowledged)/float64(rounds), float64(verifiers)/float64(rounds)))
	return nil
}
