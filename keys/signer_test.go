package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

var all = []string{es256, rs256, eddsa}

func verify(t *testing.T, token string, find func(string) (string, crypto.PublicKey, bool)) (payload, typ string) {
	t.Helper()
	parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	header := parsed.Signatures[0].Protected
	algorithm, key, ok := find(header.KeyID)
	if !ok || algorithm != header.Algorithm {
		t.Fatalf("key %q is unknown or for %q, not %s", header.KeyID, algorithm, header.Algorithm)
	}
	verified, err := parsed.Verify(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(verified), fmt.Sprint(header.ExtraHeaders[jose.HeaderType])
}

func sign(t testing.TB, m *Manager, ring, typ, payload string) string {
	t.Helper()
	token, err := m.Sign(ring, typ, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestSignaturesVerifyAndAreDeterministic(t *testing.T) {
	m := open(t, testConfig(t, &memory{}, all...))
	if err := m.refresh(t.Context(), pace{slow: true}); err != nil {
		t.Fatal(err)
	}
	for _, ring := range append([]string{RefreshRing}, all...) {
		find := m.AccessKey
		if ring == RefreshRing {
			find = m.RefreshKey
		}
		for i := range 50 { // r and s of ECDSA have leading zeros now and then
			for _, typ := range []string{"at+jwt", "JWT"} {
				payload := fmt.Sprintf(`{"n":%d}`, i)
				token := sign(t, m, ring, typ, payload)
				if verified, found := verify(t, token, find); verified != payload || found != typ {
					t.Fatalf("%s: %s of typ %s", ring, verified, found)
				}
				if again := sign(t, m, ring, typ, payload); again != token {
					t.Fatalf("%s: two signatures of the same payload differ", ring)
				}
			}
		}
	}
}

// RFC 6979 appendix A.2.5, SHA-256, "sample".
func TestRFC6979Vector(t *testing.T) {
	secret, _ := hex.DecodeString("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721")
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), secret)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signature(private, es256, []byte("sample"))
	const want = "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
	if err != nil || !strings.EqualFold(hex.EncodeToString(raw), want) {
		t.Fatalf("%X, %v", raw, err)
	}
}

func TestRawECDSAPadsAndRefuses(t *testing.T) {
	raw, err := rawECDSA([]byte{0x30, 6, 2, 1, 5, 2, 1, 7})
	if err != nil || raw[31] != 5 || raw[63] != 7 {
		t.Fatalf("%x, %v", raw, err)
	}
	for _, der := range [][]byte{nil, {0x30, 3, 2, 1, 5}, {0x30, 6, 2, 1, 5, 2, 1, 7, 0}} {
		if _, err := rawECDSA(der); err == nil {
			t.Errorf("%x was taken", der)
		}
	}
}

var payload = []byte(`{"iss":"https://as.example.com","sub":"alice","aud":"https://api.example.com","exp":1800000600,"iat":1800000000,"jti":"0123456789abcdef","client_id":"web","scope":"orders:read orders:write"}`)

func BenchmarkSign(b *testing.B) {
	m := open(b, testConfig(b, &memory{}, all...))
	if err := m.refresh(b.Context(), pace{slow: true}); err != nil {
		b.Fatal(err)
	}
	for _, ring := range all {
		b.Run(ring, func(b *testing.B) {
			for b.Loop() {
				sign(b, m, ring, "at+jwt", string(payload))
			}
		})
		b.Run(ring+"/bare", func(b *testing.B) {
			private, err := generate(ring)
			if err != nil {
				b.Fatal(err)
			}
			input, options := payload, crypto.SignerOpts(crypto.Hash(0))
			if ring != eddsa {
				input, options = make([]byte, 32), crypto.SHA256
			}
			for b.Loop() {
				if _, err := private.Sign(nil, input, options); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
