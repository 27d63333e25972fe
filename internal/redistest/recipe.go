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
	for line := range strings.Lines(operating(t)) {
		if strings.HasPrefix(line, beginning) {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("docs/operating.md has no line that begins with %q", beginning)
	return ""
}

// Block returns the lines of the block of docs/operating.md whose first line this is, but
// for that one.
func Block(t testing.TB, first string) []string {
	t.Helper()
	_, after, found := strings.Cut(operating(t), "```\n"+first+"\n")
	block, _, ends := strings.Cut(after, "\n```\n")
	if !found || !ends {
		t.Fatalf("docs/operating.md has no block that begins with %q", first)
	}
	return strings.Split(block, "\n")
}

// Settings makes command-line arguments of the lines of a redis.conf. Files in /etc/redis
// are looked for in a directory.
func Settings(lines []string, directory string) []string {
	var args []string
	for _, line := range lines {
		words := strings.Fields(strings.ReplaceAll(line, "/etc/redis", directory))
		args = append(args, "--"+words[0])
		for _, word := range words[1:] {
			args = append(args, strings.Trim(word, `"`))
		}
	}
	return args
}

func operating(t testing.TB) string {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(file), "..", "..", "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
