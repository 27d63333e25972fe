package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"authserver/bench/internal/process"
	"authserver/bench/internal/report"
	"authserver/internal/feed"
	"authserver/verifier"
)

const (
	introspector       = "api"
	introspectorSecret = "an-api-that-introspects-0123456789"
	settle             = 10 * time.Second // after a fault, until everything has to be as it was
	mintEvery          = 50 * time.Millisecond
	watched            = 40 // tokens that are looked at in turn, the youngest
)

// between stands between the verifiers and the feed, and does to its frames what dice
// and the phase say. All else goes to the server itself.
type between struct {
	base   string
	server *httptest.Server
	phase  atomic.Pointer[string]

	mu   sync.Mutex
	dice *rand.Rand
	kept []string // frames of before
}

func newBetween(base string, seed uint64) *between {
	b := &between{base: base, dice: rand.New(rand.NewPCG(seed, 1))}
	b.enter("calm")
	b.server = httptest.NewServer(b)
	return b
}

func (b *between) enter(phase string) { b.phase.Store(&phase) }

func (b *between) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if *b.phase.Load() == "feed cut" {
		http.Error(w, "cut", http.StatusBadGateway)
		return
	}
	request, err := http.NewRequestWithContext(r.Context(), r.Method, b.base+r.URL.RequestURI(), r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	request.Header = r.Header.Clone()
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	for name, values := range response.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(response.StatusCode)
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		bufio.NewReader(response.Body).WriteTo(w)
		return
	}
	lines := bufio.NewReader(response.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil || *b.phase.Load() == "feed cut" {
			return
		}
		frame, found := strings.CutPrefix(line, "data: ")
		if !found {
			continue
		}
		for _, one := range b.meddle(strings.TrimSpace(frame)) {
			fmt.Fprintf(w, "data: %s\n\n", one)
		}
		if http.NewResponseController(w).Flush() != nil {
			return
		}
	}
}

// meddle returns what is sent instead of a frame.
func (b *between) meddle(frame string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept = append(b.kept, frame); len(b.kept) > 500 {
		b.kept = b.kept[250:]
	}
	before := b.kept[b.dice.IntN(len(b.kept))]
	struck := b.dice.IntN(3) == 0
	switch phase := *b.phase.Load(); {
	case !struck:
	case phase == "frames dropped":
		return nil
	case phase == "frames replayed":
		return []string{frame, before}
	case phase == "frames reordered" && len(b.kept) > 1:
		return []string{before, frame}
	case phase == "frames forged":
		signed, signature, found := strings.Cut(frame[strings.Index(frame, ".")+1:], ".")
		if !found {
			return nil
		}
		other := strings.Split(before, ".")
		return []string{frame[:strings.Index(frame, ".")] + "." + other[1] + "." + signature, signed}
	}
	return []string{frame}
}

// watchedToken is a token of a history.
type watchedToken struct {
	minted
	revoked atomic.Int64 // when its revocation was acknowledged, in nanoseconds since the beginning; 0 before
	asked   atomic.Bool  // to revoke it; what happens meanwhile proves nothing
}

// watcher looks at tokens through one verifier and counts what its policy rules out.
type watcher struct {
	name     string
	bound    time.Duration // after which a revoked token is refused; 0 for only when all is calm
	refuses  bool          // good tokens, while it does not know enough
	verifier *verifier.Verifier

	looks, late, wrong, refused atomic.Int64
}

// faults lets verifiers of each policy follow a server through one fault after the
// other, and checks every answer of theirs.
func faults(binary string, phase, cut time.Duration, seed uint64) error {
	scene, err := newSceneOf(binary, process.Options{Clients: fmt.Sprintf("{client_id: %s, client_secret: %s, resource: %q, grant_types: [client_credentials], scope: \"orders:read\"}",
		introspector, introspectorSecret, process.Resource)})
	if err != nil {
		return err
	}
	defer scene.close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b := newBetween(scene.installed.Base, seed)
	defer func() { cancel(); b.server.CloseClientConnections(); b.server.Close() }()
	watchers := []*watcher{{name: "Reject", bound: feed.Lease, refuses: true}, {name: "Introspect", bound: feed.Lease, refuses: true}, {name: "AcceptUntilExpiry"}}
	for i, policy := range []verifier.WhenStale{verifier.Reject, verifier.Introspect, verifier.AcceptUntilExpiry} {
		config := verifier.Config{Issuer: scene.installed.Base, Audience: process.Resource, WhenStale: policy, Logger: slog.New(slog.DiscardHandler),
			JWKSURI: scene.installed.Base + "/.well-known/jwks.json", RevocationsURI: b.server.URL + "/revocations"}
		if policy == verifier.Introspect {
			config.IntrospectionURI, config.ClientID, config.ClientSecret = scene.installed.Base+"/introspect", introspector, introspectorSecret
		}
		if watchers[i].verifier, err = verifier.New(ctx, config); err != nil {
			return err
		}
	}
	h := &faultHistory{scene: scene, revoker: newRevoker(scene.installed), began: time.Now(), dice: rand.New(rand.NewPCG(seed, 2))}
	var running sync.WaitGroup
	running.Go(func() { h.mint(ctx) })
	for _, w := range watchers {
		running.Go(func() { h.watch(ctx, w) })
	}
	fmt.Printf("%s; seed %d\n\n", report.Machine(), seed)
	table := report.NewTable(os.Stdout, "phase", "length", "tokens so far", "revoked", "policy", "looks", "revoked and accepted beyond the bound", "good and called revoked", "good and not accepted")
	for _, name := range []string{"calm", "frames dropped", "frames reordered", "frames replayed", "frames forged", "feed cut", "server killed", "Redis restarted", "server paused"} {
		length := phase
		if name == "feed cut" {
			length = cut
		}
		if err := h.phase(b, name, length); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, w := range watchers {
			table.Row(name, length.String(), fmt.Sprint(h.minted.Load()), fmt.Sprint(h.revoked.Load()), w.name,
				fmt.Sprint(w.looks.Swap(0)), fmt.Sprint(w.late.Load()), fmt.Sprint(w.wrong.Load()), fmt.Sprint(w.refused.Swap(0)))
		}
	}
	cancel()
	running.Wait()
	for _, w := range watchers {
		if w.late.Load()+w.wrong.Load() > 0 {
			err = errors.Join(err, fmt.Errorf("%s: %d revoked tokens accepted beyond the bound, %d good ones called revoked", w.name, w.late.Load(), w.wrong.Load()))
		}
	}
	return errors.Join(err, h.failed)
}

