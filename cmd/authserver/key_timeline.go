package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"authserver/authserver"
	"authserver/keys"
)

// The timeline is drawn in characters that every terminal has, in 80 columns and
// without colour: one line per key.
const (
	timelineLabel = 24 // columns before the bar: ring, kid
	timelineWidth = 80 - timelineLabel
)

// marks are how the states look.
var marks = map[string]byte{"pending": '.', "active": '#', "retiring": '-', "compromised": 'x'}

// span is a state of a key and the time that it has it for.
type span struct {
	state    string
	from, to time.Time
}

// spans returns the life of a key: what was, and what is planned.
func spans(k keys.KeyView, plan []keys.Transition, end time.Time) []span {
	var life []span
	begin := func(state string, at time.Time) {
		if len(life) > 0 {
			life[len(life)-1].to = at
		}
		life = append(life, span{state: state, from: at, to: end})
	}
	begin("pending", k.Published)
	if !k.Activated.IsZero() {
		begin("active", k.Activated)
	}
	if !k.Stopped.IsZero() {
		begin(k.State, k.Stopped)
	}
	for _, t := range plan {
		if t.KeyID == k.KeyID {
			begin(t.To, t.At)
		}
	}
	return life
}

// timeline draws the keys of all rings, from the first publication to the last
// planned change of a published ring.
func timeline(w io.Writer, list authserver.KeyList, now time.Time) {
	start, end := now, now.Add(time.Hour)
	for _, ring := range list.Rings {
		for _, k := range ring.Keys {
			if k.Published.Before(start) {
				start = k.Published
			}
		}
	}
	// Refresh tokens live so long that nothing else could be seen beside them: their
	// lines run out of the picture.
	for _, t := range list.Plan {
		if t.KeyID != "" && t.Ring != keys.RefreshRing && t.At.After(end) {
			end = t.At
		}
	}
	column := func(t time.Time) int {
		at := int(float64(timelineWidth-1) * float64(t.Sub(start)) / float64(end.Sub(start)))
		return min(max(at, 0), timelineWidth-1)
	}
	pointer := strings.Repeat(" ", column(now))
	fmt.Fprintf(w, "%-*s%snow\n%-*s%sv\n", timelineLabel, "", pointer[:min(len(pointer), timelineWidth-3)], timelineLabel, "", pointer)
	for _, ring := range list.Rings {
		for _, k := range ring.Keys {
			bar := []byte(strings.Repeat(" ", timelineWidth))
			for _, s := range spans(k, list.Plan, end) {
				mark, drawn := marks[s.state]
				if !drawn { // gone
					continue
				}
				for i := column(s.from); i <= column(s.to); i++ { // a short state has a column too
					bar[i] = mark
				}
			}
			if mark, drawn := marks[k.State]; drawn { // also where the next state begins in the same column
				bar[column(now)] = mark
			}
			if last := bar[timelineWidth-1]; last != ' ' && ring.Name == keys.RefreshRing {
				bar[timelineWidth-1] = '>'
			}
			fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-9.9s%-15s%s", printable(ring.Name), short(k.KeyID), bar), " "))
		}
	}
	fmt.Fprintf(w, "%-*s%-*s%s\n", timelineLabel, "", timelineWidth-17, minute(start), minute(end))
	fmt.Fprintln(w, "# signs   . published, not signing   - its tokens verify   x compromised")
}
