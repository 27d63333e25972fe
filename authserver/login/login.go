// Package login draws the pages of package authserver: HTML that works without
// scripts (but for passkeys, which need them), with its styles inside, in English
// and German, light and dark, on anything from a narrow phone up.
//
// Each method of authserver.Login is one template in templates/, within
// layout.html. A language is one file, messages_xx.go, and one line in the table
// in locale.go.
package login

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"authserver/authserver"

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
	name      string
	logo      template.URL // data: URL, or empty
	style     asset
	scripts   map[string]asset
	templates map[string]*template.Template
	matcher   languages.Matcher
}

// asset is an inline style or script and the source that allows it in a
// Content-Security-Policy.
type asset struct {
	css    template.CSS
	js     template.JS
	source string
}

//go:embed templates
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
	css, err := embedded.ReadFile("templates/style.css")
	if err != nil {
		return nil, err
	}
	style := palette.css() + string(css)
	pages := &Pages{
		name:      branding.Name,
		logo:      logo,
		style:     asset{css: template.CSS(style), source: hashSource(style)},
		scripts:   make(map[string]asset),
		templates: make(map[string]*template.Template),
		matcher:   newMatcher(),
	}
	for _, name := range []string{"submit", "follow", "passkey"} {
		js, err := embedded.ReadFile("templates/" + name + ".js")
		if err != nil {
			return nil, err
		}
		pages.scripts[name] = asset{js: template.JS(js), source: hashSource(string(js))}
	}
	for _, name := range []string{"sign_in", "second_factor", "consent", "account", "enrol_totp", "recovery_codes",
		"confirm_logout", "signed_out", "form_post", "error"} {
		pages.templates[name], err = template.ParseFS(embedded, "templates/layout.html", "templates/parts.html", "templates/"+name+".html")
		if err != nil {
			return nil, err
		}
	}
	return pages, nil
}

func orDefault(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// hashSource is the CSP source of an inline style or script (CSP Level 3 §2.3.1).
func hashSource(text string) string {
	hash := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'"
}

// dataURL returns an image as a data: URL.
func dataURL(image []byte) (template.URL, error) {
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
	return template.URL("data:" + mediaType + ";base64," + base64.StdEncoding.EncodeToString(image)), nil
}

// view is what a template is executed with.
type view struct {
	T       *messages
	Brand   string // never empty
	Logo    template.URL
	Style   template.CSS
	Script  template.JS // of this page; empty for none
	Title   string
	Wide    bool          // the account page
	Refresh string        // where the page goes on by itself, without scripts
	Picture template.HTML // the QR code
	Groups  []string      // of the characters of a secret, for typing
	M       any           // the model
}

// write executes a template and writes the answer.
func (p *Pages) write(w http.ResponseWriter, page authserver.Page, name, script string, v view) {
	v.Brand, v.Logo, v.Style = orDefault(p.name, v.T.DefaultBrand), p.logo, p.style.css
	source := ""
	if script != "" {
		v.Script, source = p.scripts[script].js, p.scripts[script].source
	}
	var body bytes.Buffer
	if err := p.templates[name].ExecuteTemplate(&body, "layout", v); err != nil {
		// A template that does not fit its model is a bug that every test of the page shows.
		http.Error(w, "the page could not be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	// The only images are the logo and an empty icon, inside the page.
	header.Set("Content-Security-Policy", page.Policy(p.style.source, source)+"; img-src data:")
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Language", v.T.Language)
	header.Add("Vary", "Accept-Language")
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(page.Status)
	w.Write(body.Bytes())
}
