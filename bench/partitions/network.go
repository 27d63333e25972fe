package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"authserver/bench/internal/process"

	"golang.org/x/sys/unix"
)

const machines = 3

// network is the machines, each a network namespace with a Redis, a Sentinel and an
// authserver, and the namespace of the bridge between them.
type network struct {
	name         string
	installation *process.Installation
	processes    []*process.Process
	clients      [machines]*http.Client
}

func (n *network) machine(i int) string { return fmt.Sprintf("%s-%d", n.name, i) }
func address(i int) string              { return fmt.Sprintf("10.77.0.%d", i+1) }

// ip runs the tool of that name.
func ip(args ...string) error {
	if output, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, output)
	}
	return nil
}

// link takes a machine's cable out of the bridge, or puts it back.
func (n *network) link(machine int, state string) error {
	return ip("-n", n.name, "link", "set", fmt.Sprint("port", machine), state)
}

func newNetwork(binary, durability string) (*network, error) {
	n := &network{name: fmt.Sprintf("partitions-%d", os.Getpid())}
	err := errors.Join(ip("netns", "add", n.name), ip("-n", n.name, "link", "add", "bridge", "type", "bridge"), ip("-n", n.name, "link", "set", "bridge", "up"))
	for i := range machines {
		m, port := n.machine(i), fmt.Sprint("port", i)
		err = errors.Join(err, ip("netns", "add", m),
			ip("-n", n.name, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", m),
			ip("-n", n.name, "link", "set", port, "master", "bridge", "up"),
			ip("-n", m, "addr", "add", address(i)+"/24", "dev", "eth0"), ip("-n", m, "link", "set", "eth0", "up"), ip("-n", m, "link", "set", "lo", "up"))
	}
	if err != nil {
		return n, err
	}
	var sentinels []string
	for i := range machines {
		sentinels = append(sentinels, address(i)+":26379")
	}
	if n.installation, err = process.Install(binary, process.Options{
		People: machines * each,
		More: "store: redis+sentinel://" + strings.Join(sentinels, ",") + "/primary\ndurability: " + durability + "\n" +
			"keys: {algorithms: [ES256]}\ntokens: {retry_window: 1m}\n",
	}); err != nil {
		return n, err
	}
	for i := range machines {
		if err := n.startRedis(i); err != nil {
			return n, err
		}
	}
	if err := await("the replicas do not follow", n.whole); err != nil {
		return n, err
	}
	for i := range machines {
		n.clients[i] = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100, DialContext: n.dialIn(i)}}
		if err := n.startServer(i); err != nil {
			return n, err
		}
	}
	return n, nil
}

// start starts a process on a machine.
func (n *network) start(machine int, environment []string, name string, args ...string) error {
	log, err := os.OpenFile(filepath.Join(n.installation.Directory, fmt.Sprintf("%s%d.log", filepath.Base(name), machine)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p, err := process.Start(n.installation.Directory, environment, log, "ip", append([]string{"netns", "exec", n.machine(machine), name}, args...)...)
	if err == nil {
		n.processes = append(n.processes, p) // ip becomes the program
	}
	return err
}

// startRedis starts Redis and Sentinel as docs/operating.md says. The first is primary.
func (n *network) startRedis(i int) error {
	directory := filepath.Join(n.installation.Directory, fmt.Sprint("redis", i))
	if err := os.Mkdir(directory, 0o700); err != nil {
		return err
	}
	args := append([]string{"--bind", "0.0.0.0", "--protected-mode", "no", "--dir", directory, "--save", "", "--repl-diskless-sync-delay", "0", "--repl-timeout", "10",
		"--min-replicas-to-write", "1", "--min-replicas-max-lag", "1"}, process.Always...)
	if i > 0 {
		args = append(args, "--replicaof", address(0), "6379")
	}
	config := filepath.Join(directory, "sentinel.conf")
	text := fmt.Sprintf("bind 0.0.0.0\nprotected-mode no\ndir %s\nsentinel monitor primary %s 6379 2\n"+
		"sentinel down-after-milliseconds primary 5000\nsentinel failover-timeout primary 10000\n", directory, address(0))
	return errors.Join(os.WriteFile(config, []byte(text), 0o600), n.start(i, nil, "redis-server", args...), n.start(i, nil, "redis-server", config, "--sentinel", "--port", "26379"))
}

func (n *network) startServer(i int) error {
	environment := []string{"AUTHSERVER_LISTEN=localhost:" + n.installation.Port, fmt.Sprint("AUTHSERVER_DATA=data", i), "AUTHSERVER_MASTER_KEY_FILE=master.key"}
	if err := n.start(i, environment, n.installation.Binary, "serve"); err != nil {
		return err
	}
	if err := await("authserver is not ready", func() bool {
		response, err := n.clients[i].Get(n.installation.Base + "/readyz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}); err != nil {
		log, _ := os.ReadFile(filepath.Join(n.installation.Directory, fmt.Sprintf("authserver%d.log", i)))
		return fmt.Errorf("%w: %s", err, log[max(0, len(log)-2000):])
	}
	return nil
}

// dialIn dials from inside a machine: a socket belongs to the namespace of the thread
// that makes it.
func (n *network) dialIn(machine int) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		_, port, _ := net.SplitHostPort(addr)
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return nil, err
		}
		defer own.Close()
		there, err := os.Open("/run/netns/" + n.machine(machine))
		if err != nil {
			return nil, err
		}
		defer there.Close()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			return nil, err
		}
		connection, err := new(net.Dialer).DialContext(ctx, "tcp4", "127.0.0.1:"+port)
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // otherwise the thread ends with its goroutine
		}
		return connection, err
	}
}

