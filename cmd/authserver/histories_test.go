package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/verifier"
)

// observation is one question to a verifier.
type observation struct {
	token           string // its name
	asked, answered time.Time
	reason          verifier.Reason // empty when it was accepted
}

// revocationTime is when the request to revoke a token began, and was acknowledged.
type revocationTime struct{ began, acknowledged time.Time }

// violations are what a history of one verifier breaks: a revoked token is accepted no
// later than bound after the acknowledgement, and never again once it was known to
// be revoked; no token is called revoked that is not; and but for want of knowledge,
// which only mayLack allows, no good one is refused.
func violations(history []observation, revoked map[string]revocationTime, bound time.Duration, mayLack bool) []string {
	var found []string
	known := make(map[string]bool)
	for _, o := range history {
		ended, is := revoked[o.token]
		switch {
		case o.reason == "" && is && known[o.token]:
			found = append(found, o.token+" was known to be revoked, and is accepted")
		case o.reason == "" && is && bound > 0 && o.asked.Sub(ended.acknowledged) > bound:
			found = append(found, fmt.Sprintf("%s is accepted %s after its revocation", o.token, o.asked.Sub(ended.acknowledged)))
		case o.reason == verifier.Revoked && (!is || o.answered.Before(ended.began)):
			found = append(found, o.token+" is called revoked, and is not")
		case o.reason == verifier.Revoked:
			known[o.token] = true
		case o.reason != "" && !(mayLack && o.reason == verifier.RevocationsUnavailable):
			found = append(found, fmt.Sprintf("%s is refused: %s", o.token, o.reason))
		}
	}
	return found
}

func TestViolations(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	see := func(token string, ms int, reason verifier.Reason) observation {
		return observation{token, at(ms), at(ms + 1), reason}
	}
	revoked := map[string]revocationTime{"v": {at(1000), at(1010)}}
	for name, c := range map[string]struct {
		history []observation
		mayLack bool
		want    int
	}{
		"in order":            {[]observation{see("v", 0, ""), see("v", 2010, ""), see("v", 2500, verifier.Revoked), see("g", 2500, "")}, true, 0},
		"too late":            {[]observation{see("v", 2011, "")}, true, 1},
		"forgotten":           {[]observation{see("v", 1500, verifier.Revoked), see("v", 1600, "")}, true, 1},
		"too early":           {[]observation{see("v", 900, verifier.Revoked)}, true, 1},
		"a good one":          {[]observation{see("g", 1500, verifier.Revoked)}, true, 1},
		"not known, allowed":  {[]observation{see("g", 1500, verifier.RevocationsUnavailable)}, true, 0},
		"not known, promised": {[]observation{see("g", 1500, verifier.RevocationsUnavailable)}, false, 1},
		"expired":             {[]observation{see("g", 1500, verifier.Expired)}, true, 1},
	} {
		if got := violations(c.history, revoked, time.Second, c.mayLack); len(got) != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// between is a balancer in front of two instances that can be told to do harm to the feed.
type between struct {
	*httptest.Server
	mu      sync.Mutex
	backend string
	harm    func(event string, earlier []string) (out []string, cut bool) // nil for none
}

func newBetween(t *testing.T) *between {
	b := &between{}
	b.Server = httptest.NewServer(b)
	t.Cleanup(func() { b.CloseClientConnections(); b.Close() })
	return b
}

func (b *between) set(backend string, harm func(string, []string) ([]string, bool)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backend, b.harm = backend, harm
}

func (b *between) now() (string, func(string, []string) ([]string, bool)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.backend, b.harm
}

func (b *between) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	backend, _ := b.now()
	target, err := url.Parse(backend)
	if err != nil {
		return
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		proxy := httputil.NewSingleHostReverseProxy(target)
		proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		proxy.ServeHTTP(w, r)
		return
	}
	request, err := http.NewRequestWithContext(r.Context(), "GET", backend+r.URL.RequestURI(), nil)
	if err != nil {
		return
	}
	request.Header = r.Header.Clone()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(response.StatusCode)
	var earlier []string
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		event, found := strings.CutPrefix(lines.Text(), "data: ")
		if !found {
			continue
		}
		earlier = append(earlier, event)
		out, cut := []string{event}, false
		at, harm := b.now()
		if harm != nil {
			out, cut = harm(event, earlier)
		}
		for _, event := range out {
			fmt.Fprintf(w, "data: %s\n\n", event)
		}
		if http.NewResponseController(w).Flush() != nil || cut || at != backend {
			return
		}
	}
}

// anything is done to frames by turns.
func anything(event string, earlier []string) ([]string, bool) {
	switch rand.IntN(7) {
	case 0:
		return nil, false
	case 1:
		return []string{event, event}, false
	case 2:
		return []string{earlier[rand.IntN(len(earlier))], event}, false
	case 3:
		at := rand.IntN(len(event) - 1)
		return []string{event[:at] + "A" + event[at+1:]}, false
	case 4:
		return nil, true
	}
	return []string{event}, false
}

