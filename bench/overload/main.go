// Command overload puts more on a server than it can do, and says what becomes of those
// who ask for what it can: five times its peak, a flood of sign-ins, clients that send
// slowly, and thousands of connections that do nothing.
//
//	make build && (cd bench && go run ./overload)
//
// The server has one CPU to itself and the load generator another, where there are two.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"authserver/bench/internal/process"
)

const (
	lateness = time.Second            // an answer that comes later is no good to anybody
	tooLate  = lateness / 10          // to be sent: there was no free connection
	patience = 10 * time.Second       // of a client for one answer
	rest     = 500 * time.Millisecond // between two scenes
)

var connections, memory int

func main() {
	binary := flag.String("binary", "../bin/authserver", "the server")
	duration := flag.Duration("for", 30*time.Second, "of the overload, and of each scene")
	flag.IntVar(&connections, "connections", 1500, "that the overload comes over; what finds none free in a tenth of a second is not sent")
	times := flag.Float64("times", 5, "the overload, in peaks")
	flag.IntVar(&memory, "memory", 0, "MiB that the server may have, by a cgroup (root only); GOMEMLIMIT is nine tenths of it")
	only := flag.String("only", "overload,signins,slow,idle", "scenes")
	flag.Parse()
	if err := run(*binary, *duration, *times, strings.Split(*only, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "overload:", err)
		os.Exit(1)
	}
}

func run(binary string, duration time.Duration, times float64, scenes []string) error {
	for _, scene := range []struct {
		name string
		pin  bool
		play func(*process.Installation, *process.Process, time.Duration, float64) error
	}{{"overload", true, overload}, {"signins", false, signIns}, {"slow", true, slow}, {"idle", true, idle}} {
		if !slices.Contains(scenes, scene.name) {
			continue
		}
		installation, err := process.Install(binary, process.Options{People: 500})
		if err != nil {
			return err
		}
		defer installation.Remove()
		if scene.pin {
			pin("0")
		}
		if memory > 0 {
			os.Setenv("GOMEMLIMIT", fmt.Sprintf("%dMiB", memory*9/10))
		}
		server, err := installation.Start()
		if scene.pin {
			pin("1")
		}
		if err != nil {
			return err
		}
		release, err := confine(server.ID())
		if err != nil {
			server.Stop()
			return err
		}
		fmt.Printf("\n%s\n", scene.name)
		err = scene.play(installation, server, duration, times)
		if err == nil && memory > 0 && !server.Alive() {
			err = errors.New("the server was killed: it wanted more memory than it may have")
		}
		server.Stop()
		release()
		pin("0,1")
		if err != nil {
			return fmt.Errorf("%s: %w", scene.name, err)
		}
		time.Sleep(rest)
	}
	return nil
}

// confine lets a process have no more than so much memory (ATTACKS FT-51).
func confine(process int) (release func(), err error) {
	if memory == 0 {
		return func() {}, nil
	}
	group, limit := "/sys/fs/cgroup/authserver-overload", "memory.max"
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil { // version 1
		group, limit = "/sys/fs/cgroup/memory/authserver-overload", "memory.limit_in_bytes"
	}
	if err := os.Mkdir(group, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := os.WriteFile(group+"/"+limit, []byte(strconv.Itoa(memory<<20)), 0o600); err != nil {
		return nil, err
	}
	return func() { os.Remove(group) }, os.WriteFile(group+"/cgroup.procs", []byte(strconv.Itoa(process)), 0o600)
}

// pin moves this process to CPUs; a server that it starts stays there.
func pin(cpus string) {
	if err := exec.Command("taskset", "-acp", cpus, strconv.Itoa(os.Getpid())).Run(); err != nil {
		fmt.Println("(not pinned to CPUs of their own: taskset failed)")
	}
}

// asker sends one prepared request again and again over one connection.
type asker struct {
	address, request string
	connection       net.Conn
	in               *bufio.Reader
}

func newAsker(i *process.Installation, form url.Values) *asker {
	body := form.Encode()
	r, _ := http.NewRequest("POST", "/token", nil)
	r.SetBasicAuth(process.ClientID, process.Secret)
	return &asker{address: "localhost:" + i.Port, request: fmt.Sprintf("POST /token HTTP/1.1\r\nHost: localhost:%s\r\nAuthorization: %s\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", i.Port, r.Header.Get("Authorization"), len(body), body)}
}

var clientCredentials = url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}}

