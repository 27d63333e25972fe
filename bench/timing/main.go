// Command timing compares how long a built authserver takes to refuse an unknown
// client and a wrong secret (ATTACKS CA-10). The two are asked for in turns, each
// by an id that was never seen before respectively by one that is configured; it
// fails when their medians differ by 5 % or 0.2 ms.
//
//	make build && (cd bench && go run ./timing)
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
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

const config = `issuer: http://localhost:%[1]s
listen: localhost:%[1]s
metrics_listen: "off"
log: {level: error}
clients: [{client_id: known, client_secret: 0123456789abcdef0123456789abcdef, grant_types: [client_credentials]}]
`

func main() {
	binary := flag.String("binary", "../bin/authserver", "the server to measure")
	each := flag.Int("each", 2000, "refusals of each kind")
	flag.Parse()
	path, err := filepath.Abs(*binary)
	if err == nil {
		err = run(path, *each)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(binary string, each int) error {
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
	var known, unknown []time.Duration
	for i := range each + 100 {
		a, err := refusal(base, "known")
		b, err2 := refusal(base, fmt.Sprintf("x%04d", i))
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if i >= 100 { // warm
			known, unknown = append(known, a), append(unknown, b)
		}
	}
	slices.Sort(known)
	slices.Sort(unknown)
	a, b := known[each/2], unknown[each/2]
	fmt.Printf("median of %d: wrong secret %v, unknown client %v\n", each, a, b)
	if difference := (a - b).Abs(); float64(difference) >= 0.05*float64(a) || difference >= 200*time.Microsecond {
		return fmt.Errorf("they differ by %v", difference)
	}
	return nil
}

func refusal(base, id string) (time.Duration, error) {
	request, err := http.NewRequest("POST", base+"/token", strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(id, "wrong")
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
