package remote

import "authserver/keys"

// The paths. A request is a POST of a request value; the answer is a response
// value, with status 200, or one that only has Error.
const (
	pathBackend  = "/v1/backend"  // Name and Algorithms
	pathGenerate = "/v1/generate" // of Place: Public and Handle
	pathOpen     = "/v1/open"     // of Place and Handle: Public
	pathSign     = "/v1/sign"     // of Place, Handle, Hash and Input: Signature
	pathDestroy  = "/v1/destroy"  // of Place and Handle
)

const maxMessage = 1 << 20 // bytes of a request or answer; a JWS payload to sign with EdDSA is the longest

type request struct {
	Place  keys.Place `json:"place"`
	Handle []byte     `json:"handle,omitempty"`
	Hash   string     `json:"hash,omitempty"` // "SHA-256", or empty: Input is the message itself
	Input  []byte     `json:"input,omitempty"`
}

type response struct {
	Name       string   `json:"name,omitempty"`
	Algorithms []string `json:"algorithms,omitempty"`
	Public     []byte   `json:"public,omitempty"` // PKIX, DER
	Handle     []byte   `json:"handle,omitempty"`
	Signature  []byte   `json:"signature,omitempty"` // as crypto.Signer returns it
	Error      string   `json:"error,omitempty"`
}
