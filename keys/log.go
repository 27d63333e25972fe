package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// writeLog appends what is not in the log yet and returns the journal without it.
// Whoever brought the entries about appends them; the others do when they are
// still not there after a lease, so that nothing is lost with an instance.
//
// Entries come into the log in their order, whoever appends them: one appends all
// that the set has, beginning with the first, and an entry leaves the set only
// when it was appended. Only repetitions can be in between.
func (m *Manager) writeLog(ctx context.Context, j journal, now time.Time) (journal, error) {
	if len(j.Unlogged) == 0 || !m.mayAppend(j, now) {
		return j, nil
	}
	for i, line := range j.Unlogged {
		ctx, cancel := context.WithTimeout(ctx, m.config.callTimeout())
		err := m.config.Store.Append(ctx, line)
		cancel()
		if err != nil {
			j.Unlogged = j.Unlogged[i:]
			return j, fmt.Errorf("writing the key log: %w", err)
		}
	}
	j.Unlogged = nil
	return j, nil
}

func (m *Manager) mayAppend(j journal, now time.Time) bool {
	if m.decided == j.Count {
		return true
	}
	var last Entry
	if err := json.Unmarshal(j.Unlogged[len(j.Unlogged)-1], &last); err != nil {
		return true
	}
	return reached(now, last.Time, m.config.Lease)
}

// LogProblem is something that is wrong with the key log, and where.
type LogProblem struct {
	Sequence uint64 `json:"seq"` // of the entry that is wrong, missing or too many
	Text     string `json:"text"`
}

// LogReport is the outcome of VerifyLog.
type LogReport struct {
	Entries uint64 `json:"entries"` // that the log should have
	// Head is the hash of the last one. Who notes it down elsewhere can tell later
	// that the log up to there is what it was, even from somebody with the master key.
	Head     []byte       `json:"head,omitempty"`
	Problems []LogProblem `json:"problems,omitempty"`
}

// Log returns the key log, oldest entry first: what is stored, whether it verifies
// or not.
func (m *Manager) Log(ctx context.Context) ([]Entry, error) {
	lines, _, err := m.readLog(ctx)
	if err != nil {
		return nil, err
	}
	entries := []Entry{}
	seen := make(map[string]bool)
	for _, line := range lines {
		var e Entry
		if seen[string(line)] || json.Unmarshal(line, &e) != nil {
			continue
		}
		seen[string(line)] = true
		entries = append(entries, e)
	}
	return entries, nil
}

// VerifyLog looks for entries that were altered, removed, exchanged or added since
// they were written, also at the end: the key set, which is authenticated with the
// master key, knows how many there are and the hash of the last.
func (m *Manager) VerifyLog(ctx context.Context) (LogReport, error) {
	lines, j, err := m.readLog(ctx)
	if err != nil {
		return LogReport{}, err
	}
	return LogReport{Entries: j.Count, Head: j.Head, Problems: verifyLog(lines, j)}, nil
}

// readLog returns the lines of the log, those that are still in the set at the
// end, and the end that the set knows.
func (m *Manager) readLog(ctx context.Context) ([][]byte, journal, error) {
	// The set first: what it knows to be logged is in the log then.
	m.stepping.Lock()
	_, err := m.load(ctx)
	m.stepping.Unlock()
	if err != nil {
		return nil, journal{}, err
	}
	j := m.current.Load().set.Log
	var lines [][]byte
	for line, err := range m.config.Store.Entries(ctx) {
		if err != nil {
			return nil, journal{}, fmt.Errorf("reading the key log: %w", err)
		}
		lines = append(lines, line)
	}
	for _, line := range j.Unlogged {
		lines = append(lines, line)
	}
	return lines, j, nil
}

// verifyLog follows the chain through the lines. A repetition of an entry, which a
// lost answer leaves behind, is none of the problems.
func verifyLog(lines [][]byte, j journal) []LogProblem {
	var problems []LogProblem
	problem := func(sequence uint64, format string, args ...any) {
		problems = append(problems, LogProblem{sequence, fmt.Sprintf(format, args...)})
	}
	seen := make(map[uint64][]byte) // hashes
	var last uint64
	for _, line := range lines {
		var e Entry
		if err := errors.Join(json.Unmarshal(line, &e), check(e)); err != nil {
			problem(last+1, "after entry %d there is a line that is no entry: %v", last, err)
			continue
		}
		hash := hashOf(line)
		if known, ok := seen[e.Sequence]; ok {
			if !bytes.Equal(known, hash) {
				problem(e.Sequence, "there are two different entries %d: one was altered, or there were two histories", e.Sequence)
			}
			continue
		}
		if e.Sequence != last+1 {
			problem(e.Sequence, "entry %d follows entry %d: %s", e.Sequence, last, gap(e.Sequence, last))
		} else if last > 0 && !bytes.Equal(e.Previous, seen[last]) {
			problem(last, "entry %d is not the one that entry %d was written after: entry %d was altered", last, e.Sequence, last)
		}
		seen[e.Sequence], last = hash, max(last, e.Sequence)
	}
	switch {
	case last < j.Count:
		problem(last+1, "the log ends with entry %d and %d were written: the end was cut off", last, j.Count)
	case last > j.Count:
		problem(j.Count+1, "the log goes on after entry %d, the last that the key set knows: entries were added, "+
			"or the key set is older than the log, as after restoring a backup", j.Count)
	}
	if j.Count > 0 && seen[j.Count] != nil && !bytes.Equal(seen[j.Count], j.Head) {
		problem(j.Count, "entry %d is not the last one that was written: it was altered", j.Count)
	}
	return problems
}

func check(e Entry) error {
	if e.Sequence == 0 || e.Action == "" {
		return errors.New("it has no number or no action")
	}
	return nil
}

func gap(sequence, last uint64) string {
	if sequence > last+1 {
		return fmt.Sprintf("%d to %d are missing or come later", last+1, sequence-1)
	}
	return "it came earlier"
}
