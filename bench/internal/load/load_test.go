package load

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func sleeper(d time.Duration) Operation {
	return func() error { time.Sleep(d); return nil }
}

func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		result, err := Closed([]Operation{sleeper(10 * time.Millisecond), sleeper(20 * time.Millisecond)}, time.Second)
		if err != nil || result.Done() != 150 || result.Rate() != 150 {
			t.Errorf("%d operations, %.0f a second, %v", result.Done(), result.Rate(), err)
		}
		if result.Percentile(50) != 10*time.Millisecond || result.Percentile(100) != 20*time.Millisecond {
			t.Errorf("median %v, longest %v", result.Percentile(50), result.Percentile(100))
		}
	})
}

// A server that stalls for a second delays all that were due in it, and each counts.
func TestOpenCountsWhatWasDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		stalling := func() error {
			if calls++; calls == 100 {
				time.Sleep(time.Second)
			}
			return nil
		}
		result, err := Open([]Operation{stalling}, 100, 3*time.Second)
		if err != nil || result.Done() != 300 {
			t.Fatalf("%d operations, %v", result.Done(), err)
		}
		if result.Percentile(100) != time.Second || result.Percentile(75) == 0 {
			t.Errorf("longest %v, three quarters %v", result.Percentile(100), result.Percentile(75))
		}
	})
}

func TestFailuresEndTheRun(t *testing.T) {
	broken := errors.New("broken")
	if _, err := Closed([]Operation{func() error { return broken }}, time.Minute); !errors.Is(err, broken) {
		t.Error(err)
	}
}
