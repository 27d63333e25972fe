package repotest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/attacks.md says of each attack and fault case how it stands.
func TestAttackTable(t *testing.T) {
	all := files(t)
	for _, problem := range wrongCases(all["docs/attacks.md"], testNames(all), subtests(all)) {
		t.Errorf("docs/attacks.md: %s", problem)
	}
}

// No case of the catalogue is missing there, and none is made up.
func TestAttackTableIsComplete(t *testing.T) {
	catalogue, err := os.ReadFile(filepath.Join(root(t), "..", "shared", "ATTACKS.md"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the catalogue of attacks is not beside the repository")
	}
	if err != nil {
		t.Fatal(err)
	}
	// Load cases (LD) are figures, not tests.
	known := slices.DeleteFunc(caseIDs(string(catalogue)), func(id string) bool { return strings.HasPrefix(id, "LD") })
	listed := caseIDs(files(t)["docs/attacks.md"])
	if len(known) < 300 {
		t.Fatalf("only %d cases found in the catalogue", len(known))
	}
	for _, id := range known {
		if !slices.Contains(listed, id) {
			t.Errorf("docs/attacks.md lacks %s", id)
		}
	}
	for _, id := range listed {
		if !slices.Contains(known, id) {
			t.Errorf("docs/attacks.md has %s, which the catalogue lacks", id)
		}
	}
}

var caseRow = regexp.MustCompile(`(?m)^\| ([A-Z]{2}-\d\d) \|`)

func caseIDs(table string) []string {
	var ids []string
	for _, match := range caseRow.FindAllStringSubmatch(table, -1) {
		ids = append(ids, match[1])
	}
	return ids
}

var attackSubtest = regexp.MustCompile(`t\.Run\("([A-Z]{2}-\d\d)"`)

// subtests are the cases that TestAttack has a subtest for.
func subtests(all map[string]string) map[string]bool {
	found := make(map[string]bool)
	for name, text := range all {
		if isTest(name) {
			for _, match := range attackSubtest.FindAllStringSubmatch(text, -1) {
				found["TestAttack/"+match[1]] = true
			}
		}
	}
	return found
}

// wrongCases returns what is wrong with the rows `| id | state | tests | note |`.
func wrongCases(table string, tests, subtests map[string]bool) []string {
	var found []string
	seen := make(map[string]bool)
	for line := range strings.Lines(table) {
		match := caseRow.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		id := match[1]
		wrong := func(format string, args ...any) { found = append(found, id+": "+fmt.Sprintf(format, args...)) }
		if seen[id] {
			wrong("is there twice")
		}
		seen[id] = true
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 {
			wrong("%d cells, a row has id, state, tests, note", len(cells))
			continue
		}
		state, named, note := strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3])
		switch state {
		case "test", "part":
			for _, test := range names(named) {
				function, _, _ := strings.Cut(test, "/")
				if !tests[function] || strings.HasPrefix(test, "TestAttack/") && !subtests[test] {
					wrong("there is no test %q", test)
				}
			}
			if (state == "part") != (note != "") {
				wrong("a note says what the tests leave out, and only that")
			}
		case "open", "not offered":
			if named != "" || note == "" {
				wrong("names a test, or does not say why there is none")
			}
		default:
			wrong("its state is %q; there are test, part, open and not offered", state)
		}
	}
	if len(seen) == 0 {
		found = append(found, "there are no rows")
	}
	return found
}

func TestAttackTableBites(t *testing.T) {
	tests, subtests := map[string]bool{"TestA": true, "TestAttack": true}, map[string]bool{"TestAttack/AB-01": true}
	for row, problems := range map[string]int{
		"| AB-01 | test | `TestA`, `TestAttack/AB-01` | |":       0,
		"| AB-01 | part | TestA | no power cut |":                0,
		"| AB-01 | open | | not measured |":                      0,
		"| AB-01 | not offered | | DPoP |":                       0,
		"| AB-01 | test | TestGone | |":                          1,
		"| AB-01 | test | TestAttack/AB-02 | |":                  1,
		"| AB-01 | test | | |":                                   1,
		"| AB-01 | part | TestA | |":                             1,
		"| AB-01 | test | TestA | but |":                         1,
		"| AB-01 | open | TestA | why |":                         1,
		"| AB-01 | open | | |":                                   1,
		"| AB-01 | fine | | |":                                   1,
		"| AB-01 | test |":                                       1,
		"| AB-01 | test | TestA | |\n| AB-01 | open | | twice |": 1,
		"no table": 1,
	} {
		if got := wrongCases(row+"\n", tests, subtests); len(got) != problems {
			t.Errorf("%q: got %q, want %d problems", row, got, problems)
		}
	}
}
