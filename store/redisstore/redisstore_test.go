package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
	"authserver/store"
	"authserver/store/redisstore"
	"authserver/store/storetest"
)

func open(t *testing.T, url string) *redisstore.Store {
	t.Helper()
	// The suite runs in parallel on a busy machine; the budget is not what it tests.
	s, err := redisstore.Open(t.Context(), redisstore.Options{URL: url, Timeout: 10 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestContract(t *testing.T) {
	server := redistest.Start(t)
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, server.URL()) })
}

func TestContractOnCluster(t *testing.T) {
	t.Parallel()
	url := redistest.StartCluster(t, 0).URL()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, url) })
}

// What Redis cannot keep is refused or warned of at the start.
func TestOpenChecks(t *testing.T) {
	host, port, _ := strings.Cut(redistest.Start(t).Addr, ":")
	for _, test := range []struct {
		name          string
		args          []string
		refused, warn string
		durability    string
	}{
		{"evicting", []string{"--maxmemory-policy", "allkeys-lru"}, "config set maxmemory-policy noeviction", "", ""},
		{"replica", []string{"--replicaof", host, port}, "its role is slave", "", ""},
		{"no AOF", nil, "", "append-only", "async"},
		{"every second", []string{"--appendonly", "yes"}, "", "power cut", "async"},
		{"always", []string{"--appendonly", "yes", "--appendfsync", "always"}, "", "", "fsync"},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := promises(t, redistest.Start(t, test.args...).URL(), "", test.durability, test.refused)
			if test.warn == "" && log != "" || !strings.Contains(log, test.warn) {
				t.Errorf("log: %s", log)
			}
		})
	}
}

