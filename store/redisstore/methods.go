package redisstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"authserver/store"

	"github.com/redis/go-redis/v9"
)

// Records, families, counters, indexes and logs have names of their own in Redis.
// placeOf returns the key and the field of a record; see scripts.go.
func placeOf(key string) (name, field string) {
	if family, member, ok := store.CutMember(key); ok {
		return familyKey(family), member
	}
	return "r:" + key, ""
}

func familyKey(family string) string { return "f:" + family }

func indexKey(index string) string { return "i:" + index }

func checkKeys(names []string) error {
	for _, name := range names {
		if err := store.CheckKey(name); err != nil {
			return err
		}
	}
	return nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, keys ...string) ([]store.Record, error) {
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	ctx, cancel := s.budget(ctx)
	defer cancel()
	found, now, err := s.getAll(ctx, keys)
	if err != nil {
		return nil, s.trouble(err)
	}
	records, err := decodeRecords(found)
	for i, key := range keys {
		// Redis removes what has expired itself, but for members of families.
		if _, _, member := store.CutMember(key); err == nil && member && !now.Before(records[i].Expires) {
			records[i] = store.Record{}
		}
	}
	return records, err
}

// decodeRecords reads strings and nils.
func decodeRecords(found []any) (records []store.Record, err error) {
	records = make([]store.Record, len(found))
	for i, encoded := range found {
		switch text := encoded.(type) {
		case nil: // there is no record
		case string:
			if records[i], err = decodeRecord([]byte(text)); err != nil {
				return nil, err
			}
		default:
			return nil, unexpected(encoded)
		}
	}
	return records, nil
}

// getAll returns a string for each key, or nil where there is none, and Redis's time where
// a key is that of a member. One command costs both sides half of what several do; but it
// takes no members of families, and in a Cluster only keys that happen to be in one place.
func (s *Store) getAll(ctx context.Context, keys []string) (found []any, now time.Time, err error) {
	_, cluster := s.client.(*redis.ClusterClient)
	together := make([]string, 0, len(keys))
	var apart []int // which of the keys need a command of their own
	for i, key := range keys {
		if name, field := placeOf(key); field == "" && !cluster {
			together = append(together, s.prefix+name)
		} else {
			apart = append(apart, i)
		}
	}
	if len(apart) == 0 {
		found, err = several(s.client.MGet(ctx, together...), len(together))
		return found, now, err
	}
	pipeline := s.client.Pipeline()
	answers := make([]*redis.StringCmd, len(apart))
	var clock *redis.TimeCmd
	for n, i := range apart {
		if name, field := placeOf(keys[i]); field == "" {
			answers[n] = pipeline.Get(ctx, s.prefix+name)
		} else {
			answers[n] = pipeline.HGet(ctx, s.prefix+name, field)
			if clock == nil {
				clock = pipeline.Time(ctx)
			}
		}
	}
	var rest *redis.SliceCmd
	if len(together) > 0 {
		rest = pipeline.MGet(ctx, together...)
	}
	if _, err := pipeline.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, now, err
	}
	if clock != nil {
		if now, err = clock.Result(); err != nil {
			return nil, now, err
		}
	}
	if rest != nil {
		if found, err = several(rest, len(together)); err != nil {
			return nil, now, err
		}
	}
	for n, i := range apart { // in the order of keys, so that each comes to its place
		var one any
		if text, err := answers[n].Result(); err == nil {
			one = text
		} else if !errors.Is(err, redis.Nil) {
			return nil, now, err
		}
		found = slices.Insert(found, i, one)
	}
	return found, now, nil
}

func several(values *redis.SliceCmd, n int) ([]any, error) {
	found, err := values.Result()
	if err == nil && len(found) != n {
		err = fmt.Errorf("%d values for %d keys", len(found), n)
	}
	return found, err
}

// unexpected is the error for an answer that no script or command of ours gives.
// It is trouble, never a decision about the data.
func unexpected(answer any) error {
	return fmt.Errorf("asking Redis: unexpected answer of type %T; does something else answer at its address?", answer)
}

func decodeRecord(b []byte) (store.Record, error) {
	if len(b) < headerSize {
		return store.Record{}, errors.New("a record in Redis is cut short; does something else use the same keys?")
	}
	number := func(i int) uint64 {
		var wide [8]byte
		copy(wide[8-numberSize:], b[operationSize+numberSize*i:][:numberSize])
		return binary.BigEndian.Uint64(wide[:])
	}
	if number(0) == 0 { // it would read as if there were none
		return store.Record{}, errors.New("a record in Redis has no version; does something else use the same keys?")
	}
	return store.Record{
		Version: number(0),
		Changed: time.UnixMilli(int64(number(1))),
		Expires: time.UnixMilli(int64(number(2))),
		Value:   b[headerSize:],
	}, nil
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, key string, value []byte, expires time.Time) error {
	if err := errors.Join(store.CheckKey(key), store.CheckValue(value, expires)); err != nil {
		return err
	}
	name, field := placeOf(key)
	created, err := s.run(ctx, createScript, name, field, operation(), expiry(expires), value)
	if err != nil {
		return err
	}
	switch created {
	case int64(1):
		return nil
	case int64(0):
		return store.ErrExists
	}
	return unexpected(created)
}

