package keys

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"sync/atomic"
)

// signer signs with one key.
type signer struct {
	id        string
	algorithm algorithm
	private   func() crypto.Signer              // a closure: see MasterKey
	headers   atomic.Pointer[map[string]string] // by typ: encoded, with the dot behind; replaced as a whole
	usage     *usage
}

func newSigner(id string, a algorithm, private crypto.Signer, u *usage) *signer {
	s := &signer{id: id, algorithm: a, usage: u, private: func() crypto.Signer { return private }}
	s.headers.Store(&map[string]string{})
	return s
}

// maxHeaders bounds the headers that are kept; the types of tokens are few.
const maxHeaders = 16

// header returns the encoded protected header and a dot.
func (s *signer) header(typ string) (string, error) {
	known := s.headers.Load()
	if header, ok := (*known)[typ]; ok {
		return header, nil
	}
	encoded, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
	}{s.algorithm.name, s.id, typ})
	if err != nil {
		return "", fmt.Errorf("encoding the header: %w", err)
	}
	header := base64.RawURLEncoding.EncodeToString(encoded) + "."
	if len(*known) < maxHeaders {
		more := maps.Clone(*known)
		more[typ] = header
		s.headers.CompareAndSwap(known, &more) // a loser makes it once more the next time
	}
	return header, nil
}

// sign returns a JWS in compact serialization (RFC 7515 §7.1).
func (s *signer) sign(typ string, payload []byte) (string, error) {
	header, err := s.header(typ)
	if err != nil {
		return "", err
	}
	encoding := base64.RawURLEncoding
	token := make([]byte, 0, len(header)+encoding.EncodedLen(len(payload))+1+encoding.EncodedLen(s.algorithm.size))
	token = append(token, header...)
	token = encoding.AppendEncode(token, payload)
	signature, err := s.signature(token)
	if err != nil {
		return "", fmt.Errorf("signing with key %s: %w", s.id, err)
	}
	s.usage.signed.Add(1)
	token = append(token, '.')
	return string(encoding.AppendEncode(token, signature)), nil
}

// signature passes no source of randomness: with it ECDSA would choose nonces at
// random, without it they are those of RFC 6979.
func (s *signer) signature(input []byte) ([]byte, error) {
	if s.algorithm.hash == crypto.SHA256 {
		digest := sha256.Sum256(input)
		input = digest[:]
	}
	signature, err := s.private().Sign(nil, input, s.algorithm.hash)
	if err != nil || s.algorithm.encode == nil {
		return signature, err
	}
	return s.algorithm.encode(signature)
}
