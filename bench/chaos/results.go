package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// totals are what was done and found.
type totals struct {
	Histories  int            `json:"histories"`
	Calls      int            `json:"calls"`
	Unanswered int            `json:"unanswered"`
	Faults     map[string]int `json:"faults"`
	Dropped    int            `json:"dropped"` // answers of Redis
	Undecided  int            `json:"undecided"`
	Violations int            `json:"violations"`
	Refreshes  int            `json:"refreshes"`
	SignedOut  int            `json:"signed_out"`
	Thefts     int            `json:"thefts"`
	Detected   int            `json:"detected"`
	Table      table          `json:"table"`
	Broken     []uint64       `json:"-"` // seeds
}

func (t *totals) add(other totals) {
	t.Histories += other.Histories
	t.Calls += other.Calls
	t.Unanswered += other.Unanswered
	if t.Faults == nil {
		t.Faults = make(map[string]int)
	}
	for name, n := range other.Faults {
		t.Faults[name] += n
	}
	t.Dropped += other.Dropped
	t.Undecided += other.Undecided
	t.Violations += other.Violations
	t.Refreshes += other.Refreshes
	t.SignedOut += other.SignedOut
	t.Thefts += other.Thefts
	t.Detected += other.Detected
	t.Table.add(other.Table)
	t.Broken = append(t.Broken, other.Broken...)
}

func (t totals) faults() (n int) {
	for _, one := range t.Faults {
		n += one
	}
	return n
}

// line is all but the table.
func (t totals) line() string {
	text := fmt.Sprintf("%d histories, %d calls checked (%d without an answer), %d faults, %d answers of Redis lost; "+
		"%d refreshes of grants that nobody harmed, %d signed out; %d thefts answered, %d detected; %d grants undecided, %d violations",
		t.Histories, t.Calls, t.Unanswered, t.faults(), t.Dropped, t.Refreshes, t.SignedOut, t.Thefts, t.Detected, t.Undecided, t.Violations)
	if len(t.Broken) > 0 {
		text += fmt.Sprintf(", of seeds %d", t.Broken)
	}
	return text
}

func (t totals) String() string {
	var kinds []string
	for _, name := range slices.Sorted(maps.Keys(t.Faults)) {
		kinds = append(kinds, fmt.Sprintf("%d %s", t.Faults[name], name))
	}
	return fmt.Sprintf("%s\ninjected: %s\n%s", t.line(), strings.Join(kinds, ", "), t.Table)
}

// results are what came of each history: by scenario, and as lines of a file, which
// another run goes on with.
type results struct {
	progress int
	made     int // by this run
	mu       sync.Mutex
	file     *os.File // nil if there is none
	done     map[string]bool
	all      map[string]*totals
}

// came is a line of the file.
type came struct {
	Scenario string `json:"scenario"`
	Seed     uint64 `json:"seed"`
	totals
}

func numbered(scenario string, seed uint64) string { return fmt.Sprint(scenario, " ", seed) }

func newResults(s settings) (*results, error) {
	r := &results{progress: s.progress, done: make(map[string]bool), all: make(map[string]*totals)}
	if s.results == "" {
		return r, nil
	}
	var err error
	if r.file, err = os.OpenFile(s.results, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	reader := bufio.NewReader(r.file)
	for {
		text, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(text) == 0 {
			return r, nil
		}
		var one came
		if err == nil {
			err = json.Unmarshal(text, &one)
		}
		if err != nil {
			r.close()
			return nil, fmt.Errorf("%s has a line that is no result: delete it: %q", s.results, text)
		}
		r.count(one)
	}
}

func (r *results) count(one came) {
	if one.Violations > 0 {
		one.Broken = []uint64{one.Seed}
	}
	r.done[numbered(one.Scenario, one.Seed)] = true
	if r.all[one.Scenario] == nil {
		r.all[one.Scenario] = new(totals)
	}
	r.all[one.Scenario].add(one.totals)
}

func (r *results) has(scenario string, seed uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done[numbered(scenario, seed)]
}

func (r *results) add(h *history, t totals) error {
	r.mu.Lock()
	one := came{h.Scenario, h.Seed, t}
	r.count(one)
	r.made++
	text, err := json.Marshal(one)
	if err == nil && r.file != nil {
		_, err = r.file.Write(append(text, '\n'))
	}
	show := r.progress > 0 && r.made%r.progress == 0
	r.mu.Unlock()
	if show {
		fmt.Printf("%s so far: %s\n", time.Now().Format(time.TimeOnly), r.total().line())
	}
	return err
}

func (r *results) total() (t totals) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(r.all)) {
		t.add(*r.all[name])
	}
	return t
}

// String is a line of each scenario, and all together.
func (r *results) String() string {
	total := r.total()
	var text strings.Builder
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(r.all)) {
		fmt.Fprintf(&text, "%s: %s\n", name, r.all[name].line())
	}
	fmt.Fprintf(&text, "all: %s", total)
	return text.String()
}

func (r *results) close() {
	if r.file != nil {
		r.file.Close()
	}
}
