package repotest

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// room is a package of this module and what it may import besides the standard
// library: other rooms by their path in the module, and packages of other
// modules by a prefix of their path.
type room struct {
	path    string
	imports []string
	tests   []string // what its test files may import further
}

const (
	jose       = "github.com/go-jose/go-jose/v4"
	router     = "github.com/gorilla/mux"
	redis      = "github.com/redis/go-redis/v9"
	bolt       = "go.etcd.io/bbolt"
	yamlModule = "go.yaml.in/yaml/v4"
	cobra      = "github.com/spf13/cobra"
	terminal   = "golang.org/x/term"
	argon2     = "golang.org/x/crypto/argon2"
	aead       = "golang.org/x/crypto/chacha20poly1305"
	asn1       = "golang.org/x/crypto/cryptobyte"
	prometheus = "github.com/prometheus/client_golang"
	languages  = "golang.org/x/text/language"
	components = "github.com/a-h/templ"
	webauthn   = "github.com/go-webauthn/webauthn"
	cbor       = "github.com/fxamacker/cbor/v2"
	chromium   = "github.com/chromedp/chromedp"
	pkcs8      = "github.com/youmark/pkcs8"
)

// The arrows. A package that is not here, or an import that is not in its row,
// fails the test: add the row or the name in the commit that argues for it.
var arrows = []room{
	{path: "store"},
	{path: "store/storetest", imports: []string{"store"}, tests: []string{"store/boltstore"}},
	{path: "store/boltstore", imports: []string{"store", bolt}, tests: []string{"store/storetest", "golang.org/x/sys/unix"}},
	{path: "store/guard", imports: []string{"store"}, tests: []string{"store/storetest", "store/boltstore", "store/redisstore", "internal/redistest", "internal/timetest"}},
	{path: "store/redisstore", imports: []string{"store", redis}, tests: []string{"store/storetest", "internal/redistest", "internal/timetest"}},

	{path: "internal/accesstoken", imports: []string{"internal/intake"}},
	{path: "internal/feed", imports: []string{"internal/accesstoken", "internal/intake"}, tests: []string{"internal/timetest", jose}},
	{path: "internal/intake", imports: []string{jose}},
	{path: "internal/interop", tests: []string{"authserver", "authserver/authservertest", "internal/redistest", "internal/timetest", "github.com/coreos/go-oidc/v3", "golang.org/x/oauth2"}},
	{path: "internal/redistest"},
	{path: "internal/repotest", tests: []string{yamlModule, "internal/redistest"}},
	{path: "internal/timetest"},

	{path: "keys/keystest", imports: []string{"keys", jose}},
	{path: "keys/remote", imports: []string{"keys"}, tests: []string{"keys/keystest"}},
	{path: "keys", imports: []string{jose, aead, asn1, pkcs8}, tests: []string{"internal/timetest"}},

	{path: "verifier", imports: []string{"internal/accesstoken", "internal/feed", "internal/intake"}, tests: []string{"verifier/verifiertest", "internal/timetest", jose}},
	{path: "verifier/verifiertest", imports: []string{"verifier", "internal/accesstoken", "internal/feed", jose}},

	{path: "internal/browsertest", imports: []string{"internal/timetest", chromium, "github.com/chromedp/cdproto"}},

	{path: "authserver", imports: []string{"store", "keys", languages, "internal/accesstoken", "internal/feed", "internal/intake", router, argon2, prometheus, webauthn, cbor},
		tests: []string{"golang.org/x/oauth2", "golang.org/x/oauth2/clientcredentials", "authserver/authservertest", "store/boltstore", "store/redisstore", "internal/redistest", "verifier", "internal/browsertest", "internal/timetest", jose}},
	{path: "authserver/login", imports: []string{"authserver", languages, components, "rsc.io/qr"}, tests: []string{"internal/browsertest"}},
	{path: "authserver/authservertest", imports: []string{"authserver", "authserver/login", "keys", "store", "store/boltstore"}},

	{path: "cmd/authserver", imports: []string{"authserver", "authserver/login", "keys", "keys/remote", "store", "store/boltstore", "store/guard", "store/redisstore", "verifier", "internal/accesstoken", "internal/feed",
		"internal/intake", cobra, yamlModule, terminal, prometheus, "golang.org/x/sys/unix"}, tests: []string{"internal/redistest", "internal/timetest", "authserver/authservertest", "github.com/creack/pty"}},
	{path: "resource-example", imports: []string{"verifier", "golang.org/x/oauth2"}, tests: []string{"authserver", "internal/browsertest", "internal/redistest", "internal/timetest", "authserver/authservertest", "verifier/verifiertest"}},
}

