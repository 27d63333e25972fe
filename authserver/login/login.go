// Package login draws the pages of package authserver: HTML that works without
// scripts (but for passkeys, which need them), with its styles inside, in English
// and German, light and dark, on anything from a narrow phone up.
//
// Each method of authserver.Login is one component in a .templ file, within that of
// layout.templ; `make pages` writes their Go code (docs/decisions/0047-pages-are-compiled.md).
// A language is one file, messages_xx.go, and one line in the table in locale.go.
package login

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"authserver/authserver"

	"github.com/a-h/templ"
	languages "golang.org/x/text/language"
)

// Branding is what the pages show of the operator. The zero Branding works.
type Branding struct {
	// Name is shown at the top of each page and in its title.
	Name string
	// Logo is an image, SVG, PNG, JPEG, GIF or WebP, of at most 64 KiB.
	Logo []byte
	// Color is the colour of buttons and links, as #rrggbb. The text on it, and
	// the shade of it that text has, are chosen so that they can be read.
	Color string
}

const (
	defaultColor = "#3b5bdb"
	maxLogo      = 64 << 10 // bytes
)

// Pages is the authserver.Login of this package. It is safe for concurrent use.
type Pages struct {
	name    string
	logo    templ.SafeURL // data: URL, or empty
	style   asset
	scripts map[string]asset
	matcher languages.Matcher
}

// asset is an inline style or script and the source that allows it in a
// Content-Security-Policy.
type asset struct {
	element templ.Component
	source  string
}

// newAsset returns a style or script of ours. Nothing that a stranger chose may be
// in its text: it is written as it is.
func newAsset(element, text string) asset {
	hash := sha256.Sum256([]byte(text))
	return asset{
		element: templ.Raw("<" + element + ">" + text + "</" + element + ">"),
		source:  "'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'", // CSP Level 3 §2.3.1
	}
}

//go:embed assets
var embedded embed.FS

var _ authserver.Login = (*Pages)(nil)

// New returns pages with a branding. An error names the mistake in it.
func New(branding Branding) (*Pages, error) {
	if len(branding.Name) > 80 || strings.ContainsFunc(branding.Name, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return nil, fmt.Errorf("name: has more than 80 bytes, or control characters")
	}
	palette, err := newPalette(orDefault(branding.Color, defaultColor))
	if err != nil {
		return nil, fmt.Errorf("color: %w", err)
	}
	logo, err := dataURL(branding.Logo)
	if err != nil {
		return nil, fmt.Errorf("logo_file: %w", err)
	}
	css, err := embedded.ReadFile("assets/style.css")
	if err != nil {
		return nil, err
	}
	pages := &Pages{
		name:    branding.Name,
		logo:    logo,
		style:   newAsset("style", palette.css()+string(css)),
		scripts: map[string]asset{"": {element: templ.NopComponent}},
		matcher: newMatcher(),
	}
	for _, name := range []string{"submit", "follow", "passkey"} {
		js, err := embedded.ReadFile("assets/" + name + ".js")
		if err != nil {
			return nil, err
		}
		pages.scripts[name] = newAsset("script", string(js))
	}
	return pages, nil
}

func orDefault(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// dataURL returns an image as a data: URL.
func dataURL(image []byte) (templ.SafeURL, error) {
	if len(image) == 0 {
		return "", nil
	}
	if len(image) > maxLogo {
		return "", fmt.Errorf("has %d bytes, at most %d are allowed", len(image), maxLogo)
	}
	mediaType := http.DetectContentType(image)
	if start := image[:min(len(image), 1024)]; bytes.Contains(start, []byte("<svg")) {
		mediaType = "image/svg+xml" // in an img it runs no scripts
	}
	if !strings.HasPrefix(mediaType, "image/") {
		return "", fmt.Errorf("is %s; an image is SVG, PNG, JPEG, GIF or WebP", mediaType)
	}
	return templ.SafeURL("data:" + mediaType + ";base64," + base64.StdEncoding.EncodeToString(image)), nil
}

// view is what the layout shows beside the content of a page.
type view struct {
	T       *messages
	Brand   string // never empty
	Logo    templ.SafeURL
	Style   templ.Component
	Script  templ.Component // of this page
	Title   string
	Wide    bool   // the account page
	Refresh string // where the page goes on by itself, without scripts
}

// write draws a page and writes the answer.
func (p *Pages) write(w http.ResponseWriter, page authserver.Page, script string, v view, content templ.Component) {
	v.Brand, v.Logo, v.Style, v.Script = orDefault(p.name, v.T.DefaultBrand), p.logo, p.style.element, p.scripts[script].element
	var body bytes.Buffer
	if err := layout(v, content).Render(context.Background(), &body); err != nil {
		// A component that cannot be drawn is a bug that every test of the page shows.
		http.Error(w, "the page could not be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	// The only images are the logo and an empty icon, inside the page.
	header.Set("Content-Security-Policy", page.Policy(p.style.source, p.scripts[script].source)+"; img-src data:")
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Language", v.T.Language)
	header.Add("Vary", "Accept-Language")
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(page.Status)
	w.Write(body.Bytes())
}
