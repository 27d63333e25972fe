package keys

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rotation says what becomes of one ring.
type Rotation struct {
	Ring string `json:"ring"`
	From string `json:"from,omitempty"` // kid that signs before
	To   string `json:"to,omitempty"`   // kid that signs after; empty while it is being made
	// At is when To signs, at the earliest; zero when From rotated before this
	// operation came, and nothing was done.
	At time.Time `json:"at,omitzero"`
	// Published is since when others can know To.
	Published time.Time `json:"published,omitzero"`
	// Breaks says in words whom this may break; empty: nobody.
	Breaks string `json:"breaks,omitempty"`
}

// RotationPlan is what a rotation does.
type RotationPlan struct {
	Rotations   []Rotation   `json:"rotations"`
	Transitions []Transition `json:"transitions"` // all that is to come afterwards
}

// PlanRotation says what Rotate, or RotateNow, would do now. It changes nothing.
func (m *Manager) PlanRotation(immediately bool, rings ...string) (RotationPlan, error) {
	now := time.Now().UTC().Round(0)
	s := advance(m.current.Load().set, m.config, now)
	rotations, err := m.rotate(&s, now, immediately, rings, nil)
	if err != nil {
		return RotationPlan{}, err
	}
	return RotationPlan{rotations, plan(advance(s, m.config, now), m.config, now)}, nil
}

// Rotate lets the next key of each ring take over in order: as soon as it has been
// published for publish_before, which is at once unless the ring has just rotated.
// Nobody who honours Cache-Control notices. Without rings it rotates all of them,
// that of refresh tokens too.
func (m *Manager) Rotate(ctx context.Context, by By, rings ...string) (RotationPlan, error) {
	return m.rotateBy(ctx, by, false, rings)
}

// RotateNow lets the next key take over at once, whomever it breaks; PlanRotation
// says whom. It refuses only while other instances may not know the key. It does
// not declare the old key compromised: see Revoke.
func (m *Manager) RotateNow(ctx context.Context, by By, rings ...string) (RotationPlan, error) {
	return m.rotateBy(ctx, by, true, rings)
}

func (m *Manager) rotateBy(ctx context.Context, by By, immediately bool, rings []string) (RotationPlan, error) {
	if err := by.check(false); err != nil {
		return RotationPlan{}, err
	}
	action := ActionRotate
	if immediately {
		action = ActionRotateNow
	}
	var rotations []Rotation
	signed := make(map[string]string) // when the operator asked
	for _, r := range m.current.Load().set.Rings {
		if k := r.find(active); k != nil {
			signed[r.Name] = k.ID
		}
	}
	err := m.carryOut(ctx, by, func(s *set, now time.Time) (Entry, error) {
		var err error
		if rotations, err = m.rotate(s, now, immediately, rings, signed); err != nil {
			return Entry{}, err
		}
		return Entry{Action: action, Ring: strings.Join(names(rotations), " ")}, nil
	})
	if err != nil {
		return RotationPlan{}, err
	}
	return RotationPlan{rotations, m.Plan()}, nil
}

func names(rotations []Rotation) []string {
	var list []string
	for _, r := range rotations {
		list = append(list, r.Ring)
	}
	return list
}

// rotate marks or switches rings of a set. A ring whose signing key is not the one
// of signed has rotated meanwhile and is left alone; nil signed: none has.
func (m *Manager) rotate(s *set, now time.Time, immediately bool, rings []string, signed map[string]string) ([]Rotation, error) {
	if len(rings) == 0 {
		for _, r := range s.Rings {
			if r.Retire.IsZero() {
				rings = append(rings, r.Name)
			}
		}
	}
	var rotations []Rotation
	for i, name := range rings {
		r := s.ring(name)
		switch {
		case r == nil:
			return nil, refuse("there is no ring %q; there are %s", name, strings.Join(ringNames(*s), ", "))
		case slices.Contains(rings[:i], name):
			return nil, refuse("the ring %s is named twice", name)
		case !r.Retire.IsZero():
			return nil, refuse("the ring %s is to end, and has nothing to rotate to", name)
		}
		if signing := r.find(active); signing != nil && signed != nil && signing.ID != signed[name] {
			rotations = append(rotations, Rotation{Ring: name, From: signed[name], To: signing.ID, Published: signing.Published})
			continue
		}
		one, err := m.rotateRing(r, m.config.policyOf(name, s.LongestCache), now, immediately)
		if err != nil {
			return nil, err
		}
		rotations = append(rotations, one)
	}
	return rotations, nil
}

func (m *Manager) rotateRing(r *ring, p policy, now time.Time, immediately bool) (Rotation, error) {
	signing, standby := r.find(active), r.find(pending)
	rotation := Rotation{Ring: r.Name}
	if signing != nil {
		rotation.From = signing.ID
	}
	if standby != nil && !standby.wanted() {
		rotation.To, rotation.Published = standby.ID, standby.Published
	}
	if !immediately {
		if r.Rotate.IsZero() {
			r.Rotate = now
		}
		wait := p.publishBefore
		if signing == nil { // it does not wait for more than that no fresh cache lacks it
			wait = p.soonest
		}
		rotation.At = now.Add(wait) // of a key that is still being made
		if rotation.To != "" {
			rotation.At = later(now, standby.Published.Add(wait))
		}
		return rotation, nil
	}
	if rotation.To == "" {
		return rotation, refuse("the next key of %s is still being made; ask again in some seconds", r.Name)
	}
	// Instances that do not know it would refuse its tokens.
	if known := standby.Published.Add(p.spread); now.Before(known) {
		return rotation, refuse("the next key of %s was published at %s, and other instances may not know it before %s; ask again then",
			r.Name, clock(standby.Published), clock(known))
	}
	rotation.At, rotation.Breaks = now, breaks(*r, *standby, p, now)
	r.switchKeys(signing, standby, now)
	return rotation, nil
}

// breaks says whom it may break that a key signs from now on.
func breaks(r ring, standby key, p policy, now time.Time) string {
	age := now.Sub(standby.Published).Truncate(time.Second)
	switch {
	case r.Name == RefreshRing || reached(now, standby.Published, p.publishBefore):
		return ""
	case reached(now, standby.Published, p.soonest):
		return fmt.Sprintf("verifiers that ignore Cache-Control and have a copy of the key set older than %s, "+
			"when the next key was published; nobody who honours it", age)
	}
	return fmt.Sprintf("verifiers with a copy of the key set older than %s, when the next key was published: "+
		"one may be fresh until %s", age, clock(standby.Published.Add(p.soonest)))
}

func ringNames(s set) []string {
	var list []string
	for _, r := range s.Rings {
		list = append(list, r.Name)
	}
	return list
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
