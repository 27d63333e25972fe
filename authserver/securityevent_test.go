package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
	"authserver/store"
	"authserver/store/redisstore"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/prometheus/client_golang/prometheus"
)

// eventReceiver is told of security events.
type eventReceiver struct {
	*httptest.Server
	mu       sync.Mutex
	answer   func(claims map[string]any) (status int, body string) // 202 when nil
	tokens   []string                                              // all that came, also what was not taken
	accepted []map[string]any
	header   http.Header
}

func newEventReceiver(t *testing.T) *eventReceiver {
	r := &eventReceiver{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *eventReceiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, _ := io.ReadAll(request.Body)
	claims := claimsOfEvent(string(body))
	r.mu.Lock()
	answer := r.answer
	r.tokens, r.header = append(r.tokens, request.Method+" "+request.URL.Path+" "+string(body)), request.Header
	r.mu.Unlock()
	status, text := http.StatusAccepted, ""
	if answer != nil {
		status, text = answer(claims)
	}
	if status == http.StatusAccepted {
		r.mu.Lock()
		r.accepted = append(r.accepted, claims)
		r.mu.Unlock()
	}
	if status == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(status)
	io.WriteString(w, text)
}

func claimsOfEvent(token string) (claims map[string]any) {
	parts := strings.Split(token, ".")
	if len(parts) == 3 {
		decoded, _ := decodeSealed(parts[1])
		json.Unmarshal(decoded, &claims)
	}
	return claims
}

// sidOf is the session that an event is about.
func sidOf(claims map[string]any) string {
	session, _ := claims["sub_id"].(map[string]any)["session"].(map[string]any)
	id, _ := session["id"].(string)
	return id
}

func (r *eventReceiver) answers(answer func(claims map[string]any) (int, string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *eventReceiver) took() []map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.accepted)
}

func (r *eventReceiver) requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.tokens)
}

// tells configures receivers on this machine.
func tells(receivers ...*eventReceiver) func(*Config) {
	return func(c *Config) {
		c.OutboundNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		for i, r := range receivers {
			c.Receivers = append(c.Receivers, Receiver{Name: fmt.Sprintf("r%d", i), URL: r.URL + "/events", Audience: fmt.Sprintf("https://r%d.example.com", i)})
		}
	}
}

// hurried makes the outbox of a server quick, for tests; whoever holds a record keeps it,
// also where the machine does not let him move it in time.
func hurried(s *Server) *Server {
	s.outbox.renewEvery, s.outbox.lapse, s.outbox.firstWait = 20*time.Millisecond, time.Minute, time.Millisecond
	return s
}

// operatorContext is that of a call at the admin socket.
func operatorContext(ctx context.Context) context.Context {
	return context.WithValue(ctx, peerKey{}, namedPeer{adminPeer: adminPeer{UID: os.Geteuid()}})
}