// ask asks a Redis or a Sentinel from its own machine.
func (n *network) ask(machine int, port string, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	output, err := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.machine(machine), "redis-cli", "-p", port}, command...)...).Output()
	return string(output), err
}

// primary is the machine that all Sentinels call primary.
func (n *network) primary() (machine int, err error) {
	err = await("the Sentinels do not agree", func() bool {
		first, err := n.told(0)
		for i := 1; err == nil && i < machines; i++ {
			var other int
			if other, err = n.told(i); other != first {
				return false
			}
		}
		machine = first
		return err == nil
	})
	return machine, err
}

// primaryBy is the machine that both others than one call primary.
func (n *network) primaryBy(cut int) (int, error) {
	first, err := n.told((cut + 1) % machines)
	second, err2 := n.told((cut + 2) % machines)
	if first != second {
		return 0, errors.New("they do not agree")
	}
	return first, errors.Join(err, err2)
}

func (n *network) told(by int) (int, error) {
	text, err := n.ask(by, "26379", "sentinel", "get-master-addr-by-name", "primary")
	host, _, _ := strings.Cut(text, "\n")
	for i := range machines {
		if host == address(i) {
			return i, err
		}
	}
	return 0, errors.Join(err, fmt.Errorf("the primary is %q", text))
}

// whole reports whether the Sentinels agree, know each other and all replicas follow.
func (n *network) whole() bool {
	primary, err := n.primary()
	if err != nil {
		return false
	}
	text, err := n.ask(primary, "6379", "info", "replication")
	if err != nil || strings.Count(text, "state=online") != machines-1 {
		return false
	}
	for i := range machines {
		if text, err := n.ask(i, "26379", "info", "sentinel"); err != nil || !strings.Contains(text, "status=ok") || !strings.Contains(text, "slaves=2,sentinels=3") {
			return false
		}
	}
	return true
}

// answer is what an authserver answered; a status of 0 is no answer.
type answer struct {
	Status int
	Body   struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		Error        string `json:"error"`
		Active       bool   `json:"active"`
	}
}

// post sends a form to the authserver of a machine, as if from an address of its own.
func (n *network) post(person, machine int, path string, form url.Values) (a answer) {
	request, err := http.NewRequest(http.MethodPost, n.installation.Base+path, strings.NewReader(form.Encode()))
	if err != nil {
		return a
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", person+1))
	request.SetBasicAuth(process.ClientID, process.Secret)
	response, err := n.clients[machine].Do(request)
	if err != nil {
		return a
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil || len(body) > 0 && json.Unmarshal(body, &a.Body) != nil {
		return answer{}
	}
	a.Status = response.StatusCode
	return a
}

func await(what string, reached func() bool) error {
	for deadline := time.Now().Add(60 * time.Second); !reached(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New(what)
		}
	}
	return nil
}

// close ends the processes and removes the namespaces.
func (n *network) close() {
	for _, p := range n.processes {
		p.Kill()
	}
	for i := range machines {
		ip("netns", "del", n.machine(i))
	}
	ip("netns", "del", n.name)
	if n.installation != nil {
		n.installation.Remove()
	}
}
