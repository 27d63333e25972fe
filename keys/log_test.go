package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// logged returns a manager that has written a log of some length, and its store.
func logged(t *testing.T) (*Manager, *memory) {
	store := new(memory)
	m := open(t, testConfig(t, store, es256))
	for range 3 {
		if err := m.RotateForTesting(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	m = open(t, m.config)
	m.decided = m.current.Load().set.Log.Count // or it would wait for the one that rotated
	if err := m.step(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if report := checkLog(t, m); report.Entries != 22 || len(store.log) != 22 {
		t.Fatalf("the log has %d entries, of them %d written; want 22", report.Entries, len(store.log))
	}
	return m, store
}

// Whatever is done to the log is found, and where.
func TestVerifyLogFindsTampering(t *testing.T) {
	m, store := logged(t)
	whole := store.log
	replaced := func(lines [][]byte, i int, old, new string) [][]byte {
		if !bytes.Contains(lines[i], []byte(old)) {
			t.Fatalf("entry %d has no %s", i+1, old)
		}
		lines[i] = bytes.Replace(lines[i], []byte(old), []byte(new), 1)
		return lines
	}
	for name, c := range map[string]struct {
		at     uint64
		text   string
		tamper func([][]byte) [][]byte
	}{
		"a caller is altered":  {10, "altered", func(l [][]byte) [][]byte { return replaced(l, 9, `"caller":"test"`, `"caller":"best"`) }},
		"the last is altered":  {22, "altered", func(l [][]byte) [][]byte { return replaced(l, 21, `"why":"`, `"why":"x`) }},
		"the first is altered": {1, "altered", func(l [][]byte) [][]byte { return replaced(l, 0, `"to":"active"`, `"to":"pending"`) }},
		"one is removed":       {7, "6 to 6 are missing", func(l [][]byte) [][]byte { return slices.Delete(l, 5, 6) }},
		"the beginning is removed": {4, "1 to 3 are missing", func(l [][]byte) [][]byte {
			return l[3:]
		}},
		"two are exchanged": {7, "missing or come later", func(l [][]byte) [][]byte { l[5], l[6] = l[6], l[5]; return l }},
		"the end is cut off": {20, "cut off", func(l [][]byte) [][]byte {
			return l[:19]
		}},
		"all is removed": {1, "cut off", func([][]byte) [][]byte { return nil }},
		"one is added at the end": {23, "goes on after", func(l [][]byte) [][]byte {
			return append(l, must[[]byte](t)(json.Marshal(Entry{Sequence: 23, Action: ActionState, Previous: hashOf(l[21])})))
		}},
		"a second history": {9, "two different", func(l [][]byte) [][]byte {
			fork := bytes.Replace(l[8], []byte(`"caller":"test"`), []byte(`"caller":"them"`), 1)
			return slices.Insert(l, 12, fork)
		}},
		"junk": {12, "no entry", func(l [][]byte) [][]byte { return slices.Insert(l, 11, []byte("junk")) }},
		"a number is altered": {99, "follows entry", func(l [][]byte) [][]byte {
			return replaced(l, 14, `"seq":15`, `"seq":99`)
		}},
		"a rewritten chain": {22, "not the last one that was written", func(l [][]byte) [][]byte {
			var e Entry
			for i := 9; i < len(l); i++ {
				if err := json.Unmarshal(l[i], &e); err != nil {
					t.Fatal(err)
				}
				e.Caller, e.Previous = "somebody else", hashOf(l[i-1])
				l[i] = must[[]byte](t)(json.Marshal(e))
			}
			return l
		}},
	} {
		t.Run(name, func(t *testing.T) {
			lines := make([][]byte, len(whole))
			for i := range whole {
				lines[i] = bytes.Clone(whole[i])
			}
			store.set(func() { store.log = c.tamper(lines) })
			report := must[LogReport](t)(m.VerifyLog(t.Context()))
			if !slices.ContainsFunc(report.Problems, func(p LogProblem) bool { return p.Sequence == c.at && strings.Contains(p.Text, c.text) }) {
				t.Errorf("found %+v, want entry %d: %s", report.Problems, c.at, c.text)
			}
		})
	}
	for i := range whole { // any one bit of any entry
		for _, at := range []int{0, len(whole[i]) / 3, len(whole[i]) / 2, len(whole[i]) - 2} {
			lines := slices.Clone(whole)
			lines[i] = bytes.Clone(whole[i])
			lines[i][at] ^= 1
			store.set(func() { store.log = lines })
			if report := must[LogReport](t)(m.VerifyLog(t.Context())); len(report.Problems) == 0 {
				t.Fatalf("byte %d of entry %d altered, and nothing found", at, i+1)
			}
		}
	}
	// A repetition is what a lost answer leaves behind.
	store.set(func() { store.log = slices.Concat(whole[:12], whole[9:12], whole[12:], whole[3:5]) })
	checkLog(t, m)
	if entries := must[[]Entry](t)(m.Log(t.Context())); len(entries) != 22 {
		t.Errorf("%d entries are shown, want 22", len(entries))
	}
}

// The log says who did what to which key, why and when, and its entries are in the
// set until they are in the log.
func TestLogTellsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory)
		m := open(t, testConfig(t, store, es256))
		run(t, m)
		time.Sleep(time.Minute)
		store.set(func() { store.unlogged = errBroken })
		kid := m.kids(es256)[active][0]
		must[RevokedKey](t)(m.Revoke(t.Context(), By{"ann", "it leaked"}, kid))
		written := store.lines()
		entries := must[[]Entry](t)(m.Log(t.Context()))
		var texts []string
		for _, e := range entries[4:] {
			texts = append(texts, fmt.Sprint(e.Sequence, " ", e.Action, " ", e.Ring, " ", e.From, ">", e.To, " ", e.Caller, ": ", e.Reason))
			if e.Time.IsZero() || e.KeyID == "" {
				t.Errorf("%+v", e)
			}
		}
		want := []string{"5 revoke ES256 > ann: it leaked", "6 state ES256 active>compromised ann: it leaked"}
		if !slices.Equal(texts, want) {
			t.Errorf("the log says %q, want %q", texts, want)
		}
		checkLog(t, m)
		time.Sleep(time.Minute)
		if store.lines() != written {
			t.Error("it was written: this shows nothing")
		}
		store.set(func() { store.unlogged = nil })
		time.Sleep(2 * time.Second)
		if store.lines() != len(entries) || len(m.current.Load().set.Log.Unlogged) != 0 {
			t.Errorf("%d entries are written, want %d", store.lines(), len(entries))
		}
		checkLog(t, m)
	})
}