// counted is a metric of events.
func counted(t *testing.T, registry *prometheus.Registry, receiver, outcome string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "authserver_security_events_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			labels := make(map[string]string)
			for _, label := range metric.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			if labels["receiver"] == receiver && labels["outcome"] == outcome {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// RFC 8417 §2.2, §2.3, §4; RFC 8935 §2.1; CAEP §3.1: the token and its request.
func TestSecurityEventToken(t *testing.T) {
	r := newEventReceiver(t)
	s := hurried(browserServerWithAlgorithms(t, func(c *Config) {
		tells(r)(c)
		c.Receivers[0].Authorization = "Bearer s3cret"
	}, "ES256", "RS256"))
	runUntilCleanup(t, s.Run)
	b := newBrowser(t, s)
	started := b.signIn("alice-1")
	before := time.Now().Unix()
	if err := s.logOut(t.Context(), started, reasonSignedOut); err != nil {
		t.Fatal(err)
	}
	timetest.Await(t, "told of the session", func() bool { return len(r.took()) == 1 })
	sent := r.requests()[0]
	method, raw, _ := strings.Cut(sent, " /events ")
	r.mu.Lock()
	header := r.header
	r.mu.Unlock()
	if method != "POST" || header.Get("Content-Type") != "application/secevent+jwt" || header.Get("Accept") != "application/json" || header.Get("Authorization") != "Bearer s3cret" {
		t.Errorf("%s %v", method, header)
	}
	claims, typ := b.verified(raw, "RS256") // the CAEP Interoperability Profile asks for it
	if typ != "secevent+jwt" {
		t.Errorf("typ %s", typ)
	}
	event := claims["events"].(map[string]any)["https://schemas.openid.net/secevent/caep/event-type/session-revoked"].(map[string]any)
	at := int64(event["event_timestamp"].(float64))
	if at < before || at > time.Now().Unix() || len(claims["jti"].(string)) < 20 || claims["iat"].(float64) < float64(at) || len(claims["txn"].(string)) < 20 {
		t.Errorf("%v", claims)
	}
	delete(event, "event_timestamp")
	for _, checked := range []string{"jti", "iat", "txn"} {
		delete(claims, checked)
	}
	got, _ := json.Marshal(claims)
	want := `{"aud":"https://r0.example.com","events":{"https://schemas.openid.net/secevent/caep/event-type/session-revoked":{"initiating_entity":"user","reason_admin":{"en":"signed_out"}}},` +
		`"iss":"` + testIssuer + `","sub_id":{"format":"complex","session":{"format":"opaque","id":"` + started.ID + `"},"user":{"format":"iss_sub","iss":"` + testIssuer + `","sub":"alice-1"}}}`
	if string(got) != want {
		t.Errorf("claims\n%s, want\n%s", got, want)
	}
	// RFC 8417 §4.1 to §4.3: nobody takes it for another token.
	if _, err := s.readIDTokenHint(raw); err == nil {
		t.Error("it is an id_token_hint")
	}
	if answer := b.ask("GET", "/userinfo", "Bearer "+raw, nil); answer.status != http.StatusUnauthorized {
		t.Errorf("it is an access token: %d", answer.status)
	}
	if answer := b.token("first", map[string][]string{"grant_type": {"refresh_token"}, "refresh_token": {raw}}); answer.status == http.StatusOK {
		t.Error("it is a refresh token")
	}

	// All sessions of a user, by an operator.
	if err := s.endSubject(operatorContext(t.Context()), "alice-1", "laptop stolen"); err != nil {
		t.Fatal(err)
	}
	timetest.Await(t, "told of the user", func() bool { return len(r.took()) == 2 })
	var found []string
	for _, claims := range r.took()[1:] {
		event := claims["events"].(map[string]any)[eventTypePrefix+sessionRevoked].(map[string]any)
		delete(event, "event_timestamp")
		text, _ := json.Marshal([]any{claims["sub_id"], event})
		found = append(found, string(text))
	}
	slices.Sort(found)
	if !slices.Equal(found, []string{
		`[{"format":"iss_sub","iss":"` + testIssuer + `","sub":"alice-1"},{"initiating_entity":"admin","reason_admin":{"en":"laptop stolen"}}]`,
	}) {
		t.Errorf("%s", strings.Join(found, "\n"))
	}
}

// CAEP §3.3: what is a change of credentials, and what is none.
func TestCredentialChange(t *testing.T) {
	r := newEventReceiver(t)
	s := hurried(browserServer(t, func(c *Config) {
		tells(r)(c)
		c.Receivers[0].Events = []string{credentialChange}
	}))
	runUntilCleanup(t, s.Run)
	key := func(id string, attachment protocol.AuthenticatorAttachment, aaguid []byte) passkey {
		return passkey{Credential: webauthn.Credential{ID: []byte(id), Authenticator: webauthn.Authenticator{Attachment: attachment, AAGUID: aaguid}}}
	}
	known := []byte{0xac, 0xcc, 0xed, 0x6a, 0x63, 0xf5, 0x49, 0x0a, 0x9e, 0xea, 0xe5, 0x9b, 0xc1, 0x89, 0x6c, 0xfc}
	nothing := `null`
	step := func(ctx context.Context, want string, change func(*credentials)) {
		t.Helper()
		had := len(r.took())
		if err := s.updateCredentials(ctx, "alice-1", func(c *credentials) error { change(c); return nil }); err != nil {
			t.Fatal(err)
		}
		// Another event in the log, and the position behind it, show that there was no more.
		if err := s.updateCredentials(ctx, "bob-1", func(c *credentials) error {
			c.TOTP = &totpEnrolment{Secret: []byte(newID())}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		isBob := func(claims map[string]any) bool { return claims["sub_id"].(map[string]any)["sub"] == "bob-1" }
		timetest.Await(t, "told of "+want, func() bool {
			record, _, err := s.outbox.records.Get(t.Context(), "r0")
			return err == nil && len(unsettled(t, s, record)) == 0
		})
		var told []string
		for _, claims := range r.took()[had:] {
			if isBob(claims) {
				continue
			}
			event := claims["events"].(map[string]any)[eventTypePrefix+credentialChange].(map[string]any)
			text := fmt.Sprint(event["initiating_entity"], " ", event["change_type"], " ", event["credential_type"])
			if event["fido2_aaguid"] != nil {
				text += " " + event["fido2_aaguid"].(string)
			}
			told = append(told, text)
		}
		slices.Sort(told)
		if text, _ := json.Marshal(told); string(text) != want {
			t.Errorf("told of %s, want %s", text, want)
		}
	}
	ctx := t.Context()
	step(ctx, `["user update password"]`, func(c *credentials) { c.Password = &storedPassword{Hash: "1", Replaces: "configured"} })
	step(ctx, `["user update password"]`, func(c *credentials) { c.Password = &storedPassword{Hash: "2"} })
	step(ctx, `["user create app"]`, func(c *credentials) { c.TOTP = &totpEnrolment{Secret: []byte("a")} })
	step(ctx, nothing, func(c *credentials) { c.TOTP.Last++ })
	step(ctx, nothing, func(c *credentials) { c.RecoveryCodes = []string{"x"} })
	step(ctx, `["user create fido2-platform accced6a-63f5-490a-9eea-e59bc1896cfc"]`, func(c *credentials) { c.Passkeys = append(c.Passkeys, key("1", protocol.Platform, known)) })
	step(ctx, `["user create fido2-roaming"]`, func(c *credentials) {
		c.Passkeys = append(c.Passkeys, key("2", protocol.CrossPlatform, make([]byte, 16)))
	})
	step(ctx, nothing, func(c *credentials) { c.Passkeys[0].LastUsed, c.Passkeys[0].Credential.Authenticator.SignCount = 1, 2 })
	step(ctx, `["user delete fido2-platform accced6a-63f5-490a-9eea-e59bc1896cfc"]`, func(c *credentials) {
		c.Passkeys = slices.DeleteFunc(c.Passkeys, func(p passkey) bool { return string(p.Credential.ID) == "1" })
	})
	step(operatorContext(ctx), `["admin revoke app","admin revoke fido2-roaming"]`, func(c *credentials) { *c = credentials{Password: c.Password} })
	step(ctx, `["user create app"]`, func(c *credentials) { c.TOTP = &totpEnrolment{Secret: []byte("a")} })
	step(ctx, `["user update app"]`, func(c *credentials) { c.TOTP = &totpEnrolment{Secret: []byte("b")} })
	step(ctx, `["user delete app"]`, func(c *credentials) { c.TOTP = nil })
	// A stronger hash of the same password is no change.
	weak, err := parsePasswordHash("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA")
	if err != nil {
		t.Fatal(err)
	}
	step(ctx, `["user update password"]`, func(c *credentials) { c.Password = &storedPassword{Hash: weak.String()} })
	had := len(r.took())
	held, err := s.credentialsOf(ctx, "alice-1")
	if err != nil {
		t.Fatal(err)
	}
	u := user{subject: "alice-1"}
	s.upgradePassword(ctx, proof{user: u, password: held.passwordID(u)}, "x")
	if found, err := s.credentialsOf(ctx, "alice-1"); err != nil || found.Password.Hash == weak.String() {
		t.Errorf("not upgraded: %v", err)
	}
	step(ctx, nothing, func(*credentials) {})
	if len(r.took()) != had+1 {
		t.Errorf("%d events for an upgrade", len(r.took())-had-1)
	}
	// What is refused changes nothing, and nobody is told.
	refused := errors.New("refused")
	if err := s.updateCredentials(ctx, "alice-1", func(c *credentials) error { c.Password = nil; return refused }); err != refused {
		t.Errorf("%v", err)
	}
	step(ctx, nothing, func(*credentials) {})
}

// RFC 8935 §2.2 to §2.4: what answers mean.
func TestReceiverAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   outcome
	}{
		{202, "", eventDelivered},
		{400, `{"err":"invalid_request","description":"no"}`, eventRefused},
		{400, `{"err":"invalid_key"}`, eventRefused},
		{400, `{"err":"invalid_issuer"}`, eventRefused},
		{400, `{"err":"invalid_audience"}`, eventRefused},
		{400, `{"err":"authentication_failed"}`, eventRefused},
		{400, `{"err":"access_denied"}`, eventRefused},
		{400, `{"err":"something_else"}`, eventFailed},
		{400, `<html>`, eventFailed},
		{400, `{"err":"invalid_key"` + strings.Repeat(" ", maxReceiverAnswer) + `}`, eventFailed},
		{200, "", eventFailed},
		{204, "", eventFailed},
		{302, "", eventFailed},
		{401, `{"err":"authentication_failed"}`, eventFailed},
		{429, "", eventFailed},
		{500, `{"err":"invalid_key"}`, eventFailed},
	} {
		response := &http.Response{StatusCode: c.status, Body: io.NopCloser(strings.NewReader(c.body)), Header: http.Header{}}
		if got := judgeAnswer(response); got.outcome != c.want || (got.err == nil) != (c.want == eventDelivered) {
			t.Errorf("%d %.40s: %v %v", c.status, c.body, got.outcome, got.err)
		}
	}
	now := time.Now()
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "x": 0, "86400": maxRetryAfter, "99999999999999999999": 0,
		now.Add(time.Minute).UTC().Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).UTC().Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(value, now); got > want || got < want-time.Second {
			t.Errorf("Retry-After: %s: %v, want %v", value, got, want)
		}
	}
	r := newEventReceiver(t)
	s := hurried(browserServer(t, tells(r)))
	d := s.outbox.hold(t.Context(), &s.outbox.receivers[0])
	event := &waitingEvent{securityEvent: securityEvent{ID: "1", Type: sessionRevoked, Subject: "alice-1", Session: "s"}}
	r.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	if alive, after := d.round(t.Context(), []*waitingEvent{event}); alive || after != 30*time.Second {
		t.Errorf("alive %t, wait %v", alive, after)
	}
}

