package timetest

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		Await(t, "half a minute is over", func() bool { return time.Since(begun) >= 30*time.Second })
		looks := 0
		AwaitNil(t, func() error {
			if looks++; looks < 3 {
				return errors.New("not yet")
			}
			return nil
		})
		begun, looks = time.Now(), 0
		if Until(func() bool { looks++; return false }) || time.Since(begun) < patience || looks > 2000 {
			t.Errorf("gave up after %v and %d looks", time.Since(begun), looks)
		}
	})
}

func TestAfterSleep(t *testing.T) { // in no bubble, where time has no monotonic clock
	now := time.Now()
	woken := AfterSleep(now.Add(time.Hour), time.Hour)
	if woken.Sub(now) != 0 || woken.Round(0).Sub(now.Round(0)) != time.Hour {
		t.Fatal("time.Time is not laid out as AfterSleep has it")
	}
}
