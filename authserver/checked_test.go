package authserver

import (
	"encoding/binary"
	"net/url"
	"strings"
	"testing"

	"authserver/internal/intake"
	"authserver/keys"
)

// A token that was checked before is believed to the byte, and for as long as its
// key is one of ours.
func TestCheckedTokens(t *testing.T) {
	s := browserServer(t, nil)
	b := signedIn(t, s)
	tokens := b.exchange("web", b.code())
	access, refresh := tokens.text("access_token"), tokens.text("refresh_token")
	if len(s.checkedRefresh.young) != 1 || len(s.checkedAccess.young) != 0 {
		t.Errorf("%d refresh and %d access tokens are remembered as issued", len(s.checkedRefresh.young), len(s.checkedAccess.young))
	}
	for range 2 {
		if !b.active("web", access) || !b.active("web", refresh) {
			t.Fatal("a live token is not active")
		}
	}
	if len(s.checkedRefresh.young) != 1 || len(s.checkedAccess.young) != 1 {
		t.Errorf("%d refresh and %d access tokens are remembered, of one each", len(s.checkedRefresh.young), len(s.checkedAccess.young))
	}
	for _, genuine := range []string{access, refresh} {
		at := strings.LastIndexByte(genuine, '.') + 1
		other := "A"
		if genuine[at] == 'A' {
			other = "B"
		}
		altered := genuine[:at] + other + genuine[at+1:]
		if b.active("web", altered) {
			t.Error("an altered signature passes because the token was seen before")
		}
	}
	if a := b.token("web", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}); a.status != 200 {
		t.Errorf("a refresh token that was seen before: %v", a.body)
	}
	token, err := intake.Parse(access)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.keys.Revoke(t.Context(), keys.By{Caller: "test", Reason: "test"}, token.KeyID); err != nil {
		t.Fatal(err)
	}
	if b.active("web", access) {
		t.Error("a token is remembered longer than its key")
	}
}

// What is remembered is bounded: two generations.
func TestCheckedTokensAreForgotten(t *testing.T) {
	var c checkedTokens
	hash := func(n int) (h digest) {
		binary.BigEndian.PutUint64(h[:], uint64(n))
		return h
	}
	for n := range 3 * maxChecked {
		c.add(hash(n))
	}
	if len(c.young) != maxChecked || len(c.old) != maxChecked {
		t.Errorf("%d and %d are remembered", len(c.young), len(c.old))
	}
	if c.has(hash(0)) || !c.has(hash(maxChecked)) || !c.has(hash(3*maxChecked-1)) {
		t.Error("the oldest third is not what was forgotten")
	}
}
