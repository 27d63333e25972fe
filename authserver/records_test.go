package authserver

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"authserver/store"
	"authserver/store/boltstore"

	"github.com/fxamacker/cbor/v2"
)

// storedRecords are the tables by name, each with what reads a record of it and writes
// the value again, and a value in which every field is set.
var storedRecords = map[string]func() (again func([]byte) (any, error), full any){
	"assertion":   recordOf[struct{}],
	"client":      recordOf[storedClient],
	"consent":     recordOf[consent],
	"credentials": recordOf[credentials],
	"epoch":       recordOf[epoch],
	"grant":       recordOf[Grant],
	"logout":      recordOf[notification],
	"receiver":    recordOf[outboxRecord],
	"removed":     recordOf[int64],
	"revoked":     recordOf[revocation],
	"session":     recordOf[session],
	"spent":       recordOf[struct{}],
	"user":        recordOf[storedUser],
}

func recordOf[T any]() (func([]byte) (any, error), any) {
	var full T
	fill(reflect.ValueOf(&full).Elem())
	return func(record []byte) (any, error) {
		return store.Table[T]{}.Decode(store.Record{Version: 1, Value: record})
	}, full
}

// fill sets every field that can be.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(7)
	case reflect.Uint, reflect.Uint64, reflect.Uint32, reflect.Uint8:
		v.SetUint(7)
	}
}

// Every release reads the records that the first one wrote, all of them. They are
// written, for a version that is new, with AUTHSERVER_TEST_WRITE_RECORDS=1.
func TestRecordsOfVersion1(t *testing.T) {
	directory := filepath.Join("testdata", "records", "v1")
	for name, of := range storedRecords {
		t.Run(name, func(t *testing.T) {
			again, full := of()
			file := filepath.Join(directory, name)
			if os.Getenv("AUTHSERVER_TEST_WRITE_RECORDS") != "" {
				if err := os.WriteFile(file, encodeRecord(t, full), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			value, err := again(golden)
			if err != nil {
				t.Fatal(err)
			}
			contains(t, name, fields(t, golden), fields(t, encodeRecord(t, value)))
		})
	}
}

func encodeRecord(t *testing.T, value any) []byte {
	t.Helper()
	var encoded []byte
	var err error
	if grant, ok := value.(Grant); ok {
		encoded, err = grant.MarshalBinary()
	} else {
		encoded, err = json.Marshal(value)
	}
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func fields(t *testing.T, encoded []byte) (value any) {
	t.Helper()
	if json.Unmarshal(encoded, &value) != nil {
		if err := cbor.Unmarshal(encoded, &value); err != nil {
			t.Fatal(err)
		}
	}
	return value
}

// contains reports what was read of a record and is not what was written.
func contains(t *testing.T, at string, golden, read any) {
	t.Helper()
	switch golden := golden.(type) {
	case map[string]any:
		now, _ := read.(map[string]any)
		for name := range golden {
			contains(t, at+"."+name, golden[name], now[name])
		}
	case map[any]any:
		now, _ := read.(map[any]any)
		for name := range golden {
			contains(t, at+".", golden[name], now[name])
		}
	default:
		if !reflect.DeepEqual(golden, read) {
			t.Errorf("%s was %v and is read as %v", at, golden, read)
		}
	}
}

// No table is without records of version 1.
func TestEveryTableHasGoldenRecords(t *testing.T) {
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	table := regexp.MustCompile(`store\.Table\[[^\]]+\]\{[^}\n]*Name: "([a-z]+)"`)
	found := make(map[string]bool)
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range table.FindAllSubmatch(text, -1) {
			found[string(match[1])] = true
		}
	}
	for name := range found {
		if storedRecords[name] == nil {
			t.Errorf("table %s has no record in testdata/records/v1", name)
		}
	}
	for name := range storedRecords {
		if !found[name] {
			t.Errorf("there is no table %s", name)
		}
	}
}

// What a release wrote that knows more is kept where this one changes the record.
func TestChangeKeepsWhatALaterReleaseWrote(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "records", "v1", "session"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	later := append(bytes.TrimSuffix(golden, []byte("}")), `,"of_a_later_release":{"a":[1]}}`...)
	if err := s.Create(t.Context(), "session/x", later, store.Forever); err != nil {
		t.Fatal(err)
	}
	table := store.Table[session]{Store: s, Name: "session"}
	if _, _, err := table.Change(t.Context(), "x", func(*session) error { return nil }); err != nil {
		t.Fatal(err)
	}
	_, record, err := table.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "session", fields(t, later), fields(t, record.Value))
}
