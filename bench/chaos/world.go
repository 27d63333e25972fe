package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"authserver/bench/internal/process"
	"authserver/verifier"
)

// world is the servers of one scenario: instances of the real binary, each behind
// nothing and in front of a proxy to Redis, or one with the embedded store.
type world struct {
	scenario     scenario
	installation *process.Installation
	instances    []*instance
	redis        *redis                // nil with the embedded store and behind Sentinel
	sentinels    *sentinels            // nil but behind Sentinel
	verifiers    [2]*verifier.Verifier // rejecting and accepting
	stopVerifier context.CancelFunc
	timepiece    *timepiece // nil where clocks are right
	client       *http.Client
	storeTrouble atomic.Int32 // faults of the store that are being made

	mu        sync.Mutex
	endedKeys map[string]bool
	last      *history // of this world
	dropped   int      // answers of Redis that were lost before the last history ended
}

// longestCall is how long people and operators wait for an answer, at most.
const longestCall = 5 * time.Second

// otherClient is a second application.
const otherClient = "other"

// publishBefore is how long a key is published before it signs, as the instances are
// configured.
func (w *world) publishBefore() time.Duration {
	if w.scenario.quickKeys {
		return 10 * time.Second
	}
	return 280 * time.Second
}

// instance is one server process and what it is started with.
type instance struct {
	number      int
	port        string
	environment []string
	directory   string
	binary      string
	admin       *http.Client
	proxy       *proxy // nil where there is no single Redis

	clock   clock // empty where clocks are right
	avoided atomic.Bool

	mu      sync.Mutex
	process *process.Process // nil while it is down
	stopped bool             // by SIGSTOP

	begun, served atomic.Pointer[process.Process] // the last one, and the last that has answered with its keys
}

// newWorld starts a scenario's servers.
func newWorld(binary string, people int, scenario scenario, dice *rand.Rand) (w *world, err error) {
	w = &world{scenario: scenario, endedKeys: make(map[string]bool),
		client: &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}}}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	more := ""
	if scenario.clocks {
		more = fmt.Sprintf(", access: %s", accessLife)
	}
	durability := ""
	switch {
	case scenario.sentinel:
		durability = "durability: replicated\n"
		w.sentinels, err = startSentinels()
	case !scenario.embedded:
		w.redis, err = startRedis()
	}
	if err != nil {
		return w, err
	}
	if w.installation, err = process.Install(binary, process.Options{
		People: people,
		Clients: fmt.Sprintf("{client_id: %s, client_secret: %s, redirect_uris: [%s], skip_consent: true, "+
			"grant_types: [authorization_code, password, refresh_token], scope: \"orders:read\"}", otherClient, process.Secret, process.RedirectURI),
		More: durability + fmt.Sprintf("tokens: {retry_window: %s%s}\nlog: {level: %s}\nkeys: {algorithms: [ES256], cache_for: 1s, publish_before: %s}\n",
			scenario.window, more, scenario.level(), w.publishBefore()),
	}); err != nil {
		return w, err
	}
	for number := range scenario.instances {
		i := &instance{number: number, binary: w.installation.Binary, directory: w.installation.Directory, port: w.installation.Port}
		if number > 0 {
			if i.port, err = process.FreePort(); err != nil {
				return w, err
			}
		}
		i.admin = adminClient(filepath.Join(i.directory, fmt.Sprintf("data%d", number)))
		i.environment = []string{"AUTHSERVER_LISTEN=localhost:" + i.port, fmt.Sprintf("AUTHSERVER_DATA=data%d", number),
			"AUTHSERVER_MASTER_KEY_FILE=master.key", "AUTHSERVER_DRAIN_DELAY=200ms"}
		switch {
		case w.sentinels != nil:
			i.environment = append(i.environment, "AUTHSERVER_STORE="+w.sentinels.url())
		case w.redis != nil:
			seed := dice.Uint64()
			mine := rand.New(rand.NewPCG(seed, 0))
			if i.proxy, err = newProxy("127.0.0.1:"+w.redis.port, mine.IntN); err != nil {
				return w, err
			}
			i.environment = append(i.environment, "AUTHSERVER_STORE=redis://127.0.0.1:"+i.proxy.Port)
		}
		if scenario.clocks {
			i.binary, i.clock = scenario.binary, clock(filepath.Join(i.directory, fmt.Sprint("clock", number)))
			if err := i.clock.set(0); err != nil {
				return w, err
			}
			i.environment = append(i.environment, clockFile+"="+string(i.clock))
		}
		w.instances = append(w.instances, i)
		if err := i.start(); err != nil {
			return w, err
		}
	}
	if scenario.clocks {
		if err := w.newTimepiece(); err != nil {
			return w, err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stopVerifier = cancel
	for which, policy := range [2]verifier.WhenStale{rejecting: verifier.Reject, accepting: verifier.AcceptUntilExpiry} {
		w.verifiers[which], err = verifier.New(ctx, verifier.Config{
			Issuer: w.installation.Base, Audience: process.Resource, WhenStale: policy, Logger: slog.New(slog.DiscardHandler),
			HTTPClient: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: w.dialAny}},
		})
		if err != nil {
			return w, err
		}
	}
	return w, nil
}

