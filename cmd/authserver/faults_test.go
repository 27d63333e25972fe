package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
)

// renewer is a client that refreshes again and again. It repeats a request with the same
// token until it is answered, and goes to the next server when one does not answer.
type renewer struct {
	client  *http.Client
	servers []string
	at      int    // the server that it asks
	token   string // the latest
	// Counted: refreshes, requests that were asked to come back, and those that had no
	// answer, without those that found no server.
	done, put, cut atomic.Int64
}

func newRenewer(t *testing.T, at int, servers ...string) *renewer {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &renewer{client: &http.Client{Transport: secrets.Watch(transport)}, servers: servers, at: at, token: tokensOf(t, servers[at])}
}

// renew refreshes once, or fails in a way that may be. Anything else is an error.
func (c *renewer) renew(t *testing.T) (renewed bool) {
	form := tokenForm("refresh_token", "refresh_token", c.token)
	request, err := http.NewRequest("POST", c.servers[c.at]+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Error(err)
		return false
	}
	request.GetBody = nil // the transport does not send it again by itself
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth("web", userSecret)
	var body map[string]any
	response, err := c.client.Do(request)
	if err == nil {
		err = json.NewDecoder(response.Body).Decode(&body)
		response.Body.Close()
	}
	next, _ := body["refresh_token"].(string)
	switch {
	case err != nil:
		if dial := (*net.OpError)(nil); !errors.As(err, &dial) || dial.Op != "dial" {
			c.cut.Add(1)
		}
		c.at = (c.at + 1) % len(c.servers)
	case response.StatusCode == 200 && next != "":
		c.token = next
		c.done.Add(1)
		return true
	case response.StatusCode == 503 && response.Header.Get("Retry-After") != "":
		c.put.Add(1)
	default:
		t.Errorf("a client was signed out, or not told when to come back: %d %v %v", response.StatusCode, response.Header, body)
	}
	time.Sleep(5 * time.Millisecond)
	return false
}

// renewing has clients refresh until stop is called, and then once more each.
func renewing(t *testing.T, clients ...*renewer) (stop func()) {
	t.Helper()
	var running sync.WaitGroup
	var over atomic.Bool
	for _, c := range clients {
		running.Go(func() {
			for !over.Load() && !t.Failed() {
				c.renew(t)
			}
		})
	}
	stop = func() {
		t.Helper()
		over.Store(true)
		running.Wait()
		for _, c := range clients {
			timetest.Await(t, "a client is answered in the end", func() bool { return t.Failed() || c.renew(t) })
		}
	}
	t.Cleanup(func() { over.Store(true); running.Wait() })
	return stop
}

// progress waits until each client has refreshed n times more.
func progress(t *testing.T, n int64, clients ...*renewer) {
	t.Helper()
	for _, c := range clients {
		until := c.done.Load() + n
		timetest.Await(t, "every client makes progress", func() bool { return t.Failed() || c.done.Load() >= until })
	}
}

func (c *renewer) counts() string {
	return fmt.Sprintf("%d refreshed, %d asked to come back, %d cut", c.done.Load(), c.put.Load(), c.cut.Load())
}