// promises opens a store that is asked for a durability and must be refused with all of
// these words, or promise what is wanted. It returns the log.
func promises(t *testing.T, url, asked, want string, refused ...string) string {
	t.Helper()
	var log bytes.Buffer
	s, err := redisstore.Open(t.Context(), redisstore.Options{URL: url, Durability: asked, Timeout: 10 * time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if want == "" {
		for _, words := range refused {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("%v, want a refusal with %q", err, words)
			}
		}
	} else if err != nil {
		t.Error(err)
	} else if s.Durability() != want {
		t.Errorf("durability %q, want %q", s.Durability(), want)
	}
	if err == nil {
		s.Close()
	}
	return log.String()
}

// ATTACKS OP-06: without TLS nothing goes over the public internet unless the operator says
// so; on another network without TLS or password there is a warning. Nobody is connected
// to who is refused, and who is not, is at no address here.
func TestAttackOP06(t *testing.T) {
	for _, test := range []struct {
		url     string
		allowed bool
		refused bool
		warns   []string
	}{
		{url: "redis://203.0.113.9:1", refused: true},
		{url: "redis://user:secret@203.0.113.9:1", refused: true},
		{url: "redis+cluster://10.0.0.1:1,203.0.113.9:1", refused: true},
		{url: "redis+sentinel://[2001:db8::9]:1/main", refused: true},
		{url: "redis://[::ffff:203.0.113.9]:1", refused: true},
		{url: "redis://203.0.113.9:1", allowed: true, warns: []string{"not encrypted", "password"}},
		{url: "redis://10.0.0.1:1", warns: []string{"not encrypted", "password"}},
		{url: "redis://:secret@100.64.0.1:1", warns: []string{"not encrypted"}},
		{url: "rediss://203.0.113.9:1", warns: []string{"password"}},
		{url: "rediss://:secret@203.0.113.9:1"},
		{url: "redis://localhost:1"}, {url: "redis://127.0.0.1:1"}, {url: "redis://[::1]:1"},
	} {
		var log bytes.Buffer
		ended, cancel := context.WithCancel(t.Context())
		cancel() // nobody is dialled
		_, err := redisstore.Open(ended, redisstore.Options{URL: test.url, InsecureCleartext: test.allowed, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err == nil || strings.Contains(err.Error(), "public internet") != test.refused || strings.Contains(err.Error()+log.String(), "secret@") {
			t.Errorf("%s: %v, refused must be %t", test.url, err, test.refused)
		}
		for _, words := range []string{"not encrypted", "password"} {
			if strings.Contains(log.String(), words) != slices.Contains(test.warns, words) && !test.refused {
				t.Errorf("%s warns %q", test.url, log.String())
			}
		}
	}
}

func TestURLs(t *testing.T) {
	for _, url := range []string{
		"", "localhost:6379", "http://localhost:6379", "redis://", "redis://localhost", "redis://a:1,b:2", "redis://localhost:1/x",
		"redis://localhost:redis", "redis://localhost:65536", "redis://localhost:1 ", "redis+sentinel://a:1,b:2", "redis+cluster://a:1/3", "redis+other://a:1", "redis://user:hunter2@nowhere",
	} {
		_, err := redisstore.Open(t.Context(), redisstore.Options{URL: url})
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "store URL") {
			t.Errorf("%q: %v", url, err)
		}
		if check := redisstore.CheckURL(url); check == nil || check.Error() != err.Error() {
			t.Errorf("%q: %v", url, check)
		}
	}
	for _, url := range []string{"redis://localhost:1", "rediss://user:pass@[::1]:1/3", "redis+sentinel://a:1,b:2/m/0", "rediss+cluster://a:1,b:2"} {
		if err := redisstore.CheckURL(url); err != nil {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// A Redis that hangs holds nobody longer than the budget, and recovers (ATTACKS FT-12).
func TestHungRedis(t *testing.T) {
	server := redistest.Start(t)
	s, err := redisstore.Open(t.Context(), redisstore.Options{URL: server.URL(), Timeout: 300 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	server.Stop()
	err = s.Create(t.Context(), "key", nil, store.Forever)
	server.Continue()
	if err == nil || errors.Is(err, store.ErrExists) {
		t.Errorf("while Redis hangs: %v", err)
	}
	timetest.AwaitNil(t, func() error { return s.Ping(t.Context()) })
}

// Answers that are lost after the command ran are no foreign successes (ATTACKS
// FT-13): the driver sends again, and the script knows its own work.
func TestLostAnswers(t *testing.T) {
	server := redistest.Start(t)
	proxy := cutAnswers(t, server.Addr)
	s := open(t, "redis://"+proxy.addr)
	if err := s.Create(t.Context(), "swapped", nil, store.Forever); err != nil {
		t.Fatal(err)
	}
	const rounds = 300
	version, unknown := uint64(1), 0
	for i := range rounds {
		proxy.cut.Store(true)
		err := s.Create(t.Context(), fmt.Sprintf("created %d", i), nil, store.Forever)
		if errors.Is(err, store.ErrExists) {
			t.Fatalf("round %d: a lost answer was taken for somebody else's record", i)
		} else if err != nil {
			unknown++
		}
		proxy.cut.Store(true)
		record, err := s.Swap(t.Context(), "swapped", version, nil, store.Forever)
		switch {
		case errors.Is(err, store.ErrConflict):
			t.Fatalf("round %d: a lost answer was taken for somebody else's swap", i)
		case err != nil:
			unknown++
			records, err := s.Get(t.Context(), "swapped")
			if err != nil {
				t.Fatal(err)
			}
			version = records[0].Version
		case record.Version != version+1:
			t.Fatalf("round %d: version %d after %d", i, record.Version, version)
		default:
			version = record.Version
		}
		proxy.cut.Store(true)
		records, err := s.Do(t.Context(), store.Batch{Create: []store.Creation{
			{Key: fmt.Sprintf("first %d", i), Expires: store.Forever}, {Key: fmt.Sprintf("second %d", i), Expires: store.Forever},
		}, Get: []string{"swapped", fmt.Sprintf("second %d", i)}})
		switch {
		case errors.Is(err, store.ErrExists):
			t.Fatalf("round %d: a lost answer was taken for somebody else's batch", i)
		case err != nil:
			unknown++
		case len(records) != 2 || records[0].Version != version || records[1].Version != 1:
			t.Fatalf("round %d: a batch says %v", i, records)
		}
	}
	if cut := proxy.count.Load(); cut < 3*rounds {
		t.Errorf("only %d answers were cut", cut)
	}
	t.Logf("%d answers cut, %d calls ended unknown", proxy.count.Load(), unknown)
}

// cutting is a proxy in front of Redis that, each time cut is set, once drops the
// connection instead of passing an answer on, and lets the clock of Redis differ.
type cutting struct {
	addr  string
	ahead atomic.Int64 // seconds that Redis's clock seems to be
	cut   atomic.Bool
	count atomic.Int64
}

func cutAnswers(t *testing.T, backend string) *cutting {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	p := &cutting{addr: listener.Addr().String()}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", backend)
			if err != nil {
				client.Close()
				continue
			}
			go func() { io.Copy(server, client); server.Close() }()
			go p.answers(client, server)
		}
	}()
	return p
}

func (p *cutting) answers(client, server net.Conn) {
	defer client.Close()
	defer server.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := server.Read(buffer)
		if err != nil {
			return
		}
		// Greetings of a new connection pass: the cut is for what a command answers.
		if answer := buffer[:n]; (answer[0] == ':' || answer[0] == '*') && p.cut.CompareAndSwap(true, false) {
			p.count.Add(1)
			return
		}
		if _, err := client.Write(p.shifted(buffer[:n])); err != nil {
			return
		}
	}
}

// aTime is Redis's time in an answer: seconds as TIME has them, or a script's milliseconds.
var aTime = regexp.MustCompile(`(\*2\r\n\$10\r\n\d{10}|:\d{13})\r\n`)

func (p *cutting) shifted(answer []byte) []byte {
	ahead := p.ahead.Load()
	if ahead == 0 {
		return answer
	}
	return aTime.ReplaceAllFunc(answer, func(found []byte) []byte {
		text, unit := string(found), int64(1000)
		at := strings.IndexByte(text, ':') + 1
		if at == 0 {
			at, unit = len(text)-len("1234567890\r\n"), 1
		}
		n, _ := strconv.ParseInt(strings.TrimSpace(text[at:]), 10, 64)
		return fmt.Appendf(nil, "%s%d\r\n", text[:at], n+ahead*unit)
	})
}
