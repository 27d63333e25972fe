// Package intake is the one strict door through which tokens and keys from
// elsewhere come in, on the server and in the verifier. It settles everything
// that JOSE libraries leave open (lax base64, duplicate members, crit, huge
// headers, weak or ambiguous keys) before go-jose checks the signature.
//
// Nothing in a token is trusted before Verify has returned nil: its header
// chooses neither the key's algorithm nor a key's location.
package intake

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// MaxToken is the longest token that is looked at, in bytes.
const MaxToken = 16 << 10

const maxKeyID = 256 // bytes

var (
	// ErrMalformed is wrapped by all errors about the form of a token or a key.
	ErrMalformed = errors.New("malformed")
	// ErrAlgorithm says that a token's alg is not its key's.
	ErrAlgorithm = errors.New("the header's alg is not the key's")
	// ErrSignature says that a token was not signed by the key.
	ErrSignature = errors.New("the signature is not by the expected key")
)

// Token is a JWS in compact serialization (RFC 7515 §7.1), taken apart and not
// yet verified.
type Token struct {
	Raw       string
	Algorithm string // alg of the header; a claim until Verify
	KeyID     string // kid of the header; empty when absent
	Type      string // typ of the header; empty when absent
	Payload   []byte // decoded

	signingInput string
	signature    []byte
}

// Parse takes a token apart. It accepts the compact serialization only, in
// canonical base64url without white space, with a signature, and no header that
// changes the meaning of the token. Nobody reads jwk, jku, x5u and x5c. Errors
// wrap ErrMalformed.
func Parse(compact string) (*Token, error) {
	if len(compact) > MaxToken {
		return nil, malformed("the token is longer than %d bytes", MaxToken)
	}
	protected, rest, _ := strings.Cut(compact, ".")
	payload, signature, found := strings.Cut(rest, ".")
	if !found || strings.Contains(signature, ".") {
		return nil, malformed("a token has three parts divided by dots")
	}
	if signature == "" {
		return nil, malformed("the token is not signed")
	}
	// One buffer for all that it decodes to.
	room := make([]byte, 0, strict.DecodedLen(len(compact)))
	header, room, err := decodePart(room, protected)
	if err != nil {
		return nil, err
	}
	t := &Token{Raw: compact, signingInput: compact[:len(protected)+1+len(payload)]}
	if t.Payload, room, err = decodePart(room, payload); err != nil {
		return nil, err
	}
	if t.signature, _, err = decodePart(room, signature); err != nil {
		return nil, err
	}
	if err := Members(string(header), t.readHeader); err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	return t, nil
}

// readHeader takes the members of the header that matter, and refuses those that
// a token must not have, whatever their values.
func (t *Token) readHeader(name, value string) (err error) {
	switch name {
	case "alg":
		t.Algorithm, err = Text(value)
	case "kid":
		t.KeyID, err = keyID(value)
	case "typ":
		t.Type, err = Text(value)
	case "crit", // RFC 7515 §4.1.11: none of its extensions is known here
		"b64",        // RFC 7797
		"zip", "enc": // RFC 7516 §4.1.3, §4.1.2
		return malformed("the header has crit, b64, zip or enc")
	}
	return err
}

// keyID reads a kid, which is a string when it is there (RFC 7515 §4.1.4).
func keyID(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	id, err := Text(raw)
	if err != nil || len(id) > maxKeyID {
		return "", malformed("the kid is not a string of at most %d bytes", maxKeyID)
	}
	return id, nil
}

// HasType reports whether typ names the media type, with or without its
// "application/" and in any case (RFC 7515 §4.1.9).
func (t *Token) HasType(mediaType string) bool {
	found := strings.ToLower(t.Type)
	return strings.TrimPrefix(found, "application/") == strings.ToLower(mediaType)
}

// strict refuses padding and non-zero trailing bits, so that each token has one
// spelling; decodePart refuses the line breaks that the decoder would skip.
var strict = base64.RawURLEncoding.Strict()

// decodePart decodes one part of a token to the end of room, and returns the part
// and what is left of room.
func decodePart(room []byte, part string) (decoded, left []byte, err error) {
	if strings.IndexByte(part, '\n') >= 0 || strings.IndexByte(part, '\r') >= 0 {
		return nil, nil, malformed("it is not in canonical base64url")
	}
	decoded, err = strict.AppendDecode(room, []byte(part)) // not copied
	if err != nil {
		return nil, nil, malformed("it is not in canonical base64url")
	}
	return decoded[:len(decoded):len(decoded)], decoded[len(decoded):cap(decoded)][:0], nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}
