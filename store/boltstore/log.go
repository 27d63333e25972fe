package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"authserver/store"

	"go.etcd.io/bbolt"
)

// A position is milliseconds since 1970 and a sequence number of 20 bits. The
// value of a log entry is its expiry in milliseconds and the event.
const sequenceBits = 20

// Append implements store.Store.
func (s *Store) Append(ctx context.Context, log string, event []byte, keep time.Duration) (store.Position, error) {
	now := time.Now()
	expires := store.Forever
	if keep != store.KeepAll {
		expires = now.Add(keep)
	}
	if err := check(log, event, expires); err != nil {
		return 0, err
	}
	event = bytes.Clone(event) // the writer may read it after ctx ended
	var position store.Position
	err := s.update(ctx, func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(logs)
		last, err := lastPosition(tx, log)
		if err != nil {
			return err
		}
		position = max(store.Position(now.UnixMilli())<<sequenceBits, last+1)
		key := pair(log, binary.BigEndian.AppendUint64(nil, uint64(position)))
		if err := bucket.Put(key, append(millis(expires), event...)); err != nil {
			return err
		}
		if err := bucket.Put(pair(log, nil), binary.BigEndian.AppendUint64(millis(store.Forever), uint64(position))); err != nil {
			return err
		}
		s.grown = true
		return expireAt(tx, expires, logs, key)
	})
	if err != nil {
		return 0, err
	}
	return position, nil
}

// wake ends the waiting of all Tails, whether or not the Append that did it still
// has a caller.
func (s *Store) wake() {
	s.mu.Lock()
	close(s.appended)
	s.appended = make(chan struct{})
	s.mu.Unlock()
}

// lastPosition is the highest position that the log ever gave out, kept beside
// its events so that none comes back after they expired.
func lastPosition(tx *bbolt.Tx, log string) (store.Position, error) {
	value := tx.Bucket(logs).Get(pair(log, nil))
	if value == nil {
		return 0, nil
	}
	if len(value) != 16 {
		return 0, fmt.Errorf("the last position of log %q is unreadable: %w", log, errDamaged)
	}
	return store.Position(binary.BigEndian.Uint64(value[8:])), nil
}

// Tail implements store.Store.
func (s *Store) Tail(ctx context.Context, log string, after store.Position, wait time.Duration) ([]store.Event, error) {
	if err := store.CheckKey(log); err != nil {
		return nil, err
	}
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		appended := s.appended
		s.mu.Unlock()
		events, err := s.read(ctx, log, after)
		if err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-appended:
		case <-timeout.C:
			return nil, nil
		case <-s.closed:
			return nil, errClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for an event: %w", ctx.Err())
		}
	}
}

func (s *Store) read(ctx context.Context, log string, after store.Position) (events []store.Event, err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("reading a log: %w", err)
	}
	if after+1 == 0 {
		return nil, nil // nothing comes after the last position
	}
	prefix := pair(log, nil)
	err = s.db.View(func(tx *bbolt.Tx) error {
		now, cursor := time.Now(), tx.Bucket(logs).Cursor()
		from := binary.BigEndian.AppendUint64(bytes.Clone(prefix), uint64(after+1))
		for key, value := cursor.Seek(from); bytes.HasPrefix(key, prefix) && len(events) < store.MaxTail; key, value = cursor.Next() {
			expires, err := expiryOf(value)
			if err != nil || len(key) != len(prefix)+8 {
				return fmt.Errorf("an event of log %q is unreadable: %w", log, errDamaged)
			}
			if now.Before(expires) {
				position := store.Position(binary.BigEndian.Uint64(key[len(prefix):]))
				events = append(events, store.Event{Position: position, Value: bytes.Clone(value[8:])})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading a log: %w", err)
	}
	return events, nil
}
