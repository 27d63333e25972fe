package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// tally is how often an invariant could have been broken, and how often it was.
type tally struct {
	Observed int `json:"observed"`
	Broken   int `json:"broken"`
}

// table has a tally of each invariant, by its number; the first is the model's: calls
// whose answers some order of the calls of their grant has to explain.
type table [15]tally

var invariants = [15]string{
	"some order explains the calls of a grant (I1 to I5, I12)",
	"I1  no forgotten revocation: calls after the end",
	"I2  single use: further presentations of a code",
	"I3  one successor: further answers to one token",
	"I4  no lost grant: repetitions of unanswered calls, first uses",
	"I5  reuse closes: calls after a theft was refused",
	"I6  old tokens live: keys of tokens in key sets after",
	"I7  no unknown kid: keys of tokens in key sets before, tokens verified",
	"I8  no private key leaves: answers and logs searched",
	"I9  one signer: lists of keys, tokens after a key was retired",
	"I10 fail closed, say so: answers that are no decision",
	"I11 time: what has expired, and what lives, at a wrong clock",
	"I12 restart equals prefix: calls after a kill, on grants before it",
	"I13 verification survives: key sets and metadata in trouble of the store",
	"I14 compromise is immediate: tokens, key sets, answers after it",
}

func (t *table) add(other table) {
	for n := range t {
		t[n].Observed += other[n].Observed
		t[n].Broken += other[n].Broken
	}
}

// String shows each invariant; one that nothing could have broken did not hold, it was
// not observed.
func (t table) String() string {
	var text strings.Builder
	for n, one := range t {
		verdict := "held"
		switch {
		case one.Broken > 0:
			verdict = fmt.Sprintf("BROKEN %d times", one.Broken)
		case one.Observed == 0:
			verdict = "not observed"
		}
		fmt.Fprintf(&text, "  %-72s %9d  %s\n", invariants[n], one.Observed, verdict)
	}
	return text.String()
}

// How long after an acknowledgement something may still be seen.
const (
	offlineBound = int64(time.Second)     // by a verifier that rejects when it is stale
	instanceLag  = int64(2 * time.Second) // after the end of a client or a user what begins may be dead too: clocks of seconds
	keySetBound  = int64(time.Second)
)

// verifiers of a world, as Instance of a call.
const (
	rejecting = iota
	accepting
)

// checker looks at a finished history.
type checker struct {
	*history
	table   table
	births  map[int]birth
	ends    map[int][]call // of a grant: revocations by its client and by operators, certain and not
	certain map[int]int64  // of a grant: when it had ended for sure, first
	keyEnds map[string]ending
	illegal map[int]bool // grants that the model does not explain
}

func (c *checker) breaks(n int, format string, args ...any) {
	c.table[n].Broken++
	c.Violations = append(c.Violations, fmt.Sprintf("I%d: ", n)+fmt.Sprintf(format, args...))
}

func newChecker(h *history) *checker {
	c := &checker{history: h, births: make(map[int]birth), ends: make(map[int][]call), certain: make(map[int]int64), keyEnds: make(map[string]ending),
		illegal: make(map[int]bool)}
	c.table = h.Watched
	for _, b := range h.Births {
		c.births[b.Grant] = b
	}
	for _, e := range h.Endings {
		if e.Key != "" {
			c.endKey(e)
			continue
		}
		for _, b := range h.Births {
			if end, concerns := e.of(b); concerns {
				c.ends[b.Grant] = append(c.ends[b.Grant], end)
			}
		}
	}
	for _, one := range h.Calls {
		if one.Kind == revoke {
			c.ends[one.Grant] = append(c.ends[one.Grant], one)
		}
	}
	for grant, ends := range c.ends {
		for _, end := range ends {
			if at, known := c.certain[grant]; end.Outcome == ok && (!known || end.End < at) {
				c.certain[grant] = end.End
			}
		}
	}
	return c
}

// endKey keeps of all calls that end a key when the first began, and which was
// acknowledged first.
func (c *checker) endKey(e ending) {
	before, known := c.keyEnds[e.Key]
	if known && before.Outcome == ok && (e.Outcome != ok || before.End < e.End) {
		before, e = e, before
	}
	if known {
		e.Start = min(e.Start, before.Start)
	}
	c.keyEnds[e.Key] = e
}

// of returns an ending as a call on one grant, if it concerns that. What was ended is
// what was there; what begins shortly afterwards may have ended too, by what an
// instance believes and by clocks of seconds; and without an answer it may happen yet.
func (e ending) of(b birth) (call, bool) {
	end := call{Grant: b.Grant, Kind: revoke, Outcome: unknown, Start: e.Start, End: e.End, Instance: e.Instance, Note: "operator: " + e.String()}
	switch {
	case e.Client != "" && e.Client != b.Client, e.Session != "" && e.Session != b.Session, e.Client == "" && e.Person != b.Person:
		return end, false
	case e.Outcome == ok && b.End < e.Start:
		end.Outcome = ok
	case e.Outcome == ok && b.Start > e.End+instanceLag:
		return end, false
	}
	return end, true
}

// check fills in the table and the history's violations.
func (h *history) check(patience time.Duration) result {
	c := newChecker(h)
	h.Violations = slices.Clone(h.Seen)
	calls := slices.Clone(h.Calls)
	slices.SortStableFunc(calls, func(a, b call) int { return int(a.Start - b.Start) })
	r := c.model(calls, patience)
	c.codes(calls)
	c.successors(calls)
	c.afterEnds(calls)
	c.repetitions(calls, &r)
	c.keys(calls)
	c.offline(calls)
	c.afterKills(calls)
	r.table = c.table
	return r
}

