// Command timing compares how long a built authserver takes to refuse an unknown
// client and a wrong secret (ATTACKS CA-10). The two are asked for in turns, each
// by an id that was never seen before respectively by one that is configured; it
// fails when their medians differ by 5 % or 0.2 ms. Then it compares, likewise in
// turns, secrets of which the first and of which the last byte is wrong (ATTACKS
// CA-11); it fails when their means differ by Welch's t-test with p < 0.01. And it
// compares refresh tokens that are refused for different reasons (ATTACKS LG-07); it
// fails when their medians differ by 0.3 ms; and wrong passwords of users who exist and of
// nobody (ATTACKS BF-06); it fails when their medians differ by 5 %.
//
//	make build && (cd bench && go run ./timing)
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const right = "0123456789abcdef0123456789abcdef"

const config = `issuer: http://localhost:%[1]s
listen: localhost:%[1]s
metrics_listen: "off"
drain_delay: 0s
trusted_proxies: [127.0.0.0/8, "::1/128"]
log: {level: error}
clients: [{client_id: known, client_secret: 0123456789abcdef0123456789abcdef, grant_types: [client_credentials]}]
`

func main() {
	binary := flag.String("binary", "../bin/authserver", "the server to measure")
	each := flag.Int("each", 2000, "refusals of an unknown client, of a wrong secret, and of a refresh token for each reason")
	prefixes := flag.Int("prefixes", 50_000, "refusals of secrets with the first byte wrong, and with the last")
	users := flag.Int("users", 300, "wrong passwords of users and of nobody, by the password grant and on the page")
	flag.Parse()
	path, err := filepath.Abs(*binary)
	if err == nil {
		err = errors.Join(run(path, *each, *prefixes), compareRefreshes(path, *each), compareUsers(path, *users))
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(binary string, each, prefixes int) error {
	directory, err := os.MkdirTemp("", "authserver-timing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	listener.Close()
	if err := os.WriteFile(filepath.Join(directory, "authserver.yaml"), fmt.Appendf(nil, config, port), 0o600); err != nil {
		return err
	}
	server := exec.Command(binary, "serve")
	server.Dir, server.Stderr = directory, os.Stderr
	if err := server.Start(); err != nil {
		return err
	}
	defer func() { server.Process.Signal(syscall.SIGTERM); server.Wait() }()
	base := "http://localhost:" + port
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if response, err := http.Get(base + "/readyz"); err == nil {
			response.Body.Close()
			break
		} else if time.Since(began) > 10*time.Second {
			return errors.New("the server does not answer")
		}
	}
	known, unknown, err := compare(base, each, func(int) (id, secret string) { return "known", "wrong" },
		func(i int) (id, secret string) { return fmt.Sprintf("x%04d", i), "wrong" })
	if err != nil {
		return err
	}
	a, b := known[each/2], unknown[each/2]
	fmt.Printf("median of %d: wrong secret %v, unknown client %v\n", each, a, b)
	if difference := (a - b).Abs(); float64(difference) >= 0.05*float64(a) || difference >= 200*time.Microsecond {
		return fmt.Errorf("they differ by %v", difference)
	}
	first, last, err := compare(base, prefixes, func(int) (id, secret string) { return "known", "X" + right[1:] },
		func(int) (id, secret string) { return "known", right[:len(right)-1] + "X" })
	if err != nil {
		return err
	}
	t := welch(first, last)
	fmt.Printf("mean of %d: first byte wrong %v, last byte wrong %v; t = %.2f\n", prefixes, mean(first), mean(last), t)
	if math.Abs(t) > 2.576 { // p = 0.01, of a normal distribution, which t has for so many
		return fmt.Errorf("how much of a secret is right shows in the time: t = %.2f", t)
	}
	return nil
}

// compare refuses two kinds in turns, and returns their times in order. A hundred
// of each go before.
func compare(base string, each int, one, other func(i int) (id, secret string)) (a, b []time.Duration, err error) {
	for i := range each + 100 {
		id, secret := one(i)
		x, err := refusal(base, id, secret, 2*i)
		id, secret = other(i)
		y, err2 := refusal(base, id, secret, 2*i+1)
		if err := errors.Join(err, err2); err != nil {
			return nil, nil, err
		}
		if i >= 100 {
			a, b = append(a, x), append(b, y)
		}
	}
	slices.Sort(a)
	slices.Sort(b)
	return a, b, nil
}

// crop leaves the slowest tenth out, which tells of the machine.
func crop(sorted []time.Duration) []time.Duration { return sorted[:len(sorted)*9/10] }

func mean(sorted []time.Duration) time.Duration {
	sum := time.Duration(0)
	for _, one := range crop(sorted) {
		sum += one
	}
	return sum / time.Duration(len(crop(sorted)))
}

// welch is the t of Welch's test.
func welch(a, b []time.Duration) float64 {
	variance := func(all []time.Duration) (sum float64) {
		middle := mean(all)
		for _, one := range crop(all) {
			off := float64(one - middle)
			sum += off * off
		}
		n := float64(len(crop(all)))
		return sum / (n - 1) / n
	}
	return float64(mean(a)-mean(b)) / math.Sqrt(variance(a)+variance(b))
}

// refusal is the nth, from an address of its own, or it would be slowed down (ATTACKS BF-07).
func refusal(base, id, secret string, n int) (time.Duration, error) {
	request, err := http.NewRequest("POST", base+"/token", strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(id, secret)
	request.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255))
	began := time.Now()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	taken := time.Since(began)
	defer response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		return 0, errors.New(response.Status)
	}
	buffer := make([]byte, 4096)
	for err == nil { // so that the connection is used again
		_, err = response.Body.Read(buffer)
	}
	return taken, nil
}
