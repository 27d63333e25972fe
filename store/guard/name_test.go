package guard

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
	"authserver/store"
	"authserver/store/redisstore"
)

// nameServer answers every question for an address with one, or that it has failed.
type nameServer struct {
	address atomic.Pointer[net.IP] // nil: it fails
	asked   atomic.Int64
}

// nameServerForTest makes this process resolve names by a server of its own.
func nameServerForTest(t *testing.T) *nameServer {
	t.Helper()
	connection, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := new(nameServer)
	served := make(chan struct{})
	go func() {
		defer close(served)
		query := make([]byte, 1500)
		for {
			size, from, err := connection.ReadFrom(query)
			if err != nil {
				return
			}
			n.asked.Add(1)
			connection.WriteTo(n.answer(query[:size]), from)
		}
	}()
	was := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", connection.LocalAddr().String())
	}}
	t.Cleanup(func() { net.DefaultResolver = was; connection.Close(); <-served })
	return n
}

// answer is RFC 1035 §4, for one question.
func (n *nameServer) answer(query []byte) []byte {
	end := 12
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5
	kind := binary.BigEndian.Uint16(query[end-4:])
	answer := append([]byte(nil), query[:end]...)
	copy(answer[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}) // an answer, recursive; one question
	address := n.address.Load()
	switch {
	case address == nil:
		answer[3] = 0x82 // SERVFAIL
	case kind == 1: // A, for no time
		answer[7] = 1
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		answer = append(answer, address.To4()...)
	}
	return answer
}

// ATTACKS FT-52: the name of Redis resolves no more, or to where nothing is. Connections
// that are there are used on; without them there is trouble, and no decision; and a name
// that is right again is found without a restart.
func TestNameOfRedis(t *testing.T) { // not in parallel: names are the process's
	names := nameServerForTest(t)
	right, wrong := net.ParseIP("127.0.0.1"), net.ParseIP("127.0.0.2")
	names.address.Store(&right)
	server := redistest.Start(t)
	_, port, _ := net.SplitHostPort(server.Addr)
	inner, err := redisstore.Open(t.Context(), redisstore.Options{URL: "redis://redis.test:" + port, Timeout: 3 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	s := guarded(t, inner, t.TempDir(), 0)
	write(t, s, "there")
	works := func() error {
		records, err := s.Get(t.Context(), "there")
		if err == nil && !records[0].Exists() {
			t.Fatal("what was written is not there")
		}
		return err
	}
	until := func(what string, good bool) {
		t.Helper()
		timetest.Await(t, what, func() bool { return (works() == nil) == good })
	}
	for what, address := range map[string]*net.IP{"no answer": nil, "another address": &wrong} {
		asked := names.asked.Load()
		names.address.Store(address)
		until(what+", while connections are there", true)
		server.Tell("CLIENT", "KILL", "TYPE", "normal")
		until(what, false)
		if err := s.Create(t.Context(), "there", nil, store.Forever); err == nil || isDecision(err) {
			t.Errorf("%s: %v", what, err)
		}
		if lost := s.confirm(t.Context()); lost != nil {
			t.Errorf("%s: the store is taken for lost: %v", what, lost)
		}
		names.address.Store(&right)
		until(what+" before, now right", true)
		if names.asked.Load() == asked {
			t.Error("nobody has asked for the name")
		}
	}
}
