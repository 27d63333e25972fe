package authserver

import (
	"compress/zlib"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
	"authserver/internal/intake"
	"authserver/keys"
)

// Every number below the size of a list gives another place.
func TestShuffleIsAPermutation(t *testing.T) {
	l := newStatusLists(insideServer(t, nil, keys.MasterKey{}))
	seen := make([]bool, listSize)
	neighbours := 0
	last := uint32(0)
	for i := range uint32(listSize) {
		place := shuffle(i, l.order)
		if place >= listSize || seen[place] {
			t.Fatalf("place %d comes twice", place)
		}
		seen[place] = true
		if place == last+1 {
			neighbours++
		}
		last = place
	}
	if neighbours > listSize/100 {
		t.Errorf("%d of %d places follow the one before", neighbours, listSize)
	}
}

// The example of draft-ietf-oauth-status-list §4.1: bits from the least significant on.
func TestStatusListBits(t *testing.T) {
	if got := inflate(t, "eNrbuRgAAhcBXQ"); got != "\xb9\xa3" {
		t.Fatalf("the example inflates to %x", got)
	}
	encoded, err := encodeBits([]byte("\xb9\xa3"))
	if err != nil || inflate(t, encoded) != "\xb9\xa3" {
		t.Errorf("%s, %v", encoded, err)
	}
	for i, want := range []bool{true, false, false, true, true, true, false, true, true, true, false, false, false, true, false, true} {
		if bit("\xb9\xa3", i) != want {
			t.Errorf("bit %d is not %v", i, want)
		}
	}
}

func inflate(t *testing.T, encoded string) string {
	t.Helper()
	compressed, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := zlib.NewReader(strings.NewReader(string(compressed)))
	if err != nil {
		t.Fatal(err)
	}
	bits, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return string(bits)
}

func bit(bits string, index int) bool { return bits[index/8]>>(index%8)&1 == 1 }

// status asks an instance for the list that a token names and returns its bit.
func status(t *testing.T, at running, token accesstoken.Claims) bool {
	t.Helper()
	place := token.Status.List
	path, ok := strings.CutPrefix(place.URI, at.issuer)
	if !ok {
		t.Fatalf("the list is at %s", place.URI)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		response, err := http.Get(at.url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if (response.StatusCode == http.StatusNotFound || response.StatusCode == http.StatusServiceUnavailable) && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond) // it has not read that far
			continue
		}
		parsed, err := intake.Parse(string(body))
		if err != nil || parsed.Type != statusListType || newReader(t, at.Server, at.url).verify(parsed) != nil {
			t.Fatalf("%s: %v", body, err)
		}
		var claims statusListClaims
		if err := json.Unmarshal(parsed.Payload, &claims); err != nil {
			t.Fatal(err)
		}
		if claims.Subject != place.URI || claims.TTL != 10 || claims.Expires <= time.Now().Unix() || claims.List.Bits != 1 ||
			response.Header.Get("Content-Type") != "application/statuslist+jwt" || response.Header.Get("Cache-Control") != "public, max-age=10" {
			t.Errorf("%s %v", parsed.Payload, response.Header)
		}
		return bit(inflate(t, claims.List.List), int(place.Index))
	}
}

// forget makes every list of an instance due.
func (s running) forget() {
	s.statuses.mu.Lock()
	defer s.statuses.mu.Unlock()
	for _, list := range s.statuses.lists {
		list.served.mu.Lock()
		list.served.token = ""
		list.served.mu.Unlock()
	}
}

