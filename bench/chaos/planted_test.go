package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a planted bug replaces is there, once: else -planted would stop at it, or plant
// another bug than it says.
func TestPlantedBugsFit(t *testing.T) {
	for _, bug := range planted {
		text, err := os.ReadFile(filepath.Join("../..", bug.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), bug.old); n != 1 {
			t.Errorf("%s: what it replaces is %d times in %s", bug.name, n, bug.file)
		}
	}
}
