package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// grantState is a grant as one who sees all would know it.
type grantState struct {
	Generation int
	Dead       bool
	// When the last refresh moved it: not before and not after.
	MovedFrom, MovedTo int64
}

// slack is what clocks and rounding may make of the retry window.
const slack = int64(100 * time.Millisecond)

// grantModel says what a client may be answered (ATTACKS §4). Calls without an
// answer may have had their effect at any time since, or never.
func grantModel(window time.Duration) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init:  func() []any { return []any{grantState{Generation: 1}} },
		Equal: func(a, b any) bool { return a == b },
		Step: func(state, input, output any) []any {
			return step(state.(grantState), input.(call), int64(window))
		},
		DescribeOperation: func(input, _ any) string {
			c := input.(call)
			return fmt.Sprintf("%s gen %d: %s %d", c.Kind, c.Generation, c.Outcome, c.Successor)
		},
	}
	return m.ToModel()
}

func step(s grantState, c call, window int64) []any {
	dead := s
	dead.Dead = true
	only := func(legal bool, next grantState) []any {
		if !legal {
			return nil
		}
		return []any{next}
	}
	switch c.Kind {
	case revoke:
		switch c.Outcome {
		case ok:
			return []any{dead}
		default:
			return []any{s, dead}
		}
	case introspectAccess:
		return only((c.Outcome == active) != s.Dead, s)
	case introspectToken:
		return only((c.Outcome == active) == (!s.Dead && s.Generation == c.Generation), s)
	}
	moved := grantState{Generation: s.Generation + 1, MovedFrom: c.Start, MovedTo: c.End}
	early := c.Start-s.MovedTo < window+slack // it can be within the window
	late := c.End-s.MovedFrom > window-slack  // it can be after it
	var next []any
	take := func(o outcome, after grantState) {
		if c.Outcome == o || c.Outcome == unknown {
			next = append(next, after)
		}
	}
	current := c.Generation == s.Generation
	previous := c.Generation == s.Generation-1
	switch {
	case s.Dead:
		take(invalid, s)
	case current && (c.Outcome != ok || c.Successor == moved.Generation):
		take(ok, moved)
	case previous:
		if early && (c.Outcome != ok || c.Successor == s.Generation) {
			take(ok, s)
		}
		if late {
			take(invalid, dead)
		}
	case c.Generation < s.Generation:
		take(invalid, dead)
	}
	if c.Outcome == unknown {
		next = append(next, s)
	}
	return next
}

// result is what checking came to.
type result struct {
	operations int
	undecided  int // grants that took too long to check
}

// check adds to the history's violations what no order of its calls explains.
func (h *history) check(patience time.Duration) result {
	var r result
	byGrant := make(map[int][]porcupine.Operation)
	unanswered := make(map[[2]int]int)
	calls := slices.Clone(h.Calls)
	slices.SortFunc(calls, func(a, b call) int { return int(a.Start - b.Start) })
	for _, c := range calls {
		r.operations++
		if c.Outcome == unknown {
			if c.Kind == introspectAccess || c.Kind == introspectToken {
				continue // without effect
			}
			// Of many unanswered refreshes with one token one can move the grant and one
			// can end it; the others change nothing.
			at := [2]int{c.Grant, c.Generation}
			if unanswered[at]++; c.Kind == refresh && unanswered[at] > 2 {
				continue
			}
			c.End = never
		}
		byGrant[c.Grant] = append(byGrant[c.Grant], porcupine.Operation{Input: c, Output: c.Outcome, Call: c.Start, Return: c.End})
	}
	model := grantModel(h.Window)
	for grant, operations := range byGrant {
		switch porcupine.CheckOperationsTimeout(model, operations, patience) {
		case porcupine.Illegal:
			h.Violations = append(h.Violations, fmt.Sprintf("no order of its calls explains grant %d", grant))
		case porcupine.Unknown:
			r.undecided++
		}
	}
	return r
}

// minimise returns the shortest beginning of the calls of one grant that nothing
// explains: where to look first.
func (h *history) minimise(patience time.Duration) *history {
	for grant := range 1 + slices.MaxFunc(h.Calls, func(a, b call) int { return a.Grant - b.Grant }).Grant {
		var calls []call
		for _, c := range h.Calls {
			if c.Grant == grant {
				calls = append(calls, c)
			}
		}
		slices.SortFunc(calls, func(a, b call) int {
			return int(min(a.End, a.Start+int64(time.Hour)) - min(b.End, b.Start+int64(time.Hour)))
		})
		for n := range calls {
			least := &history{Seed: h.Seed, Scenario: h.Scenario + "-least", Window: h.Window, Faults: h.Faults, Calls: calls[:n+1]}
			if least.check(patience); len(least.Violations) > 0 {
				return least
			}
		}
	}
	return nil
}
