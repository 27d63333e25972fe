package guard

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"authserver/store"
)

const (
	tripAfter  = 5                      // failures in a row
	probeEvery = 500 * time.Millisecond // one call gets through while it is open
)

var errOpen = &store.UnavailableError{Why: "the store has not answered for a while and is not asked at this moment"}

// breaker is open while calls fail: a hung store otherwise holds each request for
// its whole budget, and requests pile up behind it.
type breaker struct {
	log *slog.Logger

	mu       sync.Mutex
	failures int // in a row
	last     time.Time
	probing  bool
}

// allow reports whether the store may be asked now. Who may must report.
func (b *breaker) allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < tripAfter {
		return true
	}
	// A probe that never reports, whose caller panicked, is not waited for.
	if wait := probeEvery; b.probing && time.Since(b.last) < 10*wait || time.Since(b.last) < wait {
		return false
	}
	b.probing, b.last = true, time.Now()
	return true
}

// report takes what came of a call. A caller who went away says nothing about the store.
func (b *breaker) report(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	switch {
	case errors.Is(err, context.Canceled):
	case err == nil || isDecision(err):
		if b.failures >= tripAfter {
			b.log.Info("the store answers again", "event", "store")
		}
		b.failures = 0
	default:
		b.failures++
		b.last = time.Now()
		if b.failures == tripAfter {
			b.log.Error("the store does not answer: requests that need it are refused at once", "event", "store", "error", err.Error())
		}
	}
}
