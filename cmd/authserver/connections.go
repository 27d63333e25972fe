package main

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"authserver/authserver"
)

const (
	maxConnections = 50_000 // that are open at once, where the system allows so many
	maxIdle        = 4096   // of them, those that wait for a next request
	reservedFiles  = 128    // for the store, the log, the admin socket and the metrics; a tenth where that is more
	evictTries     = 16
	tellEvery      = time.Minute
)

// connections is a listener that bounds what it has accepted (ATTACKS HT-07, FT-50).
// When there is no room for one more, the connection that has been idle for longest
// makes it; where none is idle, callers wait in the system's queue, and so the server
// never runs out of files in the middle of a request.
type connections struct {
	net.Listener
	log    *slog.Logger
	room   int // for connections
	idlers int // at most
	crowd  int // of connections, from which on requests may wait in them
	closed chan struct{}
	close  sync.Once

	mu     sync.Mutex
	open   int
	freed  chan struct{} // closed when open falls
	idle   *list.List    // of net.Conn, the longest idle first
	places map[net.Conn]*list.Element
	told   time.Time
}

func boundConnections(listener net.Listener, log *slog.Logger) *connections {
	return &connections{
		Listener: listener, log: log, room: roomForConnections(), idlers: maxIdle, crowd: authserver.AtOnce(),
		closed: make(chan struct{}), freed: make(chan struct{}), idle: list.New(), places: make(map[net.Conn]*list.Element),
	}
}

// roomForConnections is as many as the process may have open files, but for those
// that it needs besides.
func roomForConnections() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return maxConnections
	}
	files := int(min(limit.Cur, math.MaxInt32))
	return max(min(maxConnections, files-max(reservedFiles, files/10)), 1)
}

// Accept waits for room, then for a connection.
func (c *connections) Accept() (net.Conn, error) {
	for {
		c.mu.Lock()
		full, freed := c.open >= c.room, c.freed
		if full {
			c.evict()
			c.tell("there are as many connections as the server may have open; callers wait", nil)
		}
		c.mu.Unlock()
		if !full {
			break
		}
		select {
		case <-freed:
		case <-c.closed:
			return nil, net.ErrClosed
		}
	}
	accepted, err := c.Listener.Accept()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) {
			c.evict()
			c.tell("the system gives no file for one more connection; callers wait", err)
		}
		return nil, err // net/http goes on after a pause that grows to a second
	}
	c.open++
	return &counted{Conn: accepted, from: c}, nil
}

// tell says once a minute what the operator can do.
func (c *connections) tell(what string, err error) {
	if time.Since(c.told) < tellEvery {
		return
	}
	c.told = time.Now()
	attrs := []any{"open", c.open, "idle", c.idle.Len(), "room", c.room,
		"hint", "raise the limit of open files (LimitNOFILE= of systemd, nofile of a container, ulimit -n), or see who holds so many (ss -tn)"}
	if err != nil {
		attrs = append(attrs, "error", err.Error())
	}
	c.log.Error(what, attrs...)
}

// evict closes the connection that has been idle for longest, if there is one. Where much
// is to do, one that seems idle has a request that nobody has come to yet: it is left.
func (c *connections) evict() {
	for tries, longest := 0, c.idle.Front(); longest != nil && tries < evictTries; tries, longest = tries+1, longest.Next() {
		connection := longest.Value.(net.Conn)
		raw := underTLS(connection) // without a farewell, for which it might have to wait
		if hasRequest(raw) {
			continue
		}
		c.forget(connection)
		go raw.Close() // which comes back to c
		return
	}
}

// leave closes the listener when nobody waits in the system's queue: the system would reset
// their connections.
func (c *connections) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for queued(c.Listener) > 0 && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Microsecond):
		}
	}
	c.Close()
}

// release closes the connections that are idle, and returns when none is. One over which a
// request has come in is not idle any more when somebody comes to read it; its answer closes
// it. HTTP/2 has a farewell of its own, after which no request is lost: Shutdown says it.
func (c *connections) release(ctx context.Context) {
	for {
		left := false
		c.mu.Lock()
		for place, next := c.idle.Front(), (*list.Element)(nil); place != nil; place = next {
			next = place.Next()
			connection := place.Value.(net.Conn)
			if over, ok := connection.(*tls.Conn); ok && over.ConnectionState().NegotiatedProtocol == "h2" {
				continue
			}
			raw := underTLS(connection)
			if accepted, ok := raw.(*counted); hasRequest(raw) || ok && accepted.begun.Load() {
				left = true
				continue
			}
			c.forget(connection)
			go raw.Close() // which comes back to c
		}
		c.mu.Unlock()
		if !left {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func underTLS(connection net.Conn) net.Conn {
	if over, ok := connection.(*tls.Conn); ok {
		return over.NetConn()
	}
	return connection
}

// hasRequest reports whether something has come in that is not read yet.
func hasRequest(connection net.Conn) bool {
	waiting := false
	onSocket(connection, func(socket int) {
		n, _, err := syscall.Recvfrom(socket, make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		waiting = err == nil && n > 0
	})
	return waiting
}

// onSocket does something with the socket of a connection that c has accepted.
func onSocket(connection net.Conn, do func(socket int)) {
	if ours, ok := connection.(*counted); ok {
		connection = ours.Conn
	}
	system, ok := connection.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := system.SyscallConn(); err == nil {
		raw.Control(func(socket uintptr) { do(int(socket)) }) // when it is closed, nothing is done
	}
}

// received tells the server when the last of a request came in. Up to crowd connections
// it is always just now: there are no more requests than the server works on at once.
func (c *connections) received(ctx context.Context, connection net.Conn) context.Context {
	raw := underTLS(connection)
	return authserver.WithReceived(ctx, func() time.Duration {
		c.mu.Lock()
		crowded := c.open > c.crowd
		c.mu.Unlock()
		if !crowded {
			return 0
		}
		return sinceReceived(raw)
	})
}

func (c *connections) forget(connection net.Conn) {
	if place, ok := c.places[connection]; ok {
		c.idle.Remove(place)
		delete(c.places, connection)
	}
}

// changed is what net/http tells of a connection.
func (c *connections) changed(connection net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(connection)
	if state != http.StateIdle {
		return
	}
	if accepted, ok := underTLS(connection).(*counted); ok {
		accepted.begun.Store(false)
	}
	c.places[connection] = c.idle.PushBack(connection)
	if c.idle.Len() > c.idlers || c.open >= c.room {
		c.evict()
	}
}

// Close implements net.Listener.
func (c *connections) Close() error {
	c.close.Do(func() { close(c.closed) })
	return c.Listener.Close()
}

// counted gives its place back when it is closed.
type counted struct {
	net.Conn
	from  *connections
	once  sync.Once
	begun atomic.Bool // something was read since it was idle, which is a request
}

func (c *counted) Read(into []byte) (int, error) {
	n, err := c.Conn.Read(into)
	if n > 0 {
		c.begun.Store(true)
	}
	return n, err
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.from.mu.Lock()
		defer c.from.mu.Unlock()
		c.from.open--
		close(c.from.freed)
		c.from.freed = make(chan struct{})
	})
	return err
}
