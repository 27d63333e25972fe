package login

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authserver/internal/browsertest"
)

// TestBrowser draws every page in Chromium: light and dark, on a phone of 320
// pixels and on a screen, in both languages. No page may break its own policy, or
// be wider than the screen. With AUTHSERVER_TEST_SCREENSHOTS set to a directory,
// pictures of all go there.
func TestBrowser(t *testing.T) {
	directory := os.Getenv("AUTHSERVER_TEST_SCREENSHOTS")
	pages := newPages(t, Branding{Name: "Wonderland"})
	byName := map[string]sample{}
	for _, s := range samples() {
		byName[s.name] = s
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Accept-Language", r.URL.Query().Get("language"))
		if s, ok := byName[strings.TrimPrefix(r.URL.Path, "/")]; ok {
			s.draw(pages, w, r)
		}
	}))
	defer server.Close()
	browser := browsertest.New(t)
	for _, look := range []struct {
		name, language, scheme string
		width                  int64
	}{{"light", "en", "light", 1024}, {"dark", "en", "dark", 1024}, {"phone", "en", "light", 320}, {"phone-dark-german", "de", "dark", 320}, {"german", "de", "light", 1024}} {
		if directory == "" && look.name != "light" && look.name != "phone-dark-german" {
			continue // the outer ones of width, scheme and length of words
		}
		for _, s := range samples() {
			if s.name == "form-post" || s.name == "signed-out-next" {
				continue // they leave at once
			}
			t.Run(look.name+"/"+s.name, func(t *testing.T) {
				browser.Look(look.width, look.scheme)
				browser.Open(fmt.Sprintf("%s/%s?language=%s", server.URL, s.name, look.language))
				if browsertest.Evaluate[bool](browser, `document.documentElement.scrollWidth > document.documentElement.clientWidth`) {
					t.Error("the page is wider than the screen")
				}
				browser.Quiet(t)
				if directory != "" {
					if err := os.WriteFile(filepath.Join(directory, s.name+"-"+look.name+".png"), browser.Screenshot(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}
