package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var ann = By{Caller: "ann", Reason: "because"}

func isRefusal(err error) bool {
	var refusal Refusal
	return errors.As(err, &refusal)
}

// checkLog fails unless the key log is whole.
func checkLog(t *testing.T, m *Manager) LogReport {
	t.Helper()
	report := must[LogReport](t)(m.VerifyLog(t.Context()))
	for _, p := range report.Problems {
		t.Errorf("the key log: %s", p.Text)
	}
	return report
}

func TestRotateInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t, new(memory), es256)
		c.PollEvery = 10 * time.Second
		m := open(t, c)
		run(t, m)
		time.Sleep(time.Hour)
		was := m.kids(es256)
		before := m.current.Load().version
		planned := must[RotationPlan](t)(m.PlanRotation(false, es256))
		if m.current.Load().version != before {
			t.Error("a plan changed something")
		}
		made := must[RotationPlan](t)(m.Rotate(t.Context(), ann, es256))
		at := planned.Rotations[0].At
		if in := time.Until(at); in < 22*time.Hour || in > 23*time.Hour {
			t.Errorf("planned in %s; the next key is published for an hour, of 24", in)
		}
		if !reflect.DeepEqual(planned, made) {
			t.Errorf("it was planned\n%+v\nand is\n%+v", planned, made)
		}
		for i := 0; i < 2; i++ { // asking again changes nothing
			if got := must[RotationPlan](t)(m.Rotate(t.Context(), ann, es256)); !got.Rotations[0].At.Equal(at) {
				t.Errorf("asked again, it comes at %s instead of %s", got.Rotations[0].At, at)
			}
		}
		time.Sleep(time.Until(at) - time.Second)
		if m.kids(es256)[active][0] != was[active][0] {
			t.Error("rotated too early")
		}
		time.Sleep(11 * time.Second)
		if now := m.kids(es256); now[active][0] != was[pending][0] || now[retiring][0] != was[active][0] {
			t.Errorf("the next key does not sign: %v", now)
		}
		// It is done, not a new habit.
		if next := m.Describe().Rings[0].Keys[1].Next; next == nil || time.Until(next.At) < 2000*time.Hour {
			t.Errorf("the next rotation is planned for %+v", next)
		}
		// A day later the standby is old enough: at once.
		time.Sleep(25 * time.Hour)
		made = must[RotationPlan](t)(m.Rotate(t.Context(), ann))
		if len(made.Rotations) != 2 || made.Rotations[0].Breaks != "" {
			t.Errorf("%+v", made.Rotations)
		}
		if now := m.kids(es256); now[active][0] != made.Rotations[0].To {
			t.Error("it did not rotate at once")
		}
		checkLog(t, m)
	})
}

func TestRotateNowSaysWhomItBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := testConfig(t, new(memory), es256)
		config.PollEvery = 10 * time.Second
		m := open(t, config)
		run(t, m)
		for _, c := range []struct {
			age    time.Duration
			breaks []string
		}{
			{5 * time.Minute, []string{"older than 5m0s", "may be fresh until"}},
			{time.Hour, []string{"ignore Cache-Control", "nobody who honours it"}},
			{25 * time.Hour, nil},
		} {
			time.Sleep(c.age)
			planned := must[RotationPlan](t)(m.PlanRotation(true, es256))
			text := planned.Rotations[0].Breaks
			if (text == "") != (c.breaks == nil) {
				t.Errorf("a key published for %s breaks %q", c.age, text)
			}
			for _, words := range c.breaks {
				if !strings.Contains(text, words) {
					t.Errorf("a key published for %s breaks %q, without %q", c.age, text, words)
				}
			}
			next := m.kids(es256)[pending][0]
			must[RotationPlan](t)(m.RotateNow(t.Context(), ann, es256))
			if m.kids(es256)[active][0] != next {
				t.Error("it did not rotate")
			}
			// Other instances do not know the next one yet.
			if _, err := m.RotateNow(t.Context(), ann, es256); !isRefusal(err) {
				t.Errorf("rotated to a key that other instances may not know: %v", err)
			}
		}
	})
}

