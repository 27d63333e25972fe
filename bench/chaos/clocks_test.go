package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"authserver/bench/internal/process"
)

// clockFile names, to a server that withClocks has built, the file that holds by how many
// seconds its clock is wrong: 12 characters.
const clockFile = "AUTHSERVER_TEST_CLOCK"

// withClocks builds the server, whose source is as it is, with a standard library whose
// wall clock is off by what a file says at each moment. A server of Go asks the kernel for
// the time by itself, so that libfaketime, which stands before the C library, has no say.
func withClocks(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	changed := string(text)
	for from, to := range map[string]string{
		"\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {": "\tsec, nsec, mono := runtimeNow()\n\tsec += wrong()\n\tif mono == 0 {",
		"\t_ \"unsafe\"": "\t\"syscall\"\n\t\"unsafe\"",
	} {
		if strings.Count(changed, from) != 1 {
			t.Fatalf("the standard library's time.go has no %q, or several", from)
		}
		changed = strings.Replace(changed, from, to, 1)
	}
	changed += `
var wrongFile = func() int {
	name, _ := syscall.Getenv("` + clockFile + `")
	file, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("` + clockFile + `: " + err.Error())
	}
	return file
}()

func wrong() (seconds int64) {
	var text [12]byte
	// Raw, since the scheduler asks for the time, too.
	n, _, _ := syscall.RawSyscall6(syscall.SYS_PREAD64, uintptr(wrongFile), uintptr(unsafe.Pointer(&text)), uintptr(len(text)), 0, 0, 0)
	if int(n) != len(text) {
		panic("the clock's file cannot be read")
	}
	for _, digit := range text[1:] {
		seconds = 10*seconds + int64(digit-'0')
	}
	if text[0] == '-' {
		return -seconds
	}
	return seconds
}
`
	directory := t.TempDir()
	other, overlay, binary := filepath.Join(directory, "time.go"), filepath.Join(directory, "overlay.json"), filepath.Join(directory, "authserver")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{source: other}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{other: []byte(changed), overlay: replace} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-trimpath", "-overlay", overlay, "-o", binary, "./cmd/authserver")
	build.Dir = filepath.Join("..", "..")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building a server with clocks: %v\n%s", err, output)
	}
	return binary
}

// clock is the file of one process's clock.
type clock string

func newClock(t *testing.T) clock {
	c := clock(filepath.Join(t.TempDir(), "clock"))
	c.set(t, 0)
	return c
}

func (c clock) set(t *testing.T, off time.Duration) {
	t.Helper()
	file, err := os.OpenFile(string(c), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(file, "%+012d", int64(off.Seconds())) // over what is there, at once
		file.Close()
	}
	if err != nil {
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
	binary, right := withClocks(t), newClock(t)
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
			off.set(t, jump)
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
			off.set(t, 0)
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
			off.set(t, skew)
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
			later.set(t, time.Until(begin))
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
				later.set(t, time.Until(begin.Add(2*time.Minute)))
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
