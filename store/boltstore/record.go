package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"time"

	"authserver/store"

	"go.etcd.io/bbolt"
)

// A record is its version, change and expiry in milliseconds, and the value.
const recordHeader = 24

func encodeRecord(r store.Record) []byte {
	b := make([]byte, recordHeader, recordHeader+len(r.Value))
	binary.BigEndian.PutUint64(b, r.Version)
	binary.BigEndian.PutUint64(b[8:], uint64(r.Changed.UnixMilli()))
	binary.BigEndian.PutUint64(b[16:], uint64(r.Expires.UnixMilli()))
	return append(b, r.Value...)
}

// readRecord returns the live record of a key, or the zero Record.
func readRecord(tx *bbolt.Tx, key string, now time.Time) (store.Record, error) {
	if b := tx.Bucket(records).Get([]byte(key)); b != nil {
		return decodeRecord(key, b, now)
	}
	return store.Record{}, nil
}

func decodeRecord(key string, b []byte, now time.Time) (store.Record, error) {
	if len(b) < recordHeader {
		return store.Record{}, fmt.Errorf("the record %q is cut short: %w", key, errDamaged)
	}
	r := store.Record{
		Version: binary.BigEndian.Uint64(b),
		Changed: time.UnixMilli(int64(binary.BigEndian.Uint64(b[8:]))),
		Expires: time.UnixMilli(int64(binary.BigEndian.Uint64(b[16:]))),
		Value:   bytes.Clone(b[recordHeader:]),
	}
	if !now.Before(r.Expires) {
		return store.Record{}, nil
	}
	return r, nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, keys ...string) ([]store.Record, error) {
	for _, key := range keys {
		if err := store.CheckKey(key); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("reading from the store: %w", err)
	}
	found := make([]store.Record, len(keys))
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		now := time.Now()
		for i, key := range keys {
			if found[i], err = readRecord(tx, key, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading from the store: %w", err)
	}
	return found, nil
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, key string, value []byte, expires time.Time) error {
	if err := check(key, value, expires); err != nil {
		return err
	}
	value = bytes.Clone(value) // the writer may read it after ctx ended
	return s.update(ctx, func(tx *bbolt.Tx) error {
		now := time.Now()
		if present, err := readRecord(tx, key, now); err != nil || present.Exists() {
			return either(err, store.ErrExists)
		}
		return create(tx, store.Creation{Key: key, Value: value, Expires: expires}, now)
	})
}

func create(tx *bbolt.Tx, c store.Creation, now time.Time) error {
	if err := putRecord(tx, c.Key, store.Record{Version: 1, Value: c.Value, Changed: now, Expires: c.Expires}); err != nil {
		return err
	}
	return expireAt(tx, c.Expires, records, []byte(c.Key))
}

// Swap implements store.Store.
func (s *Store) Swap(ctx context.Context, key string, version uint64, value []byte, expires time.Time) (store.Record, error) {
	if err := check(key, value, expires); err != nil {
		return store.Record{}, err
	}
	value = bytes.Clone(value) // the writer may read it after ctx ended
	var result store.Record
	err := s.update(ctx, func(tx *bbolt.Tx) error {
		now := time.Now()
		present, err := readRecord(tx, key, now)
		if err != nil || !present.Exists() {
			return either(err, store.ErrNotFound)
		}
		if present.Version != version {
			result = present
			result.Now = later(now, present.Changed)
			return store.ErrConflict
		}
		if value == nil {
			value = present.Value
		}
		now = later(now, present.Changed)
		result = store.Record{
			Version: version + 1, Value: bytes.Clone(value),
			Changed: now.Truncate(time.Millisecond), Expires: expires.Truncate(time.Millisecond), Now: now,
		}
		if err := putRecord(tx, key, result); err != nil || !expires.Before(present.Expires) {
			return err // the sweeper finds the older entry and files it anew
		}
		return expireAt(tx, expires, records, []byte(key))
	})
	if err != nil && !isDecision(err) {
		return store.Record{}, err // result may still be written to by the writer
	}
	return result, err
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	return s.update(ctx, func(tx *bbolt.Tx) error { return tx.Bucket(records).Delete([]byte(key)) })
}

// Members implements store.Store. The keys of a family follow each other.
func (s *Store) Members(ctx context.Context, family string) iter.Seq2[store.FamilyMember, error] {
	return func(yield func(store.FamilyMember, error) bool) {
		if err := store.CheckFamily(family); err != nil {
			yield(store.FamilyMember{}, err)
			return
		}
		prefix := []byte(store.MemberKey(family, ""))
		for from := prefix; from != nil; {
			var page []store.FamilyMember
			next, err := s.page(ctx, records, prefix, from, func(key, value []byte, now time.Time) error {
				record, err := decodeRecord(string(key), value, now)
				if err == nil && record.Exists() && len(key) > len(prefix) {
					page = append(page, store.FamilyMember{Name: string(key[len(prefix):]), Record: record})
				}
				return err
			})
			if err != nil {
				yield(store.FamilyMember{}, fmt.Errorf("reading a family: %w", err))
				return
			}
			for _, member := range page {
				if !yield(member, nil) {
					return
				}
			}
			from = next
		}
	}
}

func putRecord(tx *bbolt.Tx, key string, r store.Record) error {
	return tx.Bucket(records).Put([]byte(key), encodeRecord(r))
}

func check(key string, value []byte, expires time.Time) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	return store.CheckValue(value, expires)
}