func heldBack(string, []string) ([]string, bool) { return nil, false }
func cutOff(string, []string) ([]string, bool)   { return nil, true }

// Two real servers on one Redis, verifiers of two policies behind a balancer, and one
// fault after the other while tokens are revoked. What each verifier said is a
// history, which is checked.
func TestHistoriesUnderFaults(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	front := newBetween(t)
	directories, backends, processes := [2]string{t.TempDir(), t.TempDir()}, [2]string{}, [2]*process{}
	run := func(i int) {
		t.Helper()
		processes[i] = start(t, directories[i], backends[i], nil, "serve")
	}
	for i := range processes {
		port := freePort(t)
		backends[i] = "http://localhost:" + port
		config := fmt.Sprintf("issuer: %s\nlisten: localhost:%s\nmetrics_listen: \"off\"\ndata: %s\nmaster_key_file: %s\nstore: %s\n", front.URL, port, directories[i],
			filepath.Join(directories[0], "master.key"), redis.URL()) + apiConfig[strings.Index(apiConfig, "resources:"):]
		if err := os.WriteFile(filepath.Join(directories[i], "authserver.yaml"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		run(i)
	}
	front.set(backends[0], nil)

	tokens := map[string]string{"good": serviceToken(t, backends[0])}
	policies := map[string]verifier.WhenStale{"reject": verifier.Reject, "accept until expiry": verifier.AcceptUntilExpiry}
	verifiers := make(map[string]*verifier.Verifier)
	for name, policy := range policies {
		v, err := verifier.New(t.Context(), verifier.Config{Issuer: front.URL, Audience: "https://api.example.com", WhenStale: policy, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		becomes(t, v, tokens["good"], "")
		verifiers[name] = v
	}
	const phases = 6
	for i := range phases {
		tokens[fmt.Sprint("victim ", i)] = serviceToken(t, backends[0])
	}

	var observing sync.WaitGroup
	done := make(chan struct{})
	histories := make(map[string]*[]observation)
	for name, v := range verifiers {
		history := &[]observation{}
		histories[name] = history
		observing.Go(func() {
			for {
				for token, raw := range tokens {
					asked, reason := time.Now(), verifier.Reason("")
					if _, err := v.Verify(t.Context(), raw); err != nil {
						reason = err.(*verifier.Error).Reason
					}
					*history = append(*history, observation{token, asked, time.Now(), reason})
				}
				select {
				case <-done:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
	revoked := make(map[string]revocationTime)
	revoke := func(phase, at int) {
		t.Helper()
		name := fmt.Sprint("victim ", phase)
		began := time.Now()
		for deadline := began.Add(30 * time.Second); !revokedAt(backends[at], tokens[name]); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("never revoked")
			}
		}
		revoked[name] = revocationTime{began, time.Now()}
	}
	const bound = time.Second // of a lease
	heal := func(backend int) {
		t.Helper()
		time.Sleep(bound + 500*time.Millisecond) // what happens past the bound is seen
		front.set(backends[backend], nil)
		for _, v := range verifiers {
			becomes(t, v, tokens["good"], "")
		}
	}
	front.set(backends[0], anything)
	revoke(0, 1)
	heal(0)
	front.set(backends[0], heldBack)
	revoke(1, 0)
	heal(0)
	front.set(backends[0], cutOff)
	revoke(2, 1)
	heal(0)
	front.set(backends[1], nil) // the balancer moves everybody
	revoke(3, 0)
	heal(1)
	processes[1].Process.Kill()
	processes[1].Wait()
	revoke(4, 0)
	time.Sleep(bound)
	run(1)
	heal(1)
	redis.Kill()
	time.Sleep(bound + 500*time.Millisecond)
	redis.Restart()
	revoke(5, 1)
	heal(1)
	for name := range revoked {
		for _, v := range verifiers {
			becomes(t, v, tokens[name], verifier.Revoked)
		}
	}
	close(done)
	observing.Wait()
	for name, history := range histories {
		accepts := policies[name] == verifier.AcceptUntilExpiry
		promised := bound
		if accepts {
			promised = 0 // it promises none while it does not know
		}
		for _, violation := range violations(*history, revoked, promised, !accepts) {
			t.Errorf("%s: %s", name, violation)
		}
		if len(*history) < 100 {
			t.Errorf("%s: %d observations only", name, len(*history))
		}
	}
}

// revokedAt asks a server to revoke a token, and reports whether it has.
func revokedAt(backend, token string) bool {
	request, err := http.NewRequest("POST", backend+"/revoke", strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		return false
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth("service", "0123456789abcdef0123456789abcdef")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}
