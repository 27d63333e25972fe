package repotest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const maxLines = 450 // of a Go file that is no test

func TestFileSizes(t *testing.T) {
	for name, text := range files(t) {
		if lines := strings.Count(text, "\n"); strings.HasSuffix(name, ".go") && !isTest(name) && lines > maxLines {
			t.Errorf("%s has %d lines; a file has one mechanism and at most %d lines", name, lines, maxLines)
		}
	}
}

// Nothing in the repository may match one of these. They are put together from
// pieces so that this file passes.
var forbidden = map[string]*regexp.Regexp{
	"says what is left to do; do it or leave it out": regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`),
	"names a path of somebody's machine": regexp.MustCompile(
		`(^|[\s"'=(:])/(ro` + `ot|ho` + `me|Us` + `ers|wo` + `rk|work` + `space)/[\w.]`),
	"names the host of a package registry": regexp.MustCompile(
		`proxy\.go` + `lang\.org|py` + `pi\.org|python` + `hosted\.org|npm` + `js\.org|deb\.deb` + `ian\.org|docker` + `\.io/|g` + `cr\.io|quay` + `\.io`),
	"is a conflict that was not resolved": regexp.MustCompile(`(?m)^(<{7}|>{7}) `),
}

func TestForbiddenText(t *testing.T) {
	for name, text := range files(t) {
		for _, problem := range forbiddenText(text) {
			t.Errorf("%s:%s", name, problem)
		}
	}
}

func forbiddenText(text string) []string {
	var found []string
	for _, why := range slices.Sorted(maps.Keys(forbidden)) {
		for _, at := range forbidden[why].FindAllStringIndex(text, -1) {
			line := 1 + strings.Count(text[:at[0]], "\n")
			found = append(found, fmt.Sprintf("%d: %q %s", line, text[at[0]:at[1]], why))
		}
	}
	return found
}

func TestForbiddenTextBites(t *testing.T) {
	for _, text := range []string{"// TO" + "DO: later", "\n# FIX" + "ME", "see /ro" + "ot/x", "COPY /ho" + "me/me/x", "at (/wo" + "rk/x)",
		"https://py" + "pi.org/simple", "FROM g" + "cr.io/x", "<<<<<" + "<< HEAD"} {
		if len(forbiddenText(text)) != 1 {
			t.Errorf("%q passes", text)
		}
	}
	if got := forbiddenText("mktemp -t auth.XXXXXX; user.Home; https://example.com/home/x; ./work/x; network/root"); len(got) > 0 {
		t.Error(got)
	}
}

func TestForbiddenCode(t *testing.T) {
	for name, text := range files(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		for _, problem := range forbiddenCode(t, name, text) {
			t.Error(problem)
		}
	}
}

// forbiddenCode returns what a Go file contains that the house does without.
func forbiddenCode(t *testing.T, name, text string) []string {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	report := func(node ast.Node, format string, args ...any) {
		found = append(found, fmt.Sprintf("%s: %s", set.Position(node.Pos()), fmt.Sprintf(format, args...)))
	}
	for _, imported := range file.Imports {
		at, _ := strconv.Unquote(imported.Path.Value)
		if at == "math/rand" && !isTestSupport(name) {
			report(imported, "math/rand is predictable; use crypto/rand, or math/rand/v2 where anybody may know the number")
		}
		if imported.Name != nil && imported.Name.Name == "." {
			report(imported, "a dot import hides where names come from")
		}
	}
	ast.Inspect(file, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.FuncDecl:
			if node.Name.Name == "init" && node.Recv == nil {
				report(node, "no init(): mechanisms are listed in a table")
			}
		case *ast.SelectorExpr:
			if x, ok := node.X.(*ast.Ident); ok && x.Name == "time" && node.Sel.Name == "Sleep" && !isTestSupport(name) {
				report(node, "time.Sleep cannot be cancelled; select on a timer and ctx.Done()")
			}
		}
		return true
	})
	return found
}

func TestForbiddenCodeBites(t *testing.T) {
	const bad = `package p
import "math/rand"
import . "strings"
func init() { time.Sleep(1) }
func (x t) init() {}`
	if got := forbiddenCode(t, "p/p.go", bad); len(got) != 4 {
		t.Errorf("got %q, want four problems", got)
	}
	if got := forbiddenCode(t, "ptest/p.go", bad); len(got) != 2 {
		t.Errorf("got %q, want two problems in a package for tests", got)
	}
}