// faultHistory is what happens meanwhile.
type faultHistory struct {
	scene   *scene
	revoker *revoker
	began   time.Time
	dice    *rand.Rand
	calm    atomic.Int64 // since when nothing is wrong, as watchedToken.revoked; 0 while something is
	minted  atomic.Int64
	revoked atomic.Int64
	failed  error

	mu     sync.Mutex
	tokens []*watchedToken
}

func (h *faultHistory) now() int64 { return int64(time.Since(h.began)) }

// phase lets something go wrong for a while, and then nothing until all is settled.
func (h *faultHistory) phase(b *between, name string, length time.Duration) (err error) {
	if name == "calm" {
		h.calm.Store(h.now())
		time.Sleep(length)
		return nil
	}
	h.calm.Store(0)
	b.enter(name)
	switch name {
	case "server killed":
		for end := time.Now().Add(length); time.Now().Before(end) && err == nil; time.Sleep(length / 5) {
			h.scene.server.Kill()
			time.Sleep(2 * time.Second)
			h.scene.server, err = h.scene.installed.Start()
		}
	case "Redis restarted":
		for end := time.Now().Add(length); time.Now().Before(end) && err == nil; time.Sleep(length / 5) {
			err = h.scene.redis.Restart()
		}
	case "server paused":
		for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(length / 10) {
			h.scene.server.Signal(syscall.SIGSTOP)
			time.Sleep(length / 10)
			h.scene.server.Signal(syscall.SIGCONT)
		}
	default:
		time.Sleep(length)
	}
	b.enter("calm")
	time.Sleep(settle)
	h.calm.Store(h.now())
	time.Sleep(settle)
	return err
}

// mint makes tokens, and revokes every second one a moment later.
func (h *faultHistory) mint(ctx context.Context) {
	for ctx.Err() == nil {
		made, err := h.revoker.mint()
		if err != nil { // the server is down
			time.Sleep(mintEvery)
			continue
		}
		token := &watchedToken{minted: made}
		h.mu.Lock()
		if h.tokens = append(h.tokens, token); len(h.tokens) > watched {
			h.tokens = h.tokens[len(h.tokens)-watched:]
		}
		h.mu.Unlock()
		if h.minted.Add(1)%2 == 0 {
			time.AfterFunc(time.Duration(h.dice.Int64N(int64(20*mintEvery))), func() {
				token.asked.Store(true)
				if h.revoker.revoke(token.raw) == nil {
					token.revoked.Store(h.now())
					h.revoked.Add(1)
				}
			})
		}
		time.Sleep(mintEvery)
	}
}

// watch looks at each token again and again.
func (h *faultHistory) watch(ctx context.Context, w *watcher) {
	for ctx.Err() == nil {
		h.mu.Lock()
		tokens := append([]*watchedToken(nil), h.tokens...)
		h.mu.Unlock()
		for _, token := range tokens {
			h.look(ctx, w, token)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *faultHistory) look(ctx context.Context, w *watcher, token *watchedToken) {
	calmBefore, revokedBefore, began := h.calm.Load(), token.revoked.Load(), h.now()
	_, err := w.verifier.Verify(ctx, token.raw)
	if ctx.Err() != nil {
		return
	}
	calm := calmBefore != 0 && h.calm.Load() == calmBefore
	w.looks.Add(1)
	var refusal *verifier.Error
	errors.As(err, &refusal)
	switch {
	case revokedBefore != 0 && err == nil && (w.bound > 0 && began > revokedBefore+int64(w.bound) || calm && began > max(revokedBefore, calmBefore)+int64(feed.Lease)):
		w.late.Add(1)
	case !token.asked.Load() && refusal != nil && refusal.Reason == verifier.Revoked:
		w.wrong.Add(1)
	case !token.asked.Load() && err != nil && !w.refuses:
		w.wrong.Add(1)
	case !token.asked.Load() && err != nil:
		w.refused.Add(1)
	}
}
