package authserver

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ATTACKS RU-02 to RU-20 in requests: nothing but the registered bytes, and any
// port of a loopback host.
func TestRedirectURIs(t *testing.T) {
	registered := []string{"https://c.example/cb", "https://c.example/q?a=1&b=2", "http://127.0.0.1/cb", "http://[::1]:80/cb", "http://localhost:8081/cb?x=1", "com.example.app:/cb"}
	for _, uri := range append([]string{
		"http://127.0.0.1:51004/cb", "http://127.0.0.1:1/cb", "http://127.0.0.1:65535/cb", "http://[::1]:4000/cb", "http://[::1]/cb", "http://localhost/cb?x=1", "http://localhost:9/cb?x=1",
	}, registered...) {
		if !matchesRedirectURI(registered, uri) {
			t.Errorf("%q is refused", uri)
		}
	}
	for _, uri := range []string{
		"", "https://c.example", "https://c.example/", "https://c.example/cb2", "https://c.example/cb/", "https://c.example/c", "https://c.example/CB", // RU-02
		"HTTPS://C.EXAMPLE/cb", "https://C.example/cb", "https://c.example:443/cb", "https://c.example./cb", // RU-03
		"https://c.example/cb/../evil", "https://c.example/cb/%2e%2e/evil", "https://c.example/cb/..;/evil", "https://c.example/cb//", "https://c.example/cb%2f", "https://c.example/x/../cb", // RU-04
		"https://c.example@evil.example/cb", `https://c.example\@evil.example/cb`, "https://a@b@evil.example/", "https://u@c.example/cb", // RU-05
		"https://c.example/cb?x=1", "https://c.example/cb?", "https://c.example/q?b=2&a=1", "https://c.example/q?%61=1&b=2", "https://c.example/q", // RU-06
		"https://c.example/cb#", "https://c.example/cb#f", // RU-07
		"javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "file:///cb", "blob:https://c.example/cb", "about:blank", // RU-09
		"http://c.example/cb", // RU-10
		"http://127.0.0.1.evil.example/cb", "http://127.1/cb", "http://2130706433/cb", "http://0x7f.1/cb", "http://[::ffff:127.0.0.1]/cb", "http://127.0.0.1:80@evil.example/cb",
		"http://localhost.evil.example/cb?x=1", "http://127.0.0.1:80", "http://127.0.0.1:8080/cb/", "http://127.0.0.1:/cb", "http://127.0.0.1:80:80/cb", "http://127.0.0.1:80\\cb", // RU-12
		"http://127.0.0.1#@/cb", "http://localhost:8081/cb", "http://127.0.0.2/cb", "http://[::1].evil.example/cb", "http://[::1/cb",
		"https://127.0.0.1:80/cb", "https://c.example:80/cb", "https://c.example:8443/cb", // RU-13
		"myapp:/cb", "com.example.app:/cb/", "com.example.app://cb", "COM.example.app:/cb", // RU-14
		"https://c。example/cb", "https://xn--c-1ga.example/cb", "https://c.example⁄cb", "https://c．example/cb", "https://c｡example/cb", "https://с.example/cb", "https://c.example／cb", // RU-16
		"http://LOCALHOST/cb?x=1", "http://Localhost:9/cb?x=1", "HTTP://127.0.0.1:9/cb", "Http://[::1]:9/cb", "http://127.0.0.1:9/CB", "http://localhost:9/cb?X=1", // RU-03
		"http://localhoſt/cb?x=1", "http://①27.0.0.1/cb", "http://127.0.0.1:８0/cb", "http://127.0.0.1／cb",
		"https://c.example/cb\t", "https://c.example/cb\r", "https://c.example/cb\r\n", "http://127.0.0.1:80\n/cb", "http://127.0.0.1\t/cb", "https://c.example/\ncb", " https://c.example/cb", "https://c.example/cb\x00", "https://c.example/c b", // RU-17
		"http://[::1%25eth0]/cb", "http://127.0.0.1:0/cb", "http://127.0.0.1:65536/cb", "http://127.0.0.1:080/cb", "http://127.0.0.1:+80/cb", "http://127.0.0.1:99999999999999999999/cb", // RU-20
	} {
		if matchesRedirectURI(registered, uri) {
			t.Errorf("%q is accepted", uri)
		}
	}
}

