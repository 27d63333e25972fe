package repotest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strings"
	"testing"
)

// Every exported name of a package that others import says what it is.
func TestExportedNamesAreDocumented(t *testing.T) {
	documented := make(map[string]bool) // packages with a package comment
	packages := make(map[string]bool)
	for name, text := range files(t) {
		if !strings.HasSuffix(name, ".go") || isTest(name) {
			continue
		}
		problems, hasDoc := undocumented(t, name, text)
		for _, problem := range problems {
			t.Error(problem)
		}
		packages[path.Dir(name)] = true
		documented[path.Dir(name)] = documented[path.Dir(name)] || hasDoc
	}
	for dir := range packages {
		if !documented[dir] {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

// What an error's methods do, everybody knows.
var errorMethod = map[string]bool{"Error": true, "Unwrap": true}

// undocumented returns the exported names of a file that have no doc comment,
// and whether the file has the package's.
func undocumented(t *testing.T, name, text string) (problems []string, hasDoc bool) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	need := func(id *ast.Ident, docs ...*ast.CommentGroup) {
		for _, doc := range docs {
			if doc.Text() != "" {
				return
			}
		}
		if id.IsExported() {
			problems = append(problems, fmt.Sprintf("%s: %s has no doc comment", set.Position(id.Pos()), id.Name))
		}
	}
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil || ast.IsExported(receiver(d)) && !errorMethod[d.Name.Name] {
				need(d.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.ValueSpec:
					for _, id := range s.Names {
						need(id, d.Doc, s.Doc, s.Comment)
					}
				case *ast.TypeSpec:
					need(s.Name, d.Doc, s.Doc)
					if contract, ok := s.Type.(*ast.InterfaceType); ok && s.Name.IsExported() {
						for _, method := range contract.Methods.List {
							for _, id := range method.Names {
								need(id, method.Doc, method.Comment)
							}
						}
					}
				}
			}
		}
	}
	return problems, file.Doc.Text() != ""
}

// receiver is the name of a method's type.
func receiver(d *ast.FuncDecl) string {
	expression := d.Recv.List[0].Type
	for {
		switch e := expression.(type) {
		case *ast.StarExpr:
			expression = e.X
		case *ast.IndexExpr:
			expression = e.X
		case *ast.IndexListExpr:
			expression = e.X
		case *ast.Ident:
			return e.Name
		default:
			return ""
		}
	}
}

func TestExportedNamesAreDocumentedBites(t *testing.T) {
	const bad = `package p
const A = 1
const B = 1 // B is one
var C, d = 1, 2
type E interface {
	F()
	// G is.
	G()
}
func H() {}
func (H *H[T]) I() {}
func (j j) K() {}
func (H) Error() string {}
// L is.
type L int
`
	problems, hasDoc := undocumented(t, "p.go", bad)
	var names []string
	for _, problem := range problems {
		names = append(names, strings.Fields(problem)[1])
	}
	if got := strings.Join(names, ""); got != "ACEFHI" || hasDoc {
		t.Errorf("found %s, want ACEFHI", got)
	}
}
