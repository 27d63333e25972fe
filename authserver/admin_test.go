package authserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
)

// operated is a server with its admin socket and its log.
type operated struct {
	*authservertest.Server
	socket string
	log    *lockedBuffer
	client *http.Client
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func operate(t *testing.T, configure func(*authserver.Config), algorithms ...string) *operated {
	t.Helper()
	o := &operated{log: &lockedBuffer{}}
	directory, err := os.MkdirTemp("", "admin") // t.TempDir can be longer than a socket's path may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	o.socket = filepath.Join(directory, "admin.sock")
	var server *authserver.Server
	o.Server, server = instances(t, func(c *authserver.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(o.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		if configure != nil {
			configure(c)
		}
	}, algorithms...)
	listener, err := authserver.ListenAdmin(o.socket)
	if err != nil {
		t.Fatal(err)
	}
	admin := server.AdminServer()
	go admin.Serve(listener)
	t.Cleanup(func() { admin.Close() })
	o.client = &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", o.socket)
	}}}
	t.Cleanup(o.client.CloseIdleConnections)
	return o
}

// call makes a call and returns the status and the error code, which is empty for success.
func (o *operated) call(t testing.TB, path string, request, answer any) (int, string) {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	response, err := o.client.Post("http://authserver"+path, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return read(t, response, answer)
}

func read(t testing.TB, response *http.Response, answer any) (int, string) {
	t.Helper()
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var refusal struct{ Error authserver.AdminError }
	json.Unmarshal(content, &refusal)
	if response.StatusCode == http.StatusOK && answer != nil {
		if err := json.Unmarshal(content, answer); err != nil {
			t.Fatalf("%v in %s", err, content)
		}
	}
	if refusal.Error.Code == "" && response.StatusCode != http.StatusOK {
		t.Errorf("answered %d %s without an error", response.StatusCode, content)
	}
	return response.StatusCode, refusal.Error.Code
}

// The funnel: what is no call of an operator is refused, and everything is audited.
func TestAdminFunnel(t *testing.T) {
	o := operate(t, nil)
	valid := `{"limit":1}`
	for name, test := range map[string]struct {
		method, path, mediaType, body string
		header                        http.Header
		status                        int
	}{
		"a call":            {"POST", "/client/list", "application/json", valid, nil, 200},
		"origin":            {"POST", "/client/list", "application/json", valid, http.Header{"Origin": {"http://localhost"}}, 403},
		"empty origin":      {"POST", "/client/list", "application/json", valid, http.Header{"Origin": {""}}, 403},
		"referer":           {"POST", "/client/list", "application/json", valid, http.Header{"Referer": {"http://localhost/"}}, 403},
		"a page's fetch":    {"POST", "/client/list", "application/json", valid, http.Header{"Sec-Fetch-Site": {"same-origin"}}, 403},
		"unknown call":      {"POST", "/client/lists", "application/json", valid, nil, 404},
		"public endpoint":   {"POST", "/token", "application/json", valid, nil, 404},
		"GET":               {"GET", "/client/list", "application/json", valid, nil, 400},
		"a form":            {"POST", "/client/list", "application/x-www-form-urlencoded", valid, nil, 400},
		"no type":           {"POST", "/client/list", "", valid, nil, 400},
		"no body":           {"POST", "/client/list", "application/json", "", nil, 400},
		"not JSON":          {"POST", "/client/list", "application/json", "{", nil, 400},
		"another type":      {"POST", "/client/list", "application/json", `{"limit":"1"}`, nil, 400},
		"unknown member":    {"POST", "/client/list", "application/json", `{"limits":1}`, nil, 400},
		"two values":        {"POST", "/client/list", "application/json", valid + valid, nil, 400},
		"too large":         {"POST", "/client/list", "application/json", `{"cursor":"` + strings.Repeat("x", 300_000) + `"}`, nil, 400},
		"a long reason":     {"POST", "/client/remove", "application/json", `{"client_id":"x","reason":"` + strings.Repeat("x", 501) + `"}`, nil, 400},
		"a reason of lines": {"POST", "/client/remove", "application/json", `{"client_id":"x","reason":"a\nb"}`, nil, 400},
	} {
		request, err := http.NewRequest(test.method, "http://authserver"+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		if request.Header = test.header; test.header == nil {
			request.Header = http.Header{}
		}
		if test.mediaType != "" {
			request.Header.Set("Content-Type", test.mediaType)
		}
		response, err := o.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if status, code := read(t, response, nil); status != test.status {
			t.Errorf("%s: %d %s, want %d", name, status, code, test.status)
		}
	}
	audited := 0
	for line := range strings.Lines(o.log.String()) {
		var record map[string]any
		if json.Unmarshal([]byte(line), &record) == nil && record["event"] == "admin" {
			audited++
			if record["uid"] != float64(os.Geteuid()) || record["pid"] != float64(os.Getpid()) || record["action"] == nil || record["result"] == nil {
				t.Errorf("an audit record without who, what or result: %s", line)
			}
		}
	}
	if audited != 18 {
		t.Errorf("%d calls were audited of 18", audited)
	}
}

// ATTACKS OP-01: nothing of it can be reached over a network, with whatever token.
func TestAdminIsNotPublic(t *testing.T) {
	s, server := instances(t, nil)
	access, _ := signIn(t, s, "orders:read")
	request, err := http.NewRequest(http.MethodPost, s.Issuer+"/client/list", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+access)
	if a := send(t, request); a.status != http.StatusNotFound {
		t.Errorf("the public listener answers %d %s", a.status, a.raw)
	}
	// Even if somebody wired the handler to a network, it would name no caller.
	overNetwork := httptest.NewUnstartedServer(nil)
	overNetwork.Config = server.AdminServer()
	overNetwork.Start()
	defer overNetwork.Close()
	response, err := http.Post(overNetwork.URL+"/client/list", "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	if status, code := read(t, response, nil); status != http.StatusForbidden || code != "forbidden" {
		t.Errorf("over a network: %d %s", status, code)
	}
	recorder := httptest.NewRecorder()
	server.AdminHandler().ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/client/list", strings.NewReader(`{}`)))
	if recorder.Code != http.StatusForbidden {
		t.Errorf("without a connection: %d", recorder.Code)
	}
}

// A socket that a dead server left is replaced, one of a running server is not, and
// nothing else is removed.
func TestAdminSocketTakeover(t *testing.T) {
	directory, err := os.MkdirTemp("", "admin")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(directory)
	path := filepath.Join(directory, "admin.sock")
	first, err := authserver.ListenAdmin(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authserver.ListenAdmin(path); err == nil || !strings.Contains(err.Error(), "another running server") {
		t.Errorf("a second server: %v", err)
	}
	first.SetUnlinkOnClose(false) // as if the process had been killed
	first.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	second, err := authserver.ListenAdmin(path)
	if err != nil {
		t.Fatalf("after a dead server: %v", err)
	}
	second.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := authserver.ListenAdmin(path); err == nil {
		t.Error("a file was taken for a socket")
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "precious" {
		t.Errorf("the file in the socket's place: %q %v", content, err)
	}
	if _, err := authserver.ListenAdmin(filepath.Join(directory, strings.Repeat("x", 200))); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("a path that is too long: %v", err)
	}
}

// ATTACKS OP-02: lists come in pages by cursors that nobody can make.
func TestAdminPages(t *testing.T) {
	o := operate(t, nil)
	var want []string
	for i := range 150 {
		id := fmt.Sprintf("client-%03d", i)
		if status, code := o.call(t, "/client/add", map[string]any{"client_id": id, "grant_types": []string{"client_credentials"}}, nil); status != 200 {
			t.Fatal(status, code)
		}
		want = append(want, id)
	}
	want = append(want, authservertest.ServiceID, authservertest.WebID, authservertest.SPAID, authservertest.APIID)
	slices.Sort(want)
	var cursor string
	for _, limit := range []int{0, 1, 7, 153, 154, 1000} {
		var got []string
		for query := (authserver.ListQuery{Limit: limit}); ; {
			var page authserver.ClientPage
			if status, code := o.call(t, "/client/list", query, &page); status != 200 || limit > 0 && len(page.Clients) > limit || len(page.Clients) > 1000 {
				t.Fatalf("limit %d: %d %s, %d clients", limit, status, code, len(page.Clients))
			}
			for _, c := range page.Clients {
				got = append(got, c.ClientID)
			}
			if query.Cursor = page.Next; page.Next == "" {
				break
			}
			cursor = page.Next
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("limit %d: %d clients, want %d", limit, len(got), len(want))
		}
	}
	for name, query := range map[string]authserver.ListQuery{
		"no cursor": {Cursor: "junk"}, "base64 of a position": {Cursor: "eyJiIjoxLCJhIjoiIn0"}, "truncated": {Cursor: cursor[:len(cursor)-2]},
		"altered": {Cursor: cursor[:5] + "AAAAAAAA" + cursor[13:]}, "an injection": {Cursor: "' or 1=1; --"}, "limit": {Limit: 1_000_000}, "negative limit": {Limit: -1},
	} {
		if status, code := o.call(t, "/client/list", query, nil); status != 400 || code != "bad_request" {
			t.Errorf("%s: %d %s", name, status, code)
		}
	}
	if status, _ := o.call(t, "/user/list", authserver.ListQuery{Cursor: cursor}, nil); status != 400 {
		t.Errorf("the cursor of another list: %d", status)
	}
}
