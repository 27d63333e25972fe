package verifier_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authserver/verifier"
	"authserver/verifier/verifiertest"
)

// meddler is a proxy between a verifier and its issuer that does to the frames of
// the feed whatever the test tells it; all else passes.
type meddler struct {
	backend string
	proxy   *httputil.ReverseProxy

	mu     sync.Mutex
	meddle func(m *meddler, event string) (out []string, cut bool) // nil lets all pass
	kept   []string                                                // events of earlier, for replays
}

func newMeddler(t *testing.T, backend string) (*meddler, string) {
	t.Helper()
	target, err := url.Parse(backend)
	if err != nil {
		t.Fatal(err)
	}
	m := &meddler{backend: backend, proxy: httputil.NewSingleHostReverseProxy(target)}
	server := httptest.NewServer(m)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return m, server.URL
}

func (m *meddler) set(meddle func(*meddler, string) ([]string, bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.meddle = meddle
}

func (m *meddler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		m.proxy.ServeHTTP(w, r)
		return
	}
	request, err := http.NewRequestWithContext(r.Context(), "GET", m.backend+r.URL.RequestURI(), nil)
	if err != nil {
		return
	}
	request.Header = r.Header.Clone()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(response.StatusCode)
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		event, found := strings.CutPrefix(lines.Text(), "data: ")
		if !found {
			continue
		}
		out, cut := m.pass(event)
		for _, event := range out {
			fmt.Fprintf(w, "data: %s\n\n", event)
		}
		if http.NewResponseController(w).Flush() != nil || cut {
			return
		}
	}
}

func (m *meddler) pass(event string) (out []string, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.kept) < 1000 {
		m.kept = append(m.kept, event)
	}
	if m.meddle == nil {
		return []string{event}, false
	}
	return m.meddle(m, event)
}

// Whatever somebody in between does to the frames: a token that was revoked is
// accepted for no longer than the bound, no good token is ever called revoked, and
// when the meddling ends, all is as it should be.
func TestMeddledFeed(t *testing.T) {
	var n atomic.Int64
	for name, meddle := range map[string]func(*meddler, string) ([]string, bool){
		"dropped": func(*meddler, string) ([]string, bool) { return nil, n.Add(1)%3 == 0 },
		"some dropped": func(_ *meddler, event string) ([]string, bool) {
			if n.Add(1)%3 == 0 {
				return nil, false
			}
			return []string{event}, false
		},
		"repeated": func(_ *meddler, event string) ([]string, bool) { return []string{event, event}, false },
		"reordered": func(m *meddler, event string) ([]string, bool) {
			if n.Add(1)%2 == 0 {
				return nil, false
			}
			return []string{event, m.kept[len(m.kept)-2]}, false
		},
		"replayed": func(m *meddler, _ string) ([]string, bool) { return []string{m.kept[int(n.Add(1))%len(m.kept)]}, false },
		"forged": func(_ *meddler, event string) ([]string, bool) {
			return []string{event[:len(event)-12] + "AAAAAAAAAAAA"}, false
		},
		"altered": func(_ *meddler, event string) ([]string, bool) {
			parts := strings.Split(event, ".")
			return []string{parts[0] + "." + parts[1][:len(parts[1])/2] + "AAAA" + parts[1][len(parts[1])/2+4:] + "." + parts[2]}, false
		},
		"cut":    func(*meddler, string) ([]string, bool) { return nil, true },
		"junk":   func(*meddler, string) ([]string, bool) { return []string{strings.Repeat("A", 100_000)}, false },
		"random": func(m *meddler, event string) ([]string, bool) { return random(m, event), rand.IntN(8) == 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer := verifiertest.New(t)
			m, between := newMeddler(t, issuer.URL)
			v := issuer.Configured(t, verifier.Config{Audience: audience, JWKSURI: issuer.URL + "/jwks.json", RevocationsURI: between + "/revocations"})
			good := issuer.Token(verifiertest.Claims{"aud": audience})
			victims := make([]string, 2)
			for i := range victims {
				victims[i] = issuer.Token(verifiertest.Claims{"aud": audience, "grant_id": fmt.Sprint("g", i)})
				eventually(t, v, victims[i], "")
			}
			issuer.RevokeGrant("g0")
			eventually(t, v, victims[0], verifier.Revoked)
			m.set(meddle)
			for i := 1; i < len(victims); i++ {
				issuer.RevokeGrant(fmt.Sprint("g", i))
				revoked := time.Now()
				for time.Since(revoked) < 1200*time.Millisecond {
					asked := time.Now()
					if reason := reasonOf(t, v, good); reason != "" && reason != verifier.RevocationsUnavailable {
						t.Fatalf("a good token is refused: %s", reason)
					}
					// The bound is a lease of one second; the question may take its time, too.
					if reason := reasonOf(t, v, victims[i]); reason == "" && asked.Sub(revoked) > time.Second {
						t.Fatalf("a revoked token is accepted %s after its revocation", asked.Sub(revoked))
					}
					if reason := reasonOf(t, v, victims[0]); reason == "" {
						t.Fatal("a token that was known to be revoked is accepted")
					}
					time.Sleep(20 * time.Millisecond)
				}
			}
			m.set(nil)
			for _, victim := range victims {
				eventually(t, v, victim, verifier.Revoked)
			}
			eventually(t, v, good, "")
		})
	}
}

