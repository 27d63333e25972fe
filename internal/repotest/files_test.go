package repotest

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const module = "authserver"

// root is the directory of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// files returns the text of every file of the repository by its slash-separated
// path: all that .gitignore does not leave out.
func files(t *testing.T) map[string]string {
	t.Helper()
	dir := root(t)
	ignore, err := os.ReadFile(filepath.Join(dir, ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	patterns := append(strings.Fields(string(ignore)), ".git")
	found := make(map[string]string)
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ignored(patterns, name) && entry.IsDir():
			return fs.SkipDir
		case ignored(patterns, name) || entry.IsDir():
			return nil
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		found[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 10 {
		t.Fatalf("only %d files in %s", len(found), dir)
	}
	return found
}

// ignored reads the patterns that our .gitignore has: /path/ and a pattern for
// the last element.
func ignored(patterns []string, name string) bool {
	for _, pattern := range patterns {
		against := path.Base(name)
		if strings.HasPrefix(pattern, "/") {
			against = "/" + name
		}
		if match, _ := path.Match(strings.TrimSuffix(pattern, "/"), against); match {
			return true
		}
	}
	return false
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.go") }

// isTestSupport reports whether a file belongs to tests: it is one, or it is in a
// package for tests such as storetest, or it measures.
func isTestSupport(name string) bool {
	return isTest(name) || strings.HasSuffix(path.Dir(name), "test") || strings.HasPrefix(name, "bench/")
}
