package keys

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The first master key seals, all of them open, and after rewrapping the old one
// can be taken away. FT-45: it can be interrupted anywhere.
func TestMasterKeyIsReplaced(t *testing.T) {
	c := testConfig(t, new(memory), es256, rs256)
	m := open(t, c)
	slow := &workshop{patient: true}
	if err := m.step(t.Context(), slow); err != nil {
		t.Fatal(err)
	}
	box := must[Box](t)(m.Box("test"))
	sealedBefore := box.Seal([]byte("value"), nil)
	jwks := string(m.JWKS().Body)
	older, newer := c.MasterKey, newMaster(t)

	// Every instance learns the new one before any seals with it.
	c.OldMasterKeys = []MasterKey{newer}
	m = open(t, c)
	if views := m.Describe().MasterKeys; len(views) != 2 || views[0] != (MasterKeyView{older.ID(), true, 6}) || views[1] != (MasterKeyView{newer.ID(), false, 0}) {
		t.Errorf("%+v", views)
	}
	waiting := m
	c.MasterKey, c.OldMasterKeys = newer, []MasterKey{older}
	m = open(t, c)
	if err := m.RotateForTesting(t.Context()); err != nil { // sealed with the newer one
		t.Fatal(err)
	}
	if err := waiting.step(t.Context(), nil); err != nil {
		t.Errorf("an instance that seals with the older one: %v", err)
	}
	if views := m.Describe().MasterKeys; views[0].Keys != 3 || views[1].Keys != 3 {
		t.Errorf("%+v", views)
	}
	alone := c
	alone.OldMasterKeys = nil
	if _, err := Open(t.Context(), alone); !errors.Is(err, ErrMasterKey) || !strings.Contains(err.Error(), older.ID()) {
		t.Errorf("without the older one: %v", err)
	}

	store := c.Store.(*memory)
	store.unsaved = errBroken
	if _, err := m.Rewrap(t.Context(), ann); !errors.Is(err, errBroken) {
		t.Errorf("rewrapped in a broken store: %v", err)
	}
	store.unsaved = nil
	got := must[Rewrapped](t)(m.Rewrap(t.Context(), ann))
	if got.Keys != 3 || got.MasterKey != newer.ID() || !slices.Equal(got.Unneeded, []string{older.ID()}) {
		t.Errorf("%+v", got)
	}
	if got = must[Rewrapped](t)(m.Rewrap(t.Context(), ann)); got.Keys != 0 {
		t.Errorf("again: %+v", got)
	}
	if strings.Contains(string(store.value), older.ID()) {
		t.Error("the stored set still names the older one")
	}
	m2 := open(t, alone)
	for _, ring := range []string{es256, rs256, RefreshRing} {
		must[string](t)(m2.Sign(ring, "at+jwt", nil))
	}
	if !strings.Contains(string(m2.JWKS().Body), jwks[20:80]) {
		t.Error("the keys are others now")
	}
	checkLog(t, m2)

	box = must[Box](t)(m.Box("test"))
	if value, err := box.Open(sealedBefore, nil); err != nil || string(value) != "value" {
		t.Errorf("a value from before: %q, %v", value, err)
	}
	resealed, changed, err := box.Reseal(sealedBefore, nil)
	if err != nil || !changed {
		t.Errorf("resealed: %t, %v", changed, err)
	}
	if _, changed, err := box.Reseal(resealed, nil); err != nil || changed {
		t.Errorf("resealed again: %t, %v", changed, err)
	}
	box = must[Box](t)(m2.Box("test"))
	if _, err := box.Open(sealedBefore, nil); !errors.Is(err, ErrSealed) {
		t.Errorf("without the older one it opens: %v", err)
	}
	if value, err := box.Open(resealed, nil); err != nil || string(value) != "value" {
		t.Errorf("the resealed value: %q, %v", value, err)
	}
}

func TestParseMasterKeys(t *testing.T) {
	a, b := newMaster(t), newMaster(t)
	got := must[[]MasterKey](t)(ParseMasterKeys(slices.Concat(a.Text(), []byte("\r\n"), b.Text())))
	if len(got) != 2 || got[0].ID() != a.ID() || got[1].ID() != b.ID() {
		t.Errorf("%v", got)
	}
	for name, text := range map[string][]byte{
		"empty": []byte("\n\n"), "line 2": slices.Concat(a.Text(), []byte("junk\n")), "same": slices.Concat(a.Text(), a.Text()),
		"more than": []byte(many(t, 9)),
	} {
		if _, err := ParseMasterKeys(text); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func many(t *testing.T, n int) string {
	var text strings.Builder
	for range n {
		text.Write(newMaster(t).Text())
	}
	return text.String()
}

// Whoever imports a key sees it published, and it signs no sooner than any other.
func TestImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t, new(memory), es256)
		c.PollEvery = 10 * time.Second
		m := open(t, c)
		run(t, m)
		time.Sleep(25 * time.Hour)
		was := m.kids(es256)
		key := must[signing](t)(algorithms[0].generate())
		view := must[KeyView](t)(m.Import(t.Context(), ann, es256, key))
		if now := m.kids(es256); view.State != string(pending) || now[pending][0] != view.KeyID || len(now[pending]) != 1 || now[active][0] != was[active][0] {
			t.Errorf("%v became %v: %+v", was, now, view)
		}
		if !strings.Contains(string(m.JWKS().Body), view.KeyID) || strings.Contains(string(m.JWKS().Body), was[pending][0]) {
			t.Error("it is not published, or the one that it replaced is")
		}
		if _, err := m.Import(t.Context(), ann, es256, key); !isRefusal(err) {
			t.Errorf("imported twice: %v", err)
		}
		planned := must[RotationPlan](t)(m.Rotate(t.Context(), ann, es256))
		if in := time.Until(planned.Rotations[0].At); in < 23*time.Hour {
			t.Errorf("it signs in %s", in)
		}
		time.Sleep(25 * time.Hour)
		if _, kid := header(t, must[string](t)(m.Sign(es256, "at+jwt", nil))); kid != view.KeyID {
			t.Error("it does not sign")
		}
		must[RevokedKey](t)(m.Revoke(t.Context(), ann, view.KeyID))
		for name, late := range map[string]time.Duration{"compromised": 0, "gone": 3 * time.Hour} {
			time.Sleep(late)
			if _, err := m.Import(t.Context(), ann, es256, key); !isRefusal(err) {
				t.Errorf("imported when it was %s: %v", name, err)
			}
		}
		if _, k := m.current.Load().set.key(view.KeyID); k != nil {
			t.Error("a compromised key stays in the set for ever")
		}
		checkLog(t, m)
	})
}
