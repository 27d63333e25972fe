package authserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authserver/internal/intake"
	"authserver/internal/timetest"
	"authserver/store"
)

// listener is a client that is told of logouts.
type listener struct {
	*httptest.Server
	status int
	tokens chan string
}

func newListener(t *testing.T) *listener {
	l := &listener{status: http.StatusOK, tokens: make(chan string, 100)}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
			t.Errorf("%s %v", r.Method, r.Header)
		}
		if l.status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(l.status)
		l.tokens <- r.PostFormValue("logout_token")
	}))
	t.Cleanup(l.Close)
	return l
}

// idle waits until nothing is under way.
func (b *backchannel) idle() { b.sending.Wait() }

func (l *listener) got(t *testing.T, want int) (token string) {
	t.Helper()
	if len(l.tokens) != want {
		t.Fatalf("%d logout tokens, want %d", len(l.tokens), want)
	}
	for range want {
		token = <-l.tokens
	}
	return token
}

// due makes all that waits due now.
func due(t *testing.T, s *Server) (waiting int) {
	t.Helper()
	for member, err := range s.store.Linked(t.Context(), notificationIndex, store.Member{}) {
		if err != nil {
			t.Fatal(err)
		}
		id := member.Name
		n, record, err := s.backchannel.table.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		n.NotUntil = 0
		if !s.backchannel.take(t.Context(), id, record, n) {
			t.Fatal("not taken")
		}
		waiting++
	}
	return waiting
}

func backchannelServer(t *testing.T, l *listener) *Server {
	return browserServer(t, listensAt(l))
}

func listensAt(l *listener) func(*Config) {
	return func(c *Config) {
		c.OutboundNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.Clients[0].BackchannelLogoutURI = l.URL + "/logout?x=1"
	}
}

// endedSession signs alice in at the client web, and ends her session.
func endedSession(t *testing.T, s *Server) *session {
	t.Helper()
	started := newBrowser(t, s).signIn("alice-1")
	_, _, err := s.sessions.Change(t.Context(), started.ID, func(one *session) error {
		one.Told = []string{"web", "first", "gone"}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.logOut(t.Context(), started, "test"); err != nil {
		t.Fatal(err)
	}
	return started
}

// oidcc-backchannel-rp-initiated-logout and ATTACKS BR-15: the logout token.
func TestLogoutToken(t *testing.T) {
	for _, algorithm := range []string{"ES256", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) { logoutTokenSignedWith(t, algorithm) })
	}
}

