package authserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
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
		"file:///etc/passwd", "gopher://127.0.0.1", "http://", "data:,x", "ftp://127.0.0.1/x", "unix:///run/docker.sock", "http+unix://%2Frun%2Fdocker.sock/x"} {
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

// names answers questions for the addresses of whatever name, in turn, and makes it the resolver
// of this process until the test ends.
func names(t *testing.T, answers ...string) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		buffer := make([]byte, 512)
		for asked := 0; ; {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			end := 12 // RFC 1035 §4.1: the question follows the header
			for end < n && buffer[end] != 0 {
				end += 1 + int(buffer[end])
			}
			if end += 5; end > n {
				continue
			}
			answer := append([]byte{buffer[0], buffer[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, buffer[12:end]...)
			if buffer[end-3] == 1 { // A
				ip := netip.MustParseAddr(answers[min(asked, len(answers)-1)]).As4()
				asked++
				answer[7] = 1
				answer = append(append(answer, 0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), ip[:]...) // with a TTL of 0
			}
			server.WriteTo(answer, from)
		}
	}()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		server.Close()
		<-served
	})
}

// ATTACKS SS-03: a name that changes its address between two requests, or after it was
// judged, gains nothing: what is judged is what is dialled.
func TestAttackSS03(t *testing.T) {
	var reached atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer target.Close()
	_, port, err := net.SplitHostPort(target.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	url := "http://rebind.example:" + port
	names(t, "127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.2")
	o := newOutbound([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")})
	for turn, allowed := range []bool{true, false, true, false} {
		_, err := o.post(t.Context(), url, "")
		if allowed && err != nil || !allowed && !errors.Is(err, errInward) {
			t.Errorf("turn %d: %v", turn, err)
		}
	}
	if reached.Load() != 2 {
		t.Errorf("reached %d times", reached.Load())
	}
}

// ATTACKS SS-02: whatever it is called, and however its address is written, what is inward
// is not reached. All names are here where an attacker's name server says they are.
func TestAttackSS02(t *testing.T) {
	var reached atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer target.Close()
	_, port, err := net.SplitHostPort(target.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	names(t, "127.0.0.1")
	o := newOutbound(nil)
	for _, host := range []string{"localhost", "localhost.", "LOCALHOST", "a.localhost", "metadata.google.internal", "public.example", "public.example.", "127.1", "2130706433",
		"0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "①②⑦.⓪.⓪.①", "[::ffff:7f00:1]", "[::ffff:127.0.0.1]"} {
		if _, err := o.post(t.Context(), "http://"+host+":"+port, ""); err == nil {
			t.Errorf("%s was asked", host)
		}
	}
	for _, host := range []string{"metadata.google.internal", "public.example"} { // which resolve, or this shows nothing
		if _, err := o.post(t.Context(), "http://"+host+":"+port, ""); !errors.Is(err, errInward) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if reached.Load() != 0 {
		t.Errorf("reached %d times", reached.Load())
	}
}

// ATTACKS SS-05, BR-08: what can be registered is https, and nothing of it is a password.
func TestRegisteredURLs(t *testing.T) {
	for uri, good := range map[string]bool{"https://a.example/x": true, "http://a.example/x": false, "javascript:alert(1)": false, "data:text/html,x": false, "file:///etc/passwd": false,
		"gopher://a.example/x": false, "ftp://a.example/x": false, "unix:///run/docker.sock": false, "https://user:secret@a.example/x": false, "https://user@a.example/x": false,
		"https:///x": false, "//a.example/x": false, "https://a.example/\u202ex": false, "https://a.example/<b>\n": false} {
		for key, register := range map[string]func(c *Client){
			"policy_uri": func(c *Client) { c.PolicyURI = uri }, "tos_uri": func(c *Client) { c.TosURI = uri },
			"backchannel_logout_uri": func(c *Client) { c.BackchannelLogoutURI = uri }, "frontchannel_logout_uri": func(c *Client) { c.FrontchannelLogoutURI = uri },
		} {
			config := browserConfig()
			register(&config.Clients[0])
			problems := slices.DeleteFunc(config.Check(), func(p Problem) bool { return !strings.HasSuffix(p.Key, "."+key) })
			if (len(problems) == 0) != good {
				t.Errorf("%s %q: %v", key, uri, problems)
			}
		}
	}
	// What is shown of a client is text of a length, in one direction.
	for name, want := range map[string]string{"Shop": "Shop", " Shop\u202egro.live": "Shopgro.live", "\u2066a\u2069\u200b\ufeff\x1b[31m\n": "a[31m", "\u202e": "",
		strings.Repeat("x", 10<<10): strings.Repeat("x", maxShownName-1) + "…", "a\xffb": "ab"} {
		if got := shownName(name); got != want {
			t.Errorf("%.40q is shown as %q", name, got)
		}
	}
}

// ATTACKS SS-06, SS-07: of an answer the status is read and nothing else, so that none is
// too long and none is told to anybody; headers are bounded, and so is the time.
func TestAttackSS06(t *testing.T) {
	written := make(chan int64, 1)
	var mode atomic.Value
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch mode.Load() {
		case "endless":
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusInternalServerError)
			var total int64
			for chunk := []byte(strings.Repeat("internal-secret ", 4096)); ; {
				n, err := w.Write(chunk)
				if total += int64(n); err != nil || total > 1<<30 {
					written <- total
					return
				}
			}
		case "headers":
			for i := range 1000 {
				w.Header().Set(fmt.Sprintf("X-%d", i), "internal-secret, again and again")
			}
		case "slow":
			connection, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer connection.Close()
			for err == nil && r.Context().Err() == nil {
				if _, err = connection.Write([]byte("H")); err == nil {
					time.Sleep(20 * time.Millisecond)
				}
			}
		}
	}))
	defer target.Close()
	o := newOutbound([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	mode.Store("endless")
	if status, err := o.post(t.Context(), target.URL, ""); status != http.StatusInternalServerError || err != nil {
		t.Errorf("an endless body: %d %v", status, err)
	}
	if total := <-written; total >= 1<<30 {
		t.Errorf("%d bytes of the body were taken", total)
	}
	mode.Store("headers")
	if _, err := o.post(t.Context(), target.URL, ""); err == nil || strings.Contains(err.Error(), "internal-secret") {
		t.Errorf("many headers: %v", err)
	}
	mode.Store("slow")
	if o.client.Timeout <= 0 || o.client.Timeout > 5*time.Second {
		t.Errorf("a request may take %s", o.client.Timeout)
	}
	o.client.Timeout = 200 * time.Millisecond
	if _, err := o.post(t.Context(), target.URL, ""); err == nil {
		t.Error("an answer that comes byte by byte was waited for")
	}
}

// ATTACKS SS-08: no proxy of the environment is asked to go where the server must not.
func TestAttackSS08(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	if newOutbound(nil).client.Transport.(*http.Transport).Proxy != nil {
		t.Error("requests go through a proxy, which is judged in place of their address")
	}
}
