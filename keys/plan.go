package keys

import (
	"fmt"
	"slices"
	"time"
)

// Transition is one change of a key's state that is to come.
type Transition struct {
	At    time.Time `json:"at"`
	Ring  string    `json:"ring"`
	KeyID string    `json:"kid,omitempty"` // empty: a key that is not made yet
	From  string    `json:"from,omitempty"`
	To    string    `json:"to"` // a state, or "gone"
	Why   string    `json:"why"`
}

// Plan says what will happen by itself to every key that there is now, in order of
// time: until the next key of each ring signs and the earlier ones are gone. It
// changes nothing.
func (m *Manager) Plan() []Transition {
	now := time.Now().UTC().Round(0)
	return plan(m.current.Load().set, m.config, now)
}

// maxPlanned bounds the steps of a plan: no set needs a fraction of them.
const maxPlanned = 1000

// plan lets advance run through the future, from one instant at which something
// changes to the next.
func plan(s set, c Config, now time.Time) []Transition {
	list := []Transition{}
	made := 0
	real := make(map[string]bool)
	for _, id := range allIDs(s) {
		real[id] = true
	}
	for range maxPlanned {
		after := advance(s, c, now)
		for _, r := range after.Rings {
			for i := range r.Keys {
				if k := &r.Keys[i]; k.wanted() {
					made++
					k.fill(material{id: fmt.Sprint("planned ", made)}, now)
				}
			}
		}
		list = append(list, planned(changes(s, after), real, now)...)
		s = after
		next := upcoming(s, c, now)
		if next.IsZero() || settled(s, real) {
			break
		}
		now = next
	}
	return list
}

// planned returns the changes of real keys, and the making of those that follow them.
func planned(happened []change, real map[string]bool, now time.Time) []Transition {
	var list []Transition
	rings := make(map[string]bool)
	for _, c := range happened {
		rings[c.ring] = rings[c.ring] || real[c.id] && c.to != gone
	}
	for _, c := range happened {
		t := Transition{At: now, Ring: c.ring, KeyID: c.id, From: string(c.from), To: string(c.to), Why: c.why}
		if !real[c.id] {
			t.KeyID = ""
		}
		if real[c.id] || c.from == "" && rings[c.ring] {
			list = append(list, t)
		}
	}
	return list
}

// settled reports whether all keys but those that came last to sign are gone.
func settled(s set, real map[string]bool) bool {
	for _, r := range s.Rings {
		for _, k := range r.Keys {
			if real[k.ID] && k.State != active {
				return false
			}
		}
	}
	return true
}

// upcoming returns the next instant after now at which advance changes a state;
// zero when there is none.
func upcoming(s set, c Config, now time.Time) time.Time {
	var next time.Time
	for _, r := range s.Rings {
		p := c.policyOf(r.Name, s.LongestCache)
		for _, k := range r.Keys {
			if at, _ := r.transition(k, p); at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}

// transition returns when a key of r leaves its state by itself, and for which;
// zero when nothing is planned. What is overdue happens with the next step.
func (r ring) transition(k key, p policy) (time.Time, state) {
	signing, standby := r.find(active), r.find(pending)
	switch {
	case k.wanted():
		return time.Time{}, ""
	case k.State == retiring || k.State == compromised:
		return k.Stopped.Add(k.Lifetime + p.slack), gone
	case !r.Retire.IsZero() && k.State == active:
		return r.Retire.Add(p.spread), retiring
	case !r.Retire.IsZero():
		return r.Retire.Add(p.spread), gone
	case signing == nil:
		return k.Published.Add(p.soonest), active
	case signing.wanted() || standby == nil || standby.wanted():
		return time.Time{}, ""
	}
	at := signing.Activated.Add(p.rotateEvery)
	if !r.Rotate.IsZero() && r.Rotate.Before(at) {
		at = r.Rotate
	}
	at = later(at, standby.Published.Add(p.publishBefore))
	if k.State == active {
		return at, retiring
	}
	return at, active
}

func allIDs(s set) []string {
	var list []string
	for _, r := range s.Rings {
		for _, k := range r.Keys {
			if !k.wanted() && !slices.Contains(list, k.ID) {
				list = append(list, k.ID)
			}
		}
	}
	return list
}
