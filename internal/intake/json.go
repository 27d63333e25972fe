package intake

import (
	"bytes"
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
	if len(text) == 0 || text[0] != '{' {
		return malformed("not a JSON object")
	}
	if !utf8.Valid(text) {
		return malformed("the JSON is not in UTF-8")
	}
	if err := checkMembers(text); err != nil {
		return err
	}
	// go-jose's decoder is case-sensitive, unlike encoding/json.
	if err := json.Unmarshal(text, into); err != nil {
		return malformed("the JSON does not have the expected form: %v", err)
	}
	return nil
}

// checkMembers refuses duplicate member names and deep nesting, in one pass and
// without allocating. It does not check the grammar: the decoder that follows does.
func checkMembers(text []byte) error {
	var (
		names = make([][]byte, 0, 32) // of the open objects, outermost first
		first [maxDepth + 1]int       // where the names of each depth begin
		depth int
	)
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			if depth++; depth > maxDepth {
				return malformed("the JSON is nested more than %d levels deep", maxDepth)
			}
			first[depth] = len(names)
		case '}', ']':
			if depth == 0 {
				return malformed("the JSON closes more than it opens")
			}
			names = names[:first[depth]]
			depth--
		case '"':
			end := stringEnd(text, i)
			if end < 0 {
				return malformed("the JSON has an unfinished string")
			}
			if isName(text, end) {
				name, err := unquote(text[i:end])
				if err != nil {
					return err
				}
				for _, other := range names[first[depth]:] {
					if bytes.Equal(name, other) {
						return malformed("the JSON has a member twice")
					}
				}
				if len(names) == maxMembers {
					return malformed("the JSON has more than %d members", maxMembers)
				}
				names = append(names, name)
			}
			i = end - 1
		}
	}
	return nil
}

// unquote returns what a member name spells: "\u0061lg" is "alg".
func unquote(quoted []byte) ([]byte, error) {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1], nil
	}
	var name string
	if err := json.Unmarshal(quoted, &name); err != nil {
		return nil, malformed("the JSON has a broken member name")
	}
	return []byte(name), nil
}

// stringEnd returns the index after the string that begins at start, or -1.
func stringEnd(text []byte, start int) int {
	for i := start + 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// isName reports whether the string before index end is a member name.
func isName(text []byte, end int) bool {
	for ; end < len(text); end++ {
		switch text[end] {
		case ' ', '\t', '\r', '\n':
		default:
			return text[end] == ':'
		}
	}
	return false
}
