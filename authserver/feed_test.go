package authserver

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
	"authserver/internal/intake"
	"authserver/internal/redistest"
	"authserver/internal/timetest"
	"authserver/keys"
	"authserver/store"
	"authserver/store/redisstore"
)

// reader follows a feed over HTTP, as a verifier would.
type reader struct {
	t        testing.TB
	client   *http.Client
	base     string
	verify   feed.Verify
	follower *feed.Follower
	request  func(*http.Request) // changes each request
	lease    string              // parameters that ask for one
	token    string              // what it acknowledges with
	body     io.ReadCloser
	lines    *bufio.Scanner
}

func newReader(t testing.TB, s *Server, base string) *reader {
	r := &reader{t: t, client: http.DefaultClient, base: base, follower: feed.NewFollower(s.issuer), request: func(*http.Request) {}}
	r.verify = func(token *intake.Token) error {
		algorithm, key, ok := s.keys.AccessKey(token.KeyID)
		if !ok {
			return errors.New("no key of the issuer")
		}
		return token.Verify(intake.Key{ID: token.KeyID, Algorithm: algorithm, Public: key})
	}
	return r
}

func (r *reader) get(query string, header ...string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.base+"/revocations"+query, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	r.request(request)
	return r.client.Do(request)
}

// load loads a snapshot, once the server has read its log.
func (r *reader) load() {
	r.t.Helper()
	for {
		response, err := r.get("")
		if err != nil {
			r.t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			r.t.Fatal(err)
		}
		if response.StatusCode == http.StatusServiceUnavailable {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if err := r.follower.Load(body, r.verify); err != nil {
			r.t.Fatalf("%s %s: %v", response.Status, body, err)
		}
		return
	}
}

// connect continues at the follower's cursor, and returns the status.
func (r *reader) connect() int {
	r.t.Helper()
	response, err := r.stream()
	if err != nil {
		r.t.Fatal(err)
	}
	return response.StatusCode
}

func (r *reader) stream() (*http.Response, error) {
	nonce := rand.Text()
	r.follower.Connect(nonce, time.Now())
	response, err := r.get("?nonce="+nonce+r.lease, "Accept", "text/event-stream", "Last-Event-ID", string(r.follower.Cursor()))
	if err != nil {
		return nil, err
	}
	r.body, r.lines = response.Body, bufio.NewScanner(response.Body)
	r.t.Cleanup(func() { response.Body.Close() })
	r.lines.Buffer(nil, intake.MaxToken+16)
	return response, nil
}

// next applies the next frame.
func (r *reader) next() (feed.Frame, error) {
	for r.lines.Scan() {
		if raw, ok := strings.CutPrefix(r.lines.Text(), "data: "); ok {
			frame, err := r.follower.Apply(raw, time.Now(), r.verify)
			if errors.Is(err, feed.ErrSlow) { // on a busy machine: begun anew, as package verifier does
				r.body.Close()
				if status := r.connect(); status != http.StatusOK {
					return frame, fmt.Errorf("begun anew: %d", status)
				}
				continue
			}
			if frame.Lease != "" {
				r.token = frame.Lease
			}
			return frame, err
		}
	}
	return feed.Frame{}, fmt.Errorf("the stream ended: %w", errors.Join(io.EOF, r.lines.Err()))
}

// until applies frames until the follower is there.
func (r *reader) until(there func() bool) {
	r.t.Helper()
	for !there() { // or until the test's time is up
		if _, err := r.next(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// ends reports whether the follower refuses a token of a grant.
func (r *reader) ends(grant string) bool {
	_, revoked := r.follower.Set.Revoked(feed.SubjectsOf("", &accesstoken.Claims{GrantID: grant}))
	return revoked
}

func (r *reader) fresh() bool { return r.follower.Fresh(time.Now()) }

// running is an instance with a listener.
type running struct {
	*Server
	url    string
	stop   func() // ends Run, and with it the streams
	client *http.Client
}

// start runs an instance.
func start(t testing.TB, s *Server) running {
	t.Helper()
	listener := httptest.NewServer(s)
	t.Cleanup(listener.Close)
	return running{s, listener.URL, runUntilCleanup(t, s.Run), http.DefaultClient}
}

func (s running) end(t testing.TB, grant string) {
	t.Helper()
	if err := s.endGrant(t.Context(), grant, "test"); err != nil {
		t.Fatal(err)
	}
}

// A revocation reaches whoever follows, by the stream and by the snapshot, and the
// stream outlives the timeouts of requests.
func TestFeed(t *testing.T) {
	s := start(t, insideServer(t, nil, keys.MasterKey{}))
	s.end(t, "before")
	r := newReader(t, s.Server, s.url)
	r.load()
	// A listener with the timeouts that the binary has, but shorter.
	hasty := httptest.NewUnstartedServer(s)
	hasty.Config.ReadTimeout, hasty.Config.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
	hasty.Start()
	t.Cleanup(hasty.Close)
	r.base = hasty.URL
	timetest.AwaitNil(t, func() error { // a busy machine may take longer than that until the stream has begun
		response, err := r.stream()
		if err == nil && response.StatusCode != http.StatusOK {
			t.Fatal(response.Status)
		}
		return err
	})
	for range 8 { // heartbeats, well beyond 300 ms
		if frame, err := r.next(); err != nil || frame.Cursor != r.follower.Cursor() {
			t.Fatalf("%+v %v", frame, err)
		}
	}
	r.until(r.fresh)
	if !r.ends("before") || r.ends("g") {
		t.Fatalf("before %v, g %v", r.ends("before"), r.ends("g"))
	}
	s.end(t, "g")
	r.until(func() bool { return r.ends("g") })
	late := newReader(t, s.Server, s.url)
	late.load()
	if !late.ends("g") || late.ends("h") {
		t.Error("the snapshot does not hold the revocation, or more")
	}
	if late.follower.Cursor() != r.follower.Cursor() {
		t.Errorf("the snapshot is at %s, the stream at %s", late.follower.Cursor(), r.follower.Cursor())
	}
}

// What a later version of the server ended, this one refuses itself, too.
func TestServerFollowsItsOwnFeed(t *testing.T) {
	s := start(t, insideServer(t, nil, keys.MasterKey{}))
	token := accesstoken.Claims{Issuer: s.issuer, Subject: "web", ClientID: "web", ID: "j", IssuedAt: time.Now().Unix() - 5}
	if _, live, err := s.accessTokenLive(t.Context(), token); err != nil || !live {
		t.Fatal(live, err)
	}
	event := []byte(`{"v":2,"tenant":"t"}`)
	if _, err := s.store.Append(t.Context(), revocationLog, event, time.Hour); err != nil {
		t.Fatal(err)
	}
	for live := true; live; { // or until the test's time is up
		_, live, _ = s.accessTokenLive(t.Context(), token)
	}
}

// onRedis returns what starts instances that share a Redis. prepare, if it is set,
// changes each before.
func onRedis(t *testing.T, prepare func(*Server)) (redis *redistest.Server, instance func() running) {
	t.Helper()
	redis = redistest.Start(t)
	master, err := keys.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	return redis, func() running {
		t.Helper()
		opened, err := redisstore.Open(t.Context(), redisstore.Options{URL: redis.URL(), Timeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { opened.Close() })
		s := insideServer(t, opened, master)
		if prepare != nil {
			prepare(s)
		}
		return start(t, s)
	}
}

// Instances of one store number alike: a follower goes on at any of them, without a
// snapshot, also at one that has just started.
func TestFeedAcrossInstances(t *testing.T) {
	_, instance := onRedis(t, nil)
	a, b := instance(), instance()
	a.end(t, "one")
	readers := []*reader{newReader(t, a.Server, a.url), newReader(t, a.Server, a.url)}
	for _, r := range readers {
		r.load()
		if status := r.connect(); status != http.StatusOK {
			t.Fatal(status)
		}
	}
	b.end(t, "two")
	for _, r := range readers {
		r.until(func() bool { return r.ends("one") && r.ends("two") })
	}
	a.stop()
	for _, r := range readers {
		_, err := r.next()
		for err == nil { // what was on its way
			_, err = r.next()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("the stream of an instance that ended: %v", err)
		}
	}
	const away = 3 * feed.MaxFrame / 2 // more than a frame holds, while nobody listens
	for i := range away {
		b.end(t, fmt.Sprint("away", i))
	}
	c := instance()
	newReader(t, c.Server, c.url).load() // it has read its log
	for i, at := range []running{b, c} {
		r := readers[i]
		r.base = at.url
		if status := r.connect(); status != http.StatusOK {
			t.Fatalf("instance %d: %d", i, status)
		}
		r.until(func() bool { return r.ends(fmt.Sprint("away", away-1)) && r.fresh() })
		if !r.ends("away0") {
			t.Errorf("instance %d: the first of what was missed is missing", i)
		}
	}
	if one, two := readers[0].follower.Cursor(), readers[1].follower.Cursor(); one != two {
		t.Errorf("after the same event one instance is at %s and the other at %s", one, two)
	}
}

func TestFeedRefusals(t *testing.T) {
	s := start(t, insideServer(t, nil, keys.MasterKey{}))
	r := newReader(t, s.Server, s.url)
	r.load()
	for _, c := range []struct {
		method, query, cursor string
		status                int
	}{
		{"GET", "", "1.AAAAAAAAAAAAAAAA", http.StatusGone},
		{"GET", "", "nonsense", http.StatusGone},
		{"GET", "?nonce=" + strings.Repeat("n", 200), "", http.StatusBadRequest},
		{"DELETE", "", "", http.StatusMethodNotAllowed},
		{"HEAD", "", "", http.StatusOK},
	} {
		request, err := http.NewRequest(c.method, s.url+"/revocations"+c.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept", "text/event-stream")
		request.Header.Set("Last-Event-ID", c.cursor)
		request.Header.Set("Origin", "https://app.example.com")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != c.status || response.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%+v: %s %v", c, response.Status, response.Header)
		}
	}
}

// With `revocations: authenticated`, resource servers that authenticate follow, and
// nobody else.
func TestFeedAuthenticated(t *testing.T) {
	inside := insideServer(t, nil, keys.MasterKey{})
	inside.revocationsAccess = revocationsAuthenticated
	s := start(t, inside)
	r := newReader(t, s.Server, s.url)
	r.request = func(request *http.Request) { request.SetBasicAuth("api", insideSecret) }
	r.load()
	for _, c := range []struct {
		id, secret string
		status     int
	}{{"api", insideSecret, 200}, {"api", "wrong", 401}, {"web", insideSecret, 403}, {"nobody", insideSecret, 401}, {"", "", 401}} {
		for _, accept := range []string{"text/event-stream", "application/json"} {
			r.request = func(request *http.Request) {
				if c.id != "" {
					request.SetBasicAuth(c.id, c.secret)
				}
			}
			response, err := r.get("", "Accept", accept)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != c.status {
				t.Errorf("%s by %q: %s, want %d", accept, c.id, response.Status, c.status)
			}
		}
	}
}

// While the store is away the feed says that it knows nothing newer, and leases end
// (ATTACKS FT-01, FT-12); afterwards it goes on where it was.
func TestFeedWithoutStore(t *testing.T) {
	redis := redistest.Start(t, "--appendonly", "yes")
	opened, err := redisstore.Open(t.Context(), redisstore.Options{URL: redis.URL(), Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	s := start(t, insideServer(t, opened, keys.MasterKey{}))
	s.end(t, "before")
	r := newReader(t, s.Server, s.url)
	r.load()
	if status := r.connect(); status != http.StatusOK {
		t.Fatal(status)
	}
	r.until(func() bool { return r.ends("before") && r.fresh() })
	redis.Kill()
	r.until(func() bool { return !r.fresh() })
	if err := s.endGrant(t.Context(), "lost", "test"); err == nil {
		t.Error("a revocation was acknowledged without a store")
	}
	redis.Restart()
	for s.endGrant(t.Context(), "after", "test") != nil { // until the driver is connected again
		time.Sleep(10 * time.Millisecond)
	}
	r.until(func() bool { return r.ends("after") && r.fresh() })
	if r.ends("lost") && !s.holds("lost") {
		t.Error("a revocation that is not in the log reached a follower")
	}
}

// holds reports whether the server's own set ends a grant.
func (s running) holds(grant string) bool {
	_, revoked := s.feed.set.Revoked(feed.SubjectsOf("", &accesstoken.Claims{GrantID: grant}))
	return revoked
}

// A store that failed over may have lost its latest events, and others may have
// taken their places, even earlier ones: they are found when the log is read again.
func TestLogSetBack(t *testing.T) {
	f := insideServer(t, nil, keys.MasterKey{}).feed
	event := func(position uint64, grant string) store.Event {
		return store.Event{Position: store.Position(position), Value: []byte(`{"v":1,"grant_id":"` + grant + `","at":1000,"until":2000}`)}
	}
	f.take([]store.Event{event(10, "a"), event(30, "lost")}, time.Now())
	if err := f.advance(); err != nil {
		t.Fatal(err)
	}
	f.take([]store.Event{event(10, "a"), event(20, "b")}, time.Now()) // read again from the beginning
	if len(f.unsent) != 1 || f.read.position != 30 {
		t.Fatalf("%d events are new, want one; the position is %d", len(f.unsent), f.read.position)
	}
	if err := f.advance(); err != nil {
		t.Fatal(err)
	}
	for _, grant := range []string{"a", "lost", "b"} {
		if _, revoked := f.set.Revoked(feed.SubjectsOf("", &accesstoken.Claims{GrantID: grant})); !revoked {
			t.Errorf("%s is not revoked any more", grant)
		}
	}
}

// After trouble the log is read from its beginning: a Redis that lost it all and got
// an event at an earlier position (ATTACKS FT-04, FT-07).
func TestLogIsReadAgainAfterTrouble(t *testing.T) {
	redis := redistest.Start(t)
	opened, err := redisstore.Open(t.Context(), redisstore.Options{URL: redis.URL(), Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	s := start(t, insideServer(t, opened, keys.MasterKey{}))
	s.end(t, "before")
	for !s.holds("before") {
		time.Sleep(time.Millisecond)
	}
	redis.Kill()
	redis.Restart() // without its data
	connection, err := net.Dial("tcp", redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "XADD authserver:l:revocations 1-0 e '{\"v\":1,\"grant_id\":\"earlier\",\"at\":1000,\"until\":2000}'\r\n")
	if answer, err := bufio.NewReader(connection).ReadString('\n'); err != nil || !strings.HasPrefix(answer, "$3") {
		t.Fatalf("Redis says %q, %v", answer, err)
	}
	for !s.holds("earlier") { // or until the test's time is up
		time.Sleep(10 * time.Millisecond)
	}
	if !s.holds("before") {
		t.Error("a revocation that the store has lost is forgotten")
	}
}

// A reader that does not read is cut off; others get everything meanwhile.
func TestSlowReader(t *testing.T) {
	inBubble(t, func(t *testing.T, instance func() running) {
		s := instance()
		quick := newReader(t, s.Server, s.url)
		quick.client = s.client
		quick.load()
		quick.connect()
		slow, err := s.client.Transport.(*http.Transport).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		fmt.Fprintf(slow, "GET /revocations HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
		n := 0
		for cut := false; !cut; {
			if s.feed.streams.Load() == 2 || n > 0 { // both are connected
				var events []store.Event
				for range feed.MaxFrame {
					n++
					events = append(events, store.Event{Position: store.Position(n), Value: fmt.Appendf(nil, `{"v":1,"grant_id":"%d","at":1000,"until":2000}`, n)})
				}
				s.feed.take(events, time.Now())
				quick.until(func() bool { return quick.ends(fmt.Sprint(n)) })
			}
			time.Sleep(100 * time.Millisecond)
			cut = n > 0 && s.feed.streams.Load() == 1
		}
		for i := 1; i <= n; i++ {
			if !quick.ends(fmt.Sprint(i)) {
				t.Fatalf("revocation %d of %d was lost on the quick reader", i, n)
			}
		}
	})
}

// A revocation takes ten bytes of a compressed snapshot, which is made once for all
// who ask.
func TestSnapshotSize(t *testing.T) {
	s := start(t, insideServer(t, nil, keys.MasterKey{}))
	entries := make([]feed.Entry, 20_000)
	for i := range entries {
		entries[i] = feed.NewEntry(feed.Grant, fmt.Sprint(i), time.Duration(i)*10*time.Millisecond+time.Minute, 0)
	}
	s.feed.set.Add(entries)
	r := newReader(t, s.Server, s.url)
	r.load()
	plain, zipped, err := s.feed.snapshot.get(s.feed)
	if err != nil {
		t.Fatal(err)
	}
	if len(zipped) > 11*len(entries) || !r.ends("19999") {
		t.Errorf("%d bytes, %d compressed", len(plain), len(zipped))
	}
	again, _, err := s.feed.snapshot.get(s.feed)
	if err != nil || &again[0] != &plain[0] {
		t.Errorf("the snapshot was made twice: %v", err)
	}
	t.Logf("%d bytes, %d compressed", len(plain), len(zipped))
}

// Of the frames that begin a connection the last one only says as of when all is known.
func TestFirstFramesSayNothingYet(t *testing.T) {
	t.Parallel()
	s := insideServer(t, nil, keys.MasterKey{})
	events, err := s.feed.first(feed.Frame{After: feed.Origin}, 7, make([]step, feed.MaxFrame+1))
	if err != nil {
		t.Fatal(err)
	}
	var said []int64
	for line := range strings.Lines(string(events)) {
		if text, found := strings.CutPrefix(strings.TrimSpace(line), "data: "); found {
			token, err := intake.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			var frame feed.Frame
			if err := json.Unmarshal(token.Payload, &frame); err != nil {
				t.Fatal(err)
			}
			said = append(said, frame.AsOf)
		}
	}
	if !slices.Equal(said, []int64{-1, 7}) {
		t.Errorf("as of %d", said)
	}
}

func TestAcceptsGzip(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]bool{
		"gzip": true, "br, GZIP;q=0.5": true, "deflate, gzip; q=1.0, *;q=0.1": true,
		"": false, "gzip;q=0": false, "gzip; q=0.000": false, "br;q=1, gzip;Q=0": false, "ungzip": false,
	} {
		if acceptsGzip(header) != want {
			t.Errorf("%q: want %t", header, want)
		}
	}
}

// Nobody follows while the log is read for the first time: no frames are signed of what
// it holds then. Who comes back with a cursor of before goes on all the same, also at
// a server that has just started.
func TestFirstReadSignsNothing(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	beginning := s.feed.latest
	var events []store.Event
	for i := range maxHistory {
		events = append(events, store.Event{Position: store.Position(i + 1), Value: fmt.Appendf(nil, `{"v":1,"grant_id":"g%d","reason":"x","at":%d}`, i, time.Now().Unix())})
	}
	cursor := func(i int) feed.Cursor { return feed.CursorOf(uint64(events[i].Position), events[i].Value) }
	for page := range slices.Chunk(events, store.MaxTail) {
		s.feed.take(page, completeAsOf(time.Now(), len(page)))
	}
	s.feed.streams.Add(1)
	for range 2 { // the second is a heartbeat
		if err := s.feed.advance(); err != nil {
			t.Fatal(err)
		}
	}
	if beginning.next != nil {
		t.Error("frames were signed that nobody can have waited for")
	}
	if sent := s.feed.sent.Load(); sent != maxHistory {
		t.Errorf("everything until %d counts as sent, want %d", sent, maxHistory)
	}
	last := len(events) - 1
	if at, asOf, missing, ok := s.feed.resume(cursor(last - 3)); !ok || len(missing) != 3 || at.cursor != cursor(last) || asOf <= 0 {
		t.Errorf("resumed %t, %d missing, as of %d", ok, len(missing), asOf)
	}
	if _, _, _, ok := s.feed.resume(cursor(0)); ok {
		t.Error("resumed at an event that is not kept any more")
	}
	at, _, _, _ := s.feed.resume("")
	next := store.Event{Position: maxHistory + 1, Value: []byte(`{"v":1,"grant_id":"next","reason":"x","at":1}`)}
	s.feed.take([]store.Event{next}, time.Now())
	if err := s.feed.advance(); err != nil {
		t.Fatal(err)
	}
	if at.cursor != cursor(last) || at.next == nil || s.feed.latest.cursor.Position() != maxHistory+1 {
		t.Error("what comes next is in no frame")
	}
}
