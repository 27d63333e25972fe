package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/internal/timetest"
)

// ATTACKS LD-19: where there are many connections, the server is told how long a request
// has waited before it came to it; with few, that it has not.
func TestWaitingInConnections(t *testing.T) {
	const wait = 60 * time.Millisecond // more than the system's clock ticks, which it is measured in
	for _, crowd := range []int{0, 10} {
		began, sent, second := make(chan struct{}), make(chan struct{}), make(chan time.Duration, 1)
		address, _, _ := serveBounded(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/first" {
				close(began)
				<-sent
				time.Sleep(wait) // while the second request lies in the connection
				return
			}
			second <- authserver.SinceReceived(r.Context())
		}), func(c *connections, server *http.Server) { c.crowd, server.ConnContext = crowd, c.received })
		connection := dialed(t, address)
		fmt.Fprint(connection, "GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n")
		<-began
		fmt.Fprint(connection, "GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n")
		close(sent)
		if waited := <-second; crowd == 0 && waited < wait/2 || crowd == 10 && waited != 0 {
			t.Errorf("with a crowd of more than %d: it has waited for %s", crowd, waited)
		}
	}
}

// A connection that seems idle, but has a request that nobody has come to yet, is not
// the one that makes room.
func TestWaitingRequestIsNotEvicted(t *testing.T) {
	bounded, near, far := idleConnections(t, 2)
	fmt.Fprint(far[0], "GET /")
	timetest.Await(t, "it has come in", func() bool { return hasRequest(near[0]) })
	bounded.mu.Lock()
	bounded.evict()
	bounded.mu.Unlock()
	if !ended(far[1]) {
		t.Error("the one without a request is open")
	}
	near[0].SetReadDeadline(time.Now().Add(patience))
	if n, err := near[0].Read(make([]byte, 8)); n == 0 || err != nil {
		t.Errorf("the one with a request: %d bytes, %v", n, err)
	}
	if _, ok := bounded.places[near[0]]; !ok {
		t.Error("it is not idle any more")
	}
	if authserver.SinceReceived(bounded.received(context.Background(), near[0])) != 0 {
		t.Error("two connections are a crowd")
	}
}

// A listener is not closed over connections that nobody has accepted yet: the system would
// reset them (ATTACKS FT-35).
func TestQueuedConnectionsAreNotReset(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded := boundConnections(listener, nil)
	defer bounded.Close()
	for range 2 {
		dialed(t, listener.Addr().String())
	}
	timetest.Await(t, "two wait", func() bool { return queued(listener) == 2 })
	for n := range 2 {
		accepted, err := bounded.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
		if left := queued(listener); left != 1-n {
			t.Errorf("%d wait, want %d", left, 1-n)
		}
	}
	bounded.leave(t.Context())
	if _, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		t.Error("the listener is open")
	}
}
