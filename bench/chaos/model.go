package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// grantState is a grant as one who sees all would know it.
type grantState struct {
	Generation int // 0: it is a code yet
	Dead       bool
	// When the last refresh moved it: not before and not after.
	MovedFrom, MovedTo int64
}

// slack is what clocks and rounding may make of the retry window.
const slack = int64(100 * time.Millisecond)

// grantModel says what a client may be answered (ATTACKS §4). Calls without an
// answer may have had their effect at any time since, or never.
func grantModel(window time.Duration, generation int) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init:  func() []any { return []any{grantState{Generation: generation}} },
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
	case exchange:
		return exchanged(s, c)
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

// exchanged is step for a code: the first one to present it begins the grant, any other
// ends it.
func exchanged(s grantState, c call) []any {
	dead := s
	dead.Dead = true
	born := grantState{Generation: 1}
	switch {
	case c.Outcome == unknown && s.Dead:
		return []any{s}
	case c.Outcome == unknown && s.Generation == 0: // spent, and no more, is an end
		return []any{s, born, dead}
	case c.Outcome == unknown:
		return []any{s, dead}
	case c.Outcome == ok && !s.Dead && s.Generation == 0:
		return []any{born}
	case c.Outcome == invalid && (s.Dead || s.Generation > 0 || c.Contended):
		return []any{dead}
	}
	return nil
}

// result is what checking came to.
type result struct {
	operations int
	undecided  int // grants that took too long to check
	table      table
	// refreshes were answered on grants that nobody ended or stole, and signedOut of
	// them with a refusal; thefts were answered, and detected of them refused.
	refreshes, signedOut, thefts, detected int
}

// model adds to the violations the grants of which no order of the calls explains the answers.
func (c *checker) model(calls []call, patience time.Duration) result {
	var r result
	byGrant := make(map[int][]call)
	for _, one := range calls {
		r.operations++
		if end, ended := c.keyEnds[one.Key]; one.Kind == verifyOffline || one.Kind == introspectAccess && ended && end.Start < one.End {
			continue // not of the grant alone: see offline and keys
		}
		byGrant[one.Grant] = append(byGrant[one.Grant], one)
	}
	for grant, calls := range byGrant {
		for _, end := range c.ends[grant] {
			if end.Note != "" { // the others are among its calls
				calls = append(calls, end)
			}
		}
		c.table[0].Observed += len(calls)
		generation := 1
		if c.births[grant].Code {
			generation = 0
		}
		switch porcupine.CheckOperationsTimeout(grantModel(c.Window, generation), operations(calls), patience) {
		case porcupine.Illegal:
			c.illegal[grant] = true
			c.table[0].Broken++
			c.Violations = append(c.Violations, fmt.Sprintf("no order of its calls explains grant %d", grant))
		case porcupine.Unknown:
			r.undecided++
		}
	}
	return r
}

// operations are the calls of one grant for porcupine.
func operations(calls []call) []porcupine.Operation {
	slices.SortStableFunc(calls, func(a, b call) int { return int(a.Start - b.Start) })
	unanswered := make(map[[2]int]int)
	var all []porcupine.Operation
	for n, c := range calls {
		if c.Kind == exchange { // those that overlap may both be refused
			c.Contended = slices.ContainsFunc(calls, func(other call) bool {
				return other.Kind == exchange && other.Start < c.End && c.Start < other.End && other != c || other.Kind == exchange && other.Outcome == unknown && other.Start < c.End
			})
		}
		if c.Outcome == unknown {
			if c.Kind == introspectAccess || c.Kind == introspectToken {
				continue // without effect
			}
			// Of many unanswered refreshes with one token one can move the grant and one
			// can end it; the others change nothing. So it is with a code.
			at := [2]int{c.Generation, len(c.Kind)}
			if unanswered[at]++; (c.Kind == refresh || c.Kind == exchange) && unanswered[at] > 2 {
				continue
			}
			c.End = never
		}
		calls[n] = c
		all = append(all, porcupine.Operation{Input: c, Output: c.Outcome, Call: c.Start, Return: c.End})
	}
	return all
}

// minimise returns the shortest beginning of the calls of one grant that breaks
// something: where to look first. It returns nil when no single grant does.
func (h *history) minimise(patience time.Duration) *history {
	if len(h.Calls) == 0 {
		return nil
	}
	for grant := range 1 + slices.MaxFunc(h.Calls, func(a, b call) int { return a.Grant - b.Grant }).Grant {
		var calls []call
		for _, c := range h.Calls {
			if c.Grant == grant {
				calls = append(calls, c)
			}
		}
		births := slices.DeleteFunc(slices.Clone(h.Births), func(b birth) bool { return b.Grant != grant })
		slices.SortFunc(calls, func(a, b call) int {
			return int(min(a.End, a.Start+int64(time.Hour)) - min(b.End, b.Start+int64(time.Hour)))
		})
		for n := range calls {
			least := &history{Seed: h.Seed, Scenario: h.Scenario + "-least", Window: h.Window, Faults: h.Faults, Kills: h.Kills,
				Births: births, Endings: h.Endings, Calls: calls[:n+1]}
			if least.check(patience); len(least.Violations) > 0 {
				return least
			}
		}
	}
	return nil
}