// onRedis starts a server that has its records in a Redis, a further one of the first if
// there is one.
func onRedis(t *testing.T, redis string, first *process, environment ...string) *process {
	t.Helper()
	directory, port := t.TempDir(), freePort(t)
	issuer := port
	if first != nil {
		issuer = first.url[strings.LastIndexByte(first.url, ':')+1:]
		master, err := os.ReadFile(filepath.Join(first.Dir, "data", "master.key"))
		if err == nil {
			err = os.Mkdir(filepath.Join(directory, "data"), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(directory, "data", "master.key"), master, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(userConfig, issuer, port) + "store: redis://" + redis + "\n"
	if err := os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, directory, "http://localhost:"+port, environment, "serve")
}

// ATTACKS FT-01, FT-02: Redis is killed while clients refresh, and comes back. Nobody is
// signed out, each is told to come back meanwhile, and what was revoked stays so. Where it
// syncs every second only, the page cache outlives it: what it has written is not lost either.
func TestRedisKilledDuringRefreshes(t *testing.T) {
	for _, fsync := range []string{"always", "everysec"} {
		t.Run(fsync, func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", fsync)
			p := onRedis(t, redis.Addr, nil)
			clients := []*renewer{newRenewer(t, 0, p.url), newRenewer(t, 0, p.url), newRenewer(t, 0, p.url), newRenewer(t, 0, p.url)}
			stop := renewing(t, clients...)
			var revoked []string
			for range 2 {
				progress(t, 10, clients...)
				token := tokensOf(t, p.url)
				timetest.Await(t, "a revocation is acknowledged", func() bool { status, _ := asked(t, p.url, "/revoke", token); return status == 200 })
				revoked = append(revoked, token)
				before := clients[0].put.Load()
				if fsync == "always" {
					redis.Kill()
				} else {
					redis.KillWritten()
				}
				timetest.Await(t, "somebody is asked to come back", func() bool { return t.Failed() || clients[0].put.Load() > before })
				redis.Restart()
			}
			progress(t, 10, clients...)
			stop()
			for _, token := range revoked {
				if status := settled(t, p.url, token); status != 400 {
					t.Errorf("a revoked token: %d", status)
				}
			}
			for _, c := range clients {
				t.Log(c.counts())
			}
		})
	}
}

// ATTACKS FT-11: answers of Redis that are slow but come are waited for; those that are
// slower than the budget of a request are not, and neither keys nor metadata depend on
// them; and when Redis is quick again everybody goes on with the token that he has.
func TestSlowRedis(t *testing.T) {
	t.Parallel()
	link := redistest.StartLink(t, redistest.Start(t, "--appendonly", "yes"))
	p := onRedis(t, link.Addr, nil)
	client := newRenewer(t, 0, p.url)
	link.Slow(100 * time.Millisecond)
	stop := renewing(t, client)
	progress(t, 1, client)
	link.Slow(10 * time.Second)
	before := client.put.Load()
	timetest.Await(t, "somebody is asked to come back", func() bool { return t.Failed() || client.put.Load() > before+1 })
	for path, want := range map[string]int{"/.well-known/jwks.json": 200, "/.well-known/openid-configuration": 200, "/healthz": 200, "/readyz": 503} {
		if status := statusOf(t, p.url+path); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
	link.Slow(0)
	progress(t, 10, client)
	stop()
}

// ATTACKS FT-13, with the whole server: every fifth answer of Redis is lost after the
// command ran. No first use is taken for a second one.
func TestLostAnswersOfRedis(t *testing.T) {
	t.Parallel()
	link := redistest.StartLink(t, redistest.Start(t, "--appendonly", "yes"))
	p := onRedis(t, link.Addr, nil)
	clients := []*renewer{newRenewer(t, 0, p.url), newRenewer(t, 0, p.url), newRenewer(t, 0, p.url)}
	link.Lose(5)
	stop := renewing(t, clients...)
	progress(t, 40, clients...)
	link.Lose(0)
	stop()
	if lost := link.Lost.Load(); lost < 20 {
		t.Errorf("only %d answers were lost", lost)
	}
	t.Logf("%d answers lost", link.Lost.Load())
}

// ATTACKS FT-35, FT-36: of three servers one is killed and one is stopped while clients
// refresh. The first fails at most one request of each client, that which it was at; the
// second none that it has begun, and ends well. Nobody is signed out.
func TestServersGoUnderLoad(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--appendonly", "yes")
	first := onRedis(t, redis.Addr, nil)
	all := []*process{first, onRedis(t, redis.Addr, first, "AUTHSERVER_DRAIN_DELAY=300ms"), onRedis(t, redis.Addr, first)}
	urls := []string{all[0].url, all[1].url, all[2].url}
	var clients []*renewer
	for n := range urls {
		clients = append(clients, newRenewer(t, n, urls...))
	}
	stop := renewing(t, clients...)
	progress(t, 10, clients...)
	all[0].Process.Kill()
	all[0].Wait()
	progress(t, 10, clients...)
	for n, c := range clients {
		if cut := c.cut.Load(); cut > 1 || n != 0 && cut > 0 {
			t.Errorf("the client at server %d: %s", n, c.counts())
		}
	}

	var flying []net.Conn
	for range 3 {
		flying = append(flying, halfSent(t, all[1].url, tokensOf(t, all[2].url)))
	}
	all[1].Process.Signal(syscall.SIGTERM)
	address := strings.TrimPrefix(all[1].url, "http://")
	timetest.Await(t, "a server that stops takes no connections", func() bool {
		connection, err := net.Dial("tcp", address)
		if err == nil {
			connection.Close()
		}
		return err != nil
	})
	for _, connection := range flying {
		fmt.Fprint(connection, "&scope=profile")
		response, err := http.ReadResponse(bufio.NewReader(connection), nil)
		if err != nil || response.StatusCode != 200 {
			t.Errorf("a request in flight: %v %v", response, err)
		}
	}
	if err := all[1].Wait(); err != nil {
		t.Errorf("it ended with %v:\n%s", err, all[1].text())
	}
	progress(t, 10, clients...)
	stop()
	for n, c := range clients {
		t.Logf("client %d: %s", n, c.counts())
	}
}

// halfSent sends a refresh but for its end, and returns when the server is reading it.
func halfSent(t *testing.T, url, token string) net.Conn {
	t.Helper()
	connection, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	form := tokenForm("refresh_token", "refresh_token", token).Encode()
	fmt.Fprintf(connection, "POST /token HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic %s\r\nContent-Type: application/x-www-form-urlencoded\r\n"+
		"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n", base64.StdEncoding.EncodeToString([]byte("web:"+userSecret)), len(form)+len("&scope=profile"))
	reader := bufio.NewReader(connection)
	if line, err := reader.ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	reader.ReadString('\n')
	fmt.Fprint(connection, form)
	return connection
}
