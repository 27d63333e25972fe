package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"authserver/bench/internal/process"
)

func newClock(t *testing.T) clock {
	c := clock(filepath.Join(t.TempDir(), "clock"))
	setClock(t, c, 0)
	return c
}

func setClock(t *testing.T, c clock, off time.Duration) {
	t.Helper()
	if err := c.set(off); err != nil {
		t.Fatal(err)
	}
}

// post sends a form as the client and returns the answer.
func (i *instance) post(t *testing.T, path string, form url.Values) (status int, answer map[string]any) {
	t.Helper()
	r, err := http.NewRequest("POST", "http://localhost:"+i.port+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(process.ClientID, process.Secret)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		log, _ := os.ReadFile(i.log())
		t.Fatalf("%v; the log ends %s", err, log[:min(len(log), 6000)])
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return response.StatusCode, answer
}

func (i *instance) keySet(t *testing.T) string {
	t.Helper()
	response, err := http.Get("http://localhost:" + i.port + "/.well-known/jwks.json")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("the key set: %s, %v", response.Status, err)
	}
	return string(text)
}

var signIn = url.Values{"grant_type": {"password"}, "username": {process.Username}, "password": {process.Password}, "scope": {"openid orders:read"}}

func refreshBy(token any) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {fmt.Sprint(token)}}
}

// tokens are of a new grant.
func (i *instance) tokens(t *testing.T) (access, refresh string) {
	t.Helper()
	status, answer := i.post(t, "/token", signIn)
	if status != 200 {
		t.Fatalf("a sign-in at instance %d: %d %v", i.number, status, answer)
	}
	return fmt.Sprint(answer["access_token"]), fmt.Sprint(answer["refresh_token"])
}

