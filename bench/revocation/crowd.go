package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"authserver/bench/internal/process"
	"authserver/internal/feed"
	"authserver/verifier"
)

const pace = 50 * time.Millisecond // between two measured revocations

// crowd is many followers of one server.
type crowd struct {
	installed *process.Installation
	ctx       context.Context
	stop      context.CancelFunc
	bytes     atomic.Int64
	failed    atomic.Pointer[error]

	parameters string // of each stream
	mutes      int    // followers that never acknowledge
	http       *http.Client

	followers []*follower
	verifiers []*verifier.Verifier

	frames  sync.Map // cursor → *frame
	sent    map[feed.Key]time.Time
	pending sync.Map // key → nothing: measured, and not seen in a frame yet
	mu      sync.Mutex
	found   map[feed.Key]string // in which frame it came
}

// frame is a frame that the first follower to see it has read for all.
type frame struct {
	once     sync.Once
	ack      bool // it asks for acknowledgements
	measured bool // it holds revocations that are measured
}

// follower notes when each measured cursor came. With a lease it acknowledges.
type follower struct {
	mute  bool   // it does not
	lease string // from its first frame
	acked string // the last cursor that it acknowledged
	mu    sync.Mutex
	came  map[string]time.Time
}

func newCrowd(installed *process.Installation) *crowd {
	ctx, cancel := context.WithCancel(context.Background())
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxConnsPerHost: 64, MaxIdleConnsPerHost: 64}}
	return &crowd{http: client, installed: installed, ctx: ctx, stop: cancel, sent: make(map[feed.Key]time.Time), found: make(map[feed.Key]string)}
}

// join connects n followers.
func (c *crowd) join(n int) error {
	read := func() error { _, err := fetch(c.installed.Base, "identity"); return err }
	if err := process.Await(read, time.Minute); err != nil {
		return fmt.Errorf("waiting until the server has read its log: %w", err)
	}
	for range min(n, complete) {
		v, err := verifier.New(c.ctx, verifier.Config{Issuer: c.installed.Base, Audience: process.Resource, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		c.verifiers = append(c.verifiers, v)
	}
	var connecting sync.WaitGroup
	slots := make(chan struct{}, 50)
	for range max(n-complete, 1) {
		slots <- struct{}{}
		f := &follower{came: make(map[string]time.Time), mute: len(c.followers) < c.mutes}
		c.followers = append(c.followers, f)
		connecting.Go(func() {
			defer func() { <-slots }()
			if err := c.connect(f); err != nil {
				c.failed.Store(&err)
			}
		})
	}
	connecting.Wait()
	if err := c.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (c *crowd) connect(f *follower) error {
	connection, err := net.Dial("tcp", "127.0.0.1:"+c.installed.Port)
	if err != nil {
		return err
	}
	context.AfterFunc(c.ctx, func() { connection.Close() })
	fmt.Fprintf(connection, "GET /revocations?nonce=n"+c.parameters+" HTTP/1.1\r\nHost: localhost:%s\r\nAccept: text/event-stream\r\n\r\n", c.installed.Port)
	lines := bufio.NewReaderSize(connection, 17<<10)
	status, err := lines.ReadSlice('\n')
	if err != nil || !bytes.Contains(status, []byte(" 200 ")) {
		return fmt.Errorf("%s: %w", status, err)
	}
	go func() {
		if err := c.read(f, lines); err != nil && c.ctx.Err() == nil {
			err = fmt.Errorf("a follower was cut off: %w", err)
			c.failed.Store(&err)
		}
	}()
	return nil
}

// read notes cursors. Lines of the stream begin lines of the body, in chunks or not.
func (c *crowd) read(f *follower, lines *bufio.Reader) error {
	cursor := ""
	var came time.Time
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return err
		}
		c.bytes.Add(int64(len(line)))
		if id, ok := bytes.CutPrefix(line, []byte("id: ")); ok {
			cursor, came = string(bytes.TrimSpace(id)), time.Now()
		} else if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			found, known := c.frames.Load(cursor)
			if !known {
				found, _ = c.frames.LoadOrStore(cursor, &frame{})
			}
			shared := found.(*frame)
			shared.once.Do(func() { err = c.look(shared, cursor, data) })
			if err == nil && c.parameters != "" {
				err = c.acknowledge(f, cursor, data, shared.ack)
			}
			if err != nil {
				return err
			}
			if !shared.measured {
				continue
			}
			f.mu.Lock()
			if _, known := f.came[cursor]; !known { // a heartbeat has the cursor of the frame before
				f.came[cursor] = came
			}
			f.mu.Unlock()
		}
	}
}

