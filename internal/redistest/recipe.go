package redistest

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Recipe returns the line of docs/operating.md that begins like this, so that what is
// written there is what is tested.
func Recipe(t testing.TB, beginning string) string {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(file), "..", "..", "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, beginning) {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("docs/operating.md has no line that begins with %q", beginning)
	return ""
}
