package redistest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Link is a way to a server that can be disturbed.
type Link struct {
	Addr  string       // in place of the server's
	Dials atomic.Int64 // connections that were asked for
	Lost  atomic.Int64 // answers that Lose has lost

	backend string
	mute    atomic.Bool
	lose    atomic.Int64
	slow    atomic.Int64 // nanoseconds
	answers atomic.Int64
	held    sync.RWMutex // by Hold, from writing
	mu      sync.Mutex
	down    bool
	ends    map[net.Conn]bool // of both sides
}

// StartLink makes a way to a server. It ends with the test.
func StartLink(t testing.TB, server *Server) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{Addr: listener.Addr().String(), backend: server.Addr, ends: make(map[net.Conn]bool)}
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			l.Dials.Add(1)
			go l.connect(near)
		}
	}()
	t.Cleanup(func() { listener.Close(); <-accepted; l.Down() })
	return l
}

// Mute lets commands pass and drops the answers, or, with false, lets answers pass again.
func (l *Link) Mute(mute bool) { l.mute.Store(mute) }

// Lose ends the connection instead of passing on every nth answer, or, with 0, passes all on.
func (l *Link) Lose(nth int) { l.lose.Store(int64(nth)) }

// Slow holds back all answers that come from now on for a while, also when it is made
// quick again, by 0, meanwhile.
func (l *Link) Slow(by time.Duration) { l.slow.Store(int64(by)) }

// Hold lets nothing pass, as on a link that is down for a moment, until release is called.
func (l *Link) Hold() (release func()) {
	l.held.Lock()
	return l.held.Unlock
}

// Down ends all connections and makes no new ones.
func (l *Link) Down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for end := range l.ends {
		end.Close()
	}
	clear(l.ends)
}

// Up makes connections again.
func (l *Link) Up() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

func (l *Link) connect(near net.Conn) {
	l.held.RLock()
	far, err := net.Dial("tcp", l.backend)
	l.held.RUnlock()
	if err != nil {
		near.Close()
		return
	}
	l.mu.Lock()
	if l.down {
		near.Close()
		far.Close()
	} else {
		l.ends[near], l.ends[far] = true, true
	}
	l.mu.Unlock()
	go l.pass(near, far, false)
	l.pass(far, near, true)
}

// pass passes on what comes in until one side ends.
func (l *Link) pass(from, to net.Conn, answers bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if nth := l.lose.Load(); err == nil && answers && nth > 0 && l.answers.Add(1)%nth == 0 {
			l.Lost.Add(1)
			break
		}
		if by := time.Duration(l.slow.Load()); err == nil && answers && by > 0 {
			time.Sleep(by)
		}
		if err == nil && !(answers && l.mute.Load()) {
			l.held.RLock()
			_, err = to.Write(buffer[:n])
			l.held.RUnlock()
		}
		if err != nil {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, end := range []net.Conn{from, to} {
		end.Close()
		delete(l.ends, end)
	}
}
