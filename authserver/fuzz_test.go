package authserver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/feed"
	"authserver/keys"
	"authserver/store"
)

// A form that is taken has each parameter once, as text, and means the same as the
// standard library reads in it (ATTACKS HT-01 to HT-05).
func FuzzForm(f *testing.F) {
	const kind = "application/x-www-form-urlencoded"
	for _, seed := range []string{
		"", "grant_type=client_credentials&scope=a+b", "a=1&a=2", "resource=x&resource=y", "code=%zz&x=1", "a;b=1", "a=%00", "a=%ff", "=x", "&&&", "a", "a=\r\n", "%61=1&a=2", strings.Repeat("&", 101),
	} {
		f.Add(kind, seed)
	}
	f.Add(kind+"; charset=UTF-8", "a=1")
	f.Add(kind+"; charset=utf-16", "a=1")
	f.Add("multipart/form-data; boundary=x", "--x\r\n")
	f.Add("", "a=1")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		r := httptest.NewRequest("POST", "/token?grant_type=query", strings.NewReader(body))
		r.Header["Content-Type"] = []string{contentType}
		got, err := parseForm(httptest.NewRecorder(), r)
		if err != nil {
			if refused := (*Error)(nil); !errors.As(err, &refused) || refused.Code != "invalid_request" {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		want, err := url.ParseQuery(body)
		if err != nil {
			t.Fatalf("taken, though %v", err)
		}
		for name, values := range want {
			if len(values) > 1 && name != "resource" {
				t.Errorf("%q is there %d times", name, len(values))
			}
			if got.get(name) != values[0] || !isText(name) || !isText(values[0]) {
				t.Errorf("%q is %q, want %q", name, got.get(name), values[0])
			}
		}
		if len(got.values) != len(want) || len(got.values) > maxParameters || len(body) > maxBody {
			t.Errorf("%d parameters of %d", len(got.values), len(want))
		}
	})
}

// What is taken for a registered redirect URI leads, as browsers and the standard
// library read it, to the registered place; only the port of a loopback host may differ.
func FuzzRedirectURI(f *testing.F) {
	registered := []string{"https://c.example/cb", "https://c.example/q?a=1&b=2", "http://127.0.0.1/cb", "http://[::1]:80/cb", "http://localhost:8081/cb?x=1", "com.example.app:/cb"}
	for _, uri := range registered {
		f.Add(uri)
	}
	for _, uri := range []string{"http://127.0.0.1:51004/cb", "http://127.0.0.1:80@evil.example/cb", "http://127.0.0.1:80\\@evil/cb", "http://[::1%25eth0]/cb", "http://localhost:65536/cb?x=1", "https://c.example/cb/../x"} {
		f.Add(uri)
	}
	for _, uri := range vectorURLs(f) {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		var c checker
		c.redirectURI("redirect_uris", uri) // whatever it says, it comes to an end
		if len(c.problems) == 0 {
			if u, err := url.Parse(uri); err != nil || u.User != nil || u.Fragment != "" || u.Opaque == "" && u.Host == "" && !strings.Contains(u.Scheme, ".") {
				t.Errorf("%q can be registered: %v", uri, err)
			}
			if !matchesRedirectURI([]string{uri}, uri) {
				t.Errorf("%q is registered and not taken", uri)
			}
		}
		if !matchesRedirectURI(registered, uri) {
			return
		}
		got, err := url.Parse(uri)
		if err != nil {
			t.Fatalf("%q is taken, though %v", uri, err)
		}
		for _, one := range registered {
			want, err := url.Parse(one)
			if err != nil {
				t.Fatal(err)
			}
			if got.Scheme == want.Scheme && got.User == nil && got.Hostname() == want.Hostname() && got.RequestURI() == want.RequestURI() && got.Fragment == "" &&
				(got.Port() == want.Port() || want.Scheme == "http") {
				return
			}
		}
		t.Errorf("%q is taken and leads to %s", uri, got.Host)
	})
}