// acknowledge does what a verifier with a lease does.
func (c *crowd) acknowledge(f *follower, cursor string, data []byte, asked bool) error {
	if f.lease == "" {
		read, err := decode(data)
		f.lease = read.Lease
		return err
	}
	if !asked || f.mute || f.acked == cursor { // a heartbeat has the cursor of the frame before
		return nil
	}
	f.acked = cursor
	go func() {
		response, err := c.http.PostForm(c.installed.Base+"/revocations", url.Values{"lease": {f.lease}, "cursor": {cursor}})
		if err != nil {
			return // it lapses, which shows
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}()
	return nil
}

// decode reads a frame without a look at its signature.
func decode(data []byte) (feed.Frame, error) {
	var read feed.Frame
	_, rest, _ := bytes.Cut(data, []byte("."))
	payload, _, _ := bytes.Cut(rest, []byte("."))
	text, err := base64.RawURLEncoding.DecodeString(string(payload))
	if err == nil {
		err = json.Unmarshal(text, &read)
	}
	return read, err
}

// look finds measured revocations in a frame, and whether it asks for acknowledgements.
func (c *crowd) look(shared *frame, cursor string, data []byte) error {
	read, err := decode(data)
	if err != nil {
		return err
	}
	shared.ack = read.Ack
	for _, entry := range read.Revoked {
		if _, measured := c.pending.LoadAndDelete(entry.Key); measured {
			c.mu.Lock()
			c.found[entry.Key] = cursor
			c.mu.Unlock()
			shared.measured = true
		}
	}
	return nil
}

// measure revokes a token and returns how long each package verifier took to refuse it.
func (c *crowd) measure(revoker *revoker, token minted) ([]time.Duration, error) {
	for _, v := range c.verifiers {
		// On a machine that is short of time a lease ends now and then.
		accepts := func() error { _, err := v.Verify(c.ctx, token.raw); return err }
		if err := process.Await(accepts, 20*time.Second); err != nil {
			return nil, fmt.Errorf("a verifier refuses a good token: %w", err)
		}
	}
	c.pending.Store(token.key, nil)
	next := time.Now().Add(pace)
	began := time.Now()
	c.sent[token.key] = began
	took := make([]time.Duration, len(c.verifiers))
	var waiting sync.WaitGroup
	for i, v := range c.verifiers {
		waiting.Go(func() {
			for took[i] == 0 && time.Since(began) < 30*time.Second {
				var refusal *verifier.Error
				if _, err := v.Verify(c.ctx, token.raw); errors.As(err, &refusal) && refusal.Reason == verifier.Revoked {
					took[i] = time.Since(began)
					return
				}
				time.Sleep(500 * time.Microsecond)
			}
		})
	}
	if err := revoker.revoke(token.raw); err != nil {
		return nil, err
	}
	waiting.Wait()
	time.Sleep(time.Until(next))
	return took, nil
}

// arrivals returns how long each measured revocation took to each follower.
func (c *crowd) arrivals() ([]time.Duration, error) {
	if err := c.failed.Load(); err != nil {
		return nil, *err
	}
	var all []time.Duration
	for key, began := range c.sent {
		cursor, ok := c.found[key]
		if !ok {
			return nil, fmt.Errorf("a revocation came in no frame: %w", io.ErrUnexpectedEOF)
		}
		for _, f := range c.followers {
			f.mu.Lock()
			came, ok := f.came[cursor]
			f.mu.Unlock()
			if !ok {
				return nil, fmt.Errorf("a frame did not come to a follower: %w", io.ErrUnexpectedEOF)
			}
			all = append(all, came.Sub(began))
		}
	}
	return all, nil
}