// ATTACKS RU-05 to RU-20 at registration.
func TestRedirectURIRegistration(t *testing.T) {
	for _, uri := range []string{"https://c.example/cb", "https://c.example", "https://c.example:8443/cb?a=1", "http://127.0.0.1/cb", "http://[::1]:80/cb", "http://localhost:8081/cb",
		"com.example.app:/cb", "com.example.app://host/cb", "https://c.example/.well-known/cb", "https://c.example/a.b/..c"} {
		var c checker
		if c.redirectURI("x", uri); len(c.problems) > 0 {
			t.Errorf("%q: %v", uri, c.problems)
		}
	}
	for _, uri := range []string{
		"", "/cb", "c.example/cb", "https:///cb", "https://u@c.example/cb", "https://c.example@evil.example/cb", "https://a@b@evil.example/", "https://u:p@c.example/cb", "https://@c.example/cb", "com.example.app://u@host/cb", `https://c.example\@evil.example/cb`, "https://c.example/cb#", "https://c.example/cb#f",
		"https://c.example/cb?code=1", "https://c.example/cb?a=1&state=", "https://c.example/cb?iss=x", "https://c.example/cb?error=x", "https://c.example/cb?response=x", // RU-08
		"com.example.app:/cb?code=1", "https://c.example/cb?%zz", "https://c.example/cb?%63ode=1", "https://c.example/cb#code=1", "https://c.example/cb#state=1",
		"javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "file:///cb", "blob:https://c.example/cb", "about:blank",
		"http://c.example/cb", "http://127.0.0.1.evil.example/cb", "http://127.1/cb", "http://2130706433/cb", "http://0x7f.1/cb", "myapp:/cb",
		"https://[::1%25eth0]/cb", "http://[::ffff:127.0.0.1]/cb", "http://127.0.0.1:80@evil.example/cb", "http://localhost.evil.example/", "VBScript:x", "FILE:///cb", "https://c.example/cb\r", "https://c.example/cb\t", "https://c.example/cb\x00",
		"https://c．example/cb", "https://c.example⁄cb", "https://c.example／cb", "https://с.example/cb",
		"https://*.example/cb", "https://c.example/*", "https://c。example/cb", "https://c.example/cb\n", "https://c.example/c b",
		"http://[::1%25eth0]/cb", "http://127.0.0.1:0/cb", "http://127.0.0.1:65536/cb", "http://127.0.0.1:080/cb", "https://c.example:/cb",
		"https://c.example/cb/../evil", "https://c.example/./cb", "https://c.example/%2e%2e/cb", "https://c.example/a//../cb",
	} {
		var c checker
		if c.redirectURI("x", uri); len(c.problems) == 0 {
			t.Errorf("%q can be registered", uri)
		}
	}
}

// ATTACKS RU-21: no URL of the Web Platform Tests leads anywhere but to where the
// client is registered.
func TestAttackRU21(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "shared", "vectors", "url", "urltestdata.json"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the vectors in ../shared are not here")
	}
	var entries []any
	if err := errors.Join(err, json.Unmarshal(raw, &entries)); err != nil {
		t.Fatal(err)
	}
	s := browserServer(t, func(c *Config) {
		c.Clients[1].RedirectURIs = []string{"https://example.org/foo/bar"}
	})
	b := newBrowser(t, s)
	b.signIn("alice-1")
	tried := 0
	for _, entry := range entries {
		vector, ok := entry.(map[string]any)
		if !ok { // a comment
			continue
		}
		for _, uri := range []any{vector["input"], vector["href"]} {
			text, _ := uri.(string)
			if text == "" || text == "https://example.org/foo/bar" {
				continue
			}
			tried++
			page := b.send("GET", authorizeURL("client_id", "first", "redirect_uri", text), nil)
			if page.status != 400 || page.location != nil || strings.Contains(page.body, "code=") {
				t.Errorf("%q: %d %v", text, page.status, page.location)
			}
		}
	}
	if tried < 500 { // the file has some 700
		t.Errorf("only %d URLs were tried", tried)
	}
}
