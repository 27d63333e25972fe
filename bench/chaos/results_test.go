package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What one run has found another one goes on with, and the seeds that broke something
// are named.
func TestResults(t *testing.T) {
	s := settings{results: filepath.Join(t.TempDir(), "results")}
	h := newHistory(7, "one-redis", window)
	for n, violations := range []int{0, 2} {
		r, err := newResults(s)
		if err != nil {
			t.Fatal(err)
		}
		h.Seed = uint64(7 + n)
		if r.has("one-redis", h.Seed) || n > 0 && !r.has("one-redis", 7) {
			t.Errorf("run %d: it has not done what it should: %s", n, r)
		}
		h.inject("kill -9 of Redis", "")
		if err := r.add(h, totals{Histories: 1, Calls: 10, Faults: h.Injected, Violations: violations}); err != nil {
			t.Fatal(err)
		}
		if want := []string{"one-redis: 1 histories, 10 calls", "one-redis: 2 histories, 20 calls"}[n]; !strings.Contains(r.String(), want) {
			t.Errorf("no %q in %s", want, r)
		}
		if want := []string{" 0 violations\n", "2 violations, of seeds [8]\ninjected: 3 kill -9 of Redis"}[n]; !strings.Contains(r.String(), want) {
			t.Errorf("no %q in %s", want, r)
		}
		r.close()
	}
	text, err := os.ReadFile(s.results)
	if err == nil {
		err = os.WriteFile(s.results, text[:len(text)-9], 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newResults(s); err == nil || !strings.Contains(err.Error(), "no result: delete it") {
		t.Errorf("half a line: %v", err)
	}
}
