package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authserver/internal/timetest"
)

// patience is for what must happen, on however slow a machine.
const patience = time.Minute

// syncBuffer is a log to look into.
type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String()
}

// serveBounded serves a handler as serveUntil does, with other bounds.
func serveBounded(t *testing.T, handler http.Handler, configure func(*connections, *http.Server)) (address string, bounded *connections, log *syncBuffer) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log = new(syncBuffer)
	logger := slog.New(slog.NewTextHandler(log, nil))
	bounded = boundConnections(listener, logger)
	server := httpServer(handler, logger)
	server.ConnState = bounded.changed
	if configure != nil {
		configure(bounded, server)
	}
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(bounded) }()
	t.Cleanup(func() { server.Close(); bounded.Close(); <-served })
	return listener.Addr().String(), bounded, log
}

// dialed is a connection that ends with the test.
func dialed(t *testing.T, address string) net.Conn {
	t.Helper()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	connection.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { connection.Close() })
	return connection
}

// ask sends a request on a connection and returns the status of the answer, or 0.
func ask(connection net.Conn, path string) int {
	fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		return 0
	}
	io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// ended reports whether a connection ends before its deadline.
func ended(connection net.Conn) bool {
	_, err := connection.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// ATTACKS HT-07: idle connections are bounded, and when there is no room for one more,
// the one that has been idle for longest makes it. Who is being served is left alone.
func TestAttackHT07(t *testing.T) {
	release := make(chan struct{})
	busy := atomic.Int32{}
	address, bounded, log := serveBounded(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			busy.Add(1)
			<-release
		}
	}), func(c *connections, _ *http.Server) { c.room, c.idlers = 5, 3 })
	count := func() (open, idle int) {
		bounded.mu.Lock()
		defer bounded.mu.Unlock()
		return bounded.open, bounded.idle.Len()
	}
	var idle []net.Conn
	for i := range 4 {
		idle = append(idle, dialed(t, address))
		if ask(idle[i], "/") != 200 {
			t.Fatal("no answer")
		}
		timetest.Await(t, "it is idle", func() bool { _, n := count(); return n == min(i+1, 3) })
	}
	if !ended(idle[0]) { // the fourth idle one was too many
		t.Error("the one that was idle for longest is still open")
	}
	var slow sync.WaitGroup
	for range 5 { // room for two more, and the three idle ones make room
		connection := dialed(t, address)
		slow.Go(func() {
			if status := ask(connection, "/slow"); status != 200 {
				t.Errorf("one that was being served: %d", status)
			}
		})
	}
	timetest.Await(t, "five are being served", func() bool { return busy.Load() == 5 })
	if open, idle := count(); open != 5 || idle != 0 {
		t.Errorf("%d open and %d idle", open, idle)
	}
	late := dialed(t, address) // into the system's queue
	answered := make(chan int)
	go func() { answered <- ask(late, "/") }()
	timetest.Await(t, "the log says what to do", func() bool {
		return strings.Contains(log.text(), "callers wait") && strings.Contains(log.text(), "LimitNOFILE=")
	})
	close(release)
	if status := <-answered; status != 200 {
		t.Errorf("the one that waited: %d", status)
	}
	slow.Wait()
}

// ATTACKS HT-06: who sends a header or a body slowly, or does not take the answer, is
// cut off. The server's own deadlines are too long for a test; those here are shorter.
func TestAttackHT06(t *testing.T) {
	for _, own := range []time.Duration{httpServer(nil, slog.Default()).ReadHeaderTimeout, httpServer(nil, slog.Default()).ReadTimeout,
		httpServer(nil, slog.Default()).WriteTimeout, httpServer(nil, slog.Default()).IdleTimeout} {
		if own <= 0 || own > time.Minute {
			t.Errorf("one of the server's deadlines is %s", own)
		}
	}
	address, bounded, _ := serveBounded(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			return
		}
		for block := make([]byte, 1<<20); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}), func(_ *connections, server *http.Server) {
		server.ReadHeaderTimeout, server.ReadTimeout, server.WriteTimeout = 200*time.Millisecond, 400*time.Millisecond, time.Second
	})
	for name, sent := range map[string]string{
		"nothing":             "",
		"half a header":       "GET / HTTP/1.1\r\nHost: localhost\r\nX-",
		"half a body":         "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc",
		"half a chunk":        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nabc",
		"and takes no answer": "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if name != "and takes no answer" {
				connection := dialed(t, address)
				io.WriteString(connection, sent)
				if _, err := io.ReadAll(connection); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the connection is still open")
				}
				return
			}
			// On a busy machine one may be cut off before its answer has begun.
			timetest.Await(t, "an answer begins", func() bool {
				connection := dialed(t, address)
				io.WriteString(connection, sent)
				_, err := io.ReadFull(connection, make([]byte, 1))
				return err == nil
			})
			timetest.Await(t, "the connection is closed", func() bool {
				bounded.mu.Lock()
				defer bounded.mu.Unlock()
				return bounded.open == 0
			})
		})
	}
}

