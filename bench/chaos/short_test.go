package main

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// A short mix with a seed of its own, so that each run of the tests makes trouble for
// the real server; `make chaos` and `make soak` go on for longer.
func TestShortMix(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "authserver")
	build := exec.Command("go", "build", "-o", binary, "./cmd/authserver")
	build.Dir = filepath.Join("..", "..")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the server: %v\n%s", err, output)
	}
	for _, scenario := range []string{"one-embedded", "three-redis"} {
		t.Run(scenario, func(t *testing.T) {
			var total totals
			s := settings{binary: binary, seed: 7, histories: 1, calls: 160, people: 4, scenario: scenario, save: t.TempDir()}
			if err := run(t.Context(), s, &total); err != nil {
				t.Fatal(err)
			}
			t.Log(total)
			if total.Violations > 0 {
				t.Errorf("%d violations", total.Violations)
			}
			if total.Calls == 0 || len(total.Faults) == 0 || total.Table[13].Observed+total.Table[6].Observed == 0 {
				t.Errorf("nothing was done: %s", total)
			}
		})
	}
}
