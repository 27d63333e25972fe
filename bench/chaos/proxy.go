package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxy stands between one instance and Redis and makes trouble.
type proxy struct {
	Port   string
	target string

	listener net.Listener
	delay    atomic.Int64 // nanoseconds by which answers are late
	hung     atomic.Bool  // nothing passes
	drop     atomic.Int64 // of 1000 answers: the connection ends instead, after Redis has done the work
	refused  atomic.Bool  // new connections
	Dropped  atomic.Int64
	dice     func(int) int // under mu

	mu          sync.Mutex
	connections map[net.Conn]struct{}
}

func newProxy(target string, dice func(int) int) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	p := &proxy{Port: port, target: target, listener: listener, dice: dice, connections: make(map[net.Conn]struct{})}
	go p.accept()
	return p, nil
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.refused.Load() {
			c.Close()
			continue
		}
		up, err := net.Dial("tcp", p.target)
		if err != nil {
			c.Close()
			continue
		}
		p.mu.Lock()
		p.connections[c], p.connections[up] = struct{}{}, struct{}{}
		p.mu.Unlock()
		go p.pass(c, up, false)
		go p.pass(up, c, true)
	}
}

func (p *proxy) pass(from, to net.Conn, answers bool) {
	defer p.end(from, to)
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			for p.hung.Load() {
				time.Sleep(5 * time.Millisecond)
			}
			if answers {
				time.Sleep(time.Duration(p.delay.Load()))
				p.mu.Lock()
				lost := p.dice(1000) < int(p.drop.Load())
				p.mu.Unlock()
				if lost {
					p.Dropped.Add(1)
					return
				}
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) end(connections ...io.Closer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range connections {
		c.Close()
		delete(p.connections, c.(net.Conn))
	}
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.connections {
		c.Close()
	}
}

// heal lets everything pass.
func (p *proxy) heal() {
	p.delay.Store(0)
	p.drop.Store(0)
	p.hung.Store(false)
	p.refused.Store(false)
}

func (p *proxy) close() { p.listener.Close(); p.heal(); p.cut() }
