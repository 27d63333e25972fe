package authserver

import (
	"errors"
	"io"
	"net/http"
	"runtime"
)

// perCPU is how many requests are worked on at once for each CPU. More than a CPU can
// do in a tenth of a second would only wait, and be given up by who sent it, while the
// server does work that nobody waits for any more.
const perCPU = 256

// admission bounds the requests that are worked on at once. Beyond the bound they are
// refused at once, so that the others are answered in time. Documents, the key set and
// the feed are served in any case: they ask nothing of the store and cost next to
// nothing.
type admission struct{ places chan struct{} }

func newAdmission() admission {
	return admission{make(chan struct{}, perCPU*runtime.GOMAXPROCS(0))}
}

// enter takes a place for a request, or refuses it. The caller says when it is done.
// The body is read before, so that nobody holds a place by sending slowly.
func (a admission) enter(r *http.Request) (done func(), err error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1)) // the one byte more makes it too large
	r.Body = &received{body, err}
	select {
	case a.places <- struct{}{}:
		return func() { <-a.places }, nil
	default:
		busy := unavailable(errors.New("too many requests at once"))
		busy.Description = "the server has more to do than it can; nothing has happened, repeat the same request"
		return nil, busy
	}
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