// vectorURLs are the URLs of the Web Platform Tests, where they are beside the repository.
func vectorURLs(t testing.TB) (all []string) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "shared", "vectors", "url", "urltestdata.json"))
	if err != nil {
		return nil
	}
	var tests []json.RawMessage // comments are strings among them
	if err := json.Unmarshal(raw, &tests); err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		var one struct{ Input string }
		if json.Unmarshal(test, &one) == nil && one.Input != "" {
			all = append(all, one.Input)
		}
	}
	return all
}

// Whatever a record holds, reading it is an error or a value that comes back the same
// when it is written and read again.
func FuzzRecords(f *testing.F) {
	grant, err := Grant{ClientID: "web", Subject: "alice", Scope: "orders:read", Created: 1, Expires: 2}.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{grant, nil, []byte("{}"), []byte("null"), []byte(`[]`), []byte("5"), []byte(`{"sid":"x","sub":"alice","amr":["pwd"],"ends":9e99}`),
		[]byte(`{"client_id":"web","redirect_uris":["https://c.example/cb"]}`), []byte(`{"username":"alice","password_hash":"$argon2id$"}`), []byte("\xbf"), []byte("\xa1\x01\xa1\x01"),
		[]byte(strings.Repeat("\x81", 100)), []byte(strings.Repeat("[", 10000)), append(grant, 0), grant[:len(grant)-1]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		again[Grant](t, value)
		again[session](t, value)
		again[consent](t, value)
		again[credentials](t, value)
		again[storedUser](t, value)
		again[storedClient](t, value)
		again[notification](t, value)
		again[outboxRecord](t, value)
		again[revocation](t, value)
		again[epoch](t, value)
		again[int64](t, value)
	})
}

func again[T any](t *testing.T, value []byte) {
	kept := &oneRecord{}
	table := store.Table[T]{Store: kept, Name: "record"}
	decoded, err := table.Decode(store.Record{Version: 1, Value: value})
	if err != nil {
		return
	}
	if _, err := table.Swap(t.Context(), "id", 1, decoded, time.Now()); err != nil {
		t.Fatalf("%T: %+v cannot be written: %v", decoded, decoded, err)
	}
	first := kept.value
	if decoded, err = table.Decode(store.Record{Version: 1, Value: first}); err != nil {
		t.Fatalf("%T: %q cannot be read again: %v", decoded, first, err)
	}
	if _, err := table.Swap(t.Context(), "id", 1, decoded, time.Now()); err != nil || string(kept.value) != string(first) {
		t.Fatalf("%T: %q became %q, %v", decoded, first, kept.value, err)
	}
}

// oneRecord keeps what Swap is given.
type oneRecord struct {
	store.Store
	value []byte
}

// Swap implements store.Store.
func (o *oneRecord) Swap(_ context.Context, _ string, version uint64, value []byte, expires time.Time) (store.Record, error) {
	o.value = value
	return store.Record{Version: version + 1, Value: value, Expires: expires}, nil
}

// What a reader or an operator says where to go on is a place that the
// server has told, or is refused.
func FuzzCursors(f *testing.F) {
	s := insideServer(f, nil, keys.MasterKey{})
	genuine, err := s.cursor("clients", position{Bucket: 3, After: []byte("web")})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", "0", "0.", "7.AAAAAAAAAAAAAAAA", "18446744073709551616.x", "-1.x", "+1.x", "\n", genuine, genuine[1:], genuine + "A", string(feed.CursorOf(5, []byte("event")))} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		at, err := s.positionOf("clients", cursor)
		if err == nil && cursor != genuine && cursor != "" {
			t.Errorf("the operators' cursor %q is %+v", cursor, at)
		}
		if _, err := s.positionOf("users", cursor); err == nil && cursor != "" {
			t.Errorf("the operators' cursor %q is of another list, too", cursor)
		}
		if _, _, _, ok := s.feed.resume(feed.Cursor(cursor)); ok && cursor != "" && cursor != string(feed.Origin) {
			t.Errorf("the feed goes on from %q", cursor)
		}
		if position := feed.Cursor(cursor).Position(); position > 0 && !strings.ContainsAny(cursor, "123456789") {
			t.Errorf("%q is at %d", cursor, position)
		}
		sealed, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
		if err == nil {
			if _, err := s.feed.box.Open(sealed, nil); err == nil {
				t.Errorf("%q is a lease", cursor)
			}
		}
	})
}
