package store

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// A record says its version, and the first version costs nothing.
func TestVersionOfARecord(t *testing.T) {
	for _, encoded := range []string{`{"a":1}`, `7`, `-7`, `null`, `"x"`, "\xa1\x01\x02", "\xbf\xff"} {
		if packed := pack(1, []byte(encoded)); string(packed) != encoded {
			t.Errorf("version 1 of %q is stored as %q", encoded, packed)
		}
		for version := byte(1); version < firstOfVersion1; version++ {
			for readable := byte(1); readable < firstOfVersion1; readable++ {
				got, err := unpack(readable, pack(version, []byte(encoded)))
				if version <= readable && (err != nil || string(got) != encoded) {
					t.Errorf("version %d of %q read by a reader of %d: %q, %v", version, encoded, readable, got, err)
				}
				if version > readable && !errors.Is(err, ErrNewer) {
					t.Errorf("version %d was read by a reader of %d: %v", version, readable, err)
				}
			}
		}
	}
	if _, err := (Table[int]{Name: "grant"}).Decode(Record{Version: 1, Value: []byte("\x02{}")}); err == nil || !errors.Is(err, ErrNewer) ||
		!strings.Contains(err.Error(), "grant record: it has version 2 and this release reads versions up to 1: run the release") {
		t.Errorf("a grant of a later release: %v", err)
	}
}

func TestKeepUnknown(t *testing.T) {
	type inner struct {
		B string `json:"b,omitempty"`
	}
	type known struct {
		inner
		A    string `json:"a,omitempty"`
		Bare int
	}
	for earlier, want := range map[string]string{
		`{"a":"x","b":"y","Bare":1}`: `{"Bare":7}`, // what is known and was cleared stays so
		`{"a":"x","n":[1],"o":null}`: `{"Bare":7,"n":[1],"o":null}`,
		`{"bare":1,"A":"x"}`:         `{"Bare":7}`,
		`no JSON`:                    `{"Bare":7}`,
	} {
		changed, err := json.Marshal(known{Bare: 7})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := keepUnknown(reflect.TypeFor[known](), []byte(earlier), changed); err != nil || string(got) != want {
			t.Errorf("%s changed became %s, want %s (%v)", earlier, got, want, err)
		}
	}
	if got, err := keepUnknown(reflect.TypeFor[int64](), []byte("7"), []byte("8")); err != nil || string(got) != "8" {
		t.Errorf("a number became %s, %v", got, err)
	}
}
