package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// measureFirstStarts prints how long a server takes from exec to its first token
// where nothing is there yet: store, master key and signing keys are made.
func measureFirstStarts(binary string, rounds int) error {
	var taken []time.Duration
	for range rounds {
		directory, base, err := prepare(binary, "", 0)
		if err != nil {
			return err
		}
		server, began, err := start(binary, directory, base, os.Stderr)
		if err == nil {
			taken = append(taken, began)
			stop(server)
		}
		if err := errors.Join(err, os.RemoveAll(directory)); err != nil {
			return err
		}
	}
	slices.Sort(taken)
	fmt.Printf("\nfirst start, from exec to the first token, embedded store, keys made: %d / %d / %d ms (min / median / max of %d)\n",
		taken[0].Milliseconds(), taken[len(taken)/2].Milliseconds(), taken[len(taken)-1].Milliseconds(), len(taken))
	return nil
}

// measureSignIns signs people in, all at the same time, and prints how much memory
// the server took at most. Each is repeated as Retry-After says until it is done.
func measureSignIns(binary string, people int) error {
	directory, base, err := prepare(binary, "", people)
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	server, _, err := start(binary, directory, base, io.Discard) // it logs everybody whom it tells to come back
	if err != nil {
		return err
	}
	defer stop(server)
	time.Sleep(2 * time.Second) // RS256 keys are made in the background
	pid := server.Process.Pid
	before := residentMiB(pid)
	busy, failures := make([]int, people), make([]error, people)
	began := time.Now()
	var wait sync.WaitGroup
	for i := range people {
		wait.Go(func() { busy[i], failures[i] = signIn(base, i) })
	}
	wait.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	repeated := 0
	for _, n := range busy {
		repeated += n
	}
	fmt.Printf("\n%d people sign in at once (argon2id, 19 MiB each): all in after %.1f s, %d times told to come back, "+
		"resident %.0f MiB before and %.0f MiB at most, %d cores\n",
		people, time.Since(began).Seconds(), repeated, before, peakMiB(pid), runtime.NumCPU())
	return nil
}

// signIn returns how often it had to come back.
func signIn(base string, i int) (busy int, err error) {
	form := url.Values{"grant_type": {"password"}, "username": {fmt.Sprintf("user%d", i)}, "password": {"wonderland"}}
	for {
		request, err := http.NewRequest("POST", base+"/token", strings.NewReader(form.Encode()))
		if err != nil {
			return busy, err
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i%250)) // or one address would be slowed down
		request.SetBasicAuth("web", secret)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return busy, err
		}
		response.Body.Close()
		switch response.StatusCode {
		case http.StatusOK:
			return busy, nil
		case http.StatusServiceUnavailable, http.StatusTooManyRequests:
			busy++
			seconds, _ := time.ParseDuration(response.Header.Get("Retry-After") + "s")
			time.Sleep(max(seconds, 100*time.Millisecond))
		default:
			return busy, errors.New(response.Status)
		}
	}
}

// prepare makes a directory with a configuration for a store, with alice and
// further people, and returns it and where the server will be.
func prepare(binary, store string, people int) (directory, base string, err error) {
	if directory, err = os.MkdirTemp("", "authserver-bench-"); err != nil {
		return "", "", err
	}
	phc, err := hashPassword(binary)
	if err != nil {
		return "", "", err
	}
	port, err := freePort()
	if err != nil {
		return "", "", err
	}
	users := fmt.Sprintf("{username: alice, password_hash: %q}", phc)
	for i := range people {
		users += fmt.Sprintf(", {username: user%d, password_hash: %q}", i, phc)
	}
	config := fmt.Sprintf("issuer: http://localhost:%s\nlisten: localhost:%s\nmetrics_listen: \"off\"\nlog: {level: error}\n%s"+
		"trusted_proxies: [127.0.0.0/8, \"::1/128\"]\n"+
		"clients: [{client_id: web, client_secret: %s, grant_types: [password, refresh_token, client_credentials], scope: profile}]\n"+
		"users: [%s]\n", port, port, store, secret, users)
	return directory, "http://localhost:" + port, os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(config), 0o600)
}

// peakMiB is the most that a process has had resident.
func peakMiB(pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	var kB float64
	fmt.Sscan(after, &kB)
	return kB / 1024
}
