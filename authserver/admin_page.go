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
	Bucket int    `json:"b"`
	After  string `json:"a"`
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

// catalogueBuckets is into how many indexes a catalogue is divided, so that a page
// of a long one need not read all of it.
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
func (c catalogue) page(ctx context.Context, configured []string, at position, limit int) (members []string, last position, done bool, err error) {
	last = at
	for ; last.Bucket <= catalogueBuckets; last = (position{Bucket: last.Bucket + 1}) {
		all := configured
		if last.Bucket > 0 {
			if all, err = membersAfter(ctx, c.store, c.index(last.Bucket), last.After, limit); err != nil {
				return nil, last, false, err
			}
		}
		from, found := slices.BinarySearch(all, last.After)
		if found {
			from++
		}
		members = append(members, all[from:min(from+limit-len(members), len(all))]...)
		if len(members) == limit {
			last.After = members[limit-1]
			return members, last, false, nil
		}
	}
	return members, last, true, nil
}

// membersAfter returns the first members of an index after one, sorted, as many as n. It
// reads the whole index, which is in no order, and keeps no more of it than that.
func membersAfter(ctx context.Context, s store.Store, index, after string, n int) ([]string, error) {
	var members []string
	for member, err := range s.Linked(ctx, index) {
		if err != nil {
			return nil, unavailable(fmt.Errorf("reading an index: %w", err))
		}
		at, found := slices.BinarySearch(members, member)
		if member <= after || found || at == n {
			continue
		}
		members = slices.Insert(members, at, member)
		members = members[:min(n, len(members))]
	}
	return members, nil
}
