package intake

import (
	"bytes"
	"strconv"
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

// Members reads one JSON object as strictly as Decode does, in one pass and
// without allocating, and calls visit, if that is not nil, with each member: its
// name, and its value as it stands in the text. The whole of the text has been
// read when Members returns nil, and not before.
func Members(text []byte, visit func(name, value []byte) error) error {
	if len(text) == 0 || text[0] != '{' {
		return malformed("not a JSON object")
	}
	if !utf8.Valid(text) {
		return malformed("the JSON is not in UTF-8")
	}
	s := scanner{text: text}
	if err := s.object(text, visit); err != nil {
		return err
	}
	if s.space(); s.at != len(text) {
		return malformed("the JSON has something after the object")
	}
	return nil
}

// Text is the string that a member's value is.
func Text(value []byte) (string, error) {
	if len(value) < 2 || value[0] != '"' {
		return "", malformed("the JSON has something else where a string belongs")
	}
	plain, err := unquote(value)
	return string(plain), err
}

// Texts is the array of strings that a member's value is.
func Texts(value []byte) ([]string, error) {
	s := scanner{text: value}
	if s.next() != '[' || s.open() != nil {
		return nil, malformed("the JSON has something else where an array of strings belongs")
	}
	all := make([]string, 0, 4)
	for more := s.next() != ']'; more; {
		start := s.at
		if s.quoted() != nil {
			return nil, malformed("the JSON has something else where an array of strings belongs")
		}
		plain, err := unquote(value[start:s.at])
		if err != nil {
			return nil, err
		}
		all = append(all, string(plain))
		if more, err = s.more(']'); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Integer is the whole number that a member's value is, written without fraction
// and exponent.
func Integer(value []byte) (int64, error) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, malformed("the JSON has something else where a whole number belongs")
	}
	return n, nil
}

// scanner reads JSON (RFC 8259) and refuses what Decode refuses.
type scanner struct {
	text  []byte
	at    int
	depth int

	names [maxMembers]span // of the open objects, outermost first
	count int              // of names
}

// span is where a name stands in the text, with its quotes. Slices instead would
// take the scanner to the heap.
type span struct{ start, end int }

func (s *scanner) space() {
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
func (s *scanner) next() byte {
	if s.at == len(s.text) {
		return 0
	}
	return s.text[s.at]
}

// open enters an object or an array.
func (s *scanner) open() error {
	if s.depth++; s.depth > maxDepth {
		return malformed("the JSON is nested more than %d levels deep", maxDepth)
	}
	s.at++
	s.space()
	return nil
}

// more goes on behind an item: another follows, or the end.
func (s *scanner) more(end byte) (bool, error) {
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
func (s *scanner) object(text []byte, visit func(name, value []byte) error) error {
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
			plain, err := unquote(text[name.start:name.end])
			if err != nil {
				return err
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
func (s *scanner) name(first int) (span, error) {
	name := span{start: s.at}
	if err := s.quoted(); err != nil {
		return name, err
	}
	name.end = s.at
	for _, other := range s.names[first:s.count] {
		if sameName(s.text[name.start:name.end], s.text[other.start:other.end]) {
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

// sameName compares what two names spell; one that cannot be read is like any.
func sameName(a, b []byte) bool {
	if bytes.IndexByte(a, '\\') < 0 && bytes.IndexByte(b, '\\') < 0 {
		return bytes.Equal(a, b)
	}
	a, err1 := unquote(a)
	b, err2 := unquote(b)
	return err1 != nil || err2 != nil || bytes.Equal(a, b)
}

func (s *scanner) array() error {
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

func (s *scanner) value() error {
	switch c := s.next(); c {
	case '{':
		return s.object(nil, nil)
	case '[':
		return s.array()
	case '"':
		return s.quoted()
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

func (s *scanner) literal(word string) error {
	if !bytes.HasPrefix(s.text[s.at:], []byte(word)) {
		return malformed("the JSON is broken at byte %d", s.at)
	}
	s.at += len(word)
	return nil
}

// quoted reads a string (RFC 8259 §7).
func (s *scanner) quoted() error {
	if s.next() != '"' {
		return malformed("the JSON is broken at byte %d", s.at)
	}
	for s.at++; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return nil
		case c < 0x20:
			return malformed("the JSON has a control character in a string")
		case c == '\\':
			if s.at++; !s.escape() {
				return malformed("the JSON has a broken escape")
			}
		}
	}
	return malformed("the JSON has an unfinished string")
}

// escape reads what follows a backslash, up to its last byte.
func (s *scanner) escape() bool {
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
func (s *scanner) number() error {
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

func (s *scanner) digits() (n int) {
	for s.next() >= '0' && s.next() <= '9' {
		s.at++
		n++
	}
	return n
}

// unquote returns what a string spells: "\u0061lg" is "alg".
func unquote(quoted []byte) ([]byte, error) {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1], nil
	}
	var plain string
	if err := json.Unmarshal(quoted, &plain); err != nil {
		return nil, malformed("the JSON has a broken string")
	}
	return []byte(plain), nil
}
