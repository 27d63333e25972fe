package authserver

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	// perCPU is how many requests are worked on at once for each CPU. More than a CPU can
	// do in a tenth of a second would only wait, and be given up by who sent it, while the
	// server does work that nobody waits for any more.
	perCPU = 256

	usualBody   = 2 << 10 // bytes
	smallBody   = 8 << 10 // bytes; nearly all requests have less
	largeBodies = 512     // that are read or worked on at once, at most: 32 MiB

	// stale is how long a request has waited when it is refused: its sender gives up soon,
	// and those behind it are as late unless some are not worked on.
	stale = 300 * time.Millisecond
	// keptBack is how long a refusal is kept back: who asks again at once would have most of
	// the server's time go into refusals.
	keptBack = 2 * time.Second
	pausing  = 16384 // refusals that are kept back, at most
)

// AtOnce is how many requests the server works on at once, at most.
func AtOnce() int { return perCPU * runtime.GOMAXPROCS(0) }

type receivedKey struct{}

// WithReceived tells the server how long ago the last bytes of a connection's request came
// in, for http.Server.ConnContext. Requests that have waited in their connection are
// refused when there is more to do than can be done.
func WithReceived(ctx context.Context, since func() time.Duration) context.Context {
	return context.WithValue(ctx, receivedKey{}, since)
}

// SinceReceived is what WithReceived was told, or 0.
func SinceReceived(ctx context.Context) time.Duration {
	since, ok := ctx.Value(receivedKey{}).(func() time.Duration)
	if !ok {
		return 0
	}
	return since()
}

// admission bounds the requests that are worked on at once, and the memory of those
// that are being received. Beyond the bound they are refused, as are those that have
// waited for long before the server saw them, so that the others are answered in time.
// Documents, the key set and the feed are served in any case: they ask nothing of the
// store and cost next to nothing.
type admission struct {
	places   chan struct{}
	large    chan struct{}
	paused   chan struct{} // refusals that are kept back
	keptBack time.Duration
	log      *slog.Logger
	told     *atomic.Int64 // when refusals were logged, in seconds since 1970
	untold   *atomic.Int64 // how many there were since
}

func newAdmission(log *slog.Logger) admission {
	return admission{
		places: make(chan struct{}, AtOnce()), large: make(chan struct{}, largeBodies),
		paused: make(chan struct{}, pausing), keptBack: keptBack,
		log: log, told: new(atomic.Int64), untold: new(atomic.Int64),
	}
}

var errBusy = &Error{Code: "temporarily_unavailable", Status: http.StatusServiceUnavailable, RetryAfter: time.Second,
	Description: "the server has more to do than it can; nothing has happened, repeat the same request"}

// enter takes a place for a request, or refuses it. The caller says when it is done.
// The body is read before, so that nobody holds a place by sending slowly; when there is
// no place anyhow, it is not even read.
func (a admission) enter(r *http.Request) (done func(), err error) {
	if len(a.places) == cap(a.places) || SinceReceived(r.Context()) > stale {
		return nil, a.busy(r.Context())
	}
	body, err := readSmall(r)
	leave := func() {}
	if err == nil && len(body) == smallBody {
		select {
		case a.large <- struct{}{}:
			leave = func() { <-a.large }
		default:
			return nil, a.busy(r.Context())
		}
		var rest []byte
		rest, err = io.ReadAll(io.LimitReader(r.Body, maxBody+1-smallBody)) // the one byte more makes it too large
		body = append(body, rest...)
	}
	r.Body = &received{body, err}
	select {
	case a.places <- struct{}{}:
		return func() { <-a.places; leave() }, nil
	default:
		leave()
		return nil, a.busy(r.Context())
	}
}

// readSmall reads the first smallBody bytes of a body, or all of it. Where a usual length is
// promised that much room is made at once; over HTTP/2 the end of a body may come behind it.
func readSmall(r *http.Request) ([]byte, error) {
	if r.ProtoMajor != 1 || r.ContentLength < 0 || r.ContentLength > usualBody {
		return io.ReadAll(io.LimitReader(r.Body, smallBody))
	}
	body := make([]byte, r.ContentLength)
	n, err := io.ReadFull(r.Body, body)
	return body[:n], err
}

// busy refuses a request, after a while. It is logged once a second, with the number of
// all, and not as other refusals are: when there is most to do, that would be most of it.
func (a admission) busy(ctx context.Context) error {
	a.untold.Add(1)
	now := time.Now().Unix()
	if last := a.told.Load(); now != last && a.told.CompareAndSwap(last, now) {
		a.log.Error("refused: too many requests at once", "event", "overload", "refused", a.untold.Swap(0), "at_once", cap(a.places))
	}
	select {
	case a.paused <- struct{}{}:
		pause(ctx, a.keptBack)
		<-a.paused
	default:
	}
	return errBusy
}

// received is a body that was read already, and the error that reading it ended with.
type received struct {
	left []byte
	err  error
}

func (b *received) Read(into []byte) (int, error) {
	n := copy(into, b.left)
	b.left = b.left[n:]
	switch {
	case len(b.left) > 0:
		return n, nil
	case b.err != nil:
		return n, b.err
	}
	return n, io.EOF
}

func (b *received) Close() error { return nil }