// signs waits until an instance has read the key set since its clock jumped.
func (i *instance) signs(t *testing.T) {
	t.Helper()
	if err := process.Await(func() error {
		if status, answer := i.post(t, "/token", url.Values{"grant_type": {"client_credentials"}}); status != 200 {
			return fmt.Errorf("%d %v", status, answer)
		}
		return nil
	}, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
}

// Clocks that jump, differ, and are far in the future (FT-32 to FT-34). It builds a server
// and its standard library, so it is a part of make chaos.
func TestClocks(t *testing.T) {
	if os.Getenv("AUTHSERVER_TEST_CLOCKS") == "" {
		t.Skip("AUTHSERVER_TEST_CLOCKS is not set: see make chaos")
	}
	binary, err := withClocks(filepath.Join("..", ".."), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	right := newClock(t)
	t.Setenv(clockFile, string(right))
	const year = 365 * 24 * time.Hour

	t.Run("FT-32", func(t *testing.T) {
		w, err := newWorld(binary, 0, scenario{name: "clocks", instances: 1, window: time.Minute}, rand.New(rand.NewPCG(32, 1)))
		if err != nil {
			t.Fatal(err)
		}
		defer w.close()
		off := newClock(t)
		one, two := w.instances[0], w.another(t, off)
		keys := one.keySet(t)
		_, refresh := one.tokens(t)
		old, _ := two.tokens(t)
		for _, jump := range []time.Duration{time.Hour, -time.Hour, 10 * year, -10 * year, 3 * 24 * time.Hour} {
			setClock(t, off, jump)
			if err := two.await(503); err != nil {
				t.Fatalf("%s off: %v", jump, err)
			}
			if status, answer := two.post(t, "/token", refreshBy(refresh)); status != 503 {
				t.Errorf("%s off: a refresh: %d %v", jump, status, answer)
			}
			if err := process.Await(func() error {
				if status, answer := two.post(t, "/token", url.Values{"grant_type": {"client_credentials"}}); status != 503 {
					return fmt.Errorf("%d %v", status, answer)
				}
				return nil
			}, 2*time.Minute); err != nil {
				t.Errorf("%s off: it goes on signing: %v", jump, err)
			}
			if two.keySet(t) != keys || one.keySet(t) != keys {
				t.Errorf("%s off: the keys have changed", jump)
			}
			status, answer := one.post(t, "/token", refreshBy(refresh))
			if status != 200 {
				t.Fatalf("%s off: a refresh at the other instance: %d %v", jump, status, answer)
			}
			refresh = fmt.Sprint(answer["refresh_token"])
			setClock(t, off, 0)
			if err := two.await(200); err != nil {
				t.Fatalf("after %s off: %v", jump, err)
			}
			if status, answer := two.post(t, "/introspect", url.Values{"token": {old}}); status != 200 || answer["active"] != true {
				t.Errorf("after %s off: a token from before: %d %v", jump, status, answer)
			}
		}
		log, _ := os.ReadFile(two.log())
		for _, says := range []string{"1h0m0s ahead of the store's", "1h0m0s behind the store's", "87600h0m0s ahead of"} {
			if !strings.Contains(string(log), says) {
				t.Errorf("the log does not say %q", says)
			}
		}
	})

	t.Run("FT-33", func(t *testing.T) {
		w, err := newWorld(binary, 0, scenario{name: "clocks", instances: 1, window: time.Minute}, rand.New(rand.NewPCG(33, 1)))
		if err != nil {
			t.Fatal(err)
		}
		defer w.close()
		off := newClock(t)
		one, two := w.instances[0], w.another(t, off)
		for _, skew := range []time.Duration{10 * time.Second, -10 * time.Second, 30 * time.Second, -30 * time.Second} {
			setClock(t, off, skew)
			two.signs(t)
			for _, pair := range [][2]*instance{{one, two}, {two, one}} {
				access, refresh := pair[0].tokens(t)
				if status, answer := pair[1].post(t, "/introspect", url.Values{"token": {access}}); status != 200 || answer["active"] != true {
					t.Errorf("%s off: introspection at instance %d: %d %v", skew, pair[1].number, status, answer)
				}
				if status, answer := pair[1].post(t, "/token", refreshBy(refresh)); status != 200 {
					t.Errorf("%s off: a refresh at instance %d: %d %v", skew, pair[1].number, status, answer)
				}
				if _, err := w.verifiers[accepting].Verify(t.Context(), access); err != nil {
					t.Errorf("%s off: a resource server, a token of instance %d: %v", skew, pair[0].number, err)
				}
			}
		}
		if two.keySet(t) != one.keySet(t) {
			t.Error("the instances serve different keys")
		}
	})

	t.Run("FT-34", func(t *testing.T) {
		for _, at := range []string{"2038-01-19T03:13:00Z", "2040-02-29T12:00:00Z", "2106-02-07T06:28:00Z", "2027-03-28T00:59:00Z"} {
			begin, err := time.Parse(time.RFC3339, at)
			if err != nil {
				t.Fatal(err)
			}
			later := newClock(t)
			setClock(t, later, time.Until(begin))
			t.Setenv(clockFile, string(later))
			t.Setenv("TZ", "Europe/Berlin") // where a summer begins at the last of them
			w, err := newWorld(binary, 0, scenario{name: "clocks", instances: 1, embedded: true, window: time.Minute}, rand.New(rand.NewPCG(34, 1)))
			if err != nil {
				t.Fatal(err)
			}
			i := w.instances[0]
			for range 2 { // before and, two minutes later, after
				access, refresh := i.tokens(t)
				status, answer := i.post(t, "/introspect", url.Values{"token": {access}})
				expires, _ := answer["exp"].(float64)
				if status != 200 || answer["active"] != true || int64(expires) < begin.Unix() {
					t.Errorf("%s: %d %v", at, status, answer)
				}
				if status, answer := i.post(t, "/token", refreshBy(refresh)); status != 200 {
					t.Errorf("%s: a refresh: %d %v", at, status, answer)
				}
				setClock(t, later, time.Until(begin.Add(2*time.Minute)))
				i.signs(t)
			}
			i.terminate()
			if err := i.start(); err != nil {
				t.Errorf("%s: a restart: %v", at, err)
			}
			log, _ := os.ReadFile(i.log())
			if want := `"time":"` + strconv.Itoa(begin.Year()); !strings.Contains(string(log), want) && !strings.Contains(string(log), "time="+strconv.Itoa(begin.Year())) {
				t.Errorf("%s: the clock of the server was another: %.300s", at, log)
			}
			w.close()
		}
	})
}

// another starts one more instance, whose clock is that.
func (w *world) another(t *testing.T, c clock) *instance {
	t.Helper()
	port, err := process.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	number := len(w.instances)
	i := &instance{number: number, binary: w.installation.Binary, directory: w.installation.Directory, port: port, environment: []string{
		"AUTHSERVER_LISTEN=localhost:" + port, fmt.Sprintf("AUTHSERVER_DATA=data%d", number), "AUTHSERVER_MASTER_KEY_FILE=master.key",
		"AUTHSERVER_STORE=redis://127.0.0.1:" + w.redis.port, clockFile + "=" + string(c),
	}}
	w.instances = append(w.instances, i)
	if err := i.start(); err != nil {
		t.Fatal(err)
	}
	if err := i.await(200); err != nil {
		t.Fatal(err)
	}
	return i
}
