package intake

import (
	"bytes"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"
)

// maxDepth is how deeply objects and arrays may be nested.
const maxDepth = 8

// Decode reads one JSON object into a struct: member names match exactly, in
// UTF-8, no name twice at any level, nothing after the object, and no deeper than
// eight levels (RFC 8725 §2.6, §3.7).
func Decode(text []byte, into any) error {
	if text = bytes.TrimLeft(text, " \t\r\n"); len(text) == 0 || text[0] != '{' {
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

// checkMembers refuses duplicate member names and deep nesting. It does not check
// the grammar: the decoder that follows does.
func checkMembers(text []byte) error {
	var names [maxDepth + 1]map[string]bool // of the open objects; nil for arrays
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			if depth++; depth > maxDepth {
				return malformed("the JSON is nested more than %d levels deep", maxDepth)
			}
			names[depth] = nil
			if text[i] == '{' {
				names[depth] = make(map[string]bool)
			}
		case '}', ']':
			if depth--; depth < 0 {
				return malformed("the JSON closes more than it opens")
			}
		case '"':
			end := stringEnd(text, i)
			if end < 0 {
				return malformed("the JSON has an unfinished string")
			}
			if isName(text, end) && depth > 0 && names[depth] != nil {
				var name string
				if err := json.Unmarshal(text[i:end], &name); err != nil {
					return malformed("the JSON has a broken member name")
				}
				if names[depth][name] {
					return malformed("the JSON has a member twice")
				}
				names[depth][name] = true
			}
			i = end - 1
		}
	}
	return nil
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
