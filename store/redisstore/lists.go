package redisstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"authserver/store"
)

// How many members are asked for at once.
const (
	pageSize   = 500 // by Linked
	familyPage = 100 // by Members, with their records
)

// Linked implements store.Store. Members are in the order of their expiry, and of their
// names where that is the same.
func (s *Store) Linked(ctx context.Context, index string, after store.Member) iter.Seq2[store.Member, error] {
	return func(yield func(store.Member, error) bool) {
		if err := store.CheckKey(index); err != nil {
			yield(store.Member{}, err)
			return
		}
		for {
			page, err := s.page(ctx, index, after)
			if err != nil {
				yield(store.Member{}, err)
				return
			}
			for _, member := range page {
				if !member.Expires.After(after.Expires) && (member.Name <= after.Name || member.Expires.Before(after.Expires)) { // for ever
					yield(store.Member{}, errors.New("reading an index from Redis: it goes back"))
					return
				}
				if after = member; !yield(member, nil) {
					return
				}
			}
			if len(page) < pageSize {
				return
			}
		}
	}
}

// page returns the members after one, as many as one question is for.
func (s *Store) page(ctx context.Context, index string, after store.Member) ([]store.Member, error) {
	ctx, cancel := s.budget(ctx)
	defer cancel()
	expires := int64(0)
	if after.Name != "" {
		expires = expiry(after.Expires)
	}
	// It writes nothing, so that there is nothing for replicas to confirm.
	found, err := linkedScript.Run(ctx, s.client, []string{s.prefix + indexKey(index)}, expires, after.Name, pageSize).StringSlice()
	if err != nil {
		return nil, s.trouble(err)
	}
	members := make([]store.Member, len(found)/2)
	for i := range members { // names and scores in turn
		score, err := strconv.ParseFloat(found[2*i+1], 64)
		if err != nil || len(found)%2 != 0 { // to pass over it might be to leave something alive that is to end
			return nil, errors.Join(errors.New("reading an index from Redis: a member has no expiry; does something else use the same keys?"), err)
		}
		members[i] = store.Member{Name: found[2*i], Expires: time.UnixMilli(int64(score))}
	}
	return members, nil
}

// Members implements store.Store.
func (s *Store) Members(ctx context.Context, family string) iter.Seq2[store.FamilyMember, error] {
	return func(yield func(store.FamilyMember, error) bool) {
		if err := store.CheckFamily(family); err != nil {
			yield(store.FamilyMember{}, err)
			return
		}
		for cursor := uint64(0); ; {
			page, next, err := s.scan(ctx, family, cursor)
			if err != nil {
				yield(store.FamilyMember{}, s.trouble(err))
				return
			}
			for i := 0; i+1 < len(page); i += 2 { // names and records in turn
				record, err := decodeRecord([]byte(page[i+1]))
				if err != nil { // to pass over it might be to leave something alive that is to end
					yield(store.FamilyMember{}, fmt.Errorf("reading a family from Redis: %w", err))
					return
				}
				if time.Now().Before(record.Expires) && !yield(store.FamilyMember{Name: page[i], Record: record}, nil) {
					return
				}
			}
			if next == 0 {
				return
			}
			if next == cursor { // for ever
				yield(store.FamilyMember{}, errors.New("reading a family from Redis: it does not come to an end"))
				return
			}
			cursor = next
		}
	}
}

func (s *Store) scan(ctx context.Context, family string, cursor uint64) ([]string, uint64, error) {
	ctx, cancel := s.budget(ctx)
	defer cancel()
	return s.client.HScan(ctx, s.prefix+familyKey(family), cursor, "", familyPage).Result()
}