func signIn(user int) url.Values {
	return url.Values{"grant_type": {"password"}, "username": {fmt.Sprintf("user%d", user)}, "password": {process.Password}, "scope": {"orders:read"}}
}

// ask returns the status of the answer, or 0 when there is none.
func (a *asker) ask() int {
	status, err := a.try()
	if err != nil && a.connection != nil {
		a.connection.Close()
		a.connection = nil
	}
	return status
}

func (a *asker) try() (int, error) {
	if a.connection == nil {
		connection, err := net.DialTimeout("tcp", a.address, patience)
		if err != nil {
			return 0, err
		}
		a.connection, a.in = connection, bufio.NewReader(connection)
	}
	a.connection.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(a.connection, a.request); err != nil {
		return 0, err
	}
	response, err := http.ReadResponse(a.in, nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, response.Body)
	if response.Close {
		err = errors.New("closed by the server")
	}
	return response.StatusCode, err
}

// outcome is what came of the requests that were due in one second, or in all.
type outcome struct {
	mu                          sync.Mutex
	good, late, refused, failed int
	unsent                      int
	took                        []time.Duration // of the good ones
}

func (o *outcome) add(status int, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case status == 200 && took <= lateness:
		o.good++
		o.took = append(o.took, took)
	case status == 200:
		o.late++
	case status == 503 || status == 429:
		o.refused++
	default:
		o.failed++
	}
}

func (o *outcome) percentile(p float64) time.Duration {
	if len(o.took) == 0 {
		return 0
	}
	slices.Sort(o.took)
	return o.took[min(len(o.took)-1, int(float64(len(o.took))*p/100))]
}

