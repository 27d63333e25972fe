package authserver

import (
	"net/http/httptest"
	"net/netip"
	"testing"
)

// Spraying one password over many accounts from many addresses meets a limit for
// all; browsers that have signed in before do not, nor do their accounts' counters
// count what others guess (ATTACKS BF-03).
func TestSpraying(t *testing.T) {
	s := browserServer(t, nil)
	ctx := t.Context()
	address := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, i}) }
	if _, err := s.store.Add(ctx, globalFailures, freeGlobal-1, globalWindow); err != nil {
		t.Fatal(err)
	}
	last, err := s.throttle.admit(ctx, "one", caller{address: address(1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.throttle.admit(ctx, "two", caller{address: address(2)}); err == nil || asError(err).Status != 429 {
		t.Errorf("one more than all may: %v", err)
	}
	if _, err := s.throttle.admit(ctx, "three", caller{address: address(3), device: "known"}); err != nil {
		t.Errorf("a known browser: %v", err)
	}
	for range 2 { // the one who signs in, and one who was refused only because of the others
		if err := s.throttle.succeeded(ctx, last); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.throttle.admit(ctx, "four", caller{address: address(4)}); err != nil {
		t.Errorf("when others have succeeded: %v", err)
	}
}

// The cookie of a known browser counts for the accounts that signed in there, and
// for nobody who makes it up.
func TestKnownDevice(t *testing.T) {
	s := browserServer(t, nil)
	r := httptest.NewRequest("POST", "/login", nil)
	for _, name := range []string{"Alice", "b", "c", "d", "e"} {
		w := httptest.NewRecorder()
		if err := s.rememberDevice(w, r, user{username: name}); err != nil {
			t.Fatal(err)
		}
		r = httptest.NewRequest("POST", "/login", nil)
		r.AddCookie(w.Result().Cookies()[0])
	}
	device := s.callerOf(r, " alice ").device
	if device == "" || s.callerOf(r, "e").device != device || s.callerOf(r, "mallory").device != "" {
		t.Errorf("devices %q %q %q", device, s.callerOf(r, "e").device, s.callerOf(r, "mallory").device)
	}
	w := httptest.NewRecorder()
	if err := s.rememberDevice(w, r, user{username: "f"}); err != nil { // the oldest of six is forgotten
		t.Fatal(err)
	}
	last := w.Result().Cookies()[0]
	if !last.HttpOnly || !last.Secure || last.Name != "__Host-known" {
		t.Errorf("cookie %v", last)
	}
	again := httptest.NewRequest("POST", "/login", nil)
	again.AddCookie(last)
	if s.callerOf(again, "alice").device != "" || s.callerOf(again, "f").device != device {
		t.Error("six accounts are known")
	}
	forged := httptest.NewRequest("POST", "/login", nil)
	last.Value = last.Value[:len(last.Value)-4] + "AAAA"
	forged.AddCookie(last)
	if s.callerOf(forged, "f").device != "" {
		t.Error("a forged cookie counts")
	}
}
