package authserver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"authserver/store"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// ListQuery is the part of a request for a list that says which part of the list.
type ListQuery struct {
	Cursor string `json:"cursor,omitempty"` // next of the page before; empty for the first
	Limit  int    `json:"limit,omitempty"`  // entries at most, 1 to 1000; 100 by default
}

func (p ListQuery) limit() (int, error) {
	switch {
	case p.Limit == 0:
		return defaultPage, nil
	case p.Limit < 1 || p.Limit > maxPage:
		return 0, adminBadRequest("limit is %d; allowed are 1 to %d", p.Limit, maxPage)
	}
	return p.Limit, nil
}

// position is what a cursor holds: the entry after which the next page begins. The
// configured entries are bucket 0, stored ones those from 1 on.
type position struct {
	Bucket  int    `json:"b,omitempty"`
	After   []byte `json:"a"`           // its name
	Expires int64  `json:"e,omitempty"` // when the entry expires, in milliseconds since 1970
}

func positionAfter(bucket int, member store.Member) position {
	return position{bucket, []byte(member.Name), member.Expires.UnixMilli()}
}

func (p position) member() store.Member {
	return store.Member{Name: string(p.After), Expires: time.UnixMilli(p.Expires)}
}

// A cursor is sealed, and bound to the list that it is of, so that nobody makes one
// (ATTACKS OP-02).

func (s *Server) cursor(list string, at position) (string, error) {
	plain, err := json.Marshal(at)
	if err != nil {
		return "", fmt.Errorf("encoding a cursor: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(s.cursors.Seal(plain, []byte(list))), nil
}

func (s *Server) positionOf(list, cursor string) (position, error) {
	var at position
	if cursor == "" {
		return at, nil
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err == nil {
		var plain []byte
		if plain, err = s.cursors.Open(sealed, []byte(list)); err == nil {
			err = json.Unmarshal(plain, &at)
		}
	}
	if err != nil {
		return at, adminBadRequest("the cursor is none of this list")
	}
	return at, nil
}

// catalogueBuckets is into how many indexes a catalogue is divided, so that no key of
// Redis grows with all of it.
const catalogueBuckets = 64

// catalogue is the index of everything of a kind in the store, for lists.
type catalogue struct {
	store store.Store
	name  string
}

func (c catalogue) bucket(member string) string {
	hash := fnv.New32a()
	hash.Write([]byte(member))
	return c.index(int(hash.Sum32()%catalogueBuckets) + 1)
}

func (c catalogue) index(bucket int) string { return c.name + "/" + strconv.Itoa(bucket) }

func (c catalogue) add(ctx context.Context, member string, expires time.Time) error {
	return c.store.Link(ctx, c.bucket(member), member, expires)
}

func (c catalogue) remove(ctx context.Context, member string) error {
	return c.store.Unlink(ctx, c.bucket(member), member)
}

// page returns up to limit members after a position, first the configured ones, and
// the position of the last; done says that there are no more.
func (c catalogue) page(ctx context.Context, configured []string, at position, limit int) (names []string, last position, done bool, err error) {
	if last = at; at.Bucket == 0 {
		from, found := slices.BinarySearch(configured, string(at.After))
		if found {
			from++
		}
		names = append(names, configured[from:min(from+limit, len(configured))]...)
		if len(names) == limit {
			return names, position{After: []byte(names[limit-1])}, false, nil
		}
		last = position{Bucket: 1}
	}
	for ; last.Bucket <= catalogueBuckets; last = (position{Bucket: last.Bucket + 1}) {
		members, err := linkedPage(ctx, c.store, c.index(last.Bucket), last.member(), limit-len(names))
		if err != nil {
			return nil, last, false, err
		}
		names = append(names, memberNames(members)...)
		if len(names) == limit {
			return names, positionAfter(last.Bucket, members[len(members)-1]), false, nil
		}
	}
	return names, last, true, nil
}

// linkedPage returns the first members of an index after one, n at most.
func linkedPage(ctx context.Context, s store.Store, index string, after store.Member, n int) ([]store.Member, error) {
	var members []store.Member
	for member, err := range s.Linked(ctx, index, after) {
		if err != nil {
			return nil, unavailable(fmt.Errorf("reading an index: %w", err))
		}
		if members = append(members, member); len(members) == n {
			break
		}
	}
	return members, nil
}

func memberNames(members []store.Member) []string {
	names := make([]string, len(members))
	for i, member := range members {
		names[i] = member.Name
	}
	return names
}
