package intake

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"
)

const (
	maxDepth   = 8   // how deeply objects and arrays may be nested
	maxMembers = 128 // of all objects that are open at once
)

// Decode reads one JSON object into a struct or map: member names match exactly,
// in UTF-8, no name twice at any level, nothing after the object, and no deeper
// than eight levels (RFC 8725 §2.6, §3.7). Errors wrap ErrMalformed.
func Decode(text []byte, into any) error {
	if err := Members(text, nil); err != nil {
		return err
	}
	// go-jose's decoder is case-sensitive, unlike encoding/json.
	if err := json.Unmarshal(text, into); err != nil {
		return malformed("the JSON does not have the expected form: %v", err)
	}
	return nil
}

// text is JSON, or a part of it. Strings that are cut out of a string cost nothing.
type text interface{ ~string | ~[]byte }

// Members reads one JSON object as strictly as Decode does, in one pass and
// without allocating, and calls visit, if that is not nil, with each member: its
// name, and its value as it stands in the text. The whole of the text has been
// read when Members returns nil, and not before.
func Members[T text](object T, visit func(name, value T) error) error {
	if len(object) == 0 || object[0] != '{' {
		return malformed("not a JSON object")
	}
	var names [maxMembers]span
	s := scanner[T]{text: object, names: names[:]}
	if err := s.object(object, visit); err != nil {
		return err
	}
	if s.space(); s.at != len(object) {
		return malformed("the JSON has something after the object")
	}
	if s.wide && !utf8.ValidString(string(object)) {
		return malformed("the JSON is not in UTF-8")
	}
	return nil
}

// Text is the string that a member's value is.
func Text[T text](value T) (string, error) {
	if len(value) < 2 || value[0] != '"' {
		return "", malformed("the JSON has something else where a string belongs")
	}
	quoted := string(value)
	if strings.IndexByte(quoted, '\\') >= 0 {
		return unescape(quoted)
	}
	return quoted[1 : len(quoted)-1], nil
}

// Texts is the array of strings that a member's value is.
func Texts[T text](value T) ([]string, error) {
	s := scanner[T]{text: value}
	if s.next() != '[' || s.open() != nil {
		return nil, malformed("the JSON has something else where an array of strings belongs")
	}
	all := make([]string, 0, 4)
	for more := s.next() != ']'; more; {
		start := s.at
		if _, err := s.quoted(); err != nil {
			return nil, malformed("the JSON has something else where an array of strings belongs")
		}
		plain, err := Text(value[start:s.at])
		if err != nil {
			return nil, err
		}
		all = append(all, plain)
		if more, err = s.more(']'); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Integer is the whole number that a member's value is, written without fraction
// and exponent.
func Integer[T text](value T) (int64, error) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, malformed("the JSON has something else where a whole number belongs")
	}
	return n, nil
}

// unescape returns what a string with escapes spells: "\u0061lg" is "alg".
func unescape[T text](quoted T) (string, error) {
	var plain string
	if err := json.Unmarshal([]byte(string(quoted)), &plain); err != nil {
		return "", malformed("the JSON has a broken string")
	}
	return plain, nil
}

// scanner reads JSON (RFC 8259) and refuses what Decode refuses.
type scanner[T text] struct {
	text  T
	at    int
	depth int
	wide  bool // there are bytes outside of ASCII, which strings only can have

	names []span // room for those of the open objects, outermost first
	count int    // of names
}

// span is where a name stands in the text, with its quotes. Slices instead would
// take the scanner to the heap.
type span struct {
	start, end int32
	escaped    bool // it has a backslash
}

func (s *scanner[T]) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

// next returns the byte that is to be read, or zero at the end.
func (s *scanner[T]) next() byte {
	if s.at == len(s.text) {
		return 0
	}
	return s.text[s.at]
}

// open enters an object or an array.
func (s *scanner[T]) open() error {
	if s.depth++; s.depth > maxDepth {
		return malformed("the JSON is nested more than %d levels deep", maxDepth)
	}
	s.at++
	s.space()
	return nil
}

// more goes on behind an item: another follows, or the end.
func (s *scanner[T]) more(end byte) (bool, error) {
	s.space()
	switch s.next() {
	case ',':
		s.at++
		s.space()
		return true, nil
	case end:
		s.at++
		s.depth--
		return false, nil
	}
	return false, malformed("the JSON is broken at byte %d", s.at)
}