// codes checks I2: of all answers to a code, also those that the client lost, one has tokens.
func (c *checker) codes(calls []call) {
	presented, redeemed := make(map[int]int), make(map[int]int)
	for _, one := range calls {
		if one.Kind != exchange {
			continue
		}
		if presented[one.Grant]++; presented[one.Grant] > 1 {
			c.table[2].Observed++
		}
		if one.Got != "" {
			if redeemed[one.Grant]++; redeemed[one.Grant] > 1 {
				c.breaks(2, "the code of grant %d was redeemed %d times", one.Grant, redeemed[one.Grant])
			}
		}
	}
}

// successors checks I3: all answers to one refresh token, also those that the client
// lost, carry the same successor.
func (c *checker) successors(calls []call) {
	first := make(map[[2]int]string)
	for _, one := range calls {
		if one.Kind != refresh || one.Got == "" {
			continue
		}
		at := [2]int{one.Grant, one.Generation}
		if before, again := first[at]; again {
			c.table[3].Observed++
			if before != one.Got {
				c.breaks(3, "the refresh token of generation %d of grant %d has two successors", one.Generation, one.Grant)
			}
		}
		first[at] = one.Got
	}
}

// afterEnds checks I1 and I5: what begins after the end was acknowledged, or after a
// thief was refused, gets nothing.
func (c *checker) afterEnds(calls []call) {
	thefts := make(map[int]int64)
	for _, one := range calls {
		if one.Theft && one.Outcome == invalid {
			if at, known := thefts[one.Grant]; !known || one.End < at {
				thefts[one.Grant] = one.End
			}
		}
	}
	for _, one := range calls {
		if one.Kind == revoke || one.Kind == verifyOffline || one.Outcome == unknown {
			continue
		}
		good := one.Outcome == ok || one.Outcome == active
		at, ended := c.certain[one.Grant]
		if ended && one.Start > at {
			if c.table[1].Observed++; good {
				c.breaks(1, "%s of grant %d at %d ms is %s, and it had ended at %d ms", one.Kind, one.Grant, one.Start/1e6, one.Outcome, at/1e6)
			}
		}
		if at, stolen := thefts[one.Grant]; stolen && one.Start > at {
			if c.table[5].Observed++; good {
				c.breaks(5, "%s of grant %d at %d ms is %s, and a thief was refused at %d ms", one.Kind, one.Grant, one.Start/1e6, one.Outcome, at/1e6)
			}
		}
	}
}

// repetitions checks I4: before anybody ends a grant or steals a token of it, no refresh
// is refused, the less one that repeats what was not answered.
func (c *checker) repetitions(calls []call, r *result) {
	harmed := make(map[int]int64) // of a grant: from when on it may be refused
	harm := func(grant int, at int64) {
		if before, known := harmed[grant]; !known || at < before {
			harmed[grant] = at
		}
	}
	unanswered := make(map[[2]int]int64) // when it was first given up
	first := make(map[[2]int]int64)
	exchanges := make(map[int]int)
	newest := make(map[int]int) // generation that a client has
	for _, one := range calls {
		switch {
		case one.Theft:
			harm(one.Grant, one.Start)
			if one.Outcome != unknown {
				r.thefts++
			}
			if one.Outcome == invalid {
				r.detected++
			}
		case one.Kind == exchange:
			if exchanges[one.Grant]++; exchanges[one.Grant] > 1 {
				harm(one.Grant, one.Start) // a replay ends it
			}
		}
	}
	for grant, ends := range c.ends {
		for _, end := range ends {
			harm(grant, end.Start)
		}
	}
	for _, one := range calls {
		if at, known := harmed[one.Grant]; one.Kind != refresh || known && one.End > at && one.Outcome != unknown {
			continue
		}
		at := [2]int{one.Grant, one.Generation}
		if _, known := first[at]; !known {
			first[at] = one.Start
		}
		// An old token looks like a thief, and so does one that is repeated for too long.
		if one.Generation < newest[one.Grant]-1 || one.Outcome != unknown && one.End-first[at] > int64(c.Window)-slack {
			harm(one.Grant, one.Start)
			continue
		}
		newest[one.Grant] = max(newest[one.Grant], one.Successor)
		switch {
		case one.Outcome == unknown:
			if _, known := unanswered[at]; !known {
				unanswered[at] = min(one.End, one.Start+int64(time.Minute))
			}
		default:
			r.refreshes++
			if _, known := unanswered[at]; known || one.Start == first[at] {
				c.table[4].Observed++
			}
			if one.Outcome == invalid {
				r.signedOut++
				c.breaks(4, "the client of grant %d is signed out at %d ms by generation %d, and nobody had ended it", one.Grant, one.End/1e6, one.Generation)
			}
		}
	}
}

// afterKills counts for I12: what the model explains although a process was killed
// between a call and the next on the same grant.
func (c *checker) afterKills(calls []call) {
	if len(c.Kills) == 0 {
		return
	}
	first := make(map[int]int64)
	for _, one := range calls {
		if one.Kind == verifyOffline || one.Outcome == unknown {
			continue
		}
		if _, known := first[one.Grant]; !known {
			first[one.Grant] = one.End
		}
		for _, kill := range c.Kills {
			if first[one.Grant] < kill && kill < one.Start {
				if c.table[12].Observed++; c.illegal[one.Grant] {
					c.table[12].Broken++
				}
				break
			}
		}
	}
}
