package authserver

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// ATTACKS SS-01, SS-05: what is not the public internet is not dialled, nor another
// port than 443.
func TestOutboundAddresses(t *testing.T) {
	o := newOutbound([]netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")})
	for _, ip := range strings.Fields(`127.0.0.1 127.8.9.1 ::1 0.0.0.0 :: 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 fc00::1 fd12::1 fe80::1
		100.64.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: 198.18.0.1 192.0.0.1 224.0.0.1 255.255.255.255 ff02::1 2001:db8::1 ::127.0.0.1`) {
		if err := o.judge(net.JoinHostPort(ip, "443")); !errors.Is(err, errInward) {
			t.Errorf("%s: %v", ip, err)
		}
	}
	for address, allowed := range map[string]bool{"93.184.215.14:443": true, "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:443": true, "10.20.3.4:8080": true,
		"93.184.215.14:22": false, "93.184.215.14:80": false, "93.184.215.14:6379": false, "10.21.0.1:443": false, "[fe80::1%eth0]:443": false,
		"[2606:2800:21f:cb07::1]:443": true, "[4000::1]:443": false, "[2001:db8::1]:443": false, "[64:ff9b::7f00:1]:443": false, "[::127.0.0.1]:443": false, "[::ffff:127.0.0.1]:443": false, "[2002:7f00:1::]:443": false, "example.com:443": false, "": false} {
		if err := o.judge(address); (err == nil) != allowed {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// ATTACKS SS-02, SS-04, SS-06: names are judged by what they resolve to; redirects
// are not followed; nobody is waited for.
func TestOutboundRequests(t *testing.T) {
	var reached atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reached.Add(1) }))
	defer target.Close()
	redirecting := httptest.NewServer(http.RedirectHandler(target.URL, http.StatusTemporaryRedirect))
	defer redirecting.Close()
	hanging := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hanging.Close()

	closed := newOutbound(nil)
	for _, url := range []string{target.URL, strings.Replace(target.URL, "127.0.0.1", "localhost", 1), strings.Replace(target.URL, "127.0.0.1", "2130706433", 1),
		"file:///etc/passwd", "gopher://127.0.0.1", "http://", "data:,x"} {
		if _, err := closed.post(t.Context(), url, ""); err == nil {
			t.Errorf("%s was asked", url)
		}
	}
	if reached.Load() != 0 {
		t.Fatal("an inward address was reached")
	}
	open := newOutbound([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	if status, err := open.post(t.Context(), target.URL, "a=b"); status != 200 || err != nil || reached.Load() != 1 {
		t.Errorf("an allowed network: %d %v", status, err)
	}
	if status, err := open.post(t.Context(), redirecting.URL, ""); status != 307 || err != nil || reached.Load() != 1 {
		t.Errorf("a redirect: %d %v, reached %d times", status, err, reached.Load())
	}
	open.client.Timeout = 100 * time.Millisecond
	if _, err := open.post(t.Context(), hanging.URL, ""); err == nil {
		t.Error("a server that does not answer has answered")
	}
}