// goPackage is what `go list -json` says of a package.
type goPackage struct {
	ImportPath, Dir                    string
	Imports, TestImports, XTestImports []string
	IgnoredGoFiles                     []string
	Standard                           bool
	Module                             *struct{ Path string }
}

func TestArrows(t *testing.T) {
	for _, violation := range violations(arrows, goList(t, "./...")) {
		t.Error(violation)
	}
}

// A resource server that imports verifier links go-jose and the standard library.
func TestVerifierLinks(t *testing.T) {
	for _, p := range goList(t, "-deps", "./verifier") {
		if !p.Standard && (p.Module == nil || (p.Module.Path != module && p.Module.Path != jose)) {
			t.Errorf("a program that imports verifier links %s", p.ImportPath)
		}
	}
}

func TestArrowsBite(t *testing.T) {
	path := func(s string) string { return module + "/" + s }
	house := []room{{path: "store"}, {path: "keys", imports: []string{jose}, tests: []string{"store"}}}
	for _, c := range []struct {
		name string
		bad  goPackage
		want string
	}{
		{"a room of ours", goPackage{ImportPath: path("store"), Imports: []string{path("keys")}}, "store may not import keys"},
		{"another module", goPackage{ImportPath: path("store"), Imports: []string{bolt}}, "store may not import " + bolt},
		{"a test's import", goPackage{ImportPath: path("keys"), Imports: []string{path("store")}}, "keys may not import store"},
		{"in a test", goPackage{ImportPath: path("store"), XTestImports: []string{router}}, "tests of store may not import " + router},
		{"a prefix of a name only", goPackage{ImportPath: path("keys"), Imports: []string{jose + "x"}}, "keys may not import " + jose + "x"},
		{"a room nobody knows", goPackage{ImportPath: path("cellar")}, "cellar has no row"},
		{"a file that only some systems build", goPackage{ImportPath: path("store"), IgnoredGoFiles: []string{"a.go"}}, "store: a.go is not built here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			good := goPackage{ImportPath: path("keys"), Imports: []string{"fmt", jose + "/jwt"},
				TestImports: []string{"testing", path("store"), path("keys")}}
			got := violations(house, []goPackage{good, {ImportPath: path("store")}, c.bad})
			if len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("got %q, want one violation with %q", got, c.want)
			}
		})
	}
}

// violations returns what breaks the arrows, one line each.
func violations(house []room, packages []goPackage) []string {
	var found []string
	for _, p := range packages {
		path := strings.TrimPrefix(p.ImportPath, module+"/")
		i := slices.IndexFunc(house, func(r room) bool { return r.path == path })
		if i < 0 {
			found = append(found, fmt.Sprintf("%s has no row in the arrows", path))
			continue
		}
		r := house[i]
		for _, imported := range p.Imports {
			if !allowed(imported, r.imports) {
				found = append(found, fmt.Sprintf("%s may not import %s", path, strings.TrimPrefix(imported, module+"/")))
			}
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			if !allowed(imported, slices.Concat(r.imports, r.tests, []string{path})) {
				found = append(found, fmt.Sprintf("tests of %s may not import %s", path, strings.TrimPrefix(imported, module+"/")))
			}
		}
		for _, file := range p.IgnoredGoFiles {
			imports, err := importsOf(filepath.Join(p.Dir, file))
			if err != nil {
				found = append(found, fmt.Sprintf("%s: %s is not built here, and its imports cannot be read: %v", path, file, err))
			}
			for _, imported := range imports {
				if !allowed(imported, r.imports) {
					found = append(found, fmt.Sprintf("%s may not import %s, in %s", path, strings.TrimPrefix(imported, module+"/"), file))
				}
			}
		}
	}
	return found
}

// importsOf reads the imports of a file that is not built on this system.
func importsOf(file string) ([]string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var imports []string
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		imports = append(imports, imported)
	}
	return imports, nil
}

func allowed(imported string, names []string) bool {
	if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
		return slices.Contains(names, ours)
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(names, func(name string) bool { return imported == name || strings.HasPrefix(imported, name+"/") })
}

func goList(t *testing.T, args ...string) []goPackage {
	t.Helper()
	command := exec.Command("go", append([]string{"list", "-json"}, args...)...)
	command.Dir = root(t)
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	var packages []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(output))); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		t.Fatalf("%s names no package", command)
	}
	return packages
}
