package authserver

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
	"authserver/internal/intake"
	"authserver/internal/timetest"
	"authserver/keys"
	"authserver/store"
	"authserver/verifier"
)

// follow runs a verifier that holds a lease until the test ends, and acknowledges at
// a URL, or nowhere. It returns when the verifier is fresh.
func follow(t *testing.T, s running, name, acknowledge string) *reader {
	t.Helper()
	r := newReader(t, s.Server, s.url)
	r.client = s.client
	r.lease = "&lease=1&verifier=" + url.QueryEscape(name)
	r.load()
	if status := r.connect(); status != http.StatusOK {
		t.Fatal(status)
	}
	r.until(r.fresh)
	go func() {
		for {
			frame, err := r.next()
			if err != nil {
				return // the test has ended
			}
			if frame.Ack && acknowledge != "" {
				acknowledgeAt(s.client, acknowledge, r.token, string(frame.Cursor))
			}
		}
	}()
	return r
}

func acknowledgeAt(client *http.Client, base, lease, cursor string) int {
	response, err := client.PostForm(base+"/revocations", url.Values{"lease": {lease}, "cursor": {cursor}})
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

func enforcedAt(t *testing.T, s running) Enforcement {
	t.Helper()
	e, err := s.enforced(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// A revocation that waits hears of every verifier, by name where one does not answer,
// and gets a receipt.
func TestEnforced(t *testing.T) {
	inBubble(t, func(t *testing.T, instance func() running) {
		s := instance()
		if e := enforcedAt(t, s); e.Verifiers != 0 || e.Milliseconds > enforcedWithin.Milliseconds() {
			t.Errorf("without verifiers: %+v", e)
		}
		readers := []*reader{follow(t, s, "one", s.url), follow(t, s, "two", s.url), follow(t, s, "three", s.url)}
		s.end(t, "g")
		e := enforcedAt(t, s)
		if e.Verifiers != 3 || e.Acknowledged != 3 || len(e.Lapsed) != 0 || !strings.HasPrefix(e.String(), "enforced at 3 of 3 verifiers in ") {
			t.Errorf("%+v", e)
		}
		for _, r := range readers {
			if !r.ends("g") {
				t.Error("said to be enforced where it is not")
			}
		}
		token, err := intake.Parse(e.Receipt)
		if err != nil || !token.HasType(feed.ReceiptType) || newReader(t, s.Server, s.url).verify(token) != nil {
			t.Fatalf("the receipt is %+v, %v", token, err)
		}
		var kept receipt
		if err := json.Unmarshal(token.Payload, &kept); err != nil || kept.Acknowledged != 3 || kept.Issuer != s.issuer || kept.ID == "" {
			t.Errorf("the receipt says %s", token.Payload)
		}
		follow(t, s, "mute", "")
		follow(t, s, "", "") // has no lease, see below
		silent := follow(t, s, "https://api.example.com", "")
		free := newReader(t, s.Server, s.url)
		free.client = s.client
		free.lease = "&verifier=free"
		free.load()
		free.connect()
		e = enforcedAt(t, s)
		slices.Sort(e.Lapsed)
		want := []string{"a verifier at 127.0.0.1", "https://api.example.com at 127.0.0.1", "mute at 127.0.0.1"}
		if e.Verifiers != 6 || e.Acknowledged != 3 || !slices.Equal(e.Lapsed, want) || !slices.Equal(e.NoLease, []string{"free at 127.0.0.1"}) {
			t.Errorf("%+v", e)
		}
		if text := e.String(); !strings.Contains(text, "enforced at 3 of 6") || !strings.Contains(text, "mute") || !strings.Contains(text, "without a lease: free") {
			t.Error(text)
		}
		if silent.token == "" || free.token != "" {
			t.Error("a lease is for those who ask for it")
		}
	})
}

// A lease that ended is known to have ended; nobody waits for it any more.
func TestLeaseOfTheGone(t *testing.T) {
	inBubble(t, func(t *testing.T, instance func() running) {
		s := instance()
		gone := follow(t, s, "gone", "")
		gone.body.Close()
		e := enforcedAt(t, s) // right away: it may still accept
		if e.Verifiers != 1 || e.Acknowledged != 0 || len(e.Lapsed) != 1 {
			t.Errorf("%+v", e)
		}
		if gone.fresh() {
			t.Error("said to have lapsed while the verifier still accepts")
		}
		for e.Verifiers > 0 {
			e = enforcedAt(t, s)
		}
	})
}

// A fence is passed at no instance that has not sent it, also where nobody follows:
// what comes before it may not have gone out either.
func TestFenceIsSentFirst(t *testing.T) {
	f := insideServer(t, nil, keys.MasterKey{}).feed
	met := &fence{position: 7, known: make(map[*lease]struct{})}
	for sent, done := range []bool{6: false, 7: true, 8: true} {
		f.sent.Store(uint64(sent))
		if found := f.tally(met); found.Sent != done || found.done() != done {
			t.Errorf("sent up to %d: %+v", sent, found)
		}
	}
}

// A connection whose frames were chosen before the fence, and not yet begun, may still
// come to believe in them: it is waited for, until it begins behind the fence or goes.
func TestLeaseAboutToBegin(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	f := s.feed
	met := &fence{position: 7, known: make(map[*lease]struct{})}
	f.sent.Store(7)
	l, r := &lease{id: "l", name: "slow"}, httptest.NewRequest(http.MethodGet, "/revocations", nil)
	f.leases.hold(l)
	if found := f.tally(met); found.done() || found.Lapsed != 0 || !slices.Equal(found.Pending, []string{"slow"}) {
		t.Errorf("about to begin: %+v", found)
	}
	l.begin(feed.CursorOf(6, nil), f.clock(time.Now()))
	if found := f.tally(met); found.done() || found.Lapsed != 0 {
		t.Errorf("begun before the fence: %+v", found)
	}
	l.start.Store(7)
	if found := f.tally(met); !found.done() || found.Verifiers != 0 {
		t.Errorf("begun behind the fence: %+v", found)
	}
	gone := &lease{id: "gone", name: "gone"}
	f.leases.hold(gone)
	f.tally(met)
	f.leave(r, gone)
	if found := f.tally(met); !found.done() || found.Verifiers != 0 {
		t.Errorf("gone without having begun: %+v", found)
	}
}

// Verifiers of all instances count, also when a balancer takes an acknowledgement to
// another instance than the stream. An instance that died costs the length of a lease.
func TestEnforcedAcrossInstances(t *testing.T) {
	inBubble(t, func(t *testing.T, instance func() running) {
		a, b, c := instance(), instance(), instance()
		readers := []*reader{
			follow(t, a, "a", a.url), follow(t, b, "b", b.url), follow(t, c, "c", c.url),
			follow(t, a, "a by b", b.url), follow(t, b, "b by a", a.url), follow(t, c, "c by b", b.url),
		}
		a.end(t, "g")
		for _, at := range []running{a, b, c} {
			if e := enforcedAt(t, at); e.Verifiers != 6 || e.Acknowledged != 6 {
				t.Errorf("%+v", e)
			}
		}
		for _, r := range readers {
			if !r.ends("g") {
				t.Error("said to be enforced where it is not")
			}
		}
		follow(t, b, "mute", "")
		if e := enforcedAt(t, a); e.Verifiers != 7 || e.Acknowledged != 6 || !slices.Equal(e.Lapsed, []string{"mute at 127.0.0.1"}) {
			t.Errorf("%+v", e)
		}
		if err := a.store.Link(t.Context(), instances, "dead", time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		e := enforcedAt(t, a)
		if e.Verifiers != 7 || e.Acknowledged != 6 || e.Milliseconds < feed.Lease.Milliseconds() {
			t.Errorf("with an instance that died: %+v", e)
		}
		if e.Silent != 1 || !strings.Contains(e.String(), "servers that did not answer, of which all leases are over: 1") {
			t.Errorf("the instance that died is passed over: %s", e)
		}
	})
}

// The same where the instances share a Redis. There time goes by: who was held up for
// longer than a lease lasts is not counted, and the next time he is.
func TestEnforcedOnRedis(t *testing.T) {
	redis, instance := onRedis(t, nil)
	a, b := instance(), instance()
	readers := []*reader{follow(t, a, "a", a.url), follow(t, b, "b", b.url), follow(t, a, "a by b", b.url), follow(t, b, "b by a", a.url)}
	a.end(t, "g")
	for _, at := range []running{a, b} {
		timetest.AwaitNil(t, func() error {
			e, err := at.enforced(t.Context())
			if err == nil && (e.Verifiers != 4 || e.Acknowledged != 4) {
				err = fmt.Errorf("%+v", e)
			}
			return err
		})
	}
	for _, r := range readers {
		if !r.ends("g") {
			t.Error("said to be enforced where it is not")
		}
	}
	redis.Kill()
	if e, err := a.enforced(t.Context()); err == nil {
		t.Errorf("without a store: %+v", e)
	}
}

// A server that cannot read the log knows of no verifier, which is not the same as that
// there is none.
func TestEnforcedUnread(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{}) // does not run
	if e, err := s.enforced(t.Context()); err == nil {
		t.Errorf("the log was not read: %s", e)
	}
}

// An instance that stops has given out leases that live on for up to a second. Until they
// are over, whoever asks the others is not told that its verifiers enforce anything.
func TestEnforcedBesideAnInstanceThatStops(t *testing.T) {
	inBubble(t, func(t *testing.T, instance func() running) {
		a, b := instance(), instance()
		registered := func() bool {
			others, err := a.feed.others(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return slices.Contains(others, b.feed.stream)
		}
		follow(t, b, "mute", "")
		if !registered() {
			t.Fatal("an instance that has given out a lease is not known")
		}
		ended, stop := context.WithCancel(t.Context())
		stop()
		if b.feed.stayRegistered(ended); !registered() {
			t.Error("an instance has stopped, its lease lives, and nobody knows of it any more")
		}
		b.feed.leases.mu.Lock()
		clear(b.feed.leases.held)
		b.feed.leases.mu.Unlock()
		if b.feed.stayRegistered(ended); registered() {
			t.Error("an instance without leases has stopped, and others still wait for it")
		}
	})
}

func TestAcknowledgeRefusals(t *testing.T) {
	inBubble(t, func(t *testing.T, instance func() running) {
		s := instance()
		r := follow(t, s, "one", s.url)
		for _, c := range []struct {
			lease, cursor string
			status        int
		}{
			{r.token, "", http.StatusBadRequest},
			{"", "1.a", http.StatusBadRequest},
			{"AAAA", "1.a", http.StatusBadRequest},
			{r.token + "A", "1.a", http.StatusBadRequest},
			{r.token[:len(r.token)-4] + "AAAA", "1.a", http.StatusBadRequest},
			{r.token, "nonsense", http.StatusOK}, // has applied nothing
		} {
			if status := acknowledgeAt(s.client, s.url, c.lease, c.cursor); status != c.status {
				t.Errorf("%+v: %d", c, status)
			}
		}
	})
}

// The two halves together: as soon as a revocation is said to be enforced, package
// verifier refuses the token. A verifier with a route that accepts tokens while
// revocations are not known promises nothing.
func TestEnforcedByVerifiers(t *testing.T) {
	inBubble(t, func(t *testing.T, instance func() running) {
		s := instance()
		var verifiers []*verifier.Verifier
		for range 3 {
			v, err := verifier.New(t.Context(), verifier.Config{Issuer: insideIssuer, Audience: "https://api.example.com",
				JWKSURI: s.url + "/.well-known/jwks.json", RevocationsURI: s.url + "/revocations", HTTPClient: s.client, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			verifiers = append(verifiers, v)
		}
		mint := func(grant string) string {
			now := time.Now().Unix()
			token, err := s.sign("ES256", accesstoken.Type, accesstoken.Claims{Issuer: insideIssuer, Audience: accesstoken.Audience{"https://api.example.com"},
				Subject: "alice", ClientID: "web", ID: newID(), GrantID: grant, IssuedAt: now, Expires: now + 600})
			if err != nil {
				t.Fatal(err)
			}
			return token
		}
		for i := range 5 {
			grant := fmt.Sprint("grant", i)
			token, other := mint(grant), mint("other")
			for _, v := range verifiers {
				if _, err := v.Verify(t.Context(), token); err != nil {
					t.Fatal(err)
				}
			}
			s.end(t, grant)
			if e := enforcedAt(t, s); e.Verifiers != 3 || e.Acknowledged != 3 {
				t.Errorf("%+v", e)
			}
			for _, v := range verifiers {
				if _, err := v.Verify(t.Context(), token); err == nil {
					t.Error("said to be enforced, and accepted")
				}
				if _, err := v.Verify(t.Context(), other); err != nil {
					t.Error(err)
				}
			}
		}
		request := httptest.NewRequest("GET", "/", nil)
		request.Header.Set("Authorization", "Bearer "+mint("g"))
		if _, err := verifiers[0].Authenticate(request, verifier.Requirement{WhenStale: verifier.AcceptUntilExpiry}); err != nil {
			t.Fatal(err)
		}
		for len(enforcedAt(t, s).NoLease) == 0 { // it connects again, without a lease
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// A fence does not wait behind the frame of the revocation that it follows.
func TestFenceIsNotGathered(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	s.feed.take(nil, time.Now()) // the log was read once
	event := func(position store.Position, text string) store.Event {
		return store.Event{Position: position, Value: []byte(text)}
	}
	s.feed.take([]store.Event{event(1, `{"v":1,"grant_id":"g","reason":"x","at":1}`)}, time.Now())
	if got := s.feed.gatherFor(); got != feed.Gather {
		t.Errorf("a revocation waits %v", got)
	}
	s.feed.take([]store.Event{event(2, `{"v":1,"fence":"f","from":"x","reason":"wait","at":1}`)}, time.Now())
	if got := s.feed.gatherFor(); got != fenceGather {
		t.Errorf("a fence waits %v", got)
	}
}
