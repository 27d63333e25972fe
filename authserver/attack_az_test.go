package authserver_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
)

// ATTACKS AZ-20: values that a stranger makes up leave nothing behind. Each request
// has three of 500 bytes that were never sent before; were one of them kept, it
// would show. With AUTHSERVER_TEST_VALUES=100000 there are so many requests.
func TestAttackAZ20(t *testing.T) {
	var pages authserver.Login
	s := authservertest.New(t, authservertest.Options{Configure: func(c *authserver.Config) { pages = c.Login }})
	config := authservertest.Config("https://auth.example.com")
	config.Clients = append(config.Clients, authserver.Client{ClientID: "shop", ClientSecret: authservertest.Secret, RedirectURIs: []string{webCallback}, Scope: "openid"})
	config.Store, config.Keys, config.Login = s.Store, s.Keys, pages
	server, err := authserver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	send := func(from, to int) {
		for i := from; i < to; i++ {
			value := func(kind string) string { return fmt.Sprintf("%s-%06d-%s", kind, i, strings.Repeat("x", 480)) }
			request := url.Values{"client_id": {"shop"}, "redirect_uri": {webCallback}, "response_type": {"code"}, "scope": {"openid"},
				"code_challenge": {challenge}, "code_challenge_method": {"S256"},
				"ui_locales": {value("de")}, "acr_values": {value("acr")}, "login_hint": {value("hint")}}
			a := fetch(t, server, "GET", "/authorize?"+request.Encode())
			cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
			page := fetch(t, server, "GET", strings.TrimPrefix(a.header.Get("Location"), config.Issuer), "Cookie", cookie)
			if page.status != http.StatusOK || !strings.Contains(page.raw, value("hint")) {
				t.Fatal(a.status, a.header, page.status, page.raw)
			}
		}
	}
	live := func() uint64 {
		var memory runtime.MemStats
		for range 3 {
			runtime.GC()
		}
		runtime.ReadMemStats(&memory)
		return memory.HeapAlloc
	}
	send(0, 200)
	before := live()
	distinct := 600
	if more := os.Getenv("AUTHSERVER_TEST_VALUES"); more != "" {
		if distinct, err = strconv.Atoi(more); err != nil {
			t.Fatal(err)
		}
	}
	send(200, 200+distinct)
	if after := live(); after > before+min(uint64(distinct)*240, 5<<20) {
		t.Errorf("%d bytes more are kept after %d requests", after-before, distinct)
	}
}