// Tokens of a resource that asked for it have places of their own, and every
// instance shows which of them were revoked, at every level.
func TestStatusList(t *testing.T) {
	_, instance := onRedis(t, func(s *Server) { s.resources.listed["https://api.example.com"] = true })
	a, b := instance(), instance()
	mint := func(at running) (string, accesstoken.Claims) {
		request, err := http.NewRequest("POST", at.url+"/token", strings.NewReader(url.Values{"grant_type": {"client_credentials"}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.SetBasicAuth("service", insideSecret)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var answer tokenResponse
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v", response.Status, err)
		}
		parsed, err := intake.Parse(answer.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		var claims accesstoken.Claims
		if err := json.Unmarshal(parsed.Payload, &claims); err != nil || claims.Status == nil {
			t.Fatalf("%s: %v", parsed.Payload, err)
		}
		return parsed.KeyID, claims
	}
	_, one := mint(a)
	_, two := mint(a)
	_, three := mint(b)
	if one.Status.List == two.Status.List || one.Status.List.URI == three.Status.List.URI {
		t.Fatalf("%+v %+v %+v", one.Status, two.Status, three.Status)
	}
	for _, at := range []running{a, b} {
		if status(t, at, one) || status(t, at, two) || status(t, at, three) {
			t.Fatal("shown as revoked before it was")
		}
	}
	if err := a.endToken(t.Context(), one, "test"); err != nil {
		t.Fatal(err)
	}
	for _, at := range []running{a, b} {
		for !status(t, at, one) { // or until the test's time is up
			at.forget()
		}
		if status(t, at, two) || status(t, at, three) {
			t.Error("another token is shown as revoked")
		}
	}
	if err := a.publish(t.Context(), revocation{Client: "service", Before: three.IssuedAt, Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	for _, at := range []running{a, b} {
		for !status(t, at, two) || !status(t, at, three) {
			at.forget()
		}
	}
	response, err := http.Get(a.url + "/statuslists/unknown")
	if err != nil || response.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown list: %v %v", response, err)
	}
	response.Body.Close()
	response, err = http.Get(a.url + statusListPath + "unknown?time=1686925000")
	if err != nil || response.StatusCode != http.StatusNotImplemented {
		t.Errorf("a list of the past: %v %v", response, err)
	}
	response.Body.Close()
	a.statuses.sweep(one.Expires + 1)
	if len(a.statuses.lists) != 0 {
		t.Errorf("%d lists of expired tokens are held", len(a.statuses.lists))
	}
}

// A token may come back before an instance has read that another one handed it out. Its
// list is not said to be missing.
func TestStatusListOfAnotherInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := insideServer(t, nil, keys.MasterKey{})
		s.resources.listed["https://api.example.com"] = true
		event, err := json.Marshal(issuedEvent{List: "new", Index: 1, Expires: time.Now().Add(time.Hour).Unix()})
		if err != nil {
			t.Fatal(err)
		}
		s.feed.take(nil, time.Now())
		s.statuses.complete(time.Now())
		time.Sleep(time.Millisecond) // the question comes after that
		time.AfterFunc(50*time.Millisecond, func() { s.statuses.take(event) })
		if _, err := s.statuses.token(t.Context(), "new"); err != nil {
			t.Error(err)
		}
	})
}

func TestSubjectsAsText(t *testing.T) {
	claims := accesstoken.Claims{ID: "j", Subject: "alice", IssuedAt: 1000}
	subjects := feed.SubjectsOf("k", &claims)
	text, err := json.Marshal(subjects)
	if err != nil {
		t.Fatal(err)
	}
	var back feed.Subjects
	if err := json.Unmarshal(text, &back); err != nil || back != subjects {
		t.Errorf("%s became %+v, %v", text, back, err)
	}
	for _, bad := range []string{`""`, `"AAAA"`, `"AAAAAAAA"`, `"` + strings.Repeat("A", 200) + `"`, `"?"`, `7`} {
		if json.Unmarshal([]byte(bad), &back) == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

// A list is not said to be newer than what is known of the tokens in it: one whose
// place was not read yet would be shown as not revoked.
func TestStatusListIsAsOldAsItsLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := insideServer(t, nil, keys.MasterKey{})
		l := s.statuses
		s.resources.listed["https://api.example.com"] = true
		l.take([]byte(`{"list":"a","idx":1,"exp":1}`))
		refused := func(when string) {
			t.Helper()
			for _, id := range []string{"a", "unknown"} {
				if _, err := l.token(t.Context(), id); err == nil || asError(err).Status != http.StatusServiceUnavailable {
					t.Errorf("%s, list %s: %v", when, id, err)
				}
			}
		}
		now := time.Now()
		refused("before either log was read")
		s.feed.take(nil, now)
		refused("before the tokens were read")
		l.complete(now.Add(-statusListKept - time.Second))
		refused("when the tokens were read too long ago")
		l.complete(now.Add(-2 * time.Second))
		token, err := l.token(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := intake.Parse(token)
		if err != nil {
			t.Fatal(err)
		}
		var claims statusListClaims
		if err := json.Unmarshal(parsed.Payload, &claims); err != nil || claims.IssuedAt != now.Add(-2*time.Second).Unix() {
			t.Errorf("iat %d, %v; want that of the older log, %d", claims.IssuedAt, err, now.Add(-2*time.Second).Unix())
		}
		later := now.Add(time.Minute) // than the question
		s.feed.take(nil, later)
		l.complete(later)
		if _, err := l.token(t.Context(), "unknown"); asError(err).Status != http.StatusNotFound {
			t.Errorf("an unknown list: %v", err)
		}
	})
}
