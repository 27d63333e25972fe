package guard

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"authserver/store"
)

// A store has a name of its own, made up when it is first used, and a mark that
// rises each second in which something was written: the version of the record. Each
// instance remembers both in a file. A store without a name has been emptied; one
// whose mark is lower than remembered has gone back, to a backup or because it did
// not keep what it acknowledged. Either has forgotten revocations and which codes and
// refresh tokens were used.
const identityKey = "store"

// identity is the record's value.
type identity struct {
	Version  int      `json:"v"`
	ID       string   `json:"id"`
	Ticked   int64    `json:"ticked"`             // when the mark last rose, milliseconds since 1970
	Replaces []string `json:"replaces,omitempty"` // the names that operators accepted it for
	Accepted int64    `json:"accepted,omitempty"` // when the last of them did, seconds since 1970
	Records  int      `json:"records,omitempty"`  // highest version of a record in it, 0 for 1
}

// identityVersion also says how the store is laid out: 1 was from before the first release,
// with grants and an index of them (docs/decisions/0049-families-of-records.md).
const identityVersion = 2

// mark is what an instance knows of a store.
type mark struct {
	identity
	Mark uint64 `json:"mark"`
}

func (m mark) exists() bool { return m.ID != "" }

// LostError says that the store is not what it was, so that only an operator can say
// whether to go on.
type LostError struct {
	Emptied    bool
	Another    bool          // under another name
	RolledBack time.Duration // by how much at least
	KnownAt    time.Time     // when it was last as it should be
}

func (e *LostError) Error() string {
	when := e.KnownAt.UTC().Format(time.RFC3339)
	switch {
	case e.Emptied:
		return "the store is empty, and this instance knew it in use at " + when +
			": every grant, session and revocation in it is gone, and so is what was used before and must not be used again"
	case e.Another:
		return "the store is not the one that this instance knew at " + when +
			": it may lack revocations that were acknowledged"
	}
	return fmt.Sprintf("the store is as it was %s before %s, as after restoring a backup: revocations since then are missing, and tokens that were used look unused",
		e.RolledBack.Round(time.Second), when)
}

// find reads who the store says it is.
func find(ctx context.Context, s store.Store) (mark, error) {
	records, err := s.Get(ctx, identityKey)
	if err != nil || !records[0].Exists() {
		return mark{}, err
	}
	return decode(records[0])
}

const orEmpty = "run the build that wrote it, or begin with an empty store"

func decode(record store.Record) (mark, error) {
	m := mark{Mark: record.Version}
	if err := json.Unmarshal(record.Value, &m.identity); err != nil || m.ID == "" {
		return mark{}, fmt.Errorf("the store's record of who it is cannot be read: %s", orEmpty)
	}
	if m.Version < identityVersion {
		return mark{}, fmt.Errorf("the store is laid out as by a build from before the first release: %s", orEmpty)
	}
	if m.Version > identityVersion {
		return mark{}, fmt.Errorf("the store's record of who it is has format %d and this version reads %d: run the version that wrote it, or a newer one", m.Version, identityVersion)
	}
	if err := store.CheckVersion(m.Records); err != nil {
		return mark{}, fmt.Errorf("this release is too old for the store: %w", err)
	}
	return m, nil
}

// announce says in the store that records of a version are about to be in it, so that
// a release that cannot read them says so at its start and not at the first of them.
func announce(ctx context.Context, s store.Store, found mark, version int) (mark, error) {
	for max(found.Records, 1) < version {
		found.Records = version
		value, err := json.Marshal(found.identity)
		if err != nil {
			return mark{}, err
		}
		if _, err := s.Swap(ctx, identityKey, found.Mark, value, store.Forever); err != nil && !errors.Is(err, store.ErrConflict) {
			return mark{}, err
		}
		if found, err = find(ctx, s); err != nil {
			return mark{}, err
		}
	}
	return found, nil
}

// introduce gives a new store its name. Of several instances one does.
func introduce(ctx context.Context, s store.Store) (mark, error) {
	value, err := json.Marshal(identity{Version: identityVersion, ID: rand.Text(), Ticked: time.Now().UnixMilli()})
	if err != nil {
		return mark{}, err
	}
	if err := s.Create(ctx, identityKey, value, store.Forever); err != nil && !errors.Is(err, store.ErrExists) {
		return mark{}, err
	}
	return find(ctx, s)
}