// Lost answers of Append leave repetitions, and an instance that dies before it
// writes the log leaves it to the others.
func TestLogOutlivesItsWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory)
		c := testConfig(t, store, es256)
		c.PollEvery = 10 * time.Second
		m := open(t, c)
		calls := 0
		store.append = func() error {
			if calls++; calls%2 == 0 {
				return errBroken
			}
			return nil
		}
		other := open(t, c)
		run(t, other)
		time.Sleep(48 * time.Hour)
		store.set(func() { store.unlogged = errBroken })
		must[RotationPlan](t)(m.Rotate(t.Context(), ann)) // and m is never heard of again
		store.set(func() { store.unlogged = nil })
		written := store.lines()
		time.Sleep(10 * time.Second)
		if store.lines() != written {
			t.Error("another instance does not leave the writer its time")
		}
		time.Sleep(5 * time.Minute)
		checkLog(t, other)
		if j := other.current.Load().set.Log; len(j.Unlogged) > 0 || store.lines() <= int(j.Count) {
			t.Errorf("%d lines for %d entries, %d not written", store.lines(), j.Count, len(j.Unlogged))
		}
	})
}

// Between any two calls of the store an instance can die: the history goes on from there.
func TestKilledAtEveryStep(t *testing.T) {
	for dies := range 12 {
		synctest.Test(t, func(t *testing.T) {
			store := new(memory)
			c := testConfig(t, store, es256)
			m := open(t, c)
			time.Sleep(48 * time.Hour)
			if err := m.step(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			was := m.kids(es256)
			c.Store = &dying{memory: store, left: dies}
			victim, err := Open(t.Context(), c)
			if err == nil {
				_, err = victim.Rotate(t.Context(), ann, es256)
			}
			if died := c.Store.(*dying).left < 0; died != (err != nil) && !died {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if err := m.step(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			now := m.kids(es256)
			if len(now[active]) != 1 || len(now[pending]) != 1 || now[active][0] != was[active][0] && now[active][0] != was[pending][0] {
				t.Errorf("killed after %d calls: %v became %v", dies, was, now)
			}
			checkLog(t, m)
		})
	}
}

// dying is a store that an instance uses which is killed after some calls.
type dying struct {
	*memory
	left int
}

var errKilled = errors.New("killed")

func (s *dying) lives() error {
	if s.left--; s.left < 0 {
		return errKilled
	}
	return nil
}

func (s *dying) Load(ctx context.Context) ([]byte, uint64, error) {
	if err := s.lives(); err != nil {
		return nil, 0, err
	}
	return s.memory.Load(ctx)
}

func (s *dying) Save(ctx context.Context, value []byte, version uint64) (bool, error) {
	if err := s.lives(); err != nil {
		return false, err
	}
	return s.memory.Save(ctx, value, version)
}

func (s *dying) Append(ctx context.Context, entry []byte) error {
	if err := s.lives(); err != nil {
		return err
	}
	return s.memory.Append(ctx, entry)
}
