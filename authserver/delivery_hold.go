package authserver

import (
	"context"
	"errors"
	"time"

	"authserver/store"
)

// How a delivery keeps the record of its receiver.

// settledTo is the position until which nothing waits.
func (d *delivery) settledTo() store.Position {
	if len(d.waiting) > 0 {
		return d.waiting[0].position - 1
	}
	return d.read
}

// rest waits, and keeps the record meanwhile.
func (d *delivery) rest(ctx context.Context, wait time.Duration) bool {
	for until := time.Now().Add(wait); time.Until(until) > 0 && ctx.Err() == nil; {
		pause(ctx, min(time.Until(until), d.renewEvery))
		if !d.keep(ctx) {
			return false
		}
	}
	return ctx.Err() == nil
}

// keep moves the record where something was settled, or when it is time to. It
// reports whether this instance holds it.
func (d *delivery) keep(ctx context.Context) bool {
	if d.settledTo() == d.position && time.Since(d.renewed) < d.renewEvery {
		return true
	}
	return d.renew(ctx)
}

func (d *delivery) renew(ctx context.Context) bool {
	began, position := time.Now(), d.settledTo()
	err := d.write(ctx, outboxRecord{Position: position, Holder: d.instance})
	switch {
	case err == nil:
		d.position, d.renewed = position, began
		return true
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
		return false
	}
	// The store is in trouble. Until the record lapses for others, it is ours.
	return !d.renewed.IsZero() && time.Since(d.renewed) < d.lapse && ctx.Err() == nil
}

func (d *delivery) write(ctx context.Context, record outboxRecord) error {
	stored, err := d.records.Swap(ctx, d.receiver.Name, d.version, record, time.Now().Add(outboxKept))
	if errors.Is(err, store.ErrConflict) {
		// It may have been our own write, whose answer was lost.
		if current, decodeErr := d.records.Decode(stored); decodeErr == nil && current.Holder == d.instance {
			stored, err = d.records.Swap(ctx, d.receiver.Name, stored.Version, record, time.Now().Add(outboxKept))
		}
	}
	if err == nil {
		d.version = stored.Version
	}
	return err
}

// giveBack lets another instance deliver at once.
func (d *delivery) giveBack() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := d.write(ctx, outboxRecord{Position: d.settledTo()}); err != nil && !errors.Is(err, store.ErrConflict) {
		d.server.log.Warn("giving a receiver's record back", "receiver", d.receiver.Name, "error", err.Error())
	}
}
