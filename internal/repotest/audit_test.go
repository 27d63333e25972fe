package repotest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// docs/audit.md lists every event of the log with its fields, and nothing else: people
// write rules and alarms on them.
func TestAuditTable(t *testing.T) {
	all := files(t)
	for _, problem := range auditProblems(t, all["docs/audit.md"], all) {
		t.Error(problem)
	}
}

// auditProblems compares the rows `| event | when | fields |` with the code.
func auditProblems(t *testing.T, table string, all map[string]string) []string {
	t.Helper()
	logged := make(map[string]map[string]bool) // event → fields
	for name, text := range all {
		if strings.HasSuffix(name, ".go") && !isTest(name) && !strings.HasPrefix(name, "bench/") {
			loggedEvents(t, name, text, logged)
		}
	}
	listed := make(map[string][]string)
	var problems []string
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if event := strings.TrimSpace(cells[0]); len(cells) == 3 && strings.HasPrefix(event, "`") {
			listed[strings.Trim(event, "`")] = names(cells[2])
		}
	}
	for event, fields := range logged {
		if _, is := listed[event]; !is {
			problems = append(problems, fmt.Sprintf("docs/audit.md lacks the event %s with %s", event, strings.Join(slices.Sorted(maps.Keys(fields)), ", ")))
		}
	}
	for event, fields := range listed {
		if got := slices.Sorted(maps.Keys(logged[event])); !slices.Equal(got, slices.Sorted(slices.Values(fields))) {
			problems = append(problems, fmt.Sprintf("docs/audit.md says that %s has the fields %q, the code %q", event, fields, got))
		}
	}
	return problems
}

// loggedEvents collects the events that a file logs. One begins with "event" and its
// name, as arguments or in a []any; what its function appends to slices belongs to it.
func loggedEvents(t *testing.T, name, text string, logged map[string]map[string]bool) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, declaration := range file.Decls {
		function, is := declaration.(*ast.FuncDecl)
		if !is || function.Body == nil {
			continue
		}
		gathered := "" // the event whose fields are gathered in a slice
		ast.Inspect(function.Body, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.CompositeLit:
				if event := addEvent(node.Elts, logged); event != "" {
					gathered = event
				}
			case *ast.CallExpr:
				if callee, is := node.Fun.(*ast.Ident); is && callee.Name == "append" && gathered != "" {
					addFields(node.Args[1:], logged[gathered])
					return true
				}
				addEvent(node.Args, logged)
			}
			return true
		})
	}
}

// addEvent adds what is logged by arguments that name an event, and returns its name.
func addEvent(arguments []ast.Expr, logged map[string]map[string]bool) string {
	for i := range arguments {
		event := ""
		if name, value := attribute(arguments[i]); name == "event" {
			event = value
		} else if literal(arguments[i]) == "event" && i+1 < len(arguments) {
			event = literal(arguments[i+1])
		}
		if event == "" {
			continue
		}
		if logged[event] == nil {
			logged[event] = make(map[string]bool)
		}
		addFields(arguments[i:], logged[event])
		return event
	}
	return ""
}

// addFields adds the names of attributes: every second argument, or of slog.String(name, value).
func addFields(arguments []ast.Expr, fields map[string]bool) {
	for i := 0; i < len(arguments); i++ {
		name, _ := attribute(arguments[i])
		if name == "" {
			name = literal(arguments[i])
			i++
		}
		if name != "" && name != "event" {
			fields[name] = true
		}
	}
}

// attribute returns name and literal value of slog.String(name, value) and its like.
func attribute(expression ast.Expr) (name, value string) {
	call, is := expression.(*ast.CallExpr)
	if !is || len(call.Args) != 2 {
		return "", ""
	}
	selector, is := call.Fun.(*ast.SelectorExpr)
	if !is {
		return "", ""
	}
	if x, is := selector.X.(*ast.Ident); !is || x.Name != "slog" {
		return "", ""
	}
	return literal(call.Args[0]), literal(call.Args[1])
}

func literal(expression ast.Expr) string {
	basic, is := expression.(*ast.BasicLit)
	if !is || basic.Kind != token.STRING {
		return ""
	}
	text, _ := strconv.Unquote(basic.Value)
	return text
}

func TestAuditTableBites(t *testing.T) {
	const code = `package p
func f() {
	log.Info("a", "event", "sign_in", "sub", x, "address", y)
	log.LogAttrs(ctx, level, "b", slog.String("event", "key"), slog.String("kid", x))
	attrs := []any{"event", "admin", "uid", x}
	if x { attrs = append(attrs, "why", y) }
	log.Warn("c", append(attrs, "result", z)...)
}`
	const rows = "| `key` | x | `kid` |\n| `admin` | x | `uid`, `why`, `result` |\n"
	for row, want := range map[string]int{
		"| `sign_in` | x | `sub`, `address` |":             0,
		"| `sign_in` | x | `sub` |":                        1,
		"| `sign_in` | x | `sub`, `address`, `password` |": 1,
		"": 1,
		"| `sign_in` | x | `sub`, `address` |\n| `sign_out` | x | `sub` |": 1,
	} {
		if got := auditProblems(t, rows+row, map[string]string{"p.go": code}); len(got) != want {
			t.Errorf("%q: %q, want %d problems", row, got, want)
		}
	}
}