func (o *outcome) String() string {
	return fmt.Sprintf("%d in time (p50 %s, p99 %s), %d late, %d refused, %d failed, %d not sent", o.good, round(o.percentile(50)), round(o.percentile(99)), o.late, o.refused, o.failed, o.unsent)
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// closed asks as fast as askers are answered.
func closed(askers []*asker, duration time.Duration) *outcome {
	all := new(outcome)
	var wait sync.WaitGroup
	for began, i := time.Now(), 0; i < len(askers); i++ {
		wait.Go(func() {
			for time.Since(began) < duration {
				sent := time.Now()
				all.add(askers[i].ask(), time.Since(sent))
			}
		})
	}
	wait.Wait()
	return all
}

// open asks at a rate, whatever becomes of it, and returns what came of each second.
// One that is due while no connection is free waits a little, and is then not sent.
func open(askers []*asker, rate float64, duration time.Duration) []*outcome {
	seconds := make([]*outcome, int(math.Ceil(duration.Seconds())))
	for i := range seconds {
		seconds[i] = new(outcome)
	}
	var next atomic.Int64
	var wait sync.WaitGroup
	for began, i := time.Now(), 0; i < len(askers); i++ {
		wait.Go(func() {
			for {
				due := time.Duration(float64(next.Add(1)-1) / rate * float64(time.Second))
				if due >= duration {
					return
				}
				second := seconds[int(due.Seconds())]
				time.Sleep(time.Until(began.Add(due)))
				if time.Since(began)-due > tooLate {
					second.mu.Lock()
					second.unsent++
					second.mu.Unlock()
					continue
				}
				second.add(askers[i].ask(), time.Since(began)-due)
			}
		})
	}
	wait.Wait()
	return seconds
}

func sum(seconds []*outcome) *outcome {
	all := new(outcome)
	for _, s := range seconds {
		all.good, all.late, all.refused, all.failed, all.unsent = all.good+s.good, all.late+s.late, all.refused+s.refused, all.failed+s.failed, all.unsent+s.unsent
		all.took = append(all.took, s.took...)
	}
	return all
}

func askersFor(i *process.Installation, n int) (all []*asker) {
	for range n {
		all = append(all, newAsker(i, clientCredentials))
	}
	return all
}

// overload is ATTACKS LD-19.
func overload(i *process.Installation, server *process.Process, duration time.Duration, times float64) error {
	closed(askersFor(i, 64), 2*time.Second)
	peak := closed(askersFor(i, 64), 10*time.Second)
	rate := float64(peak.good) / 10
	fmt.Printf("peak: %.0f tokens a second: %v\n", rate, peak)
	many := askersFor(i, connections)
	during := sum(open(many, times*rate, duration))
	goodput := float64(during.good) / duration.Seconds()
	fmt.Printf("%.0f times that for %s: %.0f tokens a second, %.0f %% of the peak: %v\n", times, duration, goodput, 100*goodput/rate, during)
	after := open(many[:64], rate/2, 10*time.Second)
	recovered := len(after)
	for recovered > 0 && after[recovered-1].good > 0 && after[recovered-1].late+after[recovered-1].refused+after[recovered-1].failed+after[recovered-1].unsent == 0 {
		recovered--
	}
	fmt.Printf("half the peak afterwards: %v; all is well from second %d on; %.0f MiB at most\n", sum(after), recovered, server.PeakMiB())
	return nil
}

// signIns is ATTACKS LD-08: tokens beside a flood of sign-ins, which have right
// passwords, so that nothing but their cost slows them down.
func signIns(i *process.Installation, server *process.Process, duration time.Duration, _ float64) error {
	const rate, flooding = 200, 200 // a second; a CPU hashes about 34 passwords in it
	askers := askersFor(i, 100)
	open(askers, rate, 2*time.Second)
	before := sum(open(askers, rate, duration))
	fmt.Printf("%d tokens a second: %v\n", rate, before)
	var flood []*asker
	for user := range 400 {
		a := newAsker(i, signIn(user))
		// From everywhere, or the addresses are slowed down and no password is looked at.
		a.request = strings.Replace(a.request, "\r\n", fmt.Sprintf("\r\nX-Forwarded-For: 10.1.%d.%d\r\n", user/250, user%250), 1)
		flood = append(flood, a)
	}
	flooded := make(chan *outcome)
	go func() { flooded <- sum(open(flood, flooding, duration)) }()
	during := sum(open(askers, rate, duration))
	fmt.Printf("beside a flood of sign-ins: %v\n", during)
	fmt.Printf("  p50 %.1f times, p99 %.1f times; %.0f MiB at most\n", ratio(during, before, 50), ratio(during, before, 99), server.PeakMiB())
	fmt.Printf("the sign-ins: %v\n", <-flooded)
	return nil
}

func ratio(a, b *outcome, p float64) float64 {
	return float64(a.percentile(p)) / float64(max(b.percentile(p), 1))
}

// slow is ATTACKS LD-21: tokens beside two thousand clients that send a header byte now
// and then, and come back when they are cut off.
func slow(i *process.Installation, server *process.Process, duration time.Duration, _ float64) error {
	const rate, lorises = 200, 2000
	askers := askersFor(i, 100)
	open(askers, rate, 2*time.Second)
	fmt.Printf("%d tokens a second: %v\n", rate, sum(open(askers, rate, duration)))
	ended, cut := make(chan struct{}), atomic.Int64{}
	var wait sync.WaitGroup
	for range lorises {
		wait.Go(func() {
			for {
				connection, err := net.Dial("tcp", "localhost:"+i.Port)
				for sent := "GET / HTTP/1.1\r\nX-"; err == nil; sent = "a" {
					_, err = io.WriteString(connection, sent)
					select {
					case <-ended:
						connection.Close()
						return
					case <-time.After(time.Second):
					}
				}
				if connection != nil {
					connection.Close()
				}
				cut.Add(1)
			}
		})
	}
	time.Sleep(3 * time.Second) // until all have come
	fmt.Printf("beside %d slow clients: %v", lorises, sum(open(askers, rate, duration)))
	close(ended)
	wait.Wait()
	fmt.Printf("; they were cut off %d times; %.0f MiB at most\n", cut.Load(), server.PeakMiB())
	return nil
}

// idle is ATTACKS HT-07: ten thousand connections that were used once.
func idle(i *process.Installation, server *process.Process, duration time.Duration, _ float64) error {
	const connections = 10_000 // more than may be idle
	before := server.ResidentMiB()
	for _, a := range askersFor(i, connections) {
		if status := a.ask(); status != 200 {
			return fmt.Errorf("status %d", status)
		}
		defer func() {
			if a.connection != nil {
				a.connection.Close()
			}
		}()
	}
	fmt.Printf("%d connections: %.0f MiB, before %.0f\n", connections, server.ResidentMiB(), before)
	fmt.Printf("200 tokens a second beside them: %v\n", sum(open(askersFor(i, 100), 200, min(duration, 10*time.Second))))
	return nil
}