// ATTACKS FT-50: with a flood of connections that say nothing and more callers than
// there are files, a request gets its answer, and when the flood is over everything is as before.
func TestAttackFT50(t *testing.T) {
	t.Parallel()
	directory, port := t.TempDir(), freePort(t)
	p := &process{url: "http://localhost:" + port}
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal("sh not found: it bounds the number of files")
	}
	launchCommand(t, p, p, directory, on(port), exec.Command(shell, "-c", `ulimit -n 256; exec "$0" serve`, binary))
	for range 300 {
		dialed(t, "localhost:"+port)
	}
	if !p.says("raise the limit of open files") {
		t.Errorf("the log does not say what to do:\n%s", p.text())
	}
	// While those that say nothing end after five seconds, and the others wait.
	timetest.Await(t, "a request in the flood is answered", func() bool { return ask(dialed(t, "localhost:"+port), "/readyz") == 200 })
}

// h2 is a connection of HTTP/2 that is written to frame by frame.
type h2 struct{ *bufio.Writer }

func (c h2) frame(kind, flags byte, stream uint32, payload []byte) error {
	n := len(payload)
	header := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}
	_, err := c.Write(append(header, payload...))
	return err
}

// get is the header block of GET https://localhost/: indexes of the static table, and a name.
var get = append([]byte{0x82, 0x87, 0x84, 0x41, 9}, "localhost"...)

// ATTACKS HT-08: floods of HTTP/2 that cost the sender nothing end the connection, and
// handlers of one connection are bounded meanwhile.
func TestAttackHT08(t *testing.T) {
	directory := t.TempDir()
	writeCertificate(t, directory, 1)
	var running, most atomic.Int32
	release := make(chan struct{})
	server := httpServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-release
		running.Add(-1)
	}), slog.New(slog.DiscardHandler))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.ServeTLS(listener, directory+"/tls.crt", directory+"/tls.key")
	defer server.Close()
	defer close(release)
	for name, flood := range map[string]func(c h2, i uint32) error{
		"rapid reset": func(c h2, i uint32) error {
			if err := c.frame(1, 5, 2*i+1, get); err != nil { // HEADERS, END_STREAM and END_HEADERS
				return err
			}
			return c.frame(3, 0, 2*i+1, []byte{0, 0, 0, 8}) // RST_STREAM, CANCEL
		},
		"headers without an end": func(c h2, i uint32) error {
			if i == 0 {
				return c.frame(1, 1, 1, get)
			}
			return c.frame(9, 0, 1, bytes.Repeat([]byte{0x40, 1, 'a', 1, 'b'}, 3000)) // CONTINUATION
		},
		"settings": func(c h2, i uint32) error {
			if i == 20_000 { // each costs no more than to read it, and nothing is kept: they need not end it
				return errors.New("enough")
			}
			return c.frame(4, 0, 0, []byte{0, 4, 0, 0, 255, 255})
		},
		"pings": func(c h2, i uint32) error { return c.frame(6, 0, 0, make([]byte, 8)) },
	} {
		connection, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		if connection.ConnectionState().NegotiatedProtocol != "h2" {
			t.Fatal("HTTP/2 is not served")
		}
		connection.SetDeadline(time.Now().Add(10 * patience))
		c := h2{bufio.NewWriterSize(connection, 16<<10)}
		io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		c.frame(4, 0, 0, nil)
		err = nil
		sent := uint32(0)
		for ; err == nil && sent < 10_000_000; sent++ {
			err = flood(c, sent)
		}
		if err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %d frames were taken, %v", name, sent, err)
		}
	}
	if most.Load() > maxStreams {
		t.Errorf("%d handlers of one connection ran at once", most.Load())
	}
}

// idleConnections returns both ends of connections over which nothing is said.
func idleConnections(t *testing.T, n int) (bounded *connections, near, far []net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded = boundConnections(listener, nil)
	t.Cleanup(func() { bounded.Close() })
	for range n {
		far = append(far, dialed(t, listener.Addr().String()))
		accepted, err := bounded.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { accepted.Close() })
		near = append(near, accepted)
		bounded.changed(accepted, http.StateIdle)
	}
	return bounded, near, far
}
