package authserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"authserver/keys"
	"authserver/store/boltstore"
)

// bubble connects what runs in a bubble of testing/synctest. Time stands still there while
// anybody has something to do: however busy the machine is, nobody's lease runs out by that.
type bubble struct {
	client *http.Client // of everybody

	mu        sync.Mutex
	listeners map[string]*pipeListener // by address
}

// inBubble runs a test in a bubble, with what starts instances that share a store.
func inBubble(t *testing.T, test func(t *testing.T, instance func() running)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		opened, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { opened.Close() })
		master, err := keys.NewMasterKey()
		if err != nil {
			t.Fatal(err)
		}
		n := &bubble{listeners: make(map[string]*pipeListener)}
		transport := &http.Transport{DialContext: n.dial}
		n.client = &http.Client{Transport: transport}
		t.Cleanup(transport.CloseIdleConnections)
		test(t, func() running { return n.start(t, insideServer(t, opened, master)) })
	})
}

func (n *bubble) start(t *testing.T, s *Server) running {
	t.Helper()
	n.mu.Lock()
	address := fmt.Sprint("127.0.0.1:", len(n.listeners)+1)
	listener := &pipeListener{dialled: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[address] = listener
	n.mu.Unlock()
	server := &http.Server{Handler: s}
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(listener) }()
	t.Cleanup(func() { server.Close(); <-served })
	return running{Server: s, url: "http://" + address, stop: runUntilCleanup(t, s.Run), client: n.client}
}

func (n *bubble) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	listener := n.listeners[address]
	n.mu.Unlock()
	if listener == nil {
		return nil, fmt.Errorf("nobody listens at %s", address)
	}
	near, far := net.Pipe()
	select {
	case listener.dialled <- localEnd{far}:
		return near, nil
	case <-listener.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeListener struct {
	dialled chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case connection := <-l.dialled:
		return connection, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return thisMachine }

// localEnd is the end of a pipe that has an address.
type localEnd struct{ net.Conn }

func (localEnd) RemoteAddr() net.Addr { return thisMachine }

var thisMachine = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
