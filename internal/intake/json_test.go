package intake

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// ATTACKS JW-15, JW-16, JW-19.
func TestDecode(t *testing.T) {
	nested := func(depth int) string {
		return `{"sub":"a","x":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `}`
	}
	members := func(n int) string {
		text := `{"sub":"a"`
		for i := range n - 1 {
			text += fmt.Sprintf(`,"m%d":%d`, i, i)
		}
		return text + "}"
	}
	for name, test := range map[string]struct {
		text string
		ok   bool
	}{
		"an object":                  {`{"sub":"a","exp":1}`, true},
		"white space":                {"{ \"sub\"\t:\n\"a\" }\r\n", true},
		"one name in two objects":    {`{"sub":"a","x":{"y":1},"z":{"y":1,"sub":2},"y":[{"y":1},{"y":1}]}`, true},
		"a name and a value":         {`{"sub":"a","x":["sub","sub"],"y":"sub"}`, true},
		"other letters":              {`{"sub":"a","SUB":"b","Sub":"c"}`, true},
		"escapes":                    {`{"sub":"a","x\"y":1,"x\\":2,"\/":3}`, true},
		"eight levels":               {nested(8), true},
		"128 members":                {members(128), true},
		"a duplicate":                {`{"sub":"a","exp":1,"sub":"b"}`, false},
		"an escaped duplicate":       {`{"sub":"a","s\u0075b":"b"}`, false},
		"a duplicate further in":     {`{"sub":"a","x":[{"y":{"z":1,"z":2}}]}`, false},
		"a duplicate after nesting":  {`{"sub":"a","x":{"sub":{}},"sub":"b"}`, false},
		"an empty name twice":        {`{"sub":"a","":1,"":2}`, false},
		"nine levels":                {nested(9), false},
		"129 members":                {members(129), false},
		"two objects":                {`{"sub":"a"}{"sub":"b"}`, false},
		"trailing data":              {`{"sub":"a"}x`, false},
		"a byte order mark":          {"\ufeff" + `{"sub":"a"}`, false},
		"UTF-16":                     {utf16Of(`{"sub":"a"}`), false},
		"invalid UTF-8":              {"{\"sub\":\"a\xff\"}", false},
		"invalid UTF-8 in a name":    {"{\"sub\":\"a\",\"\xc0\xaf\":1}", false},
		"a surrogate in UTF-8":       {"{\"sub\":\"\xed\xa0\x80\"}", false},
		"an array":                   {`["sub"]`, false},
		"nothing":                    {``, false},
		"null":                       {`null`, false},
		"cut short":                  {`{"sub":"a`, false},
		"cut short after a name":     {`{"sub":"a","b"`, false},
		"closed twice":               {`{"sub":"a"}}`, false},
		"closed as an array":         {`{"sub":"a"]`, false},
		"a comment":                  {`{"sub":"a"/**/}`, false},
		"a comma too many":           {`{"sub":"a",}`, false},
		"single quotes":              {`{'sub':'a'}`, false},
		"another type":               {`{"sub":1}`, false},
		"a broken escape in a name":  {`{"sub":"a","\x":1}`, false},
		"a control character inside": {"{\"sub\":\"a\n\"}", false},
	} {
		var into struct {
			Subject string `json:"sub"`
		}
		err := Decode([]byte(test.text), &into)
		if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if test.ok && into.Subject != "a" {
			t.Errorf("%s: sub is %q, want a", name, into.Subject)
		}
	}
}

// Members finds duplicates by itself: no decoder comes after it.
func TestMembersFindsDuplicates(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"sub":"a","s\u0075b":"b"}`: false, `{"s\u0075b":"a","sub":"b"}`: false, `{"\u0073ub":1,"s\u0075b":2}`: false, `{"x":{"y":1,"\u0079":2}}`: false,
		`{"sub":"a","s\u0075":"b"}`: true, `{"a\\u0062":1,"ab":2}`: true,
	} {
		if err := Members(text, nil); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
