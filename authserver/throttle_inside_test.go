package authserver

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"authserver/store"
)

// behind is a store whose clock is behind: what it still has is over here.
type behind struct{ store.Store }

func (b behind) Get(ctx context.Context, keys ...string) ([]store.Record, error) {
	records, err := b.Store.Get(ctx, keys...)
	for i := range records {
		if records[i].Exists() {
			records[i].Expires = time.Now().Add(-time.Second)
		}
	}
	return records, err
}

// A wait that is over by this instance's clock, and is not by the store's, is one of a
// second: who is told to wait is told for how long.
func TestWaitThatOurClockHasOver(t *testing.T) {
	s := fastServer(t, 0)
	key := "account/" + hashed("bob")
	throttle := throttle{behind{s.store}}
	if err := s.store.Create(t.Context(), "wait/"+key, nil, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	_, err := throttle.admit(t.Context(), "bob", caller{address: netip.MustParseAddr("192.0.2.1")})
	var refused *Error
	if !errors.As(err, &refused) || refused.Status != http.StatusTooManyRequests || refused.RetryAfter < time.Second {
		t.Errorf("%+v, %v", refused, err)
	}
}