// A connection that begins slowly, once, is no reason to know nothing for as long as it
// lasts.
func TestFeedThatBeginsSlowly(t *testing.T) {
	issuer := verifiertest.New(t)
	m, _ := newMeddler(t, issuer.URL)
	var streams atomic.Int64
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept"), "text/event-stream") && streams.Add(1) == 1 {
			time.Sleep(1500 * time.Millisecond)
		}
		m.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { slow.CloseClientConnections(); slow.Close() })
	v := issuer.Configured(t, verifier.Config{Audience: audience, JWKSURI: issuer.URL + "/jwks.json", RevocationsURI: slow.URL + "/revocations"})
	eventually(t, v, issuer.Token(verifiertest.Claims{"aud": audience}), "")
	if streams.Load() < 2 {
		t.Errorf("%d streams were opened", streams.Load())
	}
}

// random does any of it.
func random(m *meddler, event string) []string {
	switch rand.IntN(6) {
	case 0:
		return nil
	case 1:
		return []string{event, event}
	case 2:
		return []string{m.kept[rand.IntN(len(m.kept))], event}
	case 3:
		at := rand.IntN(len(event) - 1)
		return []string{event[:at] + "A" + event[at+1:]}
	}
	return []string{event}
}

// A feed that answers what it likes takes no memory and holds nobody up.
func TestHostileFeed(t *testing.T) {
	issuer := verifiertest.New(t)
	good := issuer.Token(verifiertest.Claims{"aud": audience})
	for name, answer := range map[string]http.HandlerFunc{
		"an endless line": func(w http.ResponseWriter, r *http.Request) {
			for junk := strings.Repeat("x", 1<<16); ; {
				if _, err := io.WriteString(w, junk); err != nil {
					return
				}
			}
		},
		"nothing":      func(w http.ResponseWriter, r *http.Request) {},
		"silence":      func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a redirect":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"gone":         func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusGone) },
		"HTML":         func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") },
		"another JSON": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"snapshot":"a.b.c","revoked":"!"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(answer)
			t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
			config := verifier.Config{Audience: audience, JWKSURI: issuer.URL + "/jwks.json", RevocationsURI: server.URL}
			short, cancel := contextWithTimeout(t, 300*time.Millisecond)
			defer cancel()
			if _, err := issuer.Configured(t, config).Verify(short, good); err == nil {
				t.Error("a token is accepted, and nobody knows what was revoked")
			}
			config.WhenStale = verifier.AcceptUntilExpiry
			patient := issuer.Configured(t, config)
			for deadline := time.Now().Add(60 * time.Second); ; {
				short, cancel := contextWithTimeout(t, time.Second)
				_, err := patient.Verify(short, good)
				cancel()
				if err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("until it expires: %v", err)
				}
			}
		})
	}
}