// object reads an object. What visit gets is cut from text, which is s.text.
func (s *scanner[T]) object(text T, visit func(name, value T) error) error {
	if err := s.open(); err != nil {
		return err
	}
	if s.next() == '}' {
		s.at++
		s.depth--
		return nil
	}
	for first, more := s.count, true; more; {
		name, err := s.name(first)
		if err != nil {
			return err
		}
		start := s.at
		if err := s.value(); err != nil {
			return err
		}
		if visit != nil {
			plain := text[name.start+1 : name.end-1]
			if name.escaped {
				spelled, err := unescape(text[name.start:name.end])
				if err != nil {
					return err
				}
				plain = T(spelled)
			}
			if err := visit(plain, text[start:s.at]); err != nil {
				return err
			}
		}
		if more, err = s.more('}'); err != nil {
			return err
		}
		if !more {
			s.count = first
		}
	}
	return nil
}

// name reads a member's name and the colon. Its object's names begin at first.
func (s *scanner[T]) name(first int) (span, error) {
	name := span{start: int32(s.at)}
	var err error
	if name.escaped, err = s.quoted(); err != nil {
		return name, err
	}
	name.end = int32(s.at)
	for _, other := range s.names[first:s.count] {
		// Most differ by length or first letter.
		if !name.escaped && !other.escaped && (name.end-name.start != other.end-other.start || s.text[name.start+1] != s.text[other.start+1]) {
			continue
		}
		if s.same(name, other) {
			return name, malformed("the JSON has a member twice")
		}
	}
	if s.count == maxMembers {
		return name, malformed("the JSON has more than %d members", maxMembers)
	}
	s.names[s.count] = name
	s.count++
	if s.space(); s.next() != ':' {
		return name, malformed("the JSON is broken at byte %d", s.at)
	}
	s.at++
	s.space()
	return name, nil
}

// same compares what two names spell; one that cannot be read is like any.
func (s *scanner[T]) same(a, b span) bool {
	first, second := s.text[a.start:a.end], s.text[b.start:b.end]
	if !a.escaped && !b.escaped {
		return string(first) == string(second)
	}
	plain, err1 := unescape(first)
	other, err2 := unescape(second)
	return err1 != nil || err2 != nil || plain == other
}

func (s *scanner[T]) array() error {
	if err := s.open(); err != nil {
		return err
	}
	if s.next() == ']' {
		s.at++
		s.depth--
		return nil
	}
	for more := true; more; {
		if err := s.value(); err != nil {
			return err
		}
		var err error
		if more, err = s.more(']'); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner[T]) value() error {
	switch c := s.next(); c {
	case '{':
		var none T
		return s.object(none, nil)
	case '[':
		return s.array()
	case '"':
		_, err := s.quoted()
		return err
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner[T]) literal(word string) error {
	if len(s.text)-s.at < len(word) || string(s.text[s.at:s.at+len(word)]) != word {
		return malformed("the JSON is broken at byte %d", s.at)
	}
	s.at += len(word)
	return nil
}

// quoted reads a string (RFC 8259 §7), and reports whether it has escapes.
func (s *scanner[T]) quoted() (escaped bool, err error) {
	if s.next() != '"' {
		return false, malformed("the JSON is broken at byte %d", s.at)
	}
	text := s.text
	for at := s.at + 1; at < len(text); at++ {
		switch c := text[at]; {
		case c > '\\' && c < utf8.RuneSelf: // most are
		case c == '"':
			s.at = at + 1
			return escaped, nil
		case c < 0x20:
			return false, malformed("the JSON has a control character in a string")
		case c == '\\':
			if s.at = at + 1; !s.escape() {
				return false, malformed("the JSON has a broken escape")
			}
			at, escaped = s.at, true
		case c >= utf8.RuneSelf:
			s.wide = true
		}
	}
	return false, malformed("the JSON has an unfinished string")
}

// escape reads what follows a backslash, up to its last byte.
func (s *scanner[T]) escape() bool {
	switch s.next() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		if len(s.text)-s.at < 5 {
			return false
		}
		for range 4 {
			s.at++
			if c := s.text[s.at]; (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
				return false
			}
		}
		return true
	}
	return false
}

// number is RFC 8259 §6.
func (s *scanner[T]) number() error {
	start := s.at
	if s.next() == '-' {
		s.at++
	}
	if s.next() == '0' {
		s.at++
	} else if s.digits() == 0 {
		return malformed("the JSON is broken at byte %d", start)
	}
	if s.next() == '.' {
		if s.at++; s.digits() == 0 {
			return malformed("the JSON is broken at byte %d", start)
		}
	}
	if s.next()|0x20 == 'e' {
		if s.at++; s.next() == '+' || s.next() == '-' {
			s.at++
		}
		if s.digits() == 0 {
			return malformed("the JSON is broken at byte %d", start)
		}
	}
	return nil
}

func (s *scanner[T]) digits() (n int) {
	for s.next() >= '0' && s.next() <= '9' {
		s.at++
		n++
	}
	return n
}