// FT-24: the schedule, or another operator, was first.
func TestRotateIsNotDoneTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory)
		c := testConfig(t, store, es256)
		m, other := open(t, c), open(t, c)
		time.Sleep(48 * time.Hour)
		if err := m.step(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		must[RotationPlan](t)(other.Rotate(t.Context(), ann, es256))
		got := must[RotationPlan](t)(m.Rotate(t.Context(), ann, es256)) // has not read the set since
		if r := got.Rotations[0]; !r.At.IsZero() || r.To != m.kids(es256)[active][0] {
			t.Errorf("%+v; want that it has rotated already", r)
		}
		if n := len(m.kids(es256)[retiring]); n != 1 {
			t.Errorf("rotated %d times", n)
		}
	})
}

// The store carries an operation out and loses the answer, or does not: it is done once.
func TestOperationsAreCarriedOutOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory)
		c := testConfig(t, store, es256)
		m := open(t, c)
		for round := range 12 {
			time.Sleep(48 * time.Hour)
			if err := m.step(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			was := m.kids(es256)
			lose := 1 + round%3
			store.set(func() {
				store.save = func() error {
					if lose--; lose >= 0 {
						return errBroken
					}
					return nil
				}
				if round%2 == 0 { // another instance goes on before the answer is missed
					store.observed = func([]byte) { store.observed = nil; store.version++ }
				}
			})
			must[RotationPlan](t)(m.Rotate(t.Context(), ann, es256))
			store.set(func() { store.save, store.observed = nil, nil })
			if now := m.kids(es256); now[active][0] != was[pending][0] || len(now[retiring]) != 1 {
				t.Fatalf("round %d: %v became %v", round, was, now)
			}
			// A key is imported once: the repetition would be refused.
			lose = 1
			store.set(func() {
				store.save = func() error {
					if lose--; lose >= 0 {
						return errBroken
					}
					return nil
				}
			})
			must[KeyView](t)(m.Import(t.Context(), ann, es256, must[signing](t)(algorithms[0].generate())))
			store.set(func() { store.save = nil })
		}
		store.set(func() { store.unsaved = errBroken })
		if _, err := m.Rotate(t.Context(), ann); !errors.Is(err, errBroken) {
			t.Errorf("a store that stores nothing: %v", err)
		}
		checkLog(t, m)
	})
}

func TestRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t, new(memory), es256)
		m, other := open(t, c), open(t, c)
		run(t, m)
		run(t, other)
		time.Sleep(time.Hour)
		token := must[string](t)(m.Sign(es256, "at+jwt", []byte(`{}`)))
		was := m.kids(es256)
		kid := was[active][0]
		if _, err := m.Revoke(t.Context(), By{Caller: "ann"}, kid); !isRefusal(err) {
			t.Errorf("revoked without a reason: %v", err)
		}
		if _, err := m.Revoke(t.Context(), ann, "nobody"); !isRefusal(err) {
			t.Errorf("revoked what is not there: %v", err)
		}
		got := must[RevokedKey](t)(m.Revoke(t.Context(), ann, kid))
		if got.SignsNow != was[pending][0] || got.Until.Before(time.Now().Add(time.Hour)) || got.Already ||
			got.Exposed.Sub(got.At) != 20*time.Minute+time.Second {
			t.Errorf("%+v", got)
		}
		if _, _, ok := m.AccessKey(kid); ok || verify(t, m.JWKS(), token) == nil {
			t.Error("it is still good on the instance that revoked it")
		}
		time.Sleep(c.withDefaults().PollEvery + time.Millisecond)
		if _, _, ok := other.AccessKey(kid); ok || verify(t, other.JWKS(), token) == nil {
			t.Error("it is still good on another instance after a second")
		}
		if _, k := m.current.Load().set.key(kid); k.Private != nil {
			t.Error("its private half was kept")
		}
		again := must[RevokedKey](t)(other.Revoke(t.Context(), ann, kid))
		if !again.Already || !again.At.Equal(got.At) || !again.Until.Equal(got.Until) {
			t.Errorf("again: %+v", again)
		}
		// The next one is young: nothing signs until caches know it, or somebody says so.
		got = must[RevokedKey](t)(m.Revoke(t.Context(), ann, got.SignsNow))
		if _, err := m.Sign(es256, "at+jwt", nil); !errors.Is(err, ErrNoKey) || got.SignsNow != "" || got.SignsFrom.Before(time.Now()) {
			t.Errorf("%v, %+v", err, got)
		}
		// An orderly rotation says from when on, as the schedule has it.
		orderly := must[RotationPlan](t)(m.Rotate(t.Context(), ann, es256))
		if at := orderly.Rotations[0].At; !at.Equal(got.SignsFrom) {
			t.Errorf("an orderly rotation says that the next key signs from %s on, want %s", at, got.SignsFrom)
		}
		time.Sleep(5 * time.Minute)
		planned := must[RotationPlan](t)(m.RotateNow(t.Context(), ann, es256))
		if planned.Rotations[0].Breaks == "" {
			t.Error("it is not said whom that breaks")
		}
		must[string](t)(m.Sign(es256, "at+jwt", nil))
		checkLog(t, m)
	})
}

func TestAlgorithmWithoutAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t, new(memory), es256)
		m := open(t, c)
		stop := run(t, m)
		from := must[time.Time](t)(m.AddAlgorithm(t.Context(), ann, eddsa))
		if _, err := m.AddAlgorithm(t.Context(), ann, eddsa); !isRefusal(err) {
			t.Errorf("added twice: %v", err)
		}
		if _, err := m.AddAlgorithm(t.Context(), ann, "none"); !isRefusal(err) {
			t.Errorf("added none: %v", err)
		}
		time.Sleep(time.Until(from) + 2*time.Second)
		must[string](t)(m.Sign(eddsa, "at+jwt", nil))
		if _, err := m.RetireAlgorithm(t.Context(), ann, es256); !isRefusal(err) || !strings.Contains(err.Error(), "keys.algorithms") {
			t.Errorf("retired what is configured: %v", err)
		}
		if _, err := m.RetireAlgorithm(t.Context(), ann, RefreshRing); !isRefusal(err) {
			t.Errorf("retired the refresh ring: %v", err)
		}
		stop()
		// Restarted with the other algorithm; another instance still has the old one.
		c.Algorithms = []string{eddsa}
		m = open(t, c)
		run(t, m)
		c.Algorithms = []string{es256, eddsa}
		late := open(t, c)
		stop = run(t, late)
		token := must[string](t)(late.Sign(es256, "at+jwt", []byte(`{}`)))
		ends := must[time.Time](t)(m.RetireAlgorithm(t.Context(), ann, es256))
		for time.Now().Before(ends.Add(time.Minute)) {
			must[string](t)(late.Sign(es256, "at+jwt", nil))
			time.Sleep(time.Second)
		}
		stop()
		ends = must[time.Time](t)(m.RetireAlgorithm(t.Context(), ann, es256))
		time.Sleep(time.Until(ends) + 2*time.Second)
		if _, err := m.Sign(es256, "at+jwt", nil); !errors.Is(err, ErrNoKey) {
			t.Errorf("it signs: %v", err)
		}
		if err := verify(t, m.JWKS(), token); err != nil {
			t.Errorf("its tokens are not good any more: %v", err)
		}
		time.Sleep(2 * time.Hour)
		if m.current.Load().set.ring(es256) != nil {
			t.Error("the ring is still there")
		}
		var actions []string
		for _, e := range must[[]Entry](t)(m.Log(t.Context())) {
			if e.Action != ActionState {
				actions = append(actions, e.Action)
			}
		}
		if want := []string{ActionAddAlgorithm, ActionRetireAlgorithm, ActionKeepAlgorithm, ActionRetireAlgorithm}; !slices.Equal(actions, want) {
			t.Errorf("the log says %q, want %q", actions, want)
		}
		checkLog(t, m)
	})
}

// What is planned happens, to the key and to the second, when nothing interferes.
func TestPlanComesTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t, new(memory), es256, eddsa)
		c.RotateEvery, c.RefreshLifetime = 10*24*time.Hour, 12*24*time.Hour
		c.Lease, c.PollEvery = 10*time.Minute, 3*time.Minute
		m := open(t, c)
		run(t, m)
		time.Sleep(time.Hour)
		must[RotationPlan](t)(m.Rotate(t.Context(), ann, eddsa))
		planned := m.Plan()
		if len(planned) < 12 {
			t.Errorf("only %d transitions are planned", len(planned))
		}
		if !slices.IsSortedFunc(planned, func(a, b Transition) int { return a.At.Compare(b.At) }) {
			t.Error("they are not in order")
		}
		written := len(must[[]Entry](t)(m.Log(t.Context())))
		time.Sleep(time.Until(planned[len(planned)-1].At) + 20*time.Minute)
		happened := must[[]Entry](t)(m.Log(t.Context()))[written:]
		for _, p := range planned {
			if !slices.ContainsFunc(happened, func(e Entry) bool {
				late := e.Time.Sub(p.At)
				// Each rotation is a poll late, and so is what counts from it.
				return e.Ring == p.Ring && (e.KeyID == p.KeyID || p.KeyID == "" && e.From == "") && e.To == p.To && late >= 0 && late < 20*time.Minute
			}) {
				t.Errorf("planned, and did not happen: %+v", p)
			}
		}
	})
}