// dialAny reaches an instance that is up: the balancer in front of the issuer's name.
func (w *world) dialAny(ctx context.Context, network, _ string) (net.Conn, error) {
	for _, i := range w.instances {
		if i.up() {
			return new(net.Dialer).DialContext(ctx, network, "localhost:"+i.port)
		}
	}
	return nil, errors.New("no instance is up")
}

func (w *world) close() {
	if w.stopVerifier != nil {
		w.stopVerifier()
	}
	for _, i := range w.instances {
		i.resume()
		i.mu.Lock()
		if i.process != nil {
			i.process.Kill()
		}
		i.mu.Unlock()
		if i.proxy != nil {
			i.proxy.close()
		}
	}
	if w.redis != nil {
		w.redis.end()
	}
	if w.sentinels != nil {
		w.sentinels.end()
	}
	if w.installation != nil {
		w.installation.Remove()
	}
}

// droppedSince counts the answers of Redis that were lost since it was asked last.
func (w *world) droppedSince() int {
	before := w.dropped
	w.dropped = 0
	for _, i := range w.instances {
		if i.proxy != nil {
			w.dropped += int(i.proxy.Dropped.Load())
		}
	}
	return w.dropped - before
}

// heal ends all trouble and waits until every instance is ready.
func (w *world) heal(h *history) error {
	if w.redis != nil {
		if err := w.redis.heal(); err != nil {
			return err
		}
	}
	if w.sentinels != nil {
		if err := w.sentinels.heal(); err != nil {
			return err
		}
	}
	for _, i := range w.instances {
		if i.proxy != nil {
			i.proxy.heal()
		}
		i.resume()
		i.mourn(h)
		if err := i.start(); err != nil {
			return err
		}
		if err := i.await(http.StatusOK); err != nil {
			text, _ := os.ReadFile(i.log())
			return fmt.Errorf("instance %d after the trouble: %w; its log ends %s", i.number, err, text[max(0, len(text)-3000):])
		}
	}
	return nil
}

// start starts the process unless it runs.
func (i *instance) start() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.process != nil {
		return nil
	}
	log, err := os.OpenFile(i.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// Where it gives up, whoever supervises it tries again.
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(50 * time.Millisecond) {
		if i.process, err = process.StartApart(i.directory, i.environment, log, i.binary, "serve"); err != nil {
			return err
		}
		i.begun.Store(i.process)
		for i.process.Alive() {
			if err = i.ready(0); err == nil {
				return nil
			}
			time.Sleep(5 * time.Millisecond)
		}
		i.process.Kill()
		i.process = nil
	}
	text, _ := os.ReadFile(i.log())
	return fmt.Errorf("instance %d does not start: %w: %s", i.number, err, text[max(0, len(text)-600):])
}

func (i *instance) log() string { return filepath.Join(i.directory, fmt.Sprintf("log%d", i.number)) }

// await waits until the instance answers /readyz, with a status if it is not 0.
func (i *instance) await(status int) error {
	return process.Await(func() error { return i.ready(status) }, 15*time.Second)
}

func (i *instance) ready(status int) error {
	response, err := http.Get("http://localhost:" + i.port + "/readyz")
	if err != nil {
		return err
	}
	response.Body.Close()
	if status != 0 && response.StatusCode != status {
		return errors.New(response.Status)
	}
	return nil
}

// mourn notices that the process has ended by itself.
func (i *instance) mourn(h *history) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.process == nil || i.process.Alive() {
		return
	}
	i.process.Kill()
	i.process = nil
	text, _ := os.ReadFile(i.log())
	h.violation(12, "instance %d ended by itself: %s", i.number, text[max(0, len(text)-2000):])
}

func (i *instance) kill() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.process != nil {
		i.process.Kill()
		i.process = nil
	}
}

func (i *instance) terminate() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.process != nil {
		i.process.Stop()
		i.process = nil
	}
}

func (i *instance) up() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.process != nil && !i.stopped
}

// mostMemory is more than an instance needs for a few people, with their passwords hashed.
const mostMemory = 192 // MiB

// weigh looks whether an instance keeps more than it should.
func (w *world) weigh(h *history) {
	for _, i := range w.instances {
		i.mu.Lock()
		if i.process != nil {
			if resident := i.process.ResidentMiB(); resident > mostMemory {
				h.outgrown(i.number, resident)
			}
		}
		i.mu.Unlock()
	}
}

// searchFiles looks for private keys in what the servers and the store have written (I8).
func (w *world) searchFiles(h *history) error {
	if w.scenario.sessions {
		return nil
	}
	master, err := os.ReadFile(filepath.Join(w.installation.Directory, "master.key"))
	if err != nil {
		return err
	}
	for _, i := range w.instances {
		written, err := os.ReadFile(i.log())
		if err != nil {
			return err
		}
		if h.searched(written); bytes.Contains(written, bytes.TrimSpace(master)) {
			h.violation(8, "the master key is in the log of instance %d", i.number)
		}
	}
	return nil
}

// keepLogs saves the logs of a history that broke something, and empties them.
func (w *world) keepLogs(h *history, directory string) error {
	for _, i := range w.instances {
		if len(h.Violations) > 0 {
			written, err := os.ReadFile(i.log())
			if err == nil {
				err = os.WriteFile(filepath.Join(directory, fmt.Sprintf("%s-%d.log%d", h.Scenario, h.Seed, i.number)), written, 0o600)
			}
			if err != nil {
				return err
			}
		}
		if err := os.Truncate(i.log(), 0); err != nil {
			return err
		}
	}
	return nil
}
