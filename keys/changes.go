package keys

import (
	"fmt"
	"time"
)

// change is one key's change of state.
type change struct {
	ring, id string
	from, to state // "" for from: it was made; "gone" for to
	why      string
}

const gone state = "gone"

// changes returns what happened between two versions of a set.
func changes(before, after set) []change {
	var list []change
	was := make(map[string]state)
	for _, r := range before.Rings {
		for _, k := range r.Keys {
			was[k.ID] = k.State
		}
	}
	for _, r := range after.Rings {
		for _, k := range r.Keys {
			if from := was[k.ID]; !k.wanted() && from != k.State {
				list = append(list, change{r.Name, k.ID, from, k.State, k.why(from)})
			}
			delete(was, k.ID)
		}
	}
	for _, r := range before.Rings {
		for _, k := range r.Keys {
			if _, left := was[k.ID]; left && !k.wanted() {
				why := "every token that it signed has expired"
				if k.State == pending {
					why = "it never signed, and is not needed any more"
				}
				list = append(list, change{r.Name, k.ID, k.State, gone, why})
			}
		}
	}
	return list
}

// why says why a key came from a state into the one it is in.
func (k key) why(from state) string {
	switch {
	case k.State == pending:
		return "published ahead of its use"
	case k.State == active && from == pending:
		return fmt.Sprintf("published for %s, and due", lasted(k.Activated.Sub(k.Published)))
	case k.State == active:
		return "the first of its ring"
	case k.State == retiring:
		return fmt.Sprintf("signed for %s; its private half is destroyed", lasted(k.Stopped.Sub(k.Activated)))
	}
	return "declared compromised"
}

// lasted writes a time for people.
func lasted(d time.Duration) string {
	const day = 24 * time.Hour
	if d = d.Round(time.Second); d >= 2*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}
