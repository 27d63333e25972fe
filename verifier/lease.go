package verifier

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"authserver/internal/feed"
)

// A verifier asks for a lease: the promise that it accepts no token offline when its
// knowledge of what was revoked is older than feed.Lease. On that the issuer can say
// that a revocation is enforced everywhere: each verifier that holds a lease has
// acknowledged it, or accepts nothing. One that has a route which accepts tokens all
// the same asks for none.

// errLeaseGivenUp has the stream opened again without a lease.
var errLeaseGivenUp = errors.New("a route accepts tokens until they expire, so the lease is given up")

// acknowledging returns a function that takes the frames of one connection, and sends
// the issuer, in the background, the acknowledgements that they ask for.
func (f *follower) acknowledging(ctx context.Context) func(feed.Frame) {
	var lease string
	latest := make(chan feed.Cursor, 1)
	return func(frame feed.Frame) {
		if frame.Lease != "" {
			lease = frame.Lease
			go f.acknowledge(ctx, lease, latest)
		}
		if !frame.Ack || lease == "" {
			return
		}
		select { // a later cursor says all that an earlier one says
		case <-latest:
		default:
		}
		latest <- frame.Cursor
	}
}

// acknowledge sends cursors until ctx ends. One that is lost costs whoever waits for
// it the length of a lease.
func (f *follower) acknowledge(ctx context.Context, lease string, cursors <-chan feed.Cursor) {
	for {
		select {
		case <-ctx.Done():
			return
		case cursor := <-cursors:
			form := url.Values{"lease": {lease}, "cursor": {string(cursor)}}
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.location, strings.NewReader(form.Encode()))
			if err != nil {
				return
			}
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if _, _, err := f.source.do(request, 4096); err != nil && ctx.Err() == nil {
				f.log.Warn("a revocation could not be acknowledged", "issuer", f.source.config.Issuer, "error", err)
			}
		}
	}
}
