package authserver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"authserver/store"
)

// outbox delivers security events to receivers. It is the log of events and, for each
// receiver, a record of how far it was told: nothing is copied for a receiver, so that
// one which is down costs the store nothing and survives a restart of everything.
//
// Of the instances of a store one delivers to a receiver: who holds the record. It
// moves the record's version every few seconds by a swap; when it does not move for
// a while, another takes it. No clock but one's own has a part in that. Who is
// overtaken notices with his next swap. An event may so be delivered twice, with the
// same jti, and none is left out.
type outbox struct {
	server    *Server
	receivers []Receiver
	records   store.Table[outboxRecord] // by the name of the receiver
	instance  string

	renewEvery time.Duration
	lapse      time.Duration
	firstWait  time.Duration
	limit      int
}

// outboxRecord is what the store remembers of a receiver.
type outboxRecord struct {
	Position store.Position `json:"position"` // everything until here is settled
	Holder   string         `json:"holder"`   // empty when it was given back
}

const (
	securityEventAge   = 24 * time.Hour               // an event that was not delivered for so long is dropped
	securityEventsKept = securityEventAge + time.Hour // so that it is the outbox that drops them, and says so
	outboxKept         = 2 * securityEventsKept       // the record of a receiver outlives the events
	outboxRenew        = 3 * time.Second              // how often the holder moves the record
	outboxLapse        = 10 * time.Second             // a record that was not moved for so long is free
	outboxLimit        = 100_000                      // events that wait for one receiver; the oldest are dropped
	outboxTail         = time.Second                  // how long one read of the log waits
	parallelEvents     = 8                            // requests to one receiver at once
	maxAttempts        = 8                            // of one event, at a receiver that accepts others meanwhile
	outboxFirstWait    = time.Second                  // after a round in which nothing was accepted; doubled
	outboxLongestWait  = time.Minute
)

func newOutbox(s *Server, receivers []Receiver) *outbox {
	return &outbox{server: s, receivers: receivers, records: store.Table[outboxRecord]{Store: s.store, Name: "receiver"}, instance: newID(),
		renewEvery: outboxRenew, lapse: outboxLapse, firstWait: outboxFirstWait, limit: outboxLimit}
}

// wants reports whether a receiver is to be told of a type of events.
func (o *outbox) wants(eventType string) bool {
	return slices.ContainsFunc(o.receivers, func(r Receiver) bool { return r.wants(eventType) })
}

func (r *Receiver) wants(eventType string) bool {
	return len(r.Events) == 0 || slices.Contains(r.Events, eventType)
}

// run delivers until ctx ends. Each receiver has a goroutine of its own, so that none
// waits for another.
func (o *outbox) run(ctx context.Context) {
	var running sync.WaitGroup
	for i := range o.receivers {
		running.Go(func() { o.serve(ctx, &o.receivers[i]) })
	}
	running.Wait()
}

// serve delivers to a receiver whenever this instance holds its record.
func (o *outbox) serve(ctx context.Context, r *Receiver) {
	for {
		held := o.hold(ctx, r)
		if held == nil {
			return
		}
		held.deliver(ctx)
		o.server.metrics.eventsWaiting.WithLabelValues(r.Name).Set(0) // here
		if ctx.Err() != nil {
			held.giveBack()
			return
		}
	}
}

// hold waits until it has taken the record of a receiver. It returns nil when ctx ends.
func (o *outbox) hold(ctx context.Context, r *Receiver) *delivery {
	var seen uint64 // the version that the record has had since
	since := time.Now()
	for ; ctx.Err() == nil; pause(ctx, o.renewEvery) {
		record, stored, err := o.records.Get(ctx, r.Name)
		if errors.Is(err, store.ErrNotFound) {
			// A receiver is told of all that is in the log when it is new.
			record, stored, err = outboxRecord{}, store.Record{}, o.records.Create(ctx, r.Name, outboxRecord{}, time.Now().Add(outboxKept))
			if errors.Is(err, store.ErrExists) {
				continue
			}
			stored.Version = 1
		}
		if err != nil {
			if ctx.Err() == nil {
				o.server.log.Warn("asking who delivers security events", "receiver", r.Name, "error", err.Error())
			}
			continue
		}
		if stored.Version != seen {
			seen, since = stored.Version, time.Now()
		}
		if record.Holder != "" && record.Holder != o.instance && time.Since(since) < o.lapse {
			continue
		}
		d := &delivery{outbox: o, receiver: r, version: stored.Version, position: record.Position, read: record.Position}
		if d.renew(ctx) {
			return d
		}
	}
	return nil
}
