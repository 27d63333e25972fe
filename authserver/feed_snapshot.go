package authserver

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"authserver/internal/feed"
)

// snapshotFor is how long one snapshot is handed out, whatever happens: whoever
// loads it gets the rest from the stream.
const snapshotFor = time.Second

// snapshotIdle is how long one is handed out while nothing happens: its TTLs are as
// of when it was made.
const snapshotIdle = 30 * time.Second

// snapshotCache holds the latest snapshot, which all requests share.
type snapshotCache struct {
	mu     sync.Mutex
	cursor feed.Cursor
	made   time.Time
	plain  []byte
	zipped []byte
}

// get returns the body of a snapshot that is a second old at most, or of the present
// cursor, plain and compressed.
func (c *snapshotCache) get(f *revocationFeed) (plain, zipped []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The set has everything up to this cursor, and maybe more, which does no harm.
	f.mu.Lock()
	cursor := f.latest.cursor
	f.mu.Unlock()
	age := time.Since(c.made)
	if c.plain != nil && (age < snapshotFor || cursor == c.cursor && age < snapshotIdle) {
		return c.plain, c.zipped, nil
	}
	plain, err = f.takeSnapshot(cursor)
	if err != nil {
		return nil, nil, err
	}
	var compressed bytes.Buffer
	writer, err := gzip.NewWriterLevel(&compressed, gzip.BestSpeed)
	if err != nil {
		return nil, nil, err
	}
	writer.Write(plain) // to memory
	if err := writer.Close(); err != nil {
		return nil, nil, fmt.Errorf("compressing a snapshot: %w", err)
	}
	c.cursor, c.made, c.plain, c.zipped = cursor, time.Now(), plain, compressed.Bytes()
	return c.plain, c.zipped, nil
}

// takeSnapshot returns the body of a signed snapshot of the live entries.
func (f *revocationFeed) takeSnapshot(cursor feed.Cursor) ([]byte, error) {
	entries := feed.Entries(f.set.Entries())
	encoded := entries.Encode()
	payload, err := json.Marshal(feed.Snapshot{Issuer: f.server.issuer, Cursor: cursor, Count: len(entries), Digest: feed.Digest(encoded)})
	if err != nil {
		return nil, fmt.Errorf("encoding a snapshot: %w", err)
	}
	token, err := f.server.signForVerifiers(feed.SnapshotType, payload)
	if err != nil {
		return nil, fmt.Errorf("signing a snapshot: %w", err)
	}
	return json.Marshal(feed.SnapshotBody{Snapshot: token, Revoked: base64.RawURLEncoding.EncodeToString(encoded)})
}
