package login

import (
	"encoding/xml"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"authserver/authserver"
)

func newPages(t testing.TB, branding Branding) *Pages {
	t.Helper()
	pages, err := New(branding)
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// draw returns the answer of one sample for a browser that wants a language.
func draw(t testing.TB, p *Pages, s sample, language string) *httptest.ResponseRecorder {
	t.Helper()
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/login", nil)
	r.Header.Set("Accept-Language", language)
	s.draw(p, w, r)
	return w
}

var (
	inline  = regexp.MustCompile(`(?s)<(style|script)>(.*?)</(?:style|script)>`)
	outside = regexp.MustCompile(`(?i)<(?:link|script|img|style|source|object|embed)[^>]*(?:src|href)=["'](?:https?:)?//|@import|url\(`)
	handler = regexp.MustCompile(`(?i)\son[a-z]+=|\sstyle=|javascript:`)
)

// Every page allows exactly the style and script that it has, and loads nothing.
func TestPolicies(t *testing.T) {
	pages := newPages(t, Branding{Name: "Example & Sons", Logo: []byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`)})
	for _, s := range samples() {
		w := draw(t, pages, s, "en")
		body, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
		if w.Header().Get("Content-Type") != "text/html; charset=utf-8" || !strings.HasPrefix(policy, "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'") {
			t.Errorf("%s: %d %v", s.name, w.Code, w.Header())
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("%s: policy %s", s.name, policy)
		}
		found := inline.FindAllStringSubmatch(body, -1)
		for _, match := range found {
			if !strings.Contains(policy, match[1]+"-src "+newAsset(match[1], match[2]).source) {
				t.Errorf("%s: the policy does not allow its %s: %s", s.name, match[1], policy)
			}
		}
		if len(found) == 0 || strings.Count(policy, "sha256-") != len(found) {
			t.Errorf("%s: %d inline parts for policy %s", s.name, len(found), policy)
		}
		if bad := append(outside.FindAllString(body, -1), handler.FindAllString(body, -1)...); len(bad) > 0 {
			t.Errorf("%s: %q", s.name, bad)
		}
	}
}

// What a stranger chose stays text (ATTACKS AZ-21, AZ-26, BR-08).
func TestHostileText(t *testing.T) {
	const evil = `"'><script>alert(1)</script>{{.}}<img src=x onerror=alert(1)>`
	pages := newPages(t, Branding{})
	client := authserver.ClientView{ID: evil, Name: evil, Host: evil, PolicyURI: "javascript:alert(1)", TosURI: "data:text/html," + evil}
	user := authserver.UserView{Username: evil, Name: evil}
	form := authserver.Form{Action: "/login", Fields: []authserver.Field{{Name: evil, Value: evil}}}
	page := authserver.Page{Status: 200, UILocales: evil, Home: evil}
	scopes := []authserver.ScopeView{{Name: evil}, {Name: "x", Description: authserver.Text{"en": evil}}}
	for name, show := range map[string]func(http.ResponseWriter, *http.Request){
		"sign in": func(w http.ResponseWriter, r *http.Request) {
			pages.SignIn(w, r, authserver.SignInPage{Page: page, Form: form, Client: &client, Login: evil, Passkey: &authserver.Passkey{Form: form, Options: evil}})
		},
		"consent": func(w http.ResponseWriter, r *http.Request) {
			pages.Consent(w, r, authserver.ConsentPage{Page: page, Form: form, Client: client, User: user, Scopes: scopes, Switch: "javascript:alert(1)"})
		},
		"account": func(w http.ResponseWriter, r *http.Request) {
			pages.Account(w, r, authserver.AccountPage{Page: page, User: user, Sessions: []authserver.SessionView{{Browser: evil, System: evil}},
				Apps: []authserver.AppView{{Client: client, Scopes: scopes}}, Passkeys: []authserver.PasskeyView{{Name: evil}}})
		},
		"form post": func(w http.ResponseWriter, r *http.Request) {
			pages.FormPost(w, r, authserver.FormPostPage{Page: page, Client: client, Action: "javascript:alert(1)", Fields: form.Fields})
		},
		"signed out": func(w http.ResponseWriter, r *http.Request) {
			pages.SignedOut(w, r, authserver.SignedOutPage{Page: page, Next: "javascript:alert(1)", Iframes: []string{"javascript:alert(1)"}})
		},
		"error": func(w http.ResponseWriter, r *http.Request) {
			pages.Error(w, r, authserver.ErrorPage{Page: page, Kind: authserver.ErrorRequest, Detail: evil})
		},
	} {
		w := httptest.NewRecorder()
		show(w, httptest.NewRequest(http.MethodGet, "/", nil))
		body := inline.ReplaceAllString(w.Body.String(), "")
		if w.Code != 200 || strings.Contains(body, "<script") || strings.Contains(body, "<img src=x") || strings.Contains(body, "javascript:") || strings.Contains(body, `"data:text`) {
			t.Errorf("%s: %d %s", name, w.Code, body)
		}
	}
}

// Pages are well formed, every input has a label, and ids are there once.
func TestMarkup(t *testing.T) {
	pages := newPages(t, Branding{})
	for _, s := range samples() {
		for _, language := range []string{"en", "de"} {
			body := draw(t, pages, s, language).Body.String()
			if !strings.Contains(body, `<html lang="`+language+`">`) {
				t.Errorf("%s: not in %s", s.name, language)
			}
			for _, problem := range markupProblems(body) {
				t.Errorf("%s in %s: %s", s.name, language, problem)
			}
		}
	}
}

func TestMarkupBites(t *testing.T) {
	const bad = `<main><h1>a</h1><h1>b</h1><input id="x" name="y"><label for="z">z</label><p aria-describedby="w" id="x"></p><button></button></main></div>`
	if got := markupProblems(bad); len(got) != 7 {
		t.Errorf("%d problems: %q", len(got), got)
	}
}

// markupProblems returns what a screen reader or parser would trip over.
func markupProblems(body string) []string {
	var problems []string
	report := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	body = inline.ReplaceAllString(strings.TrimPrefix(body, "<!doctype html>"), "")
	decoder := xml.NewDecoder(strings.NewReader(body))
	decoder.Strict, decoder.AutoClose, decoder.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	ids, labels, inputs, refers := map[string]int{}, map[string]bool{}, []string{}, []string{}
	headings, depth := 0, 0
	button, text := false, ""
	for {
		part, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			report("%v", err)
			break
		}
		switch part := part.(type) {
		case xml.StartElement:
			depth++
			attributes := map[string]string{}
			for _, a := range part.Attr {
				attributes[a.Name.Local] = a.Value
			}
			if id := attributes["id"]; id != "" {
				ids[id]++
			}
			for _, name := range []string{"aria-describedby", "aria-labelledby"} {
				refers = append(refers, strings.Fields(attributes[name])...)
			}
			switch part.Name.Local {
			case "h1":
				headings++
			case "label":
				labels[attributes["for"]] = true
			case "input":
				if attributes["type"] != "hidden" && attributes["aria-hidden"] != "true" {
					inputs = append(inputs, attributes["id"])
				}
			case "button":
				button, text = true, attributes["aria-label"]
			}
		case xml.EndElement:
			depth--
			if part.Name.Local == "button" {
				button = false
				if strings.TrimSpace(text) == "" {
					report("a button without words")
				}
			}
		case xml.CharData:
			if button {
				text += string(part)
			}
		}
	}
	for id, n := range ids {
		if n > 1 {
			report("id %s is there %d times", id, n)
		}
	}
	for _, input := range inputs {
		if !labels[input] {
			report("input %q has no label", input)
		}
	}
	for label := range labels {
		if ids[label] == 0 {
			report("label for %q, which is not there", label)
		}
	}
	for _, id := range refers {
		if ids[id] == 0 {
			report("refers to %q, which is not there", id)
		}
	}
	if headings != 1 {
		report("%d main headings", headings)
	}
	return problems
}

// Nothing is missing in any language: no text, no notice, no error, no verb.
func TestCatalogues(t *testing.T) {
	notices, kinds := constants(t, "Notice"), constants(t, "ErrorKind")
	if len(notices) < 10 || len(kinds) < 8 {
		t.Fatal(notices, kinds)
	}
	for _, m := range catalogues {
		value, first := reflect.ValueOf(*m), reflect.ValueOf(*catalogues[0])
		for i := range value.NumField() {
			for _, problem := range untranslated(value.Field(i), first.Field(i)) {
				t.Errorf("%s: %s: %s", m.Language, value.Type().Field(i).Name, problem)
			}
		}
		for _, notice := range notices {
			if m.Notices[authserver.Notice(notice)] == "" {
				t.Errorf("%s: no text for the notice %s", m.Language, notice)
			}
		}
		for _, kind := range kinds {
			if text := m.Errors[authserver.ErrorKind(kind)]; text.Title == "" || text.Text == "" {
				t.Errorf("%s: no text for the error %s", m.Language, kind)
			}
		}
	}
}

func TestCataloguesBite(t *testing.T) {
	type catalogue struct {
		A, B string
		C    plural
		D    map[string]string
	}
	good := catalogue{"a", "b %s", plural{"one", "%d"}, map[string]string{"x": "y"}}
	bad := catalogue{"", "b", plural{"one", "many"}, map[string]string{}}
	var found int
	for i := range 4 {
		found += len(untranslated(reflect.ValueOf(bad).Field(i), reflect.ValueOf(good).Field(i)))
	}
	if found != 4 {
		t.Errorf("found %d of 4 mistakes", found)
	}
}

var verb = regexp.MustCompile(`%[a-z]+`)

// Every text is on a page.
func TestEveryTextIsUsed(t *testing.T) {
	files, err := filepath.Glob("*.templ")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var source strings.Builder
	for _, file := range append(files, "pages.go", "login.go", "locale.go", "messages.go") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(text)
	}
	for field := range reflect.TypeFor[messages]().Fields() {
		if used := regexp.MustCompile(`\.` + field.Name + `\b`); !used.MatchString(source.String()) {
			t.Errorf("no page shows %s", field.Name)
		}
	}
}

// untranslated returns what a text lacks that another has.
func untranslated(text, other reflect.Value) []string {
	var problems []string
	switch text.Kind() {
	case reflect.String:
		if text.String() == "" {
			return []string{"is empty"}
		}
		if a, b := verb.FindAllString(text.String(), -1), verb.FindAllString(other.String(), -1); len(a) != len(b) {
			return []string{fmt.Sprintf("%q has not the verbs of %q", text, other)}
		}
	case reflect.Struct:
		for i := range text.NumField() {
			problems = append(problems, untranslated(text.Field(i), other.Field(i))...)
		}
	case reflect.Array:
		for i := range text.Len() {
			problems = append(problems, untranslated(text.Index(i), other.Index(i))...)
		}
	case reflect.Map:
		for _, key := range other.MapKeys() {
			if !text.MapIndex(key).IsValid() {
				problems = append(problems, fmt.Sprintf("lacks %v", key))
			} else {
				problems = append(problems, untranslated(text.MapIndex(key), other.MapIndex(key))...)
			}
		}
	}
	return problems
}

// constants returns the values of the constants of a type in authserver/login.go.
func constants(t *testing.T, name string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../login.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(file, func(node ast.Node) bool {
		if spec, ok := node.(*ast.ValueSpec); ok {
			if of, ok := spec.Type.(*ast.Ident); ok && of.Name == name {
				value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, value)
			}
		}
		return true
	})
	return values
}

