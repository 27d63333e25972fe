package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
	"authserver/store"
)

// beginOn begins a server on a Redis, wherever that is, and waits for nothing.
func beginOn(t *testing.T, url string) *process {
	t.Helper()
	directory, port := t.TempDir(), freePort(t)
	config := fmt.Sprintf(userConfig, port, port) + "store: " + url + "\n"
	if err := os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{url: "http://localhost:" + port}
	begin(t, p, p, directory, nil, exec.Command(binary, "serve"))
	return p
}

// A Redis that is not there yet, loads its data or hangs is waited for: the process lives, is
// not ready and says why, in the log once, and it serves when Redis is there.
func TestStartWaitsForTheStore(t *testing.T) {
	for _, test := range []struct {
		name  string
		away  func(redis *redistest.Server)
		why   string
		there func(redis *redistest.Server)
	}{
		{"nobody listens", (*redistest.Server).Kill, "nobody listens at the address", (*redistest.Server).Restart},
		{"loading", load, "Redis loads its data", loaded},
		{"hung", (*redistest.Server).Stop, "Redis does not answer in time", (*redistest.Server).Continue},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t, "--appendonly", "yes", "--enable-debug-command", "local")
			test.away(redis)
			stopped, p := beginOn(t, redis.URL()), beginOn(t, redis.URL())
			for _, p := range []*process{stopped, p} {
				timetest.Await(t, "it says why it is not ready", func() bool {
					status, text := p.readiness()
					return status == http.StatusServiceUnavailable && strings.Contains(text, test.why)
				})
			}
			if status := statusOf(t, p.url+"/healthz"); status != http.StatusOK {
				t.Errorf("/healthz: %d", status)
			}
			if status, after := asked(t, p.url, "/token", "any"); status != http.StatusServiceUnavailable || after == "" {
				t.Errorf("/token: %d, Retry-After %q", status, after)
			}
			stopped.Process.Signal(syscall.SIGTERM)
			if err := stopped.Wait(); err != nil || !strings.Contains(stopped.text(), `"state":"stopped"`) {
				t.Errorf("SIGTERM: %v\n%s", err, stopped.text())
			}
			test.there(redis)
			timetest.Await(t, "it is ready", func() bool { status, _ := p.readiness(); return status == http.StatusOK })
			if !p.says(`"state":"started"`) || strings.Count(p.text(), "the store is there") != 1 {
				t.Errorf("the log:\n%s", p.text())
			}
			if waits := strings.Count(p.text(), `"msg":"waiting for the store"`); waits == 0 || waits > len(p.waits()) {
				t.Errorf("%d records of why it waits, for %q:\n%s", waits, p.waits(), p.text())
			}
		})
	}
}

// waits returns why a server has waited, each reason once for each time that it came up.
func (p *process) waits() (whys []string) {
	for line := range strings.Lines(p.text()) {
		_, rest, found := strings.Cut(line, `"msg":"waiting for the store","event":"store","why":"`)
		why, _, _ := strings.Cut(rest, `"`)
		if found && (len(whys) == 0 || whys[len(whys)-1] != why) {
			whys = append(whys, why)
		}
	}
	return whys
}

// A mistake in the configuration is told at once, also while Redis loads.
func TestStartDoesNotWaitInVain(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--requirepass", "right")
	for url, want := range map[string]string{
		"redis://:wrong@" + redis.Addr:         "WRONGPASS",
		redis.URL():                            "NOAUTH",
		"redis://nobody:right@" + redis.Addr:   "WRONGPASS",
		"redis://:right@" + redis.Addr + "/99": "out of range",
	} {
		t.Run(want, func(t *testing.T) {
			environment := append(on(freePort(t)), "AUTHSERVER_STORE="+url)
			fails(t, t.TempDir(), environment, want, "serve")
		})
	}
}

// A start waits for so long, and ends then.
func TestStartWaitsNoLonger(t *testing.T) {
	listener, err := listen("127.0.0.1:0", "listen")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	waiting := &arrival{ctx: t.Context(), log: newLogger("error"), listener: listener, patience: time.Millisecond}
	defer waiting.end(false)
	asked := 0
	err = waiting.step(func() error { asked++; return &store.UnavailableError{Why: "it sleeps"} })
	if err == nil || !strings.Contains(err.Error(), "it sleeps") || asked < 2 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}