// later guards against a clock that went back.
func later(now, changed time.Time) time.Time {
	if now.Before(changed) {
		return changed
	}
	return now
}

func either(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// Add implements store.Store. A counter is its expiry in milliseconds and its count.
func (s *Store) Add(ctx context.Context, key string, n int64, window time.Duration) (int64, error) {
	if err := store.CheckKey(key); err != nil {
		return 0, err
	}
	var sum int64
	err := s.update(ctx, func(tx *bbolt.Tx) error {
		now, bucket := time.Now(), tx.Bucket(counters)
		value := make([]byte, 16)
		b := bucket.Get([]byte(key))
		if expires, err := expiryOf(b); err == nil && len(b) == 16 && now.Before(expires) {
			copy(value, b)
		} else {
			expires := now.Add(max(window, time.Millisecond))
			binary.BigEndian.PutUint64(value, uint64(expires.UnixMilli()))
			if err := expireAt(tx, expires, counters, []byte(key)); err != nil {
				return err
			}
		}
		sum = int64(binary.BigEndian.Uint64(value[8:])) + n
		binary.BigEndian.PutUint64(value[8:], uint64(sum))
		return bucket.Put([]byte(key), value)
	})
	if err != nil {
		return 0, err
	}
	return sum, nil
}

// Link implements store.Store.
func (s *Store) Link(ctx context.Context, index, member string, expires time.Time) error {
	if err := check(index, nil, expires); err != nil {
		return err
	}
	if err := store.CheckKey(member); err != nil {
		return err
	}
	return s.update(ctx, func(tx *bbolt.Tx) error {
		return link(tx, store.Membership{Index: index, Member: member, Expires: expires})
	})
}

func link(tx *bbolt.Tx, m store.Membership) error {
	key := pair(m.Index, []byte(m.Member))
	bucket := tx.Bucket(indexes)
	present := bucket.Get(key)
	if present != nil {
		if until, err := expiryOf(present); err != nil || !m.Expires.After(until) {
			return err
		}
	}
	if err := bucket.Put(key, millis(m.Expires)); err != nil || present != nil {
		return err
	}
	return expireAt(tx, m.Expires, indexes, key)
}

// Unlink implements store.Store.
func (s *Store) Unlink(ctx context.Context, index, member string) error {
	if err := store.CheckKey(index); err != nil {
		return err
	}
	if err := store.CheckKey(member); err != nil {
		return err
	}
	return s.update(ctx, func(tx *bbolt.Tx) error { return tx.Bucket(indexes).Delete(pair(index, []byte(member))) })
}

const pageSize = 500 // members that Linked or Members reads in one transaction

// Linked implements store.Store.
func (s *Store) Linked(ctx context.Context, index string, after store.Member) iter.Seq2[store.Member, error] {
	return func(yield func(store.Member, error) bool) {
		if err := store.CheckKey(index); err != nil {
			yield(store.Member{}, err)
			return
		}
		prefix := pair(index, nil)
		from := prefix
		if after.Name != "" { // by name: the first key behind its own
			from = append(pair(index, []byte(after.Name)), 0)
		}
		for from != nil {
			var page []store.Member
			next, err := s.page(ctx, indexes, prefix, from, func(key, value []byte, now time.Time) error {
				expires, err := expiryOf(value)
				if err == nil && now.Before(expires) {
					page = append(page, store.Member{Name: string(key[len(prefix):]), Expires: expires})
				}
				return err
			})
			if err != nil {
				yield(store.Member{}, fmt.Errorf("reading an index: %w", err))
				return
			}
			for _, member := range page {
				if !yield(member, nil) {
					return
				}
			}
			from = next
		}
	}
}

// page reads what is in a bucket under a prefix from a key on, and returns where to go
// on, nil at the end.
func (s *Store) page(ctx context.Context, bucket, prefix, from []byte, read func(key, value []byte, now time.Time) error) (next []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		now, cursor := time.Now(), tx.Bucket(bucket).Cursor()
		entries := 0
		for key, value := cursor.Seek(from); bytes.HasPrefix(key, prefix); key, value = cursor.Next() {
			if entries++; entries > pageSize {
				next = bytes.Clone(key)
				return nil
			}
			if err := read(key, value, now); err != nil {
				return err
			}
		}
		return nil
	})
	return next, err
}

// pair joins a name, its length and a second part, so that no two pairs are alike.
func pair(name string, second []byte) []byte {
	key := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(name)+len(second)), uint16(len(name)))
	return append(append(key, name...), second...)
}

func millis(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(max(t.UnixMilli(), 0))) // sorts as bytes
}

// expiryOf reads the expiry at the beginning of a counter, member or event.
func expiryOf(b []byte) (time.Time, error) {
	if len(b) < 8 {
		return time.Time{}, fmt.Errorf("an expiry is cut short: %w", errDamaged)
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b))), nil
}
