package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"authserver/internal/feed"
	"authserver/keys"
)

// sentFrame is a frame that was signed once for all connections, as an event of a
// stream of server-sent events. Frames form a list: a connection holds the last one
// that it wrote and waits until the next is ready. Nobody queues anything for
// anybody, and what no connection holds is garbage.
type sentFrame struct {
	event  []byte
	cursor feed.Cursor
	asOf   int64
	ready  chan struct{} // closed when next is set
	next   *sentFrame
}

// publish makes frames until ctx ends: as soon as something was read, but feed.Gather
// after the frame before at the earliest, and a heartbeat when there is nothing to say.
func (f *revocationFeed) publish(ctx context.Context) {
	heartbeat := time.NewTimer(feed.Heartbeat)
	defer heartbeat.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
			pause(ctx, time.Until(last.Add(f.gatherFor())))
		case <-heartbeat.C:
		}
		last = time.Now()
		if err := f.advance(); err != nil {
			f.server.log.Error("the feed stands still: a frame cannot be signed", "error", err)
		}
		heartbeat.Reset(feed.Heartbeat)
	}
}

// fenceGather is feed.Gather for a fence. One follows the revocation that is waited
// for at once, whose frame has just gone out.
const fenceGather = feed.Gather / 4

// gatherFor is how long after the frame before the next one goes out.
func (f *revocationFeed) gatherFor() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.ContainsFunc(f.unsent, func(s step) bool { return s.fence }) {
		return fenceGather
	}
	return feed.Gather
}

// advance makes frames of all that is unsent, or a heartbeat. When it fails, what is
// unsent stays so until the next time.
func (f *revocationFeed) advance() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.read.asOf.IsZero() || len(f.unsent) == 0 && f.streams.Load() == 0 {
		return nil
	}
	asOf := f.clock(f.read.asOf)
	for {
		batch, more := takeBatch(f.unsent)
		frame := feed.Frame{After: f.latest.cursor, Cursor: f.latest.cursor, AsOf: asOf}
		if more {
			frame.AsOf = f.stated // the rest of what was read comes in later frames
		}
		for _, step := range batch {
			frame.Cursor = step.cursor
			frame.Revoked = append(frame.Revoked, step.entries...)
			frame.Ack = frame.Ack || step.fence
		}
		event, err := f.sign(frame)
		if err != nil {
			return err
		}
		f.remember(batch)
		f.unsent = f.unsent[len(batch):]
		f.stated = frame.AsOf
		next := &sentFrame{event: event, cursor: frame.Cursor, asOf: frame.AsOf, ready: make(chan struct{})}
		f.latest.next = next
		close(f.latest.ready)
		f.latest = next
		f.sent.Store(max(f.sent.Load(), next.cursor.Position()))
		if !more {
			f.unsent = nil
			return nil
		}
	}
}

// takeBatch returns the first steps, as many as one frame holds.
func takeBatch(steps []step) (batch []step, more bool) {
	entries := 0
	for i, step := range steps {
		if entries += len(step.entries); entries > feed.MaxFrame || i == feed.MaxFrame {
			return steps[:i], true
		}
	}
	return steps, false
}

// remember keeps steps for those who come back.
func (f *revocationFeed) remember(steps []step) {
	f.history = append(f.history, steps...)
	for _, step := range steps {
		f.retained += 1 + len(step.entries)
	}
	first := 0
	for f.retained > maxHistory {
		f.retained -= 1 + len(f.history[first].entries)
		f.before = f.history[first].cursor
		first++
	}
	f.history = f.history[first:]
}

// clock returns an instant on the stream's clock, in milliseconds.
func (f *revocationFeed) clock(t time.Time) int64 { return t.Sub(f.began).Milliseconds() }

// sign returns a frame of this stream as a server-sent event whose id is its cursor.
func (f *revocationFeed) sign(frame feed.Frame) ([]byte, error) {
	frame.Issuer, frame.Stream = f.server.issuer, f.stream
	payload, err := json.Marshal(frame)
	if err != nil {
		return nil, fmt.Errorf("encoding a frame: %w", err)
	}
	token, err := f.server.signForVerifiers(feed.FrameType, payload)
	if err != nil {
		return nil, fmt.Errorf("signing a frame: %w", err)
	}
	return []byte(strings.Join([]string{"id: ", string(frame.Cursor), "\ndata: ", token, "\n\n"}, "")), nil
}

// signForVerifiers signs a part of the feed with the default algorithm, or with another
// one where that has no key to sign with: a key that leaked must not silence the feed
// that says so. Verifiers take any key of the issuer for it.
func (s *Server) signForVerifiers(typ string, payload []byte) (token string, err error) {
	for _, ring := range s.keys.Algorithms() { // the first is the default
		if token, err = s.keys.Sign(ring, typ, payload); !errors.Is(err, keys.ErrNoKey) {
			return token, err
		}
	}
	return "", err
}

// resume returns the frame after which a connection goes on, and what it is missing
// from its cursor up to there. Without a cursor it goes on from now. It reports false
// when the cursor is not known here: too old, or of another past.
func (f *revocationFeed) resume(cursor feed.Cursor) (from *sentFrame, asOf int64, missing []step, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	asOf = f.latest.asOf
	if len(f.unsent) == 0 { // no heartbeat has said so yet
		f.stated = f.clock(f.read.asOf)
		asOf = f.stated
	}
	if cursor == "" || cursor == f.latest.cursor {
		return f.latest, asOf, nil, true
	}
	if cursor == f.before {
		return f.latest, asOf, slices.Clone(f.history), true
	}
	for i, step := range slices.Backward(f.history) { // most come back soon
		if step.cursor == cursor {
			return f.latest, asOf, slices.Clone(f.history[i+1:]), true
		}
	}
	return nil, 0, nil, false
}

// first returns the frames that begin a connection: the first one answers the nonce,
// and all together bring it from hello.After to where it goes on.
func (f *revocationFeed) first(hello feed.Frame, asOf int64, missing []step) ([]byte, error) {
	frame := hello
	frame.Clock = f.clock(time.Now())
	var events []byte
	for {
		batch, more := takeBatch(missing)
		frame.Cursor, frame.AsOf = frame.After, asOf
		if more {
			frame.AsOf = -1
		}
		for _, step := range batch {
			frame.Cursor = step.cursor
			frame.Revoked = append(frame.Revoked, step.entries...)
			frame.Ack = frame.Ack || step.fence
		}
		event, err := f.sign(frame)
		if err != nil {
			return nil, err
		}
		events = append(events, event...)
		if !more {
			return events, nil
		}
		missing = missing[len(batch):]
		frame = feed.Frame{After: frame.Cursor}
	}
}
