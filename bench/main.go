// Command bench measures a built authserver on this machine: start-up, memory, and
// tokens per second on each store. It prints a table for docs/figures.md.
//
//	make build && (cd bench && go run . -binary ../bin/authserver)
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	secret = "0123456789abcdef0123456789abcdef"
)

func main() {
	binary := flag.String("binary", "../bin/authserver", "the server to measure")
	duration := flag.Duration("for", 5*time.Second, "length of one run")
	rounds := flag.Int("rounds", 5, "runs of each operation; the table has their median and spread")
	clients := flag.Int("clients", 16, "parallel clients, each waiting for its answer")
	flag.Parse()
	path, err := filepath.Abs(*binary)
	if err == nil {
		err = run(path, *duration, *rounds, *clients)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(binary string, duration time.Duration, rounds, clients int) error {
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	fmt.Printf("%s, %s/%s, %d cores; binary %.1f MB; %d clients, %d rounds of %s\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), float64(info.Size())/1e6, clients, rounds, duration)
	fmt.Println("| store | exec to first token, keys present | idle resident | operation | per second (min / median / max) | server CPU per operation |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, s := range []struct {
		name string
		args []string
	}{
		{"embedded", nil},
		{"Redis, everysec", []string{"--appendonly", "yes"}},
		{"Redis, always", []string{"--appendonly", "yes", "--appendfsync", "always"}},
	} {
		if err := measureStore(binary, s.name, s.args, duration, rounds, clients); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if err := measureFirstStarts(binary, 2*rounds+1); err != nil {
		return fmt.Errorf("first start: %w", err)
	}
	if err := measureSignIns(binary, 500); err != nil {
		return fmt.Errorf("parallel sign-ins: %w", err)
	}
	return nil
}

func measureStore(binary, name string, redisArgs []string, duration time.Duration, rounds, clients int) error {
	store := ""
	if redisArgs != nil {
		directory, err := os.MkdirTemp("", "authserver-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(directory)
		port, err := freePort()
		if err != nil {
			return err
		}
		redis := exec.Command("redis-server", append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", directory, "--save", ""}, redisArgs...)...)
		if err := redis.Start(); err != nil {
			return err
		}
		defer func() { redis.Process.Kill(); redis.Wait() }()
		store = "store: redis://127.0.0.1:" + port + "\n"
		for { // until it listens
			if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
				c.Close()
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	directory, base, err := prepare(binary, store, 0)
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	first, _, err := start(binary, directory, base, os.Stderr) // makes the keys
	if err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // RS256 keys are made in the background
	stop(first)
	server, began, err := start(binary, directory, base, os.Stderr)
	if err != nil {
		return err
	}
	defer stop(server)
	time.Sleep(time.Second)
	idle := residentMiB(server.Process.Pid)
	for i, operation := range []struct {
		name string
		make func(*http.Client) (func() error, error)
	}{
		{"client_credentials", func(c *http.Client) (func() error, error) {
			return func() error {
				_, err := token(c, base, url.Values{"grant_type": {"client_credentials"}})
				return err
			}, nil
		}},
		{"refresh", func(c *http.Client) (func() error, error) { return refresher(c, base) }},
	} {
		rates, cpu, err := measure(server.Process.Pid, operation.make, duration, rounds, clients)
		if err != nil {
			return err
		}
		start, memory := "", ""
		if i == 0 {
			start, memory = fmt.Sprintf("%d ms", began.Milliseconds()), fmt.Sprintf("%.0f MiB", idle)
		}
		fmt.Printf("| %s | %s | %s | %s | %.0f / %.0f / %.0f | %.0f µs |\n", name, start, memory, operation.name,
			rates[0], rates[len(rates)/2], rates[len(rates)-1], cpu)
	}
	return nil
}

// refresher signs in and returns an operation that moves its own chain on.
func refresher(c *http.Client, base string) (func() error, error) {
	current, err := token(c, base, url.Values{"grant_type": {"password"}, "username": {"alice"}, "password": {"wonderland"}})
	return func() error {
		next, err := token(c, base, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {current.Refresh}})
		if err == nil && next.Refresh == current.Refresh {
			err = errors.New("the refresh token did not rotate")
		}
		current = next
		return err
	}, err
}

// measure runs an operation in a closed loop and returns the rates of all rounds,
// sorted, and the server's CPU per operation in microseconds.
func measure(pid int, prepare func(*http.Client) (func() error, error), duration time.Duration, rounds, clients int) ([]float64, float64, error) {
	var operations []func() error
	for range clients {
		operation, err := prepare(&http.Client{Transport: &http.Transport{}})
		if err != nil {
			return nil, 0, err
		}
		operations = append(operations, operation)
	}
	var rates []float64
	total, before := 0, cpuTime(pid)
	for range rounds {
		counts, failures := make([]int, clients), make([]error, clients)
		began := time.Now()
		var wait sync.WaitGroup
		for i, operation := range operations {
			wait.Go(func() {
				for time.Since(began) < duration && failures[i] == nil {
					failures[i] = operation()
					counts[i]++
				}
			})
		}
		wait.Wait()
		if err := errors.Join(failures...); err != nil {
			return nil, 0, err
		}
		sum := 0
		for _, n := range counts {
			sum += n
		}
		rates = append(rates, float64(sum)/time.Since(began).Seconds())
		total += sum
	}
	slices.Sort(rates)
	return rates, float64((cpuTime(pid) - before).Microseconds()) / float64(total), nil
}

type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

func token(c *http.Client, base string, form url.Values) (tokens, error) {
	request, err := http.NewRequest("POST", base+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		return tokens{}, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth("web", secret)
	response, err := c.Do(request)
	if err != nil {
		return tokens{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		return tokens{}, fmt.Errorf("%s %s %w", response.Status, body, err)
	}
	var answer tokens
	return answer, json.Unmarshal(body, &answer)
}

func hashPassword(binary string) (string, error) {
	command := exec.Command(binary, "user", "hash")
	command.Stdin = strings.NewReader("wonderland\n")
	output, err := command.Output()
	return strings.TrimSpace(string(output)), err
}

// start runs the server and returns how long it took from exec to its first token.
func start(binary, directory, base string, stderr io.Writer) (*exec.Cmd, time.Duration, error) {
	command := exec.Command(binary, "serve")
	command.Dir, command.Stderr = directory, stderr
	began := time.Now()
	if err := command.Start(); err != nil {
		return nil, 0, err
	}
	client := &http.Client{}
	for time.Since(began) < 10*time.Second {
		if _, err := token(client, base, url.Values{"grant_type": {"client_credentials"}}); err == nil {
			return command, time.Since(began), nil
		}
		time.Sleep(time.Millisecond)
	}
	stop(command)
	return nil, 0, errors.New("the server does not answer")
}

func stop(command *exec.Cmd) {
	command.Process.Signal(syscall.SIGTERM)
	command.Wait()
}

func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}

// cpuTime is the CPU that a process has used, from /proc (in ticks of 10 ms).
func cpuTime(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func residentMiB(pid int) float64 {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	pages, _ := strconv.Atoi(strings.Fields(string(statm))[1])
	return float64(pages*os.Getpagesize()) / (1 << 20)
}
