package main

import "slices"

// keys checks I6, I7, I9 and I14 on what was signed and what was published.
func (c *checker) keys(calls []call) {
	type use struct{ first, last int64 }
	used := make(map[string]use)
	for _, one := range calls {
		if one.Key == "" || one.Got == "" {
			continue
		}
		if u, known := used[one.Key]; !known || one.End < u.first {
			used[one.Key] = use{one.End, max(u.last, one.Start)}
		} else {
			used[one.Key] = use{u.first, max(u.last, one.Start)}
		}
		if end, ended := c.keyEnds[one.Key]; ended && end.Outcome == ok {
			at := end.End
			if one.Instance != end.Instance {
				at += int64(c.Lease)
			}
			if one.Start > end.End {
				c.table[14].Observed++
			}
			if one.Start > at {
				c.breaks(14, "instance %d signed with %s at %d ms, and it was declared compromised at %d ms", one.Instance, one.Key, one.Start/1e6, end.End/1e6)
			}
		}
	}
	for _, r := range c.Retired { // whoever has said that a key does not sign any more signs nothing with it
		for _, one := range calls {
			if one.Instance == r.Instance && one.Got != "" && one.Start > r.At {
				if c.table[9].Observed++; one.Key == r.Key {
					c.breaks(9, "instance %d signed with %s at %d ms, and had retired it at %d ms", one.Instance, one.Key, one.Start/1e6, r.At/1e6)
				}
			}
		}
	}
	for end := range c.ended() { // who presents a token of it is refused
		for _, one := range calls {
			if one.Kind == introspectAccess && one.Key == end.Key && one.Outcome != unknown && one.Start > end.End && (one.Instance == end.Instance || one.Start > end.End+int64(c.Lease)) {
				if c.table[14].Observed++; one.Outcome == active {
					c.breaks(14, "instance %d calls a token of %s active at %d ms", one.Instance, end.Key, one.Start/1e6)
				}
			}
		}
	}
	for _, set := range c.KeySets {
		for kid, u := range used {
			end, ended := c.keyEnds[kid]
			published := slices.Contains(set.Keys, kid)
			if u.first < set.Start && !(ended && end.Start < set.End) {
				if c.table[6].Observed++; !published {
					c.breaks(6, "the key set of instance %d at %d ms lacks %s, of a token of %d ms", set.Instance, set.Start/1e6, kid, u.first/1e6)
				}
			}
			if u.first > set.Start && u.first < set.Start+set.MaxAge && !(ended && end.Start < set.End) {
				if c.table[7].Observed++; !published {
					c.breaks(7, "a verifier that cached the key set of instance %d at %d ms meets %s unknown at %d ms", set.Instance, set.Start/1e6, kid, u.first/1e6)
				}
			}
			// An instance that cannot read the store learns of it when its lease is over.
			bound := end.End
			if set.Instance != end.Instance {
				bound += int64(c.Lease)
			}
			if ended && end.Outcome == ok && set.Start > bound+keySetBound {
				if c.table[14].Observed++; published {
					c.breaks(14, "the key set of instance %d at %d ms has %s, which was declared compromised at %d ms", set.Instance, set.Start/1e6, kid, end.End/1e6)
				}
			}
		}
	}
}

// ended yields the keys that were declared compromised for sure.
func (c *checker) ended() func(func(ending) bool) {
	return func(yield func(ending) bool) {
		for _, end := range c.keyEnds {
			if end.Outcome == ok && !yield(end) {
				return
			}
		}
	}
}

// offline checks what verifiers accept: nothing that has ended for longer than their
// policy says, and everything else.
func (c *checker) offline(calls []call) {
	for _, one := range calls {
		if one.Kind != verifyOffline || one.Outcome == unknown {
			continue
		}
		keyEnd, keyEnded := c.keyEnds[one.Key]
		at, ended := c.accepted(one.Grant)
		if keyEnded && keyEnd.Outcome == ok && (!ended || keyEnd.bound() < at) {
			at, ended = keyEnd.bound(), true
		}
		if ended && one.Instance == rejecting && one.Start > at {
			if c.table[1].Observed++; one.Outcome == active {
				c.breaks(1, "a verifier accepts a token of grant %d at %d ms, and it should have refused it since %d ms", one.Grant, one.Start/1e6, at/1e6)
			}
		}
		if one.Outcome == inactive && len(c.ends[one.Grant]) == 0 && !keyEnded && !c.touched(calls, one.Grant, one.End) {
			c.breaks(7, "a verifier refuses a token of grant %d at %d ms, which nobody had ended: %s", one.Grant, one.Start/1e6, one.Note)
		} else if one.Outcome == active {
			c.table[7].Observed++
		}
	}
}

// bound is from when on a verifier that rejects when it is stale refuses what has ended.
func (e ending) bound() int64 {
	if e.Enforced {
		return e.End
	}
	return e.End + offlineBound
}

// accepted returns until when such a verifier may accept tokens of a grant.
func (c *checker) accepted(grant int) (until int64, ended bool) {
	if at, known := c.certain[grant]; known {
		until, ended = at+offlineBound, true
	}
	for _, e := range c.Endings {
		if e.Key == "" && e.Enforced {
			if end, concerns := e.of(c.births[grant]); concerns && end.Outcome == ok && e.End < until {
				until = e.End
			}
		}
	}
	return until, ended
}

// touched reports whether a thief, a replay or a late repetition can have ended a grant.
func (c *checker) touched(calls []call, grant int, before int64) bool {
	exchanges, newest := 0, 0
	first := make(map[int]int64)
	for _, one := range calls {
		if one.Grant != grant || one.Start > before {
			continue
		}
		if one.Kind == exchange {
			exchanges++
		}
		if _, known := first[one.Generation]; !known && one.Kind == refresh {
			first[one.Generation] = one.Start
		}
		newest = max(newest, one.Successor)
		if one.Theft || exchanges > 1 || one.Kind == refresh && (one.Generation < newest-1 || one.End-first[one.Generation] > int64(c.Window)-slack) {
			return true
		}
	}
	return false
}