func TestLasted(t *testing.T) {
	for d, want := range map[time.Duration]string{
		24*time.Hour + 290*time.Millisecond: "24h0m0s", 90*24*time.Hour - 290*time.Millisecond: "90 days", 5 * time.Second: "5s", 49 * time.Hour: "2 days",
	} {
		if got := lasted(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	m := open(t, testConfig(t, new(memory), es256, rs256))
	must[string](t)(m.Sign(es256, "at+jwt", nil))
	overview := m.Describe()
	if len(overview.Rings) != 3 || !overview.Rings[0].Default || overview.Rings[2].Published || !overview.Signing {
		t.Errorf("%+v", overview)
	}
	first := overview.Rings[0].Keys[0]
	m.AccessKey(first.KeyID)
	shown := must[PublicKey](t)(m.Show(first.KeyID))
	if shown.Signed != 1 || shown.Verified != 1 || !strings.Contains(string(shown.JWK), first.KeyID) || !strings.HasPrefix(shown.PEM, "-----BEGIN PUBLIC KEY") {
		t.Errorf("%+v", shown)
	}
	text := string(must[[]byte](t)(json.Marshal([]any{overview, shown, m.Plan()})))
	if strings.Contains(text, "sealed\":{") || strings.Contains(text, `"d"`) || strings.Contains(text, "ciphertext") {
		t.Errorf("a private half: %s", text)
	}
	if _, err := m.Show("nobody"); !isRefusal(err) {
		t.Errorf("showing what is not there: %v", err)
	}
}

func TestCallersAreNamed(t *testing.T) {
	m := open(t, testConfig(t, new(memory), es256))
	for _, by := range []By{{}, {Caller: "ann\n"}, {Caller: strings.Repeat("a", 201)}, {Caller: "ann", Reason: strings.Repeat("a", 201)}} {
		if _, err := m.Rotate(t.Context(), by); !isRefusal(err) {
			t.Errorf("%+v: %v", by, err)
		}
	}
}

// Operators and the schedule of several instances at once: one history.
func TestRacingOperators(t *testing.T) {
	store := new(memory)
	c := testConfig(t, store, es256, eddsa)
	managers := make([]*Manager, 4)
	for i := range managers {
		managers[i] = open(t, c)
	}
	var all sync.WaitGroup
	for round := range 10 {
		edit(t, c, func(s *set) {
			for _, r := range s.Rings {
				r.find(pending).Published = time.Time{}
			}
		})
		for i, m := range managers {
			all.Go(func() {
				by := By{Caller: fmt.Sprint("operator ", i), Reason: fmt.Sprint("round ", round)}
				if _, err := m.Rotate(context.Background(), by, es256); err != nil {
					t.Error(err)
				}
				if err := m.step(context.Background(), nil); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	m := open(t, c)
	checkLog(t, m)
	rotated := 0
	for _, e := range must[[]Entry](t)(m.Log(t.Context())) {
		if e.Ring == es256 && e.To == string(active) && e.From != "" {
			rotated++
		}
	}
	if rotated != 10 {
		t.Errorf("rotated %d times, want 10", rotated)
	}
}

// An operator is faster than the first RSA key: the imported one signs instead of
// the one that is still being made. (Found by history 7984.)
func TestRotateBeforeTheFirstKeyIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t, new(memory), es256, rs256)
		m := open(t, c) // without Run no RSA key is made
		view := must[KeyView](t)(m.Import(t.Context(), ann, rs256, must[signing](t)(algorithms[1].generate())))
		time.Sleep(time.Hour)
		must[RotationPlan](t)(m.RotateNow(t.Context(), ann, rs256))
		again := open(t, c)
		if _, kid := header(t, must[string](t)(again.Sign(rs256, "at+jwt", nil))); kid != view.KeyID {
			t.Errorf("%s signs", kid)
		}
		checkLog(t, again)
	})
}
