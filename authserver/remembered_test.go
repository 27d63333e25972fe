package authserver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What the store said is believed for a second, for half a minute while the store
// does not answer, and then not at all.
func TestRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked int
		value, trouble, exists := "first", error(nil), true
		m := remember(func(context.Context, string) (string, bool, error) {
			asked++
			return value, exists, trouble
		})
		expect := func(what, want string, known bool, questions int) {
			t.Helper()
			got, found, err := m.get(t.Context(), "key")
			synctest.Wait()
			if err != nil || got != want || found != known || asked != questions {
				t.Errorf("%s: %q, %v, %v after %d questions; want %q, %v after %d", what, got, found, err, asked, want, known, questions)
			}
		}
		expect("at first", "first", true, 1)
		value = "second"
		time.Sleep(believed - time.Millisecond)
		expect("within a second", "first", true, 1)
		time.Sleep(time.Millisecond)
		expect("after a second", "second", true, 2)
		m.forget("key")
		value = "third"
		expect("when forgotten", "third", true, 3)

		trouble = errors.New("no answer")
		time.Sleep(believed)
		expect("in trouble", "third", true, 4)
		expect("in trouble, again", "third", true, 4) // the store is not asked by each
		time.Sleep(believed)
		expect("in trouble, a second later", "third", true, 5)
		time.Sleep(believedStale - 2*believed)
		if got, _, err := m.get(t.Context(), "key"); !errors.Is(err, trouble) {
			t.Errorf("half a minute after the last answer: %q, %v", got, err)
		}
		trouble, value = nil, "fourth"
		expect("after the trouble", "fourth", true, 7)
		time.Sleep(believed)
		value, exists = "", false
		expect("removed", "", false, 8)
		expect("removed, again", "", false, 9) // what does not exist is not remembered
		if len(m.answers) != 0 {
			t.Errorf("%d answers are remembered about nothing", len(m.answers))
		}
	})
}

// However many ask at once, the store is asked once, and one who gives up takes
// nobody with him.
func TestRememberedSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		m := remember(func(ctx context.Context, key string) (string, bool, error) {
			asked.Add(1)
			select {
			case <-time.After(100 * time.Millisecond):
				return key, true, nil
			case <-ctx.Done():
				return "", false, ctx.Err()
			}
		})
		impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		var wait sync.WaitGroup
		wait.Go(func() {
			if _, _, err := m.get(impatient, "key"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who gave up got %v", err)
			}
		})
		synctest.Wait() // the impatient one is the first
		for range 100 {
			wait.Go(func() {
				if got, found, err := m.get(t.Context(), "key"); got != "key" || !found || err != nil {
					t.Errorf("%q, %v, %v", got, found, err)
				}
			})
		}
		wait.Wait()
		if asked.Load() != 1 {
			t.Errorf("the store was asked %d times", asked.Load())
		}
	})
}

// An answer that was on its way for longer than answers are believed is not for those who
// ask since: what it says may have ended before they did.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var questions atomic.Int64
		m := remember(func(context.Context, string) (int64, bool, error) {
			n := questions.Add(1)
			if n == 1 {
				time.Sleep(2*believed + time.Millisecond)
			}
			return n, true, nil
		})
		var early sync.WaitGroup
		early.Go(func() {
			if _, _, err := m.confirmed(t.Context(), "key"); err != nil {
				t.Errorf("who asked first got %v", err)
			}
		})
		time.Sleep(2 * believed)
		if got, _, err := m.confirmed(t.Context(), "key"); got != 2 || err != nil {
			t.Errorf("who asked two seconds later got answer %d, %v", got, err)
		}
		early.Wait()
	})
}

func TestRememberedIsBounded(t *testing.T) {
	m := remember(func(_ context.Context, key string) (string, bool, error) { return key, true, nil })
	for i := range maxRemembered + 100 {
		if got, _, err := m.get(t.Context(), fmt.Sprint(i)); got != fmt.Sprint(i) || err != nil {
			t.Fatal(got, err)
		}
	}
	if len(m.answers) != maxRemembered {
		t.Errorf("%d are remembered, the bound is %d", len(m.answers), maxRemembered)
	}
}

// While the store hangs, made-up keys wait in a bounded number and leave nothing behind;
// what is known already is still answered.
func TestQuestionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hangs bool
		answer := make(chan struct{})
		m := remember(func(_ context.Context, key string) (string, bool, error) {
			if hangs {
				<-answer
			}
			return key, key == "known", nil
		})
		m.get(t.Context(), "known")
		hangs = true
		var refused, waited atomic.Int64
		for i := range maxQuestions + 100 {
			go func() {
				if _, _, err := m.get(t.Context(), fmt.Sprint("made up ", i)); errors.Is(err, errQuestions) {
					refused.Add(1)
				} else if err == nil {
					waited.Add(1)
				}
			}()
		}
		synctest.Wait()
		if refused.Load() != 100 || len(m.answers) != maxQuestions+1 {
			t.Errorf("%d refused, %d answers", refused.Load(), len(m.answers))
		}
		if got, _, err := m.get(t.Context(), "known"); got != "known" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		close(answer)
		synctest.Wait()
		if waited.Load() != maxQuestions || len(m.answers) != 1 || len(m.questions) != 0 {
			t.Errorf("%d answered, %d answers, %d under way", waited.Load(), len(m.answers), len(m.questions))
		}
	})
}
