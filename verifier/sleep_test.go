package verifier

import (
	"testing"
	"time"

	"authserver/internal/timetest"
)

// Keys are a day older after a day of sleep, and are fetched then; a clock that is set
// back makes none younger.
func TestSleep(t *testing.T) { // in no bubble, where time has no monotonic clock
	keys := newKeySet(newSource(Config{}))
	now := time.Now()
	keys.current.Store(&fetched{at: now, fresh: time.Minute})
	woken := timetest.AfterSleep(now.Add(keepThrough+time.Hour), keepThrough+time.Hour)
	if woken.Sub(now) != 0 || woken.Round(0).Sub(now.Round(0)) != keepThrough+time.Hour {
		t.Fatal("time.Time is not laid out as this test has it")
	}
	if !keys.usable(now) || !keys.usable(timetest.AfterSleep(now.Add(keepThrough), keepThrough)) {
		t.Error("keys of a day are not used")
	}
	keys.ask = make(chan question, 1) // so that it is not missed
	if keys.usable(woken) {
		t.Error("keys of more than a day are used")
	}
	if len(keys.ask) != 1 {
		t.Error("keys that are too old are not fetched")
	}
	if setBack := timetest.AfterSleep(now.Add(time.Hour-keepThrough), -2*keepThrough); setBack.Sub(now) != keepThrough+time.Hour || keys.usable(setBack) {
		t.Error("a clock that was set back makes keys younger")
	}
}
