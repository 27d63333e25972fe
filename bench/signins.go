package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"authserver/bench/internal/process"
)

// people is how many sign in at the same time.
const people = 500

// measureSignIns signs people in by their passwords, all at the same time, and
// prints how much memory the server took at most. Each is repeated as Retry-After
// says until it is done.
func measureSignIns(s settings) error {
	installation, err := process.Install(s.binary, process.Options{People: people})
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
	before, cpu := server.ResidentMiB(), server.CPU()
	busy, failures := make([]int, people), make([]error, people)
	began := time.Now()
	var wait sync.WaitGroup
	for i := range people {
		wait.Go(func() { busy[i], failures[i] = signIn(installation.Base, i) })
	}
	wait.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	repeated := 0
	for _, n := range busy {
		repeated += n
	}
	fmt.Printf("%d people sign in at once (argon2id, 19 MiB each): all in after %.1f s, %.1f ms of server CPU each, "+
		"%d times told to come back, resident %.0f MiB before and %.0f MiB at most, %d cores\n",
		people, time.Since(began).Seconds(), float64((server.CPU()-cpu).Milliseconds())/people, repeated, before, server.PeakMiB(), runtime.NumCPU())
	return nil
}

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
