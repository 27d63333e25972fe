// Package storetest is the contract of store.Store as tests. Run it, raced, on
// every implementation.
package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"authserver/store"
)

// Run checks the contract on stores that open makes. A failure names the rule
// that was broken.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	s := open(t)
	for _, check := range Checks {
		t.Run(check.Name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			if err := check.Run(ctx, s, unique(check.Name)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Check is one part of the contract.
type Check struct {
	Name string
	// Run returns the broken rule, or nil. name is a key that no other check uses.
	Run func(ctx context.Context, s store.Store, name string) error
}

// Checks are the contract.
var Checks = []Check{
	{"create once", createOnce},
	{"create racing", createRacing},
	{"get several", getSeveral},
	{"swap", swap},
	{"swap racing", swapRacing},
	{"swap tells the age", swapTells},
	{"record expiry", recordExpiry},
	{"swap moves expiry", swapMovesExpiry},
	{"forever", forever},
	{"delete", deleteRecord},
	{"counter", counter},
	{"counter racing", counterRacing},
	{"counter window", counterWindow},
	{"index", index},
	{"index expiry", indexExpiry},
	{"index pages", indexPages},
	{"index order", indexOrder},
	{"log order", logOrder},
	{"log racing", logRacing},
	{"log pages", logPages},
	{"log wakes", logWakes},
	{"log keep", logKeep},
	{"batch", batch},
	{"batch ends", batchEnds},
	{"batch racing", batchRacing},
	{"create once in a family", inFamily(createOnce)},
	{"create racing in a family", inFamily(createRacing)},
	{"get several in a family", inFamily(getSeveral)},
	{"swap in a family", inFamily(swap)},
	{"swap racing in a family", inFamily(swapRacing)},
	{"swap tells the age in a family", inFamily(swapTells)},
	{"record expiry in a family", inFamily(recordExpiry)},
	{"swap moves expiry in a family", inFamily(swapMovesExpiry)},
	{"forever in a family", inFamily(forever)},
	{"delete in a family", inFamily(deleteRecord)},
	{"batch in a family", inFamily(batch)},
	{"batch ends in a family", inFamily(batchEnds)},
	{"batch racing in a family", inFamily(batchRacing)},
	{"names apart in a family", inFamily(namesApart)},
	{"family", family},
	{"family expiry", familyExpiry},
	{"family pages", familyPages},
	{"limits", limits},
	{"names apart", namesApart},
	{"context", contextEnds},
	{"ping", ping},
}

// unique makes a name that no earlier run on the same database has used.
func unique(check string) string { return fmt.Sprintf("%s %d", check, time.Now().UnixNano()) }

// broken is an error that states a rule.
func broken(rule, format string, args ...any) error {
	return fmt.Errorf("%s: %s", rule, fmt.Sprintf(format, args...))
}

// soon is a deadline for what is expected to happen; nothing is measured by it.
const soon = 10 * time.Second

// eventually polls until done.
func eventually(ctx context.Context, rule string, done func() (bool, error)) error {
	for deadline := time.Now().Add(soon); time.Now().Before(deadline); {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return broken(rule, "not within %s", soon)
}

func get(ctx context.Context, s store.Store, key string) (store.Record, error) {
	records, err := s.Get(ctx, key)
	if err != nil {
		return store.Record{}, err
	}
	if len(records) != 1 {
		return store.Record{}, broken("Get returns one record per key", "%d for one key", len(records))
	}
	return records[0], nil
}

func inAnHour() time.Time { return time.Now().Add(time.Hour) }
