package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Entry is one line of the key log: what happened to a key or a ring, by whom, why
// and when.
type Entry struct {
	Sequence uint64    `json:"seq"` // 1 for the first, without gaps
	Time     time.Time `json:"time"`
	// Action is ActionState, or the operation that somebody asked for.
	Action string `json:"action"`
	Ring   string `json:"ring,omitempty"`
	KeyID  string `json:"kid,omitempty"`
	From   string `json:"from,omitempty"` // state; empty when the key was made
	To     string `json:"to,omitempty"`   // state, or "gone"
	Why    string `json:"why,omitempty"`  // which rule changed the state
	Caller string `json:"caller"`         // the operator, or Schedule
	Reason string `json:"reason,omitempty"`
	// Previous is the SHA-256 of the entry before, as it is stored; none for the first.
	Previous []byte `json:"previous,omitempty"`
}

// What an Entry is about.
const (
	ActionState           = "state" // a key changed its state
	ActionRotate          = "rotate"
	ActionRotateNow       = "rotate-now"
	ActionRevoke          = "revoke"
	ActionImport          = "import"
	ActionAddAlgorithm    = "add-algorithm"
	ActionRetireAlgorithm = "retire-algorithm"
	ActionKeepAlgorithm   = "keep-algorithm" // an instance that has it configured objected to its end
	ActionRewrap          = "rewrap"
)

// Schedule is the caller of what happens by itself.
const Schedule = "schedule"

// journal is the end of the key log. It is part of the set, so whoever wins the
// swap of a set has decided what the log says, and in which order: there is one
// history. Entries are in the set until it is known that they are in the log;
// appending one twice, as after a lost answer, does no harm.
type journal struct {
	Count    uint64            `json:"count"`              // of all entries
	Head     []byte            `json:"head,omitempty"`     // hash of the last one
	Unlogged []json.RawMessage `json:"unlogged,omitempty"` // the last ones
}

// add returns the journal with further entries.
func (j journal) add(entries ...Entry) (journal, error) {
	j.Unlogged = slices.Clone(j.Unlogged)
	for _, e := range entries {
		e.Sequence, e.Previous = j.Count+1, j.Head
		line, err := json.Marshal(e)
		if err != nil {
			return j, fmt.Errorf("encoding an entry of the key log: %w", err)
		}
		j.Count, j.Head = e.Sequence, hashOf(line)
		j.Unlogged = append(j.Unlogged, line)
	}
	return j, nil
}

// holds reports whether an entry is among those that are not in the log yet.
func (j journal) holds(line []byte) bool {
	return slices.ContainsFunc(j.Unlogged, func(l json.RawMessage) bool { return bytes.Equal(l, line) })
}

func hashOf(line []byte) []byte {
	sum := sha256.Sum256(line)
	return sum[:]
}

// record adds to the log of after what happened to it since before, and to what is
// to be destroyed what it has no use for any more.
func (m *Manager) record(before set, after *set, by By, now time.Time) error {
	var entries []Entry
	for _, r := range before.Rings {
		if kept := after.ring(r.Name); kept != nil && by.Caller == Schedule && !r.Retire.IsZero() && kept.Retire.IsZero() {
			entries = append(entries, Entry{Time: now, Action: ActionKeepAlgorithm, Ring: r.Name, Caller: by.Caller,
				Why: "an instance has it in keys.algorithms"})
		}
	}
	for _, c := range changes(before, *after) {
		entries = append(entries, Entry{Time: now, Action: ActionState, Ring: c.ring, KeyID: c.id,
			From: string(c.from), To: string(c.to), Why: c.why, Caller: by.Caller, Reason: by.Reason})
	}
	after.Discarded = append(after.Discarded, discard(before, *after, m.config, now)...)
	var err error
	after.Log, err = after.Log.add(entries...)
	return err
}
