package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"authserver/bench/internal/process"
)

// measureSignIns signs people in by the password grant, all at the same time.
func measureSignIns(s settings) error {
	return withPeople(s, func(base string, server *process.Process) error {
		return allAtOnce(s.people, "by the password grant", server, func(i int) (int, error) { return signIn(base, i) })
	})
}

// withPeople measures a server that knows them.
func withPeople(s settings, measure func(base string, server *process.Process) error) error {
	installation, err := process.Install(s.binary, process.Options{People: s.people})
	if err != nil {
		return err
	}
	defer installation.Remove()
	server, err := installation.Start()
	if err != nil {
		return err
	}
	defer server.Stop()
	time.Sleep(2 * time.Second) // RS256 keys are made in the background
	return measure(installation.Base, server)
}

// allAtOnce signs everybody in at the same time, each as often as it takes, and prints
// what that costs the server and how much memory it took at most.
func allAtOnce(people int, how string, server *process.Process, signIn func(i int) (busy int, err error)) error {
	before, cpu, began := server.ResidentMiB(), server.CPU(), time.Now()
	busy, failures := make([]int, people), make([]error, people)
	var wait sync.WaitGroup
	for i := range people {
		wait.Go(func() { busy[i], failures[i] = signIn(i) })
	}
	wait.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	repeated := 0
	for _, n := range busy {
		repeated += n
	}
	took := time.Since(began).Seconds()
	fmt.Printf("%d people sign in at once %s (argon2id, 19 MiB each): all in after %.1f s, %.0f per second, %.1f ms of server CPU each, "+
		"%d times told to come back, resident %.0f MiB before and %.0f MiB at most, %d cores\n",
		people, how, took, float64(people)/took, float64((server.CPU()-cpu).Milliseconds())/float64(people), repeated, before, server.PeakMiB(), runtime.NumCPU())
	return nil
}

// signing keeps the connections of all who sign in.
var signing = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: maxPeople}}

// signIn returns how often it had to come back.
func signIn(base string, i int) (busy int, err error) {
	form := url.Values{"grant_type": {"password"}, "username": {fmt.Sprintf("user%d", i)}, "password": {process.Password}}
	for {
		request, err := http.NewRequest(http.MethodPost, base+"/token", strings.NewReader(form.Encode()))
		if err != nil {
			return busy, err
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i%250)) // or one address would be slowed down
		request.SetBasicAuth(process.ClientID, process.Secret)
		response, err := signing.Do(request)
		if err != nil {
			return busy, err
		}
		io.Copy(io.Discard, response.Body)
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
