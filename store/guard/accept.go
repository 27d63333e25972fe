package guard

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"authserver/store"
)

// Standing is what an instance knows of its store and what it finds.
type Standing struct {
	Known   string     `json:"known,omitempty"` // the store's name
	KnownAt time.Time  `json:"known_at,omitzero"`
	Found   string     `json:"found,omitempty"`
	FoundAt time.Time  `json:"found_at,omitzero"`
	Lost    *LostError `json:"-"`

	known, found mark
}

// Inspect compares the store with what is remembered in a directory and changes nothing.
func Inspect(ctx context.Context, inner store.Store, directory string) (Standing, error) {
	known, err := readMark(filepath.Join(directory, fileName))
	if err != nil {
		return Standing{}, err
	}
	found, err := find(ctx, inner)
	if err != nil {
		return Standing{}, fmt.Errorf("asking the store who it is: %w", err)
	}
	s := Standing{Known: known.ID, Found: found.ID, known: known, found: found}
	if known.exists() {
		s.KnownAt = time.UnixMilli(known.Ticked).UTC()
	}
	if found.exists() {
		s.FoundAt = time.UnixMilli(found.Ticked).UTC()
	}
	s.Lost, _ = judge(known, found, 0)
	return s, nil
}

const maxReplaced = 100 // names that a store remembers to have been accepted for

// Accept gives the store a new name that all instances take, which knew it by the
// name in the directory or by the one that was found. Whatever was granted until an
// instant, by whichever instance's clock, is dead from now on: see NotBefore. No
// instance uses the store before that instant: see Open.
func Accept(ctx context.Context, inner store.Store, directory string, until time.Time) error {
	standing, err := Inspect(ctx, inner, directory)
	if err != nil {
		return err
	}
	now := time.Now()
	accepted := identity{Version: identityVersion, ID: rand.Text(), Ticked: now.UnixMilli(),
		Accepted: max(until.Unix(), standing.found.Accepted, standing.known.Accepted), Replaces: standing.found.Replaces,
		Records: standing.found.Records}
	for _, name := range []string{standing.Found, standing.Known} {
		if name != "" && !slices.Contains(accepted.Replaces, name) {
			accepted.Replaces = append(accepted.Replaces, name)
		}
	}
	accepted.Replaces = accepted.Replaces[max(0, len(accepted.Replaces)-maxReplaced):]
	value, err := json.Marshal(accepted)
	if err != nil {
		return err
	}
	if standing.found.exists() {
		_, err = inner.Swap(ctx, identityKey, standing.found.Mark, value, store.Forever)
	} else {
		err = inner.Create(ctx, identityKey, value, store.Forever)
	}
	if err != nil {
		return fmt.Errorf("accepting the store: somebody else uses it at this moment: %w", err)
	}
	found, err := find(ctx, inner)
	if err != nil {
		return err
	}
	return writeMark(filepath.Join(directory, fileName), found)
}

const (
	longestAhead = time.Hour   // that an instance waits for what was accepted
	lookAgain    = time.Second // at the clock, which may be set meanwhile
)

// outlive waits until this instance's clock is past everything that was accepted to be
// dead, so that nothing which it grants is taken for that.
func (s *Store) outlive(ctx context.Context, accepted int64) error {
	for told := false; ; told = true {
		left := time.Until(time.Unix(accepted+1, 0))
		switch {
		case left <= 0:
			return nil
		case left > longestAhead:
			return fmt.Errorf("the store was accepted for all until %s, and here it is %s: the clock is wrong, of this machine or where `store accept` ran",
				time.Unix(accepted, 0).UTC().Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339))
		case !told && left > lookAgain:
			s.log.Warn("the store was accepted, and is used when no clock can be behind what has ended with that", "event", "store", "seconds", int(left.Seconds())+1)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(left, lookAgain)):
		}
	}
}

// Restored makes a directory expect more of the store than it has, so that it is not
// used until an operator accepts it: it was restored from a backup, and nobody can tell
// what happened since that was made.
func Restored(ctx context.Context, inner store.Store, directory string) (Standing, error) {
	name := filepath.Join(directory, fileName)
	known, err := readMark(name)
	if err != nil {
		return Standing{}, err
	}
	found, err := find(ctx, inner)
	if err == nil && !found.exists() {
		err = errors.New("no server has used it")
	}
	if err != nil {
		return Standing{}, fmt.Errorf("asking the store who it is: %w", err)
	}
	expected := found
	expected.Mark, expected.Ticked = max(known.Mark, found.Mark)+1, time.Now().UnixMilli()
	expected.Accepted = max(known.Accepted, found.Accepted)
	if err := writeMark(name, expected); err != nil {
		return Standing{}, err
	}
	return Inspect(ctx, inner, directory)
}
