// Command outage lets Redis hang, die and be cut off, for five seconds each, and says when
// the server says so, what becomes of what needs no store, and when all is well again.
//
//	make build && (cd bench && go run ./outage)
//
// A hundred introspections a second need the store; a hundred a second of each of the key
// set, the metadata and client_credentials do not.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"authserver/bench/internal/process"
)

const every = 10 * time.Millisecond

func main() {
	binary := flag.String("binary", "../bin/authserver", "the server")
	rounds := flag.Int("rounds", 5, "of each outage")
	lasts := flag.Duration("lasts", 5*time.Second, "an outage")
	flag.Parse()
	fmt.Printf("| outage of %s | first 503 | not ready | slowest answer meanwhile | answers again | ready again |\n|---|---|---|---|---|---|\n", *lasts)
	for _, kind := range []string{"hung", "killed", "cut off"} {
		for range *rounds {
			if err := run(*binary, kind, *lasts); err != nil {
				fmt.Fprintf(os.Stderr, "outage: %s: %v\n", kind, err)
				os.Exit(1)
			}
		}
	}
	fmt.Printf("\n| what needs no store | asked | p50, p99 before | p50, p99 during outages | not answered with 200 |\n|---|---|---|---|---|\n")
	for _, name := range unaffected {
		before, during := calm[name], troubled[name]
		fmt.Printf("| %s | %d | %v, %v | %v, %v | %d |\n", name, len(during), percentile(before, 50), percentile(before, 99), percentile(during, 50), percentile(during, 99), refused[name])
	}
}

var (
	unaffected     = []string{"key set", "metadata", "client_credentials"}
	calm, troubled = make(map[string][]time.Duration), make(map[string][]time.Duration)
	refused        = make(map[string]int)
)

func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, len(all)*p/100)].Round(100 * time.Microsecond)
}

// answer is one that came, or did not.
type answer struct {
	sent, came time.Time
	status     int
}

// asking asks at a steady rate, whatever becomes of it, until it is stopped.
type asking struct {
	stop    chan struct{}
	all     sync.WaitGroup
	mu      sync.Mutex
	answers []answer
}

func ask(request func() (*http.Request, error)) *asking {
	a := &asking{stop: make(chan struct{})}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 500}}
	a.all.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-a.stop:
				return
			case <-ticker.C:
			}
			a.all.Go(func() {
				one := answer{sent: time.Now()}
				r, err := request()
				if err == nil {
					var response *http.Response
					if response, err = client.Do(r); err == nil {
						io.Copy(io.Discard, response.Body)
						response.Body.Close()
						one.status = response.StatusCode
					}
				}
				one.came = time.Now()
				a.mu.Lock()
				a.answers = append(a.answers, one)
				a.mu.Unlock()
			})
		}
	})
	return a
}

func (a *asking) end() []answer {
	close(a.stop)
	a.all.Wait()
	slices.SortFunc(a.answers, func(x, y answer) int { return x.came.Compare(y.came) })
	return a.answers
}

// first returns how long after an instant the first answer with a status came to a
// request that was sent from then on.
func first(answers []answer, from time.Time, status int) string {
	for _, a := range answers {
		if !a.sent.Before(from) && a.status == status {
			return fmt.Sprint(a.came.Sub(from).Round(time.Millisecond))
		}
	}
	return "never"
}

func form(address string, values url.Values) func() (*http.Request, error) {
	return func() (*http.Request, error) {
		r, err := http.NewRequest("POST", address, strings.NewReader(values.Encode()))
		if err == nil {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.SetBasicAuth(process.ClientID, process.Secret)
		}
		return r, err
	}
}

func get(address string) func() (*http.Request, error) {
	return func() (*http.Request, error) { return http.NewRequest("GET", address, nil) }
}