func logoutTokenSignedWith(t *testing.T, registered string) {
	l := newListener(t)
	s := browserServer(t, func(c *Config) { listensAt(l)(c); c.Clients[0].IDTokenSignedResponseAlg = registered })
	ended := endedSession(t, s)
	s.backchannel.sendDue(t.Context())
	s.backchannel.idle()
	token, err := intake.Parse(l.got(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	algorithm, key, ok := s.keys.AccessKey(token.KeyID)
	if !ok || algorithm != registered || token.Type != "logout+jwt" || token.Verify(intake.Key{ID: token.KeyID, Algorithm: algorithm, Public: key}) != nil {
		t.Errorf("type %s, known key %t of %s", token.Type, ok, algorithm)
	}
	var claims map[string]any
	if err := json.Unmarshal(token.Payload, &claims); err != nil {
		t.Fatal(err)
	}
	events, _ := json.Marshal(claims["events"])
	if claims["iss"] != testIssuer || claims["aud"] != "web" || claims["sub"] != "alice-1" || claims["sid"] != ended.ID || claims["jti"] == nil || claims["jti"] == "" ||
		string(events) != `{"http://schemas.openid.net/event/backchannel-logout":{}}` || claims["exp"].(float64)-claims["iat"].(float64) > 120 || claims["nonce"] != nil {
		t.Errorf("claims %v", claims)
	}
	if due(t, s) != 0 {
		t.Error("what was sent still waits")
	}
}

// ATTACKS BR-14: a client that is down is told later, by whichever instance is there
// then; one that refuses, or never answers well, is given up on.
func TestLogoutRetries(t *testing.T) {
	l := newListener(t)
	s := backchannelServer(t, l)
	send := func(s *Server) {
		t.Helper()
		s.backchannel.sendDue(t.Context())
		s.backchannel.idle()
	}
	l.status = http.StatusServiceUnavailable
	endedSession(t, s)
	send(s)
	first := l.got(t, 1)
	send(s) // too early
	l.got(t, 0)

	// The instance dies; another goes on. Two do, and one wins.
	other := browserServerWith(t, s, listensAt(l))
	if due(t, other) != 1 {
		t.Fatal("nothing waits")
	}
	l.status = http.StatusNoContent
	var both sync.WaitGroup
	both.Go(func() { other.backchannel.sendDue(t.Context()) })
	both.Go(func() { s.backchannel.sendDue(t.Context()) })
	both.Wait()
	other.backchannel.idle()
	s.backchannel.idle()
	if second := l.got(t, 1); second == first {
		t.Error("the same token was sent twice")
	}
	if due(t, s) != 0 {
		t.Error("what was sent still waits")
	}

	all := 1 + len(notificationWaits)
	for status, attempts := range map[int]int{http.StatusBadRequest: 1, http.StatusFound: all, http.StatusInternalServerError: all} {
		l.status = status
		endedSession(t, s)
		for range all + 2 {
			send(s)
			due(t, s)
		}
		l.got(t, attempts)
		if due(t, s) != 0 {
			t.Errorf("status %d: it still waits", status)
		}
	}
}

// ATTACKS BR-14: nobody waits for clients that do not answer, of which no more than so many
// are asked at once; and none is asked outside of the allowed networks.
func TestLogoutDoesNotWait(t *testing.T) {
	release := make(chan struct{})
	var asked atomic.Int64
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1); <-release }))
	defer hanging.Close()
	defer close(release)
	l := newListener(t)
	configure := func(c *Config) {
		listensAt(l)(c)
		for i := range 2 * parallelLogouts {
			c.Clients = append(c.Clients, Client{ClientID: fmt.Sprint("hanging-", i), ClientSecret: testSecret, GrantTypes: []string{"client_credentials"},
				BackchannelLogoutURI: hanging.URL})
		}
	}
	s := browserServer(t, configure)
	if limit := newOutbound(nil).client.Timeout; limit <= 0 || limit > 5*time.Second {
		t.Errorf("a client may take %s", limit)
	}
	s.outbound.client.Timeout = 0 // all hang until the end of the test
	for i := range 2 * parallelLogouts {
		dead, err := s.clients.find(t.Context(), fmt.Sprint("hanging-", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.backchannel.announce(t.Context(), &session{ID: newID(), Subject: "alice-1"}, []*client{dead}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	s.backchannel.sendDue(ctx) // returns
	timetest.Await(t, "as many are asked as may be at once", func() bool { return asked.Load() >= parallelLogouts })
	for range 3 {
		endedSession(t, s) // returns
	}
	if n, busy := asked.Load(), len(s.backchannel.turns); n != parallelLogouts || busy != parallelLogouts {
		t.Errorf("%d are asked at once, in %d turns, want %d", n, busy, parallelLogouts)
	}
	stop()
	s.backchannel.idle()
	closed := browserServerWith(t, s, func(c *Config) { listensAt(l)(c); c.OutboundNetworks = nil })
	closed.backchannel.sendDue(t.Context())
	closed.backchannel.idle()
	l.got(t, 0)
}

// oidcc-frontchannel-rp-initiated-logout: the iframe has iss and sid.
func TestFrontchannelURL(t *testing.T) {
	for uri, want := range map[string]string{"https://a.example/out": "?", "https://a.example/out?x=1": "&"} {
		got := withQuery(withQuery(uri, "iss", testIssuer), "sid", "s 1")
		if u, err := url.Parse(got); err != nil || u.Query().Get("iss") != testIssuer || u.Query().Get("sid") != "s 1" || !strings.HasPrefix(got, uri+want) {
			t.Errorf("%s: %s", uri, got)
		}
	}
}

// The session remembers each client that wants to be told once, however often it gets
// a code, and not without bound; what a sign-in writes anew keeps them.
func TestNotedClients(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	one := b.signIn("alice-1")
	told := func() []string {
		stored, _, err := s.sessions.Get(t.Context(), one.ID)
		if err != nil {
			t.Fatal(err)
		}
		return stored.Told
	}
	note := func(c *client) {
		if err := s.noteClient(t.Context(), one, c); err != nil {
			t.Fatal(err)
		}
	}
	note(&client{id: "silent"})
	note(&client{id: "back", backchannelLogoutURI: "https://back.example.com"})
	note(&client{id: "back", backchannelLogoutURI: "https://back.example.com"})
	note(&client{id: "front", frontchannelLogoutURI: "https://front.example.com"})
	if got := told(); !slices.Equal(got, []string{"back", "front"}) {
		t.Errorf("noted are %v", got)
	}
	if again := b.signIn("alice-1"); again.ID != one.ID || len(told()) != 2 {
		t.Errorf("after another sign-in, in session %s: %v", again.ID, told())
	}
	for i := range maxTold {
		note(&client{id: fmt.Sprint(i), backchannelLogoutURI: "https://back.example.com"})
	}
	if got := told(); len(got) != maxTold || got[0] != "0" {
		t.Errorf("%d are noted, first %q", len(got), got[0])
	}
	if err := s.endSession(t.Context(), "alice-1", one.ID, "test"); err != nil {
		t.Fatal(err)
	}
	err := s.noteClient(t.Context(), one, &client{id: "late", backchannelLogoutURI: "https://back.example.com"})
	if asError(err).Code != "login_required" {
		t.Errorf("in a session that has ended: %v", err)
	}
}

// A client that does not answer holds up its own logout tokens, not others'.
func TestLogoutOfOthersDoesNotWait(t *testing.T) {
	var held, most atomic.Int64
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for now := held.Add(1); now > most.Load(); {
			most.Store(now)
		}
		defer held.Add(-1)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer hanging.Close()
	l := newListener(t)
	s := browserServer(t, func(c *Config) {
		listensAt(l)(c)
		c.Clients[1].BackchannelLogoutURI = hanging.URL
	})
	dead, err := s.clients.find(t.Context(), "first")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * parallelLogouts {
		if err := s.backchannel.announce(t.Context(), &session{ID: newID(), Subject: "alice-1"}, []*client{dead}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		endedSession(t, s)
	}
	s.backchannel.sendDue(t.Context())
	for range 5 {
		select {
		case <-l.tokens:
		case <-time.After(time.Minute):
			t.Fatal("a client that answers is not told")
		}
	}
	s.backchannel.sendDue(t.Context()) // begins no more for the client that is busy
	close(release)
	s.backchannel.idle()
	if most.Load() > 4 { // of one that was given up the other side may not know yet
		t.Errorf("%d requests at once to a client that does not answer", most.Load())
	}
}
