package accesstoken

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"authserver/internal/intake"
)

// fill gives every field below v a value that is not zero.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString("text \"\u00e9\n")
	case reflect.Int64:
		v.SetInt(1795488000)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(131071)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(t, v.Index(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	default:
		t.Fatalf("no value for a field of type %s: teach this test, and Decode", v.Type())
	}
}

// Whatever the server writes, Decode reads: a claim that is new in Claims cannot be
// forgotten there.
func TestDecodeKnowsEveryClaim(t *testing.T) {
	var want Claims
	fill(t, reflect.ValueOf(&want).Elem())
	payload, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(payload)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, payload := range []string{
		`{"iss":null}`, `{"iss":1}`, `{"exp":"1"}`, `{"exp":1.5}`, `{"exp":1e9}`, `{"exp":null}`, `{"exp":99999999999999999999}`,
		`{"aud":1}`, `{"aud":[1]}`, `{"aud":[["a"]]}`, `{"aud":null}`, `{"roles":"admin"}`, `{"roles":[null]}`, `{"scope":["a"]}`,
		`{"status":{"status_list":{"idx":-1}}}`, `{"status":{"status_list":{"idx":4294967296}}}`, `{"status":[]}`, `{"client_epoch":-1}`, `{"sub_epoch":"1"}`, `{"cnf":"x"}`, `{"cnf":{"jkt":1}}`, `{"cnf":null}`, `{"sub":"a","sub":"b"}`, `{"sub":"a","s\u0075b":"b"}`, `{"s\u0075b":"a","sub":"b"}`, `{"x":{"y":1,"\u0079":2}}`, `{"sub":"a"}x`, `[]`, ``,
	} {
		if claims, err := Decode([]byte(payload)); err == nil {
			t.Errorf("%s: %+v", payload, claims)
		}
	}
	if claims, err := Decode([]byte(`{"cnf":{"kid":"x"},"EXP":1,"aud":[],"x":{"exp":2}}`)); err != nil || claims.Confirmation == nil || claims.Expires != 0 {
		t.Errorf("%+v, %v", claims, err)
	}
}

// What Decode takes, intake.Decode takes too and means the same by it.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"iss":"https://a","aud":["a","b"],"exp":1,"cnf":{"jkt":"x"},"roles":[]}`, `{"aud":"\u0061","nbf":-0}`, `{"amr":["\ud800"]}`, `{"exp":1e1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := Decode(payload)
		if err != nil {
			return
		}
		var want Claims
		if err := intake.Decode(payload, &want); err != nil {
			t.Fatalf("%q: only here, there %v", payload, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %+v, there %+v", strings.ToValidUTF8(string(payload), "?"), got, want)
		}
	})
}