// judge compares the store that was found with the one that is known.
func judge(known, found mark, mayLose time.Duration) (lost *LostError, tolerated time.Duration) {
	at := time.UnixMilli(known.Ticked)
	switch {
	case !known.exists():
		return nil, 0
	case !found.exists():
		return &LostError{Emptied: true, KnownAt: at}, 0
	case found.ID != known.ID:
		if slices.Contains(found.Replaces, known.ID) {
			return nil, 0
		}
		return &LostError{Another: true, KnownAt: at}, 0
	case found.Mark >= known.Mark:
		return nil, 0
	}
	back := max(0, time.Duration(known.Ticked-found.Ticked)*time.Millisecond) // clocks differ
	if back < mayLose {
		return nil, back
	}
	return &LostError{RolledBack: back, KnownAt: at}, 0
}

// meet takes the store that was found for the known one, or says what was lost. What
// was known before the store was asked counts: meanwhile another call may have learnt
// more.
func (s *Store) meet(before, found mark) error {
	lost, tolerated := judge(before, found, s.mayLose)
	if lost != nil {
		return lost
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sameName := found.ID == s.known.ID
	wentBack := sameName && found.Mark < s.known.Mark
	switch {
	case sameName && found.Mark == s.known.Mark, wentBack && s.known.Mark != before.Mark:
		return nil
	case wentBack:
		s.log.Error("the store has lost writes that it had acknowledged, as many as it may by the way it is configured",
			"event", "store", "lost", tolerated.String())
	}
	s.known = found
	s.notBefore.Store(found.Accepted)
	s.remember(found)
	return nil
}

// remember writes down what is known. Where that cannot be, on a file system that is
// read-only, running instances notice a loss all the same.
func (s *Store) remember(m mark) {
	err := writeMark(s.file, m)
	if err != nil && !s.forgetful {
		s.log.Warn("after a restart this instance will not notice that the store was emptied or rolled back: its data directory cannot be written to",
			"event", "store", "error", err.Error())
	}
	s.forgetful = err != nil
}

// NotBefore is when an operator last accepted a store that had lost something, in
// seconds since 1970, and 0 if never. Who got a grant or signed in at that instant or
// before may have been signed out since, and the store does not know.
func (s *Store) NotBefore() int64 { return s.notBefore.Load() }

// tickEvery is how soon a loss is noticed, and how short a loss is.
const tickEvery = time.Second

// Run follows who the store says it is until ctx ends.
func (s *Store) Run(ctx context.Context) {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := s.tick(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("the store is not used", "event", "store", "error", err.Error())
			}
		}
	}
}

// tick looks what time it is and who the store is, and raises the mark if something was
// written.
func (s *Store) tick(ctx context.Context) error {
	s.Clock(ctx) // which says so, and acts, when it is not what it should be
	if err := s.confirm(ctx); err != nil || !s.written.Swap(false) {
		return err
	}
	before := s.mark()
	next := before
	next.Ticked = time.Now().UnixMilli()
	value, err := json.Marshal(next.identity)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tickEvery)
	defer cancel()
	record, err := s.inner.Swap(ctx, identityKey, next.Mark, value, store.Forever)
	if err != nil { // another instance was first, before what was written here or after it
		s.written.Store(true)
		return nil
	}
	found, err := decode(record)
	if err != nil {
		return err
	}
	return s.meet(before, found)
}

func (s *Store) mark() mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

// confirm returns an error, now and from now on, if the store is not the known one.
// Trouble in asking is none.
func (s *Store) confirm(ctx context.Context) error {
	if lost := s.lost.Load(); lost != nil {
		return *lost
	}
	ctx, cancel := context.WithTimeout(ctx, tickEvery)
	defer cancel()
	before := s.mark()
	found, err := s.ask(ctx)
	s.breaker.report(err)
	if err != nil {
		return nil
	}
	err = s.meet(before, found)
	var lost *LostError
	if errors.As(err, &lost) {
		s.lost.Store(&err)
	}
	return err
}
