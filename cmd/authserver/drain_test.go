package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/internal/timetest"
	"authserver/verifier"
)

// ATTACKS FT-35: a server that is told to stop says so on /readyz at once, and goes on to
// answer whoever comes: over connections that were there, over new ones, and over the
// streams of the feed. A second signal ends it.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	directory, port := t.TempDir(), freePort(t)
	text := fmt.Sprintf(apiConfig, port, directory)
	if err := os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	issuer := "http://localhost:" + port
	p := start(t, directory, issuer, []string{"AUTHSERVER_DRAIN_DELAY=5m"}, "serve")
	v, err := verifier.New(t.Context(), verifier.Config{Issuer: issuer, Audience: "https://api.example.com", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	good, bad := serviceToken(t, issuer), serviceToken(t, issuer)
	becomes(t, v, good, "")
	kept := dialed(t, "localhost:"+port)
	timetest.Await(t, "/readyz says that it is", func() bool { return ask(kept, "/readyz") == 200 })

	p.Process.Signal(syscall.SIGTERM)
	timetest.Await(t, "/readyz says so", func() bool {
		response, err := http.Get(issuer + "/readyz")
		if err != nil {
			t.Fatalf("a new connection: %v", err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode == 503 && strings.Contains(string(body), "stopping") && response.Close
	})
	fmt.Fprint(kept, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if response, err := http.ReadResponse(bufio.NewReader(kept), nil); err != nil || response.StatusCode != 200 || !response.Close {
		t.Errorf("a connection that was there: %+v %v, want 200 and a farewell", response, err)
	}
	// The log of revocations and the stream go on.
	revokeToken(t, issuer, bad)
	becomes(t, v, bad, verifier.Revoked)
	becomes(t, v, good, "")
	becomes(t, v, serviceToken(t, issuer), "")

	p.Process.Signal(syscall.SIGTERM)
	p.Wait()
	if status := p.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("a second signal: %v, want the end\n%s", p.ProcessState, p.text())
	}

	// Who stops it from a terminal does not wait for balancers, nor for streams.
	p = start(t, directory, issuer, []string{"AUTHSERVER_DRAIN_DELAY=5m"}, "serve")
	stream := dialed(t, "localhost:"+port)
	fmt.Fprint(stream, "GET /revocations HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
	frames, err := http.ReadResponse(bufio.NewReader(stream), nil)
	if err != nil || frames.StatusCode != 200 {
		t.Fatalf("the stream: %+v %v", frames, err)
	}
	p.Process.Signal(syscall.SIGINT)
	if _, err := io.Copy(io.Discard, frames.Body); err != nil {
		t.Errorf("the stream did not end in peace: %v", err)
	}
	if err := p.Wait(); err != nil || !strings.Contains(p.text(), `"state":"stopped"`) {
		t.Errorf("SIGINT: %v\n%s", err, p.text())
	}
}

// stopping is a server that stops when it is told to, and closes its listener when it is
// told that, too.
type stopping struct {
	url         string
	stop, close context.CancelFunc
	ended       chan error
}

func newStopping(t *testing.T, of *authservertest.Server, withTLS *tls.Config) *stopping {
	t.Helper()
	config := authservertest.Config(of.Issuer)
	config.Store, config.Keys, config.Logger = of.Store, of.Keys, slog.New(slog.DiscardHandler)
	server, err := authserver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stopping{url: "http://" + listener.Addr().String(), ended: make(chan error, 1)}
	public := httpServer(server.Handler(), config.Logger)
	if withTLS != nil {
		s.url, public.TLSConfig = "https://"+listener.Addr().String(), withTLS.Clone()
	}
	stopped, stop := context.WithCancel(t.Context())
	closing, closeNow := context.WithCancel(t.Context())
	s.stop, s.close = stop, closeNow
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.ended <- serveUntil(stopped, public, listener, config.Logger, func() {
			server.Drain()
			<-closing.Done()
		})
	}()
	t.Cleanup(func() { closeNow(); stop(); <-served })
	return s
}

// ATTACKS FT-35: clients that keep their connections, behind a balancer that goes by
// /readyz, lose no request to a server that stops under load; nor do those who have sent
// one over a connection that was idle all the while, or have begun one.
func TestStopLosesNoRequest(t *testing.T) {
	t.Parallel()
	of := authservertest.New(t, authservertest.Options{})
	t.Run("HTTP/1.1", func(t *testing.T) { stopUnderLoad(t, of, nil) })
	certificate := httptest.NewTLSServer(nil)
	certificate.Close()
	t.Run("HTTP/2", func(t *testing.T) { stopUnderLoad(t, of, &tls.Config{Certificates: certificate.TLS.Certificates}) })
}

func stopUnderLoad(t *testing.T, of *authservertest.Server, withTLS *tls.Config) {
	going, staying := newStopping(t, of, withTLS), newStopping(t, of, withTLS)
	var balanced atomic.Pointer[stopping] // where the balancer sends requests
	balanced.Store(going)
	// Counted: answers of the one that goes, those of them over a new connection, and those of the other.
	type client struct{ going, anew, staying atomic.Int64 }
	clients := make([]client, 8)
	var over atomic.Bool
	var running sync.WaitGroup
	for n := range clients {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		t.Cleanup(transport.CloseIdleConnections)
		c := &clients[n]
		running.Go(func() {
			for !over.Load() && !t.Failed() {
				at := balanced.Load()
				request, err := http.NewRequest("POST", at.url+"/token", strings.NewReader("grant_type=client_credentials"))
				if err != nil {
					t.Error(err)
					return
				}
				if withTLS == nil {
					request.GetBody = nil // the transport does not send it again by itself, as HTTP/2 has it (RFC 9113 §8.7)
				}
				reused := false
				request = request.WithContext(httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{
					GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
				}))
				request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				request.SetBasicAuth("service", authservertest.Secret)
				response, err := transport.RoundTrip(request)
				if err != nil {
					t.Errorf("a request was lost: %v", err)
					return
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
				switch {
				case response.StatusCode != 200 || (response.ProtoMajor == 2) != (withTLS != nil):
					t.Errorf("a request was refused: %s %s", response.Proto, response.Status)
				case at == staying:
					c.staying.Add(1)
				case !reused:
					c.anew.Add(1)
					fallthrough
				default:
					c.going.Add(1)
				}
			}
		})
	}
	t.Cleanup(func() { over.Store(true); running.Wait() })
	each := func(what string, count func(c *client) int64) {
		t.Helper()
		for n := range clients {
			until := count(&clients[n]) + 2
			timetest.Await(t, what, func() bool { return t.Failed() || count(&clients[n]) >= until })
		}
	}
	each("clients are answered", func(c *client) int64 { return c.going.Load() })
	_, address, _ := strings.Cut(going.url, "://")
	stay := func() net.Conn {
		connection := dialed(t, address)
		if withTLS != nil {
			return tls.Client(connection, &tls.Config{InsecureSkipVerify: true}) // over which HTTP/1.1 is spoken
		}
		return connection
	}
	idle, half := stay(), stay()
	if status := ask(idle, "/healthz"); status != 200 {
		t.Fatalf("/healthz: %d", status)
	}
	fmt.Fprint(half, "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 29\r\nExpect: 100-continue\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nAuthorization: Basic "+base64.StdEncoding.EncodeToString([]byte("service:"+authservertest.Secret))+"\r\n\r\n")
	reader := bufio.NewReader(half)
	if line, err := reader.ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	reader.ReadString('\n')

	going.stop()
	each("clients are told to close their connections", func(c *client) int64 { return c.anew.Load() })
	if status := ask(stay(), "/readyz"); status != 503 {
		t.Fatalf("/readyz: %d, want 503", status)
	}
	balanced.Store(staying)
	each("clients go elsewhere", func(c *client) int64 { return c.staying.Load() })
	going.close()
	timetest.Await(t, "connections are taken", func() bool {
		connection, err := net.Dial("tcp", address)
		if err == nil {
			connection.Close()
		}
		return err != nil
	})
	if !ended(idle) {
		t.Error("an idle connection is open")
	}
	fmt.Fprint(half, "grant_type=client_credentials")
	if response, err := http.ReadResponse(reader, nil); err != nil || response.StatusCode != 200 {
		t.Errorf("a request that was begun: %+v %v", response, err)
	}
	if err := <-going.ended; err != nil {
		t.Error(err)
	}
	over.Store(true)
	running.Wait()
}

// When idle connections are closed at the end, one over which a request has come in that
// nobody has read yet is not, nor one whose request is being read.
func TestRequestsInIdleConnectionsAreAnswered(t *testing.T) {
	bounded, near, far := idleConnections(t, 3)
	fmt.Fprint(far[0], "GET /")
	timetest.Await(t, "it has come in", func() bool { return hasRequest(near[0]) })
	fmt.Fprint(far[1], "GET /")
	near[1].SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(near[1], make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	released := make(chan struct{})
	go func() { defer close(released); bounded.release(t.Context()) }()
	if !ended(far[2]) {
		t.Error("the idle one is open")
	}
	select {
	case <-released:
		t.Error("nobody waits for requests that have come in")
	default:
	}
	near[0].SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(near[0], make([]byte, 5)); err != nil {
		t.Errorf("a request that has come in: %v", err)
	}
	for n := range 2 {
		bounded.changed(near[n], http.StateActive)
		fmt.Fprint(near[n], "HTTP/")
		if _, err := io.ReadFull(far[n], make([]byte, 5)); err != nil {
			t.Errorf("its answer: %v", err)
		}
	}
	<-released
}
