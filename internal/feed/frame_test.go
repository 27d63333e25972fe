package feed

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestEntriesOnTheWire(t *testing.T) {
	frame := Frame{Issuer: "https://auth.example.com", Stream: "s", After: Origin, Cursor: CursorOf(7, []byte("x")), AsOf: 5,
		Revoked: Entries{entry(Token, "j", 0), entry(Subject, "alice", 1000)}}
	text, err := json.Marshal(frame)
	if err != nil {
		t.Fatal(err)
	}
	var back Frame
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(frame, back) {
		t.Errorf("%s became %+v, %v", text, back, err)
	}
	if position := back.Cursor.Position(); position != 7 {
		t.Errorf("the position is %d", position)
	}
	heartbeat, err := json.Marshal(Frame{After: Origin, Cursor: Origin})
	if err != nil || strings.Contains(string(heartbeat), "revoked") {
		t.Errorf("a heartbeat is %s, %v", heartbeat, err)
	}
	for _, bad := range []string{`"AAAA"`, `"AAAAAAAAAAAAAAAAAAAAAA"`, `"AAAAAAAAAAAAAAAAAAAAAB"`, `"+"`, `"A A"`, `7`} {
		var entries Entries
		if err := json.Unmarshal([]byte(bad), &entries); err == nil {
			t.Errorf("%s was read as %v", bad, entries)
		}
	}
}

// The formula of Key, for those who write it in another language.
func TestKeyFormula(t *testing.T) {
	// printf 'sub\0alice' | sha256sum
	if key := KeyOf(Subject, "alice"); key != 0x531f98951b2ba05d {
		t.Errorf("the key is %#x", uint64(key))
	}
	if KeyOf(Token, "") != 0 || KeyOf(Token, strings.Repeat("x", 1000)) == 0 {
		t.Error("only the empty value has no key")
	}
	if a, b := CursorOf(1, []byte("a")), CursorOf(1, []byte("b")); a == b {
		t.Error("two events share a cursor")
	}
}