func TestLanguages(t *testing.T) {
	pages := newPages(t, Branding{})
	for _, c := range []struct{ uiLocales, accept, want string }{
		{"", "", "en"},
		{"", "de-AT,de;q=0.9,en;q=0.5", "de"},
		{"", "fr;q=0.9,de;q=0.5", "de"},
		{"", "fr", "en"},
		{"de", "en", "de"},
		{"fr de", "en", "de"},
		{"fr", "de", "de"},
		{"en-GB de", "de", "en"},
		{"!!! \xff", "de", "de"},
		{strings.Repeat("x-", 100000), strings.Repeat("-", 100000), "en"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept-Language", c.accept)
		if got := pages.language(r, authserver.Page{UILocales: c.uiLocales}).Language; got != c.want {
			t.Errorf("ui_locales %.20q, Accept-Language %.20q: %s, want %s", c.uiLocales, c.accept, got, c.want)
		}
	}
}

// Whatever colour the operator chooses, what it is used for can be read.
func TestContrast(t *testing.T) {
	for r := 0; r <= 255; r += 51 {
		for g := 0; g <= 255; g += 51 {
			for b := 0; b <= 255; b += 51 {
				brand := fmt.Sprintf("#%02x%02x%02x", r, g, b)
				p, err := newPalette(brand)
				if err != nil {
					t.Fatal(err)
				}
				for surface, s := range map[color]scheme{lightSurface: p.light, darkSurface: p.dark} {
					shown := func(c color) color { return mustColor(c.String()) }
					for what, found := range map[string][2]float64{
						"text on the button":        {contrast(shown(s.button), shown(s.onButton)), textContrast},
						"text on the button, hover": {contrast(shown(s.hover), shown(s.onButton)), textContrast},
						"a link":                    {contrast(shown(s.link), surface), textContrast},
						"the button on its surface": {contrast(shown(s.button), surface), shapeContrast},
					} {
						if found[0] < found[1]-0.02 {
							t.Errorf("%s on %s: %s has contrast %.2f", brand, surface, what, found[0])
						}
					}
				}
			}
		}
	}
}

// The fixed colours of the style have the contrast that WCAG asks for.
func TestStyleContrast(t *testing.T) {
	css, err := embedded.ReadFile("assets/style.css")
	if err != nil {
		t.Fatal(err)
	}
	schemes := strings.SplitN(string(css), "@media (prefers-color-scheme: dark)", 2)
	for i, text := range schemes {
		colors := map[string]color{}
		for _, match := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6})`).FindAllStringSubmatch(text, -1) {
			colors[match[1]] = mustColor(match[2])
		}
		for _, pair := range []struct {
			text, on string
			least    float64
		}{{"text", "surface", textContrast}, {"text", "back", textContrast}, {"quiet", "surface", textContrast}, {"quiet", "back", textContrast},
			{"quiet", "tag", textContrast}, {"text", "tag", textContrast}, {"bad", "bad-back", textContrast}, {"good", "good-back", textContrast},
			{"warn", "warn-back", textContrast}, {"border", "surface", shapeContrast}} {
			if got := contrast(colors[pair.text], colors[pair.on]); got < pair.least {
				t.Errorf("scheme %d: %s on %s has contrast %.2f, want %.1f", i, pair.text, pair.on, got, pair.least)
			}
		}
		if surface := map[int]color{0: lightSurface, 1: darkSurface}[i]; colors["surface"] != surface {
			t.Errorf("scheme %d: the surface is %s, and %s in color.go", i, colors["surface"], surface)
		}
	}
}

func TestBrandingMistakes(t *testing.T) {
	for want, branding := range map[string]Branding{
		`color: "red" is not a colour`:      {Color: "red"},
		`color: "#12345" is not`:            {Color: "#12345"},
		"name: has more than 80 bytes":      {Name: strings.Repeat("x", 81)},
		"logo_file: is text/plain":          {Logo: []byte("hello")},
		"logo_file: has 65537 bytes":        {Logo: make([]byte, maxLogo+1)},
		"name: has more than 80 bytes, or ": {Name: "a\nb"},
	} {
		if _, err := New(branding); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v", want, err)
		}
	}
}
