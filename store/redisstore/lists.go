package redisstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"authserver/store"
)

// How many members are asked for at once.
const (
	pageSize      = 500 // by Linked
	membersAtOnce = 100 // by Members, with their records
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

// Members implements store.Store. A cursor of HSCAN means something to the process that
// gave it only: where another one goes on, after a restart, a failover or a move of the
// slot, it is begun anew, or members would be passed over.
func (s *Store) Members(ctx context.Context, family string) iter.Seq2[store.FamilyMember, error] {
	return func(yield func(store.FamilyMember, error) bool) {
		if err := store.CheckFamily(family); err != nil {
			yield(store.FamilyMember{}, err)
			return
		}
		cursor, process := "0", ""
		for begun := 1; ; {
			page, err := s.familyPage(ctx, family, cursor)
			if err != nil {
				yield(store.FamilyMember{}, err)
				return
			}
			if process == "" {
				process = page.process
			}
			if page.process != process {
				if begun++; begun > mostBegun {
					yield(store.FamilyMember{}, errors.New("reading a family from Redis: another process answers again and again"))
					return
				}
				cursor, process = "0", ""
				continue
			}
			for _, member := range page.members {
				if !yield(member, nil) {
					return
				}
			}
			if page.next == "0" {
				return
			}
			if page.next == cursor { // for ever
				yield(store.FamilyMember{}, errors.New("reading a family from Redis: it does not come to an end"))
				return
			}
			cursor = page.next
		}
	}
}

const mostBegun = 10 // times that a family is read from its beginning

type familyPage struct {
	process string // the run_id of the Redis that was asked
	next    string // where to go on there, "0" at the end
	members []store.FamilyMember
}

// familyPage returns the live members of one page, by Redis's clock as everywhere.
func (s *Store) familyPage(ctx context.Context, family, cursor string) (familyPage, error) {
	ctx, cancel := s.budget(ctx)
	defer cancel()
	// It writes nothing, so that there is nothing for replicas to confirm.
	answer, err := membersScript.Run(ctx, s.client, []string{s.prefix + familyKey(family)}, cursor, membersAtOnce).Slice()
	if err != nil {
		return familyPage{}, s.trouble(err)
	}
	if len(answer) != 4 {
		return familyPage{}, unexpected(answer)
	}
	var page familyPage
	var ok [4]bool
	page.process, ok[0] = answer[0].(string)
	now, isNumber := answer[1].(int64)
	page.next, ok[2] = answer[2].(string)
	found, isList := answer[3].([]any)
	ok[1], ok[3] = isNumber, isList && len(found)%2 == 0
	if slices.Contains(ok[:], false) || page.process == "" {
		return familyPage{}, unexpected(answer)
	}
	for i := 0; i < len(found); i += 2 { // names and records in turn
		name, isName := found[i].(string)
		encoded, isRecord := found[i+1].(string)
		if !isName || !isRecord {
			return familyPage{}, unexpected(found[i+1])
		}
		record, err := decodeRecord([]byte(encoded))
		if err != nil { // to pass over it might be to leave something alive that is to end
			return familyPage{}, fmt.Errorf("reading a family from Redis: %w", err)
		}
		if record.Expires.UnixMilli() > now {
			page.members = append(page.members, store.FamilyMember{Name: name, Record: record})
		}
	}
	return page, nil
}
