package keys

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

type nextFunc func(r ring, p policy, now time.Time, first bool) (ring, bool)

// broken names the rule that a step from before to after breaks, or "".
func broken(before, after ring, p policy, now time.Time, first bool) string {
	old := make(map[string]key)
	abandoned := false
	for _, k := range before.Keys {
		old[k.ID] = k
		abandoned = abandoned || k.State == compromised && k.Active != 0
	}
	hadSigner := find(before.Keys, active) >= 0
	count := make(map[state]int)
	for _, k := range after.Keys {
		count[k.State]++
		was, existed := old[k.ID]
		delete(old, k.ID)
		switch {
		case !existed && k.State != pending && !first:
			return "a key signs that was never published"
		case was.State == compromised && k.State != compromised:
			return "a compromised key came back"
		case was.State == retiring && k.State != retiring:
			return "a retired key came back"
		case was.State == pending && k.State == active && now.Sub(unix(was.Created)) < p.publishBefore && (hadSigner || !abandoned):
			return "a key signs before it was published long enough"
		case (k.State == retiring || k.State == compromised) && k.Sealed != nil:
			return "a private half outlived its use"
		case k.State == active && was.State == active && find(before.Keys, pending) >= 0 &&
			now.Sub(unix(k.Active)) >= p.rotateEvery && now.Sub(unix(before.Keys[find(before.Keys, pending)].Created)) >= p.publishBefore:
			return "an overdue key was not rotated"
		}
	}
	for _, k := range old {
		if k.State != retiring && k.State != compromised || now.Sub(unix(k.Retired)) < p.keep {
			return "a key is gone while its tokens live"
		}
	}
	if count[pending] != 1 {
		return "there is no standby"
	}
	if (hadSigner || first || abandoned && find(before.Keys, pending) >= 0) && count[active] != 1 {
		return "there is no signer"
	}
	return ""
}

// live runs one random history of a ring and returns the first broken rule.
func live(next nextFunc, seed uint64) string {
	random := rand.New(rand.NewPCG(seed, 1))
	minutes := func(n int) time.Duration { return time.Duration(1+random.IntN(n)) * time.Minute }
	p := policy{rotateEvery: minutes(1000), publishBefore: minutes(500), keep: minutes(3000)}
	r, made, now := ring{Name: es256, Algorithm: es256}, 0, time.Unix(1_800_000_000, 0)
	firstStart := random.IntN(2) == 0
	for step := range 40 {
		before := ring{Name: r.Name, Algorithm: r.Algorithm, Keys: slices.Clone(r.Keys)}
		first := step == 0 && firstStart
		after, changed := next(r, p, now, first)
		if rule := broken(before, after, p, now, first); rule != "" {
			return rule
		}
		if !reflect.DeepEqual(before.Keys, slices.Clone(r.Keys)) {
			return "next changed its argument"
		}
		if !changed && !reflect.DeepEqual(before.Keys, after.Keys) {
			return "a change was not reported"
		}
		for i := range after.Keys {
			if after.Keys[i].ID == wanted {
				made++
				after.Keys[i].ID, after.Keys[i].Sealed = fmt.Sprint("key", made), &sealed{}
			}
		}
		if _, again := next(after, p, now, false); again && p.publishBefore > 0 && find(after.Keys, active) >= 0 {
			return "next does not come to rest"
		}
		r = after
		switch random.IntN(12) {
		case 0: // an operator declares a key compromised
			r.Keys = slices.Clone(r.Keys)
			r.Keys[random.IntN(len(r.Keys))].State = compromised
		case 1: // switched off for months
			now = now.Add(minutes(500_000))
		default:
			now = now.Add(minutes(400))
		}
	}
	return ""
}

func firstBroken(next nextFunc, histories uint64) (seed uint64, rule string) {
	for seed := range histories {
		if rule := live(next, seed); rule != "" {
			return seed, rule
		}
	}
	return 0, ""
}

func TestNextKeepsItsRules(t *testing.T) {
	if seed, rule := firstBroken(next, 5_000); rule != "" {
		t.Fatalf("history %d: %s", seed, rule)
	}
}

func TestNextFaultsAreCaught(t *testing.T) {
	faults := map[string]nextFunc{
		"a key signs before it was published long enough": func(r ring, p policy, now time.Time, first bool) (ring, bool) {
			p.publishBefore = 0
			return next(r, p, now, first)
		},
		"a key is gone while its tokens live": func(r ring, p policy, now time.Time, first bool) (ring, bool) {
			p.keep--
			p.keep /= 2
			return next(r, p, now, first)
		},
		"a key signs that was never published": func(r ring, p policy, now time.Time, first bool) (ring, bool) {
			return next(r, p, now, true)
		},
		"an overdue key was not rotated": func(r ring, p policy, now time.Time, first bool) (ring, bool) {
			p.rotateEvery *= 2
			return next(r, p, now, first)
		},
		"a private half outlived its use": func(r ring, p policy, now time.Time, first bool) (ring, bool) {
			r, changed := next(r, p, now, first)
			for i := range r.Keys {
				if r.Keys[i].State == retiring {
					r.Keys[i].Sealed = &sealed{}
				}
			}
			return r, changed
		},
		"there is no standby": func(r ring, p policy, now time.Time, first bool) (ring, bool) {
			r, changed := next(r, p, now, first)
			if i := find(r.Keys, pending); len(r.Keys) > 2 && r.Keys[i].ID == wanted {
				r.Keys = slices.Delete(r.Keys, i, i+1)
			}
			return r, changed
		},
		"there is no signer": func(r ring, p policy, now time.Time, first bool) (ring, bool) {
			r, changed := next(r, p, now, first)
			if i := find(r.Keys, active); i >= 0 && now.Sub(unix(r.Keys[i].Active)) > 2*p.rotateEvery {
				r.Keys[i].State, r.Keys[i].Sealed, r.Keys[i].Retired = retiring, nil, now.Unix()
			}
			return r, changed
		},
		"a compromised key came back": func(r ring, p policy, now time.Time, first bool) (ring, bool) {
			r, changed := next(r, p, now, first)
			if i := find(r.Keys, compromised); i >= 0 {
				r.Keys[i].State = retiring
			}
			return r, changed
		},
		"a change was not reported": func(r ring, p policy, now time.Time, first bool) (ring, bool) {
			r, _ = next(r, p, now, first)
			return r, false
		},
		"next changed its argument": func(r ring, p policy, now time.Time, first bool) (ring, bool) {
			after, changed := next(r, p, now, first)
			if changed && len(r.Keys) > 0 {
				r.Keys[0].Retired = 1
			}
			return after, changed
		},
	}
	for want, fault := range faults {
		if _, rule := firstBroken(fault, 2_000); rule != want {
			t.Errorf("planted %q, found %q", want, rule)
		}
	}
}