// Swap implements store.Store.
func (s *Store) Swap(ctx context.Context, key string, version uint64, value []byte, expires time.Time) (store.Record, error) {
	if err := errors.Join(store.CheckKey(key), store.CheckValue(value, expires)); err != nil {
		return store.Record{}, err
	}
	keep := 0
	if value == nil {
		keep = 1
	}
	name, field := placeOf(key)
	result, err := s.run(ctx, swapScript, name, field, operation(), version, expiry(expires), keep, value)
	if err != nil {
		return store.Record{}, err
	}
	answer, _ := result.([]any)
	if len(answer) != 3 {
		return store.Record{}, unexpected(result)
	}
	if answer[0] == int64(-1) {
		return store.Record{}, store.ErrNotFound
	}
	encoded, ok1 := answer[1].(string)
	now, ok2 := answer[2].(int64)
	if !ok1 || !ok2 || answer[0] != int64(0) && answer[0] != int64(1) {
		return store.Record{}, unexpected(result)
	}
	record, err := decodeRecord([]byte(encoded))
	if err != nil {
		return store.Record{}, err
	}
	record.Now = time.UnixMilli(now)
	if answer[0] == int64(0) {
		return record, store.ErrConflict
	}
	return record, nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	name, field := placeOf(key)
	if s.replicas > 0 && field == "" {
		_, err := s.run(ctx, deleteScript, name)
		return err
	} else if s.replicas > 0 {
		_, err := s.run(ctx, removeScript, name, "HDEL", field)
		return err
	}
	ctx, cancel := s.budget(ctx)
	defer cancel()
	var err error
	if field == "" {
		err = s.client.Del(ctx, s.prefix+name).Err()
	} else {
		err = s.client.HDel(ctx, s.prefix+name, field).Err()
	}
	if err != nil {
		return s.trouble(err)
	}
	return nil
}

// Add implements store.Store.
func (s *Store) Add(ctx context.Context, key string, n int64, window time.Duration) (int64, error) {
	if err := store.CheckKey(key); err != nil {
		return 0, err
	}
	sum, err := s.run(ctx, addScript, "c:"+key, n, max(window.Milliseconds(), 1))
	if err != nil {
		return 0, err
	}
	n, ok := sum.(int64)
	if !ok {
		return 0, unexpected(sum)
	}
	return n, nil
}

// Link implements store.Store.
func (s *Store) Link(ctx context.Context, index, member string, expires time.Time) error {
	if err := errors.Join(store.CheckKey(index), store.CheckKey(member), store.CheckValue(nil, expires)); err != nil {
		return err
	}
	_, err := s.run(ctx, linkScript, indexKey(index), member, expiry(expires))
	return err
}

// Unlink implements store.Store.
func (s *Store) Unlink(ctx context.Context, index, member string) error {
	if err := errors.Join(store.CheckKey(index), store.CheckKey(member)); err != nil {
		return err
	}
	if s.replicas > 0 {
		_, err := s.run(ctx, removeScript, indexKey(index), "ZREM", member)
		return err
	}
	ctx, cancel := s.budget(ctx)
	defer cancel()
	if err := s.client.ZRem(ctx, s.prefix+indexKey(index), member).Err(); err != nil {
		return s.trouble(err)
	}
	return nil
}

// A position is a stream entry's id: milliseconds, and a sequence number of 20 bits.
const sequenceBits = 20

// Append implements store.Store.
func (s *Store) Append(ctx context.Context, log string, event []byte, keep time.Duration) (store.Position, error) {
	if err := errors.Join(store.CheckKey(log), store.CheckValue(event, store.Forever)); err != nil {
		return 0, err
	}
	milliseconds := int64(-1)
	if keep != store.KeepAll {
		milliseconds = max(keep.Milliseconds(), 1)
	}
	id, err := s.run(ctx, appendScript, "l:"+log, milliseconds, event)
	if err != nil {
		return 0, err
	}
	text, ok := id.(string)
	if !ok {
		return 0, unexpected(id)
	}
	return parsePosition(text)
}

func parsePosition(id string) (store.Position, error) {
	first, second, _ := strings.Cut(id, "-")
	milliseconds, err1 := strconv.ParseUint(first, 10, 44)
	sequence, err2 := strconv.ParseUint(second, 10, sequenceBits)
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("reading a position from Redis: %w", err)
	}
	return store.Position(milliseconds<<sequenceBits | sequence), nil
}

// Tail implements store.Store. While it waits it holds a connection of its own.
func (s *Store) Tail(ctx context.Context, log string, after store.Position, wait time.Duration) ([]store.Event, error) {
	if err := store.CheckKey(log); err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%d-%d", after>>sequenceBits, after&(1<<sequenceBits-1))
	block := wait
	if wait < time.Millisecond {
		block = -1 // do not wait; 0 would be for ever
	}
	ctx, cancel := context.WithTimeout(ctx, max(wait, 0)+s.timeout)
	defer cancel()
	answer := make(chan *redis.XStreamSliceCmd, 1)
	go func() { // the driver heeds a deadline while it blocks, but no cancellation
		answer <- s.client.XRead(ctx, &redis.XReadArgs{
			Streams: []string{s.prefix + "l:" + log}, ID: id, Count: store.MaxTail, Block: block,
		})
	}()
	var streams []redis.XStream
	var err error
	select {
	case read := <-answer:
		streams, err = read.Result()
	case <-ctx.Done():
		err = ctx.Err()
	}
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, s.trouble(err)
	}
	if len(streams) != 1 {
		return nil, unexpected(streams)
	}
	var events []store.Event
	for _, message := range streams[0].Messages {
		position, err := parsePosition(message.ID)
		if err != nil {
			return nil, err
		}
		value, ok := message.Values["e"].(string)
		if !ok { // it might be a revocation
			return nil, errors.New("a log in Redis holds an entry that is none of ours; does something else use the same keys?")
		}
		events = append(events, store.Event{Position: position, Value: []byte(value)})
	}
	return events, nil
}
