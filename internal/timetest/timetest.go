// Package timetest is how tests wait for what happens elsewhere, and how they sleep.
package timetest

import (
	"testing"
	"time"
	"unsafe"
)

// patience is how long what tests wait for may take: on a busy machine much longer than
// anybody would wait for it.
const patience = time.Minute

// Until waits until something is so, and reports whether it ever was.
func Until(is func() bool) bool {
	wait := time.Millisecond // and longer later: to look costs what is looked at time, too
	for deadline := time.Now().Add(patience); !is(); time.Sleep(wait) {
		if time.Now().After(deadline) {
			return false
		}
		wait = min(2*wait, 50*time.Millisecond)
	}
	return true
}

// Await waits until something is so, and ends the test where it never is.
func Await(t testing.TB, what string, is func() bool) {
	t.Helper()
	if !Until(is) {
		t.Fatalf("waited %v in vain: %s", patience, what)
	}
}

// AwaitNil waits until a check returns no error, and ends the test with its last one
// where it never does.
func AwaitNil(t testing.TB, check func() error) {
	t.Helper()
	var err error
	if !Until(func() bool { err = check(); return err == nil }) {
		t.Fatalf("after %v: %v", patience, err)
	}
}

// AfterSleep returns t as a machine reads it that slept for d before: the monotonic
// clock stood still.
func AfterSleep(t time.Time, d time.Duration) time.Time {
	(*struct {
		wall      uint64
		monotonic int64
		location  *time.Location
	})(unsafe.Pointer(&t)).monotonic -= int64(d)
	return t
}