// Refused events are not sent again, others are until they are taken; a redirect is
// not followed; what the receiver never takes, though it takes others, is given up.
func TestRefusedEvents(t *testing.T) {
	r := newEventReceiver(t)
	registry := prometheus.NewRegistry()
	s := hurried(browserServer(t, func(c *Config) { tells(r)(c); c.Registry = registry }))
	tries := make(map[string]int)
	var mu sync.Mutex
	r.answers(func(claims map[string]any) (int, string) {
		sid := sidOf(claims)
		mu.Lock()
		defer mu.Unlock()
		tries[sid]++
		switch {
		case sid == "refused":
			return 400, `{"err":"invalid_key","description":"unknown kid"}`
		case sid == "poison":
			return 500, ""
		case sid == "moved" && tries[sid] == 1:
			return 302, ""
		case sid == "busy" && tries[sid] < 3:
			return 503, ""
		}
		return 202, ""
	})
	runUntilCleanup(t, s.Run)
	for _, sid := range []string{"poison", "refused", "moved", "busy"} {
		if err := s.endSession(t.Context(), "alice-1", sid, "test"); err != nil {
			t.Fatal(err)
		}
	}
	// Others go on while one is in trouble.
	for i := 0; counted(t, registry, "r0", "given_up") == 0; i++ {
		if i > 1000 {
			t.Fatal("never given up")
		}
		if err := s.endSession(t.Context(), "alice-1", fmt.Sprint("other", i), "test"); err != nil {
			t.Fatal(err)
		}
		timetest.Await(t, "others are told of", func() bool {
			return slices.ContainsFunc(r.took(), func(claims map[string]any) bool {
				return sidOf(claims) == fmt.Sprint("other", i)
			})
		})
	}
	timetest.Await(t, "all is settled", func() bool {
		record, _, err := s.outbox.records.Get(t.Context(), "r0")
		return err == nil && len(unsettled(t, s, record)) == 0
	})
	mu.Lock()
	defer mu.Unlock()
	if tries["refused"] != 1 || tries["poison"] < maxAttempts || tries["moved"] != 2 || tries["busy"] != 3 {
		t.Errorf("tries %v", tries)
	}
	if counted(t, registry, "r0", "refused") != 1 || counted(t, registry, "r0", "delivered") == 0 || counted(t, registry, "r0", "failed") < maxAttempts {
		t.Error("counted wrong")
	}
	jtis := make(map[any]any) // by txn
	for _, request := range r.requests() {
		if strings.Contains(request, "/elsewhere") {
			t.Error("a redirect was followed")
		}
		claims := claimsOfEvent(request[strings.LastIndexByte(request, ' ')+1:])
		if known := jtis[claims["txn"]]; known != nil && known != claims["jti"] {
			t.Error("an event was repeated with another jti")
		}
		jtis[claims["txn"]] = claims["jti"]
	}
}