func run(binary, kind string, lasts time.Duration) error {
	directory, err := os.MkdirTemp("", "authserver-outage-redis-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	port, err := process.FreePort()
	if err != nil {
		return err
	}
	start := func() (*process.Process, error) {
		p, err := process.Start(directory, nil, io.Discard, "redis-server", append([]string{"--port", port, "--bind", "127.0.0.1", "--save", ""}, process.Always...)...)
		if err == nil {
			err = process.AwaitPort(port)
		}
		return p, err
	}
	redis, err := start()
	if err != nil {
		return err
	}
	defer func() { redis.Stop() }()
	way, err := newWay("127.0.0.1:" + port)
	if err != nil {
		return err
	}
	defer way.close()
	installation, err := process.Install(binary, process.Options{RedisPort: way.port})
	if err != nil {
		return err
	}
	defer installation.Remove()
	server, err := installation.Start()
	if err != nil {
		return err
	}
	defer server.Stop()
	base := installation.Base
	token, err := refreshToken(base)
	if err != nil {
		return err
	}
	affected := ask(form(base+"/introspect", url.Values{"token": {token}}))
	ready := ask(get(base + "/readyz"))
	others := map[string]*asking{
		"key set": ask(get(base + "/.well-known/jwks.json")), "metadata": ask(get(base + "/.well-known/openid-configuration")),
		"client_credentials": ask(form(base+"/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})),
	}
	time.Sleep(3 * time.Second)
	began := time.Now()
	switch kind {
	case "hung":
		syscall.Kill(redis.ID(), syscall.SIGSTOP)
	case "killed":
		redis.Kill()
	default:
		way.held.Lock()
	}
	time.Sleep(lasts)
	ended := time.Now()
	switch kind {
	case "hung":
		syscall.Kill(redis.ID(), syscall.SIGCONT)
	case "killed":
		if redis, err = start(); err != nil {
			return err
		}
		ended = time.Now()
	default:
		way.held.Unlock()
	}
	time.Sleep(4 * time.Second)
	answers, readiness := affected.end(), ready.end()
	slowest := time.Duration(0)
	for _, a := range answers {
		if a.sent.After(began) && a.sent.Before(ended) {
			slowest = max(slowest, a.came.Sub(a.sent))
		}
	}
	fmt.Printf("| %s | %s | %s | %v | %s | %s |\n", kind, first(answers, began, 503), first(readiness, began, 503), slowest.Round(time.Millisecond),
		first(answers, ended, 200), first(readiness, ended, 200))
	for name, a := range others {
		for _, one := range a.end() {
			took := one.came.Sub(one.sent)
			switch {
			case one.sent.Before(began):
				calm[name] = append(calm[name], took)
			case one.sent.Before(ended):
				troubled[name] = append(troubled[name], took)
			default:
				continue
			}
			if one.status != 200 {
				refused[name]++
			}
		}
	}
	return nil
}

// refreshToken signs somebody in: whether such a token is active, the store knows.
func refreshToken(base string) (string, error) {
	r, err := form(base+"/token", url.Values{"grant_type": {"password"}, "username": {process.Username}, "password": {process.Password}})()
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var answer struct {
		Token string `json:"refresh_token"`
	}
	err = json.NewDecoder(response.Body).Decode(&answer)
	if err == nil && answer.Token == "" {
		err = fmt.Errorf("a sign-in: %s", response.Status)
	}
	return answer.Token, err
}

// way leads to Redis and can be held: then nothing passes, and nobody is told.
type way struct {
	port     string
	listener net.Listener
	held     sync.RWMutex
}

func newWay(to string) (*way, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &way{listener: listener}
	_, w.port, _ = net.SplitHostPort(listener.Addr().String())
	pass := func(from, into net.Conn) {
		defer from.Close()
		defer into.Close()
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if err == nil {
				w.held.RLock()
				_, err = into.Write(buffer[:n])
				w.held.RUnlock()
			}
			if err != nil {
				return
			}
		}
	}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				w.held.RLock()
				far, err := net.Dial("tcp", to)
				w.held.RUnlock()
				if err != nil {
					near.Close()
					return
				}
				go pass(near, far)
				pass(far, near)
			}()
		}
	}()
	return w, nil
}

func (w *way) close() { w.listener.Close() }
