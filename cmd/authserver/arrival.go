package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"authserver/store"
)

const (
	storePatience = 10 * time.Minute // that a start waits for the store
	storeAgain    = 500 * time.Millisecond
)

// arrival is a start that waits for the store: a Redis that was started at the same time,
// loads its data or is slow is there in a while, and a process that ends instead would be
// started anew again and again. Meanwhile the listener is served, so that whoever asks
// hears that the process lives, that it is not ready, and why.
type arrival struct {
	ctx      context.Context
	log      *slog.Logger
	listener net.Listener
	tls      tlsConfig
	patience time.Duration

	why   atomic.Pointer[string] // it waits; nil before it had to
	since time.Time
	stop  func() // serving meanwhile
}

// step makes one step of the start, which asks the store, again and again until the store
// is there. Any other error, such as of a wrong password, is told at once.
func (a *arrival) step(do func() error) error {
	for {
		err := do()
		var missing *store.UnavailableError
		if !errors.As(err, &missing) {
			return err
		}
		if a.stop == nil {
			a.since = time.Now()
			if a.stop, err = a.serve(); err != nil {
				return err
			}
		}
		if time.Since(a.since) >= a.patience {
			return withHint(fmt.Errorf("waited %s for the store: %w", a.patience, missing), "check the key store, and Redis")
		}
		if why := a.why.Swap(&missing.Why); why == nil || *why != missing.Why {
			a.log.Warn("waiting for the store", "event", "store", "why", missing.Why, "error", missing.Error(), "at_most", a.patience.String())
		}
		select {
		case <-a.ctx.Done():
			return a.ctx.Err()
		case <-time.After(storeAgain):
		}
	}
}

// end ends what is done while the start waits. It may be called again.
func (a *arrival) end(arrived bool) {
	if a.stop == nil {
		return
	}
	a.stop()
	a.stop = nil
	if arrived {
		a.log.Info("the store is there", "event", "store", "waited", time.Since(a.since).String())
	}
}

// serve serves the listener until the function that it returns is called, which leaves the
// listener open and ends the connections.
func (a *arrival) serve() (stop func(), err error) {
	server := httpServer(a, a.log)
	server.SetKeepAlivesEnabled(false)
	if a.tls != (tlsConfig{}) {
		certificate, err := newCertificate(a.tls, a.log)
		if err != nil {
			return nil, err
		}
		server.TLSConfig = certificate.config()
	}
	lent := lentListener{a.listener}
	bounded := boundConnections(lent, a.log)
	server.ConnState = bounded.changed
	served := make(chan struct{})
	go func() {
		defer close(served)
		if server.TLSConfig != nil {
			server.ServeTLS(bounded, "", "")
		} else {
			server.Serve(bounded)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
		<-served
		lent.giveBack()
	}, nil
}

// ServeHTTP says why it waits.
func (a *arrival) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, body := http.StatusServiceUnavailable, map[string]string{"error": "temporarily_unavailable"}
	switch r.URL.Path {
	case "/healthz":
		status, body = http.StatusOK, map[string]string{"status": "ok"}
	case "/readyz":
		why := "" // in the moment before it is known
		if known := a.why.Load(); known != nil {
			why = ": " + *known
		}
		body = map[string]string{"status": "waiting for the store" + why}
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	if status != http.StatusOK {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// lentListener is a listener that another server uses afterwards: to close it only ends Accept.
type lentListener struct{ net.Listener }

func (l lentListener) deadline(at time.Time) error {
	if accepting, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		return accepting.SetDeadline(at)
	}
	return l.Listener.Close()
}

func (l lentListener) Close() error { return l.deadline(time.Unix(1, 0)) }

func (l lentListener) giveBack() error { return l.deadline(time.Time{}) }

// onceHandler tells a warning once, whatever number of tries come to it.
type onceHandler struct {
	slog.Handler
	told *sync.Map // of messages
}

func (h onceHandler) Handle(ctx context.Context, record slog.Record) error {
	if _, again := h.told.LoadOrStore(record.Message, true); again && record.Level >= slog.LevelWarn {
		return nil
	}
	return h.Handler.Handle(ctx, record)
}
