package verifier

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"authserver/internal/feed"
	"authserver/internal/intake"
)

const (
	snapshotTime  = 30 * time.Second       // to load one
	silence       = feed.Lease             // after which a stream is given up
	remindEvery   = time.Minute            // the log is told that the feed is not followed
	firstPause    = 50 * time.Millisecond  // before a stream is opened again
	longestPause  = time.Second            //
	expireEvery   = 10 * time.Second       // what no longer matters is dropped
	maxEvent      = intake.MaxToken + 1024 // bytes of a line of the stream
	firstFreshFor = 5 * time.Second        // after the start requests wait so long for the first frame
)

// follower follows the issuer's feed of revocations.
type follower struct {
	feed     *feed.Follower
	location string
	source   *source
	keys     *keySet
	log      *slog.Logger
	first    chan struct{} // closed when revocations are known for the first time
	patience time.Time     // until when requests wait for that
	started  bool          // first is closed
	cut      time.Time     // since when the feed is not followed; zero while it is
	frames   atomic.Int64  // after which all revocations were known
	noLease  *atomic.Bool  // some route accepts tokens while revocations are not known
	held     atomic.Bool   // the issuer counts on the promise of a lease
}

func newFollower(location string, source *source, keys *keySet, noLease *atomic.Bool) *follower {
	return &follower{feed: feed.NewFollower(source.config.Issuer), location: location, source: source, keys: keys, noLease: noLease,
		log: source.config.Logger, first: make(chan struct{}), patience: time.Now().Add(firstFreshFor)}
}

// fresh reports whether all that was revoked up to a lease ago is known. Only before
// the first frame it waits a little.
func (f *follower) fresh(ctx context.Context) bool {
	if f.feed.Fresh(time.Now()) {
		return true
	}
	select {
	case <-f.first:
		return f.feed.Fresh(time.Now())
	default:
	}
	wait := time.Until(f.patience)
	if wait <= 0 {
		return false
	}
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	select {
	case <-f.first:
	case <-ctx.Done():
	case <-timeout.C:
	}
	return f.feed.Fresh(time.Now())
}

// run follows the feed until ctx ends.
func (f *follower) run(ctx context.Context) {
	pause := firstPause
	var said time.Time // that the feed is not followed
	for snapshot := true; ctx.Err() == nil; {
		before := f.frames.Load()
		err := f.connect(ctx, snapshot)
		if ctx.Err() != nil {
			return
		}
		switch now := time.Now(); { // not at every attempt
		case f.cut.IsZero():
			f.cut, said = now, now
			f.log.Warn("the issuer's feed of revocations was cut; it is opened again", "issuer", f.source.config.Issuer, "error", err)
		case now.Sub(said) >= remindEvery:
			said = now
			f.log.Warn("the issuer's feed of revocations is still not followed", "issuer", f.source.config.Issuer, "for", now.Sub(f.cut).Round(time.Second).String(), "error", err)
		}
		// Whoever has forgotten the cursor, or holds another past, gives a snapshot.
		snapshot = f.feed.Cursor() == "" || errors.Is(err, errCursorUnknown) || errors.Is(err, feed.ErrGap)
		if f.frames.Load() > before {
			pause = firstPause
		}
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, longestPause)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errCursorUnknown is the answer 410 Gone: a snapshot is needed.
var errCursorUnknown = errors.New("the issuer does not know the cursor any more")

// connect opens one stream and applies its frames until it ends, which it always
// does with an error.
func (f *follower) connect(ctx context.Context, snapshot bool) error {
	if snapshot {
		if err := f.load(ctx); err != nil {
			return fmt.Errorf("loading a snapshot: %w", err)
		}
	}
	// A stream that has nothing to say says so; one that says nothing is dead.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := time.AfterFunc(requestTimeout, cancel)
	defer watch.Stop()
	nonce := rand.Text()
	parameters := url.Values{"nonce": {nonce}, "verifier": {f.source.config.Audience}}
	leased := !f.noLease.Load()
	if leased {
		parameters.Set("lease", "1")
	}
	request, err := f.request(ctx, f.location+"?"+parameters.Encode())
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("Last-Event-ID", string(f.feed.Cursor()))
	client := *f.source.client
	client.Timeout = 0 // it would end the stream
	f.feed.Connect(nonce, time.Now())
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusGone:
		return errCursorUnknown
	default:
		return fmt.Errorf("%s answered %s", f.location, response.Status)
	}
	return f.read(ctx, response.Body, watch, leased)
}

// read applies the frames of a stream of server-sent events. Each event is one
// line of data, the rest is for other readers.
func (f *follower) read(ctx context.Context, stream io.Reader, watch *time.Timer, leased bool) error {
	acknowledge := f.acknowledging(ctx)
	lines := bufio.NewScanner(stream)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	expired := time.Now()
	for lines.Scan() {
		raw, found := strings.CutPrefix(lines.Text(), "data: ")
		if !found {
			continue
		}
		received := time.Now()
		frame, err := f.feed.Apply(raw, received, f.verify(ctx))
		if err != nil {
			return err
		}
		if leased && f.noLease.Load() {
			return errLeaseGivenUp
		}
		if frame.Nonce != "" { // the first one of the connection
			f.held.Store(leased)
		}
		acknowledge(frame)
		watch.Reset(silence)
		if f.feed.Fresh(received) {
			f.frames.Add(1)
			if !f.cut.IsZero() {
				f.log.Info("the issuer's feed of revocations is followed again", "issuer", f.source.config.Issuer, "after", received.Sub(f.cut).Round(time.Millisecond).String())
				f.cut = time.Time{}
			}
			if !f.started {
				f.started = true
				close(f.first)
			}
		}
		if received.Sub(expired) > expireEvery {
			f.feed.Set.Expire()
			expired = received
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

// load takes a snapshot of all live revocations. A server that hangs is given up sooner
// than a large one that is on its way.
func (f *follower) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, snapshotTime)
	defer cancel()
	request, err := f.request(ctx, f.location)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	client := *f.source.client
	client.Timeout = 0 // snapshotTime bounds it
	hung := time.AfterFunc(requestTimeout, cancel)
	response, err := client.Do(request)
	hung.Stop()
	if err != nil {
		return err
	}
	body, err := readAnswer(request.URL, response, feed.MaxSnapshot)
	if err != nil {
		return err
	}
	return f.feed.Load(body, f.verify(ctx))
}

func (f *follower) request(ctx context.Context, location string) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, err
	}
	return request, f.source.authenticate(request)
}

// verify checks a signature by the issuer's keys, as for an access token.
func (f *follower) verify(ctx context.Context) feed.Verify {
	return func(token *intake.Token) error {
		key, err := f.keys.find(ctx, token.KeyID)
		if err != nil {
			return err
		}
		return token.Verify(key.Key)
	}
}
