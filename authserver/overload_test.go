package authserver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"authserver/internal/timetest"
	"authserver/keys"
)

func tokenRequestFor(t *testing.T, body io.Reader) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/token", body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("web", "0123456789abcdef0123456789abcdef")
	return r
}

// clientCredentials is refused with 400 when it was worked on: the client has no such grant.
const clientCredentials = "grant_type=client_credentials"

// ATTACKS LD-19: when there is more to do than can be done, what is too much is refused
// at once, with a time to come back; documents and keys are served all the same.
func TestOverload(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	s.admission.keptBack = 0
	ask := func(r *http.Request) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w
	}
	for range cap(s.admission.places) {
		s.admission.places <- struct{}{}
	}
	for _, path := range []string{"/token", "/introspect", "/revoke"} {
		r := tokenRequestFor(t, strings.NewReader(clientCredentials))
		r.URL.Path = path
		if w := ask(r); w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "temporarily_unavailable") {
			t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
	}
	for _, path := range []string{"/.well-known/jwks.json", "/.well-known/openid-configuration", "/healthz", "/readyz"} {
		if w := ask(httptest.NewRequest(http.MethodGet, path, nil)); w.Code != 200 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := ask(httptest.NewRequest(http.MethodGet, "/token", nil)); w.Code != 405 {
		t.Errorf("a method that there is not: %d", w.Code)
	}
	never := tokenRequestFor(t, unread{t}) // who is refused anyhow is not listened to
	if w := ask(never); w.Code != 503 {
		t.Errorf("without a place: %d", w.Code)
	}
	if told, untold := s.admission.told.Load(), s.admission.untold.Load(); told == 0 || untold >= 4 {
		t.Errorf("told at %d, and not of %d", told, untold)
	}
	<-s.admission.places
	for range 3 { // each gives its place back
		if w := ask(tokenRequestFor(t, strings.NewReader(clientCredentials))); w.Code != 400 {
			t.Errorf("with one place: %d %s", w.Code, w.Body)
		}
	}
}

// ATTACKS LD-19: a request that has waited in its connection for long is refused, for it
// would come too late, and make those behind it late.
func TestStaleRequestsAreRefused(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	s.admission.keptBack = 0
	for since, status := range map[time.Duration]int{0: 400, stale: 400, stale + 1: 503, time.Hour: 503} {
		for _, path := range []string{"/token", "/.well-known/jwks.json"} {
			r := tokenRequestFor(t, strings.NewReader(clientCredentials))
			r = r.WithContext(WithReceived(r.Context(), func() time.Duration { return since }))
			want := status
			if r.URL.Path = path; path != "/token" {
				r.Method, want = http.MethodGet, 200
			}
			w := httptest.NewRecorder()
			if s.ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s after %s: %d %s", path, since, w.Code, w.Body)
			}
		}
	}
}

// A refusal is kept back for a while, so that who asks again at once does not have the
// server busy with refusing him; but no longer than he waits, and no more than so many.
func TestRefusalsAreKeptBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(slog.New(slog.DiscardHandler))
		took := func(ctx context.Context) time.Duration {
			began := time.Now()
			if err := a.busy(ctx); err != errBusy {
				t.Error(err)
			}
			return time.Since(began)
		}
		if kept := took(t.Context()); kept != keptBack {
			t.Errorf("kept back for %s", kept)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if kept := took(gone); kept != 0 {
			t.Errorf("of one who has gone: kept back for %s", kept)
		}
		for range cap(a.paused) {
			a.paused <- struct{}{}
		}
		if kept := took(t.Context()); kept != 0 {
			t.Errorf("of one too many: kept back for %s", kept)
		}
	})
}

