package verifier

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hanging is an instance of an issuer, in memory, that takes connections and requests
// and, when it is stopped, answers nothing.
type hanging struct {
	accepted chan net.Conn
	stopped  atomic.Bool
	closed   chan struct{}
}

func (h *hanging) Accept() (net.Conn, error) {
	select {
	case c := <-h.accepted:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}
func (h *hanging) Close() error   { return nil }
func (h *hanging) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// hangingConn is the server's end of a connection.
type hangingConn struct {
	net.Conn
	server *hanging
	once   sync.Once
	closed chan struct{}
}

func (c *hangingConn) Write(b []byte) (int, error) {
	if c.server.stopped.Load() {
		<-c.closed
	}
	return c.Conn.Write(b)
}

func (c *hangingConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// instances is an issuer of two instances behind one name.
type instances struct {
	*answers
	servers [2]*hanging
	chosen  atomic.Int64 // where new connections go
	dials   atomic.Int64
}

func (i *instances) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/keys" {
		json.NewEncoder(w).Encode(map[string]string{"issuer": "https://" + r.Host, "jwks_uri": "https://" + r.Host + "/keys"})
		return
	}
	response, err := i.answers.RoundTrip(r)
	if err != nil {
		return
	}
	w.Header().Set("Cache-Control", response.Header.Get("Cache-Control"))
	io.Copy(w, response.Body)
}

func (i *instances) dial(context.Context, string, string) (net.Conn, error) {
	i.dials.Add(1)
	server := i.servers[i.chosen.Load()]
	ours, theirs := net.Pipe()
	server.accepted <- &hangingConn{Conn: theirs, server: server, closed: make(chan struct{})}
	return ours, nil
}

// One instance that takes connections and never answers, as a process that is stopped
// does, keeps no verifier from a new key for longer than the 3 s that it is waited for
// and the pause of a second: the connection to it is given up, and with HTTP/2, too.
func TestHungInstance(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &instances{answers: &answers{status: 200, body: publish(t, "a"), maxAge: "max-age=10"}}
				ctx, cancel := context.WithCancel(t.Context())
				var trusted *tls.Config
				for n := range i.servers {
					i.servers[n] = &hanging{accepted: make(chan net.Conn), closed: make(chan struct{})}
					server := &httptest.Server{Listener: i.servers[n], EnableHTTP2: http2,
						Config: &http.Server{Handler: i, ErrorLog: log.New(io.Discard, "", 0)}}
					server.StartTLS()
					trusted = server.Client().Transport.(*http.Transport).TLSClientConfig
					defer func() {
						i.servers[n].stopped.Store(false)
						close(i.servers[n].closed)
						server.CloseClientConnections()
						server.Config.Close()
					}()
				}
				source := newSource(Config{Issuer: "https://example.com", Audience: "https://api.example.com", Logger: slog.New(slog.DiscardHandler)})
				transport := source.client.Transport.(*http.Transport)
				transport.DialContext, transport.TLSClientConfig = i.dial, trusted
				defer transport.CloseIdleConnections()
				keys := newKeySet(source)
				go keys.run(ctx)
				defer synctest.Wait()
				defer cancel()
				if !knows(t, keys, "a") {
					t.Fatal("the first key is not known")
				}
				if got := i.dials.Load(); got != 1 {
					t.Fatalf("%d connections for the metadata and the keys", got)
				}
				i.servers[0].stopped.Store(true)
				i.chosen.Store(1)
				body := publish(t, "a", "b")
				i.answers.set(func(a *answers) { a.body = body })
				time.Sleep(10*time.Second + answerWithin + minFresh + 10*time.Millisecond)
				synctest.Wait()
				if _, known := keys.lookup("b"); !known {
					t.Errorf("4 s after the keys were stale the new one is not known, after %d connections", i.dials.Load())
				}
			})
		})
	}
}

// A snapshot that a hung instance does not begin to send is asked for again soon.
func TestHungSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := &answers{status: 200, body: publish(t, "a"), maxAge: "max-age=600"}
		var asked atomic.Int64
		_, err := New(t.Context(), Config{Issuer: "https://auth.example.com", Audience: "https://api.example.com",
			JWKSURI: "https://auth.example.com/keys", RevocationsURI: "https://auth.example.com/revocations", Logger: slog.New(slog.DiscardHandler),
			HTTPClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.URL.Path == "/keys" {
					return issuer.RoundTrip(r)
				}
				asked.Add(1)
				<-r.Context().Done()
				return nil, r.Context().Err()
			})}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(requestTimeout + firstPause + time.Millisecond)
		synctest.Wait()
		if n := asked.Load(); n != 2 {
			t.Errorf("asked for %d times in 5 s, want twice", n)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
