package main

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/redistest"

	"github.com/prometheus/client_golang/prometheus"
)

// offClock is a store's clock that is off, or does not answer.
type offClock struct {
	by  time.Duration
	err error
}

func (c offClock) Clock(context.Context) (time.Time, error) { return time.Now().Add(c.by), c.err }

// How far the clocks of the store and of this machine are apart is a metric, while the
// store answers, and with Redis only: the embedded store has none of its own.
func TestClockOffset(t *testing.T) {
	for _, clock := range []offClock{{by: time.Hour}, {by: -time.Hour}, {err: errors.New("no answer")}} {
		registry := prometheus.NewRegistry()
		registry.MustRegister(clockOffset{clock})
		families, err := registry.Gather()
		switch {
		case err != nil || (clock.err != nil) != (len(families) == 0):
			t.Fatalf("%+v: %v %v", clock, families, err)
		case clock.err == nil && math.Abs(families[0].GetMetric()[0].GetGauge().GetValue()-clock.by.Seconds()) > 600:
			t.Errorf("%+v: %v", clock, families[0])
		}
	}
	for _, store := range []string{"", "store: " + redistest.Start(t).URL() + "\n"} {
		directory, port, metrics := t.TempDir(), freePort(t), freePort(t)
		text := "issuer: http://localhost:" + port + "\nlisten: localhost:" + port + "\nmetrics_listen: localhost:" + metrics + "\n" + store
		if err := os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		start(t, directory, "http://localhost:"+port, nil, "serve")
		response, err := http.Get("http://localhost:" + metrics + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || strings.Contains(string(page), "\nauthserver_store_clock_offset_seconds ") != (store != "") {
			t.Errorf("%q: %v, %s", store, err, page)
		}
	}
}