func unsettled(t *testing.T, s *Server, record outboxRecord) []store.Event {
	t.Helper()
	events, err := s.store.Tail(t.Context(), securityEventLog, record.Position, 0)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// What was not taken is not passed, though later events were: whoever delivers next
// begins with it.
func TestOutboxPosition(t *testing.T) {
	r := newEventReceiver(t)
	s := hurried(browserServer(t, tells(r)))
	r.answers(func(claims map[string]any) (int, string) {
		if sidOf(claims) == "first" {
			return 500, ""
		}
		return 202, ""
	})
	stop := runUntilCleanup(t, s.Run)
	for _, sid := range []string{"first", "second", "third"} {
		if err := s.endSession(t.Context(), "alice-1", sid, "test"); err != nil {
			t.Fatal(err)
		}
	}
	timetest.Await(t, "the others are told of", func() bool { return len(r.took()) == 2 })
	_, told, err := s.outbox.records.Get(t.Context(), "r0")
	if err != nil {
		t.Fatal(err)
	}
	timetest.Await(t, "the record is moved since", func() bool {
		_, stored, err := s.outbox.records.Get(t.Context(), "r0")
		return err == nil && stored.Version > told.Version+1
	})
	record, _, err := s.outbox.records.Get(t.Context(), "r0")
	if err != nil || len(unsettled(t, s, record)) != 3 {
		t.Errorf("the position is %d, past what was not taken: %v", record.Position, err)
	}
	stop()
	r.answers(nil)
	next := hurried(browserServerWith(t, s, tells(r)))
	runUntilCleanup(t, next.Run)
	timetest.Await(t, "the first is told of", func() bool {
		return slices.ContainsFunc(r.took(), func(claims map[string]any) bool { return sidOf(claims) == "first" })
	})
}

// A record that moves is its holder's; one that is given back is anybody's at once.
func TestOutboxIsHeld(t *testing.T) {
	r := newEventReceiver(t)
	s := hurried(browserServer(t, tells(r)))
	stop := runUntilCleanup(t, s.Run)
	version := func() uint64 {
		_, stored, err := s.outbox.records.Get(t.Context(), "r0")
		if err != nil {
			return 0
		}
		return stored.Version
	}
	timetest.Await(t, "the record is held", func() bool { return version() > 1 })
	other := hurried(browserServerWith(t, s, tells(r)))
	other.outbox.renewEvery, other.outbox.lapse = time.Millisecond, time.Minute
	held := make(chan *delivery, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { held <- other.outbox.hold(ctx, &other.outbox.receivers[0]) }()
	seen := version()
	timetest.Await(t, "the holder moves it", func() bool { return version() >= seen+5 })
	record, _, err := s.outbox.records.Get(t.Context(), "r0")
	if err != nil || record.Holder != s.outbox.instance || len(held) > 0 {
		t.Errorf("it was taken from its holder, who is alive: %v", err)
	}
	stop()
	timetest.Await(t, "it is taken when it was given back", func() bool { return len(held) > 0 })
}

// A receiver that hangs delays no request and no other receiver.
func TestHangingReceiver(t *testing.T) {
	hanging, other := newEventReceiver(t), newEventReceiver(t)
	release := make(chan struct{})
	hanging.answers(func(map[string]any) (int, string) { <-release; return 202, "" })
	s := hurried(browserServer(t, tells(hanging, other)))
	runUntilCleanup(t, s.Run)
	t.Cleanup(func() { close(release) })
	for i := range 20 {
		if err := s.endSession(t.Context(), "alice-1", fmt.Sprint(i), "test"); err != nil {
			t.Fatal(err)
		}
	}
	timetest.Await(t, "the other is told", func() bool { return len(other.took()) == 20 })
	if len(hanging.took()) != 0 {
		t.Error("it does not hang")
	}
}

// The bounds: events that are too old, and the oldest of too many, are dropped and
// counted; the rest is delivered when the receiver is back.
func TestOutboxBounds(t *testing.T) {
	r := newEventReceiver(t)
	registry := prometheus.NewRegistry()
	s := hurried(browserServer(t, func(c *Config) { tells(r)(c); c.Registry = registry }))
	s.outbox.limit = 20
	r.answers(func(map[string]any) (int, string) { return 503, "" })
	put := func(value string) {
		t.Helper()
		if _, err := s.store.Append(t.Context(), securityEventLog, []byte(value), securityEventsKept); err != nil {
			t.Fatal(err)
		}
	}
	at := func(sid string, age time.Duration) string {
		return fmt.Sprintf(`{"v":1,"id":%q,"type":"session-revoked","sub":"alice-1","sid":%q,"at":%d}`, sid, sid, time.Now().Add(-age).Unix())
	}
	put(at("old", securityEventAge+time.Minute))
	put(`{"v":2,"id":"x","type":"later","sid":"x"}`)
	put("junk")
	for i := range 50 {
		put(at(fmt.Sprint(i), time.Minute))
	}
	runUntilCleanup(t, s.Run)
	timetest.Await(t, "what is too much is dropped", func() bool { return counted(t, registry, "r0", "too_many") == 30 })
	r.answers(nil)
	timetest.Await(t, "the rest is delivered", func() bool { return len(r.took()) >= 20 })
	for _, claims := range r.took() {
		if id := sidOf(claims); len(id) != 2 || id < "30" {
			t.Errorf("delivered %s", id)
		}
	}
	if counted(t, registry, "r0", "too_old") != 1 || counted(t, registry, "r0", "unreadable") != 2 {
		t.Error("counted wrong")
	}
}

// Two instances on one Redis: each event comes, through the death of whoever
// delivers; and while nobody dies, once.
func TestOutboxOfTwoInstances(t *testing.T) {
	redis := redistest.Start(t)
	opened, err := redisstore.Open(t.Context(), redisstore.Options{URL: redis.URL(), Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	r := newEventReceiver(t)
	var servers []*Server
	base := browserServer(t, nil)
	for range 2 {
		s := hurried(browserServerWith(t, base, func(c *Config) { tells(r)(c); c.Store = opened }))
		servers = append(servers, s)
	}
	var stops []func()
	for _, s := range servers {
		stops = append(stops, runUntilCleanup(t, s.Run))
	}
	ended := 0
	end := func(s *Server, n int) {
		t.Helper()
		for range n {
			if err := s.endSession(t.Context(), "alice-1", fmt.Sprint(ended), "test"); err != nil {
				t.Fatal(err)
			}
			ended++
		}
	}
	all := func(what string) {
		t.Helper()
		timetest.Await(t, what, func() bool { return len(distinct(r.took(), "txn")) == ended })
	}
	holder := func() *Server {
		t.Helper()
		record, _, err := servers[0].outbox.records.Get(t.Context(), "r0")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range servers {
			if s.outbox.instance == record.Holder {
				return s
			}
		}
		return nil
	}
	end(servers[0], 30)
	end(servers[1], 30)
	all("told of what ends at either")
	if got := len(r.requests()); got != ended {
		t.Errorf("%d requests for %d events", got, ended)
	}
	// Its successor goes on where the one that stops was.
	first := holder()
	i := slices.Index(servers, first)
	stops[i]()
	end(servers[1-i], 10)
	all("told by the other")
	if got := len(r.requests()); got != ended || holder() == first {
		t.Errorf("%d requests for %d events", got, ended)
	}
	// One that dies gives nothing back: the record lapses.
	stops[1-i]()
	record, stored, err := first.outbox.records.Get(t.Context(), "r0")
	if err != nil || record.Holder != "" {
		t.Fatalf("%+v %v", record, err)
	}
	record.Holder = "dead"
	if _, err := first.outbox.records.Swap(t.Context(), "r0", stored.Version, record, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	end(first, 10)
	third := hurried(browserServerWith(t, base, func(c *Config) { tells(r)(c); c.Store = opened }))
	third.outbox.lapse = 200 * time.Millisecond
	runUntilCleanup(t, third.Run)
	all("told after the record has lapsed")
	// And one that was overtaken notices.
	record, stored, err = third.outbox.records.Get(t.Context(), "r0")
	if err != nil || record.Holder != third.outbox.instance {
		t.Fatalf("%+v %v", record, err)
	}
	d := &delivery{outbox: first.outbox, receiver: &first.outbox.receivers[0], version: stored.Version - 1, read: 1}
	if d.renew(t.Context()) {
		t.Error("it was overtaken and has written")
	}
	// Redis restarts without its data: what happens from then on is told.
	redis.Kill()
	redis.Restart()
	timetest.Await(t, "Redis is back", func() bool { return third.endSession(t.Context(), "alice-1", "after", "test") == nil })
	timetest.Await(t, "told of what ends after a restart", func() bool {
		return slices.ContainsFunc(r.took(), func(claims map[string]any) bool { return sidOf(claims) == "after" })
	})
}

func distinct(all []map[string]any, member string) map[any]bool {
	seen := make(map[any]bool)
	for _, claims := range all {
		seen[claims[member]] = true
	}
	return seen
}

// Nobody is told when the event cannot be logged: then nothing is acknowledged either.
func TestEventIsLoggedFirst(t *testing.T) {
	r := newEventReceiver(t)
	base := browserServer(t, nil)
	s := browserServerWith(t, base, func(c *Config) { tells(r)(c); c.Store = &fullLog{Store: base.store} })
	started := newBrowser(t, s).signIn("alice-1")
	for name, act := range map[string]func() error{
		"logout":  func() error { return s.logOut(t.Context(), started, "test") },
		"subject": func() error { return s.endSubject(t.Context(), "alice-1", "test") },
		"password": func() error {
			return s.updateCredentials(t.Context(), "alice-1", func(c *credentials) error { c.Password = &storedPassword{Hash: "x"}; return nil })
		},
	} {
		if err := act(); asError(err).Status != http.StatusServiceUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if found, err := s.credentialsOf(t.Context(), "alice-1"); err != nil || found.Password != nil {
		t.Errorf("the password was changed all the same: %v", err)
	}
}

// fullLog is a store that keeps no security event.
type fullLog struct{ store.Store }

func (s *fullLog) Append(ctx context.Context, log string, event []byte, keep time.Duration) (store.Position, error) {
	if log == securityEventLog {
		return 0, errors.New("no space left")
	}
	return s.Store.Append(ctx, log, event, keep)
}

func TestCheckReceivers(t *testing.T) {
	good := Receiver{Name: "siem", URL: "https://siem.example.com/events?x=1", Audience: "https://siem.example.com", Events: []string{sessionRevoked}, Authorization: "Bearer abc"}
	for change, want := range map[string]func(*Receiver){
		"":                                         func(*Receiver) {},
		"receivers[0].name: \"\" is not 1 to 64":   func(r *Receiver) { r.Name = "" },
		"receivers[0].name: \"a/b\" is not":        func(r *Receiver) { r.Name = "a/b" },
		"receivers[0].url: is missing":             func(r *Receiver) { r.URL = "" },
		"receivers[0].url: is not an absolute URL": func(r *Receiver) { r.URL = "https://u:p@siem.example.com" },
		"receivers[0].url: \"http://siem.example.com\" must be https":            func(r *Receiver) { r.URL = "http://siem.example.com" },
		"receivers[0].url: \"http://localhost:99/\" will not be dialled":         func(r *Receiver) { r.URL = "http://localhost:99/" },
		"receivers[0].url: \"https://169.254.169.254/\" will not be dialled":     func(r *Receiver) { r.URL = "https://169.254.169.254/" },
		"receivers[0].audience: \"\" is not 1 to 512":                            func(r *Receiver) { r.Audience = "" },
		"receivers[0].events[0]: \"logout\" is unknown":                          func(r *Receiver) { r.Events = []string{"logout"} },
		"receivers[0].events[1]: \"session-revoked\" is given twice":             func(r *Receiver) { r.Events = append(r.Events, sessionRevoked) },
		"receivers[0].authorization: is not a scheme, a space and credentials":   func(r *Receiver) { r.Authorization = "hunter2" },
		"receivers[0].authorization: is not a scheme, a space and credentials i": func(r *Receiver) { r.Authorization = "Bearer a\r\nX: y" },
	} {
		c := browserConfig()
		r := good
		want(&r)
		c.Receivers = []Receiver{r}
		var found []string
		for _, p := range c.Check() {
			found = append(found, p.Key+": "+p.Text)
		}
		if (change == "") != (len(found) == 0) || change != "" && !strings.HasPrefix(found[0], change) {
			t.Errorf("%q: %q", change, found)
		}
		for _, text := range found {
			if strings.Contains(text, "hunter2") || strings.Contains(text, "u:p@") {
				t.Errorf("a secret is shown: %s", text)
			}
		}
	}
	twice := browserConfig()
	twice.Receivers = []Receiver{good, good}
	if problems := twice.Check(); len(problems) != 1 || problems[0].Key != "receivers[1].name" {
		t.Errorf("%v", problems)
	}
}
