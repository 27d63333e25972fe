package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// By says who asks for a change, and why. Both are written to the key log.
type By struct {
	Caller string // as the one who let them in knows them; required
	Reason string // one line
}

// Refusal is the error of an operation that was not carried out because of what it
// is, not because of trouble: nothing was changed and repeating it does not help.
type Refusal string

func (r Refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return Refusal(fmt.Sprintf(format, args...)) }

const maxReason = 200 // bytes, of a caller too

func (by By) check(reasonRequired bool) error {
	switch {
	case by.Caller == "":
		return refuse("a change of the keys names its caller")
	case reasonRequired && strings.TrimSpace(by.Reason) == "":
		return refuse("a reason is required; it is written to the key log")
	}
	for _, text := range []string{by.Caller, by.Reason} {
		if len(text) > maxReason || strings.ContainsFunc(text, unicode.IsControl) {
			return refuse("the caller and the reason are one line of at most %d bytes each", maxReason)
		}
	}
	return nil
}

// operation changes a set for an operator. It returns the entry for the key log,
// or a Refusal, or errNothingToDo. It may be asked again with another set when
// somebody else was first.
type operation func(s *set, now time.Time) (Entry, error)

// errNothingToDo ends an operation whose purpose is fulfilled already.
var errNothingToDo = errors.New("nothing to do")

// carryOut changes the stored set by compare-and-swap, together with the key log:
// what is due by itself first, then the operation, then what follows from it. When
// it returns nil, this instance works with the new set; the others do within
// PollEvery, or stop signing within the lease. An answer of the store that is lost
// is looked for in the log, so that nothing is carried out twice.
func (m *Manager) carryOut(ctx context.Context, by By, o operation) error {
	m.stepping.Lock()
	defer m.stepping.Unlock()
	var lines [][]byte // the entries of what was sent to the store
	var unsure error   // whether one of them was stored
	for range attempts {
		version, err := m.load(ctx)
		if err != nil {
			return errors.Join(unsure, err)
		}
		before := m.current.Load().set
		if done, err := m.recorded(ctx, before.Log, lines); err != nil || done {
			return errors.Join(unless(done, unsure), err)
		}
		now := time.Now().UTC().Round(0)
		after, sent, err := m.apply(ctx, before, by, o, now)
		if err != nil {
			return err
		}
		saved, err := m.save(ctx, after, version)
		switch {
		case saved:
			if _, err := m.load(ctx); err != nil {
				return fmt.Errorf("the change is stored, and this instance could not read it back yet: %w", err)
			}
			m.decided = max(m.decided, after.Log.Count)
			if err := m.stepLocked(ctx, nil); err != nil { // writes the log
				m.config.Logger.Warn("the key log is behind; it is written as soon as the store takes it", "error", err)
			}
			return nil
		case err != nil:
			lines, unsure = append(lines, sent), fmt.Errorf("the change may have been stored: %w", err)
		}
	}
	return errors.Join(unsure, errors.New("the stored key set changes faster than it can be read"))
}

// unless returns err, or nil when a condition holds.
func unless(condition bool, err error) error {
	if condition {
		return nil
	}
	return err
}

// apply returns what has to be stored, and the operation's entry in its log.
func (m *Manager) apply(ctx context.Context, before set, by By, o operation, now time.Time) (set, []byte, error) {
	due := advance(before, m.config, now)
	if err := m.record(before, &due, By{Caller: Schedule}, now); err != nil {
		return set{}, nil, err
	}
	asked := due.clone()
	entry, err := o(&asked, now)
	if err != nil {
		return set{}, nil, err
	}
	entry.Time, entry.Caller, entry.Reason = now, by.Caller, by.Reason
	log, err := asked.Log.add(entry)
	if err != nil {
		return set{}, nil, err
	}
	line := log.Unlogged[len(log.Unlogged)-1]
	after := advance(asked, m.config, now)
	after.Log = log
	if err := m.fill(ctx, after, nil, now); err != nil {
		return set{}, nil, err
	}
	return after, line, m.record(due, &after, by, now)
}

// recorded reports whether one of some entries came to be part of the history.
func (m *Manager) recorded(ctx context.Context, j journal, lines [][]byte) (bool, error) {
	if len(lines) == 0 || slices.ContainsFunc(lines, j.holds) {
		return len(lines) > 0, nil
	}
	for logged, err := range m.config.Store.Entries(ctx) {
		if err != nil {
			return false, fmt.Errorf("reading the key log: %w", err)
		}
		if slices.ContainsFunc(lines, func(line []byte) bool { return bytes.Equal(logged, line) }) {
			return true, nil
		}
	}
	return false, nil
}
