package keys

import (
	"encoding/base64"
	"testing"
)

// secrets returns a part of every secret: the master key and each private key.
func secrets(t *testing.T, c Config) [][]byte {
	t.Helper()
	found := [][]byte{c.MasterKey.key[:12]}
	for _, r := range c.Store.(*memory).stored(t).Rings {
		for _, k := range r.Keys {
			if k.Sealed == nil {
				continue
			}
			der, err := c.MasterKey.open(k.Sealed, k.binding(r, c.Issuer))
			if err != nil {
				t.Fatal(err)
			}
			// PKCS#8: an Ed25519 seed is at the end, a P-256 scalar begins at 36.
			at := len(der) - 32
			if r.Algorithm == es256 {
				at = 36
			}
			found = append(found, der[at:at+12])
		}
	}
	return found
}

func base64Of(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }
