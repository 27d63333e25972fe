package repotest

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
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
	tests, subs := testNames(all), quotedInTests(all)
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
			function, sub, has := strings.Cut(test, "/")
			if !tests[function] || has && !subs[strconv.Quote(sub)] {
				found = append(found, fmt.Sprintf("%d: there is no test %q", i+1, test))
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

var quoted = regexp.MustCompile(`"[^"\\\n]+"`)

// quotedInTests returns the strings that are written in tests, with their quotes: the
// names of subtests are among them.
func quotedInTests(all map[string]string) map[string]bool {
	found := make(map[string]bool)
	for name, text := range all {
		if isTest(name) {
			for _, one := range quoted.FindAllString(text, -1) {
				found[one] = true
			}
		}
	}
	return found
}

// The modules of the OpenID Foundation's suite (5.2.4) that docs/specs.md has to list, but
// those of the form-post plan, which are those of the basic plan.
func TestConformanceModules(t *testing.T) {
	for _, missing := range unlisted(files(t)["docs/specs.md"]) {
		t.Errorf("docs/specs.md lacks the module %s", missing)
	}
	if got := unlisted("| OIDF config: oidcc-discovery-endpoint-verification |"); len(got) != len(strings.Fields(conformanceModules))-1 {
		t.Errorf("a table with one module lacks %d", len(got))
	}
}

func unlisted(table string) []string {
	return slices.DeleteFunc(strings.Fields(conformanceModules), func(module string) bool {
		return regexp.MustCompile(`(?m)^\| OIDF [a-zA-Z -]+: ` + module + ` \|`).MatchString(table)
	})
}

const conformanceModules = `
oidcc-server oidcc-response-type-missing oidcc-idtoken-signature oidcc-idtoken-unsigned oidcc-userinfo-get oidcc-userinfo-post-header
oidcc-userinfo-post-body oidcc-ensure-request-without-nonce-succeeds-for-code-flow oidcc-scope-profile oidcc-scope-email oidcc-scope-address
oidcc-scope-phone oidcc-scope-all oidcc-alternate-happy-flow oidcc-display-page oidcc-display-popup oidcc-prompt-login
oidcc-prompt-none-not-logged-in oidcc-prompt-none-logged-in oidcc-max-age-1 oidcc-max-age-10000
oidcc-ensure-request-with-unknown-parameter-succeeds oidcc-id-token-hint oidcc-login-hint oidcc-ui-locales oidcc-claims-locales
oidcc-ensure-request-with-acr-values-succeeds oidcc-codereuse oidcc-codereuse-30seconds oidcc-ensure-registered-redirect-uri
oidcc-ensure-post-request-succeeds oidcc-server-client-secret-post
oidcc-request-uri-unsigned-supported-correctly-or-rejected-as-unsupported
oidcc-unsigned-request-object-supported-correctly-or-rejected-as-unsupported oidcc-claims-essential
oidcc-ensure-request-object-with-redirect-uri oidcc-refresh-token oidcc-ensure-request-with-valid-pkce-succeeds
oidcc-discovery-endpoint-verification
oidcc-rp-initiated-logout-discovery-endpoint-verification oidcc-rp-initiated-logout oidcc-rp-initiated-logout-bad-post-logout-redirect-uri
oidcc-rp-initiated-logout-modified-id-token-hint oidcc-rp-initiated-logout-no-id-token-hint oidcc-rp-initiated-logout-no-params
oidcc-rp-initiated-logout-no-post-logout-redirect-uri oidcc-rp-initiated-logout-no-state oidcc-rp-initiated-logout-only-state
oidcc-rp-initiated-logout-query-added-to-post-logout-redirect-uri oidcc-rp-initiated-logout-bad-id-token-hint
oidcc-backchannel-logout-discovery-endpoint-verification oidcc-backchannel-rp-initiated-logout
oidcc-frontchannel-logout-discovery-endpoint-verification oidcc-frontchannel-rp-initiated-logout`

func TestSpecsBite(t *testing.T) {
	all := map[string]string{"keys/ring.go": "", "keys/ring_test.go": "func TestNext(t *testing.T) {\n\tt.Run(\"sub\", nil)"}
	for row, problems := range map[string]int{
		"| §1 | must | `keys/ring.go` | `keys.TestNext` |":           0,
		"| §1 | must | keys/ring.go | TestNext/sub, keys.TestNext |": 0,
		"| §1 | must | keys/gone.go | TestNext |":                    1,
		"| §1 | must | keys/ring.go | TestGone/sub |":                1,
		"| §1 | must | keys/ring.go | TestNext/gone |":               1,
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
