package repotest

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/specs.md claims what is implemented; a row counts only while its file and
// its tests exist.
func TestSpecs(t *testing.T) {
	all := files(t)
	table, ok := all["docs/specs.md"]
	if !ok {
		t.Fatal("docs/specs.md is missing")
	}
	for _, problem := range dangling(table, all) {
		t.Errorf("docs/specs.md:%s", problem)
	}
}

// dangling returns what the rows `| section | requirement | file | test |` name
// and the repository does not have. A cell may name several, with commas. A test
// is `TestName`, `pkg.TestName` or either with `/sub`.
func dangling(table string, all map[string]string) []string {
	var found []string
	tests := testNames(all)
	rows := 0
	for i, line := range strings.Split(table, "\n") {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(strings.TrimSpace(line), "|") || strings.Trim(line, "|-: ") == "" || strings.TrimSpace(cells[0]) == "section" {
			continue
		}
		rows++
		if len(cells) != 4 {
			found = append(found, fmt.Sprintf("%d: %d cells, a row has section, requirement, file, test", i+1, len(cells)))
			continue
		}
		for _, file := range names(cells[2]) {
			if _, ok := all[file]; !ok {
				found = append(found, fmt.Sprintf("%d: there is no file %q", i+1, file))
			}
		}
		for _, test := range names(cells[3]) {
			function, _, _ := strings.Cut(test, "/")
			if !tests[function] {
				found = append(found, fmt.Sprintf("%d: there is no test %q", i+1, function))
			}
		}
	}
	if rows == 0 {
		found = append(found, "1: the table has no rows")
	}
	return found
}

// names splits a cell; an empty cell is one empty name.
func names(cell string) []string {
	var found []string
	for name := range strings.SplitSeq(cell, ",") {
		found = append(found, strings.Trim(strings.TrimSpace(name), "`"))
	}
	return found
}

var testFunction = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)\(`)

// testNames returns all tests as TestName and as pkg.TestName, where pkg is the
// folder's name.
func testNames(all map[string]string) map[string]bool {
	found := make(map[string]bool)
	for name, text := range all {
		if !isTest(name) {
			continue
		}
		for _, match := range testFunction.FindAllStringSubmatch(text, -1) {
			found[match[1]] = true
			found[path.Base(path.Dir(name))+"."+match[1]] = true
		}
	}
	return found
}

func TestSpecsBite(t *testing.T) {
	all := map[string]string{"keys/ring.go": "", "keys/ring_test.go": "func TestNext(t *testing.T) {"}
	for row, problems := range map[string]int{
		"| §1 | must | `keys/ring.go` | `keys.TestNext` |":           0,
		"| §1 | must | keys/ring.go | TestNext/sub, keys.TestNext |": 0,
		"| §1 | must | keys/gone.go | TestNext |":                    1,
		"| §1 | must | keys/ring.go | TestGone/sub |":                1,
		"| §1 | must | keys/ring.go | store.TestNext |":              1,
		"| §1 | must | keys/ring.go | TestNext, |":                   1,
		"| §1 | must | | |":                                          2,
		"| §1 | must | keys/ring.go |":                               1,
		"":                                                           1,
	} {
		table := "# Specs\n\n| section | requirement | file | test |\n|---|:--|---|---|\n" + row + "\n"
		if got := dangling(table, all); len(got) != problems {
			t.Errorf("%q: got %q, want %d problems", row, got, problems)
		}
	}
}

// docs/decisions says of each module that our code imports why.
func TestDecisionForEachDependency(t *testing.T) {
	all := files(t)
	var decisions strings.Builder
	for name, text := range all {
		if path.Dir(name) == "docs/decisions" {
			decisions.WriteString(text)
		}
	}
	for _, dependency := range directDependencies(t, all["go.mod"]) {
		if !strings.Contains(decisions.String(), "`"+dependency+"`") {
			t.Errorf("no page in docs/decisions names `%s`", dependency)
		}
	}
}

var requirement = regexp.MustCompile(`(?m)^(?:require)?\s+(\S+\.\S+/\S+) v\S+`)

// directDependencies are the required modules whose packages ours import.
func directDependencies(t *testing.T, goMod string) []string {
	t.Helper()
	var modules []string
	for _, match := range requirement.FindAllStringSubmatch(goMod, -1) {
		modules = append(modules, match[1])
	}
	direct := make(map[string]bool)
	for _, p := range goList(t, "./...") {
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			for _, module := range modules {
				if strings.HasPrefix(imported+"/", module+"/") {
					direct[module] = true
				}
			}
		}
	}
	modules = slices.DeleteFunc(modules, func(module string) bool { return !direct[module] })
	if len(modules) == 0 {
		t.Fatal("no direct dependency found in go.mod")
	}
	return modules
}

var markdownLink = regexp.MustCompile(`\]\(([^)#\s]*)(?:#[^)\s]*)?\)`)

// A link in a document leads to a file of the repository or to the web.
func TestLinks(t *testing.T) {
	all := files(t)
	for name, text := range all {
		if path.Ext(name) != ".md" {
			continue
		}
		for _, match := range markdownLink.FindAllStringSubmatch(text, -1) {
			target := path.Join(path.Dir(name), cmp.Or(match[1], path.Base(name)))
			if !strings.Contains(match[1], "://") && !exists(all, target) {
				t.Errorf("%s links to %s, which is not there", name, match[1])
			}
		}
	}
}

func exists(all map[string]string, target string) bool {
	for name := range all {
		if name == target || strings.HasPrefix(name, target+"/") {
			return true
		}
	}
	return false
}