// ATTACKS HT-01, HT-02, HT-06: who sends slowly holds no place; nor does a body that never ends or
// ends badly.
func TestSlowBodiesHoldNoPlace(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	s.admission.places = make(chan struct{}, 1)
	reader, writer := io.Pipe()
	slow := httptest.NewRecorder()
	served := make(chan struct{})
	go func() { defer close(served); s.ServeHTTP(slow, tokenRequestFor(t, reader)) }()
	io.WriteString(writer, "grant_type=") // it is being read
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, tokenRequestFor(t, strings.NewReader(clientCredentials))); w.Code != 400 {
		t.Errorf("another request meanwhile: %d %s", w.Code, w.Body)
	}
	io.WriteString(writer, "client_credentials")
	writer.Close()
	if <-served; slow.Code != 400 {
		t.Errorf("the slow one: %d %s", slow.Code, slow.Body)
	}
	for name, c := range map[string]struct {
		body   io.Reader
		status int
	}{
		"cut off":   {io.MultiReader(strings.NewReader(clientCredentials), &received{err: errors.New("reset")}), 400},
		"endless":   {io.MultiReader(strings.NewReader(clientCredentials+"&x="), endless{}), 413},
		"10 MB":     {strings.NewReader(clientCredentials + "&x=" + strings.Repeat("a", 10<<20)), 413},
		"million &": {strings.NewReader(clientCredentials + strings.Repeat("&", 1_000_000)), 413},
		"too large": {strings.NewReader(clientCredentials + "&x=" + strings.Repeat("a", maxBody)), 413},
	} {
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, tokenRequestFor(t, c.body)); w.Code != c.status {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// unread fails the test when it is read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

// ATTACKS HT-01, FT-51: large bodies that are received at once are bounded; small ones
// are taken all the same.
func TestLargeBodiesAreBounded(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	s.admission.large = make(chan struct{}, 1)
	ask := func(body io.Reader) int {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, tokenRequestFor(t, body))
		return w.Code
	}
	large := func() io.Reader { return strings.NewReader(clientCredentials + "&x=" + strings.Repeat("a", maxBody/2)) }
	s.admission.large <- struct{}{}
	if status := ask(large()); status != 503 {
		t.Errorf("a large body too many: %d", status)
	}
	if status := ask(strings.NewReader(clientCredentials)); status != 400 {
		t.Errorf("a small one: %d", status)
	}
	<-s.admission.large
	for range 3 { // each gives its place back
		if status := ask(large()); status != 400 {
			t.Errorf("a large one: %d", status)
		}
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'a'
	}
	return len(b), nil
}

// ATTACKS BF-10: a flood of sign-ins takes no more memory than its turns, leaves a CPU to
// others where there are several, and those beyond the queue are refused at once.
func TestPasswordQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // nobody waits too long for a turn because the machine is busy
		p := newPasswordHasher()
		if turns := cap(p.turns); turns > 16 || turns >= runtime.GOMAXPROCS(0) && turns > 1 {
			t.Errorf("%d turns on %d CPUs", turns, runtime.GOMAXPROCS(0))
		}
		var taken []func()
		for range cap(p.turns) {
			done, err := p.turn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			taken = append(taken, done)
		}
		waiting, giveUp := context.WithCancel(t.Context())
		gone := make(chan error)
		for range cap(p.queue) - cap(p.turns) {
			go func() { _, err := p.turn(waiting); gone <- err }()
		}
		synctest.Wait()
		if _, err := p.turn(t.Context()); !errors.Is(err, errManySignIns) {
			t.Errorf("one more than the queue holds: %v", err)
		}
		giveUp()
		for range cap(p.queue) - cap(p.turns) {
			<-gone
		}
		for _, done := range taken {
			done()
		}
		if len(p.queue) != 0 || len(p.turns) != 0 {
			t.Errorf("%d in the queue and %d turns taken when all are done", len(p.queue), len(p.turns))
		}
	})
}

// Whoever gives up, or is told to come back, while all turns are taken has not
// failed: his password was not looked at.
func TestBusyIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // nobody waits too long for a turn because the machine is busy
		s := browserServer(t, func(c *Config) { c.Clients[0].GrantTypes = append(c.Clients[0].GrantTypes, "password") })
		var taken []func()
		for range cap(s.passwords.turns) {
			done, err := s.passwords.turn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			taken = append(taken, done)
		}
		signIn := func(ctx context.Context) int {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, tokenRequestFor(t, strings.NewReader("grant_type=password&username=alice&password=wonderland")).WithContext(ctx))
			return w.Code
		}
		for range 12 { // more than may fail
			ctx, giveUp := context.WithCancel(t.Context())
			status := make(chan int)
			go func() { status <- signIn(ctx) }()
			timetest.Await(t, "he waits for a turn", func() bool { return len(s.passwords.queue) > len(taken) })
			giveUp()
			if status := <-status; status != http.StatusServiceUnavailable {
				t.Errorf("who gives up: %d", status)
			}
		}
		places := cap(s.passwords.queue) - len(s.passwords.queue)
		for range places {
			s.passwords.queue <- struct{}{}
		}
		for range 12 {
			if status := signIn(t.Context()); status != http.StatusServiceUnavailable {
				t.Errorf("who is told to come back: %d", status)
			}
		}
		for range places {
			<-s.passwords.queue
		}
		for _, done := range taken {
			done()
		}
		if status := signIn(t.Context()); status != http.StatusOK {
			t.Errorf("when there is a turn for him: %d", status)
		}
	})
}

// Hashes leave nothing behind that would let the process grow to a multiple of them.
func TestHashesAreCollected(t *testing.T) {
	p := newPasswordHasher()
	p.small = math.MaxUint64 // other tests may have much alive
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if _, err := p.verify(t.Context(), p.nobody, "x"); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > argonMemory<<10/2 {
		t.Errorf("%d bytes more are in use after a hash", more)
	}
}
