package authserver

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"authserver/store"
)

// delivery is the work for one receiver, for as long as this instance holds its record.
type delivery struct {
	*outbox
	receiver *Receiver
	version  uint64         // of the record
	position store.Position // everything until here is settled, and the record says so
	renewed  time.Time

	waiting []*waitingEvent // read and not settled, the oldest first
	read    store.Position  // of the last event that was read
}

// waitingEvent is an event that is not settled: neither delivered nor given up.
type waitingEvent struct {
	securityEvent
	position store.Position
	failures int       // while the receiver accepted others
	next     time.Time // it is not sent before
	settled  bool
}

const maxWaitingEvents = store.MaxTail / 2 // that are held in memory; one read may add a page

// deliver sends what waits until ctx ends or another instance holds the record.
func (d *delivery) deliver(ctx context.Context) {
	failures := 0 // of the receiver, in a row
	for ctx.Err() == nil {
		if !d.keep(ctx) || !d.fill(ctx) {
			return
		}
		d.dropOld()
		due := d.due()
		if len(due) == 0 {
			continue
		}
		alive, after := d.round(ctx, due)
		if alive {
			failures = 0
		} else {
			failures++
			after = max(after, d.backoff(failures))
			d.bound(ctx)
		}
		if !d.rest(ctx, after) {
			return
		}
	}
}

// backoff is how long to wait after so many failures. Half of it is by chance, so
// that what has failed together does not come back together.
func (d *delivery) backoff(failures int) time.Duration {
	wait := min(d.firstWait<<min(failures-1, 20), outboxLongestWait)
	return wait/2 + rand.N(wait/2+1)
}

// due are the oldest events that may be sent now.
func (d *delivery) due() []*waitingEvent {
	var due []*waitingEvent
	for _, e := range d.waiting {
		if len(due) < parallelEvents && time.Until(e.next) <= 0 {
			due = append(due, e)
		}
	}
	return due
}

// fill reads on in the log. When nothing is due it waits a moment.
func (d *delivery) fill(ctx context.Context) bool {
	var patience time.Duration
	if len(d.due()) == 0 {
		patience = outboxTail
	}
	if len(d.waiting) >= maxWaitingEvents {
		return d.rest(ctx, patience)
	}
	events, err := d.server.store.Tail(ctx, securityEventLog, d.read, patience)
	if err != nil {
		if ctx.Err() == nil {
			d.server.log.Warn("reading the log of security events", "receiver", d.receiver.Name, "error", err.Error())
		}
		return d.rest(ctx, outboxTail)
	}
	for _, logged := range events {
		d.read = logged.Position
		e, err := readSecurityEvent(logged)
		switch {
		case err != nil:
			d.server.log.Error("the log of security events has one that cannot be read", "position", uint64(logged.Position), "error", err.Error())
			d.drop("unreadable", 1, "")
		case d.receiver.wants(e.Type):
			d.waiting = append(d.waiting, &waitingEvent{securityEvent: e, position: logged.Position})
		}
	}
	d.forgetSettled()
	return true
}

// dropOld gives up on events that are too old to be told of.
func (d *delivery) dropOld() {
	oldest := time.Now().Add(-securityEventAge).Unix()
	for _, e := range d.waiting {
		if e.At < oldest {
			e.settled = true
			d.drop("too_old", 1, e.ID)
		}
	}
	d.forgetSettled()
}

// round sends events at once. It reports whether the receiver is alive: it took one,
// or refused it, or only those have failed that had failed beside others before.
func (d *delivery) round(ctx context.Context, due []*waitingEvent) (alive bool, after time.Duration) {
	results := make([]answer, len(due))
	var sending sync.WaitGroup
	for i, e := range due {
		sending.Go(func() { results[i] = d.server.push(ctx, d.receiver, e.securityEvent) })
	}
	sending.Wait()
	answered, fresh := false, false
	for i, e := range due {
		e.settled = results[i].outcome != eventFailed
		answered = answered || e.settled
		fresh = fresh || !e.settled && e.failures == 0
		after = max(after, results[i].after)
		if e.settled || ctx.Err() == nil {
			d.report(e, results[i])
		}
	}
	alive = answered || !fresh
	for _, e := range due {
		if e.settled || !alive {
			continue
		}
		if answered {
			e.failures++
		}
		e.next = time.Now().Add(d.backoff(e.failures))
		if e.failures >= maxAttempts {
			e.settled = true
			d.drop("given_up", 1, e.ID)
		}
	}
	d.forgetSettled()
	return alive, after
}

// report logs and counts one attempt.
func (d *delivery) report(e *waitingEvent, result answer) {
	level, name := slog.LevelInfo, "delivered"
	switch result.outcome {
	case eventRefused:
		level, name = slog.LevelError, "refused"
	case eventFailed:
		level, name = slog.LevelWarn, "failed"
	}
	d.server.metrics.events.WithLabelValues(d.receiver.Name, name).Inc()
	d.server.log.Log(context.Background(), level, "receiver told of a security event, or not",
		"event", "security_event", "receiver", d.receiver.Name, "txn", e.ID, "type", e.Type, "sub", e.Subject, "sid", e.Session,
		"result", name, "error", errorText(result.err))
}

// drop counts and logs events that this receiver is never told of.
func (d *delivery) drop(why string, n int, txn string) {
	d.server.metrics.events.WithLabelValues(d.receiver.Name, why).Add(float64(n))
	d.server.log.Error("receiver is not told of security events: given up",
		"event", "security_events_dropped", "receiver", d.receiver.Name, "why", why, "count", n, "txn", txn)
}

func (d *delivery) forgetSettled() {
	var waiting []*waitingEvent
	for _, e := range d.waiting {
		if !e.settled {
			waiting = append(waiting, e)
		}
	}
	d.waiting = waiting
	d.server.metrics.eventsWaiting.WithLabelValues(d.receiver.Name).Set(float64(len(d.waiting)))
}

// bound drops the oldest events of a receiver that takes none, when too many wait.
func (d *delivery) bound(ctx context.Context) {
	if len(d.waiting) < min(maxWaitingEvents, d.limit) {
		return // all that wait are in memory
	}
	var beyond []store.Position
	for after := d.read; ; {
		events, err := d.server.store.Tail(ctx, securityEventLog, after, 0)
		if err != nil || len(events) == 0 {
			break // with trouble, next time
		}
		for _, logged := range events {
			after = logged.Position
			if e, err := readSecurityEvent(logged); err == nil && d.receiver.wants(e.Type) {
				beyond = append(beyond, after)
			}
		}
	}
	waiting := len(d.waiting) + len(beyond)
	d.server.metrics.eventsWaiting.WithLabelValues(d.receiver.Name).Set(float64(waiting))
	excess := waiting - d.limit
	if excess <= 0 {
		return
	}
	d.drop("too_many", excess, "")
	if excess > len(d.waiting) {
		d.read = beyond[excess-len(d.waiting)-1]
	}
	d.waiting = d.waiting[min(excess, len(d.waiting)):]
}
