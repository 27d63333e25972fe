package keys

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

const stop = time.Minute

// stopped is a private key in a process that is stopped while it signs.
type stopped struct{ *signer }

func (s stopped) Public() crypto.PublicKey { return s.private().Public() }

func (s stopped) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	time.Sleep(stop)
	return s.private().Sign(rand, digest, opts)
}

func header(t testing.TB, token string) (typ, kid string) {
	t.Helper()
	first, _, _ := strings.Cut(token, ".")
	decoded := must[[]byte](t)(base64.RawURLEncoding.DecodeString(first))
	var h struct{ Typ, Kid string }
	if err := json.Unmarshal(decoded, &h); err != nil {
		t.Fatal(err)
	}
	return h.Typ, h.Kid
}

// manager returns one with a key for every algorithm.
func manager(t testing.TB) *Manager {
	m := open(t, testConfig(t, new(memory), es256, rs256, eddsa))
	if err := m.step(t.Context(), &workshop{patient: true}); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSignatures(t *testing.T) {
	m := manager(t)
	for _, ring := range []string{es256, rs256, eddsa} {
		for i := range 300 {
			payload := []byte(fmt.Sprintf(`{"jti":"%d"}`, i))
			token := must[string](t)(m.Sign(ring, "at+jwt", payload))
			if again := must[string](t)(m.Sign(ring, "at+jwt", payload)); again != token {
				t.Fatalf("%s: the same payload was signed differently", ring)
			}
			if err := verify(t, m.JWKS(), token); err != nil {
				t.Fatalf("%s: %v", ring, err)
			}
			parts := strings.Split(token, ".")
			if got := string(must[[]byte](t)(base64.RawURLEncoding.DecodeString(parts[1]))); got != string(payload) {
				t.Fatalf("payload %s", got)
			}
			if i >= 20 && ring == rs256 {
				break
			}
		}
	}
}

func TestHeader(t *testing.T) {
	m := manager(t)
	kid := m.kids(es256)[active][0]
	for range 2 { // made, then remembered
		first, _, _ := strings.Cut(must[string](t)(m.Sign(es256, `at"+jwt`, nil)), ".")
		decoded := must[[]byte](t)(base64.RawURLEncoding.DecodeString(first))
		if want := `{"alg":"ES256","kid":"` + kid + `","typ":"at\"+jwt"}`; string(decoded) != want {
			t.Errorf("header %s, want %s", decoded, want)
		}
	}
	for i := range 100 {
		typ := fmt.Sprint("type", i)
		if got, _ := header(t, must[string](t)(m.Sign(es256, typ, nil))); got != typ {
			t.Errorf("typ %q, want %q", got, typ)
		}
	}
	if n := len(*m.current.Load().signers[es256].headers.Load()); n > maxHeaders {
		t.Errorf("%d headers are kept", n)
	}
}

// JK-01: public members only, unique kids, no refresh keys.
func TestJWKS(t *testing.T) {
	m := manager(t)
	if err := m.RotateForTesting(t.Context()); err != nil {
		t.Fatal(err)
	}
	var document struct{ Keys []map[string]string }
	if err := json.Unmarshal(m.JWKS().Body, &document); err != nil {
		t.Fatal(err)
	}
	members := map[string]string{es256: "alg crv kid kty use x y", rs256: "alg e kid kty n use", eddsa: "alg crv kid kty use x"}
	kids := make(map[string]int)
	for _, k := range document.Keys {
		if got := strings.Join(slices.Sorted(maps.Keys(k)), " "); got != members[k["alg"]] {
			t.Errorf("%s key with members %s", k["alg"], got)
		}
		if k["use"] != "sig" {
			t.Errorf("use %q", k["use"])
		}
		kids[k["kid"]]++
		if _, _, ok := m.RefreshKey(k["kid"]); ok {
			t.Errorf("refresh key %s is published", k["kid"])
		}
		if alg, _, ok := m.AccessKey(k["kid"]); !ok || alg != k["alg"] {
			t.Errorf("AccessKey(%s) = %s, %t", k["kid"], alg, ok)
		}
	}
	if len(kids) != 9 { // active, pending and retiring of each
		t.Errorf("%d keys, want 9", len(kids))
	}
	for _, list := range m.kids(RefreshRing) {
		for _, kid := range list {
			if _, _, ok := m.AccessKey(kid); ok {
				t.Errorf("refresh key %s verifies access tokens", kid)
			}
			if _, _, ok := m.RefreshKey(kid); !ok {
				t.Errorf("refresh key %s is not found", kid)
			}
		}
	}
}

func TestRawECDSARefusesWhatIsNone(t *testing.T) {
	for _, der := range []string{"", "\x30\x00", "\x30\x06\x02\x01\x01\x02\x01\x01\x00", "\x30\x06\x02\x01\xff\x02\x01\x01",
		"\x30\x26\x02\x21\x01" + strings.Repeat("\x00", 32) + "\x02\x01\x01"} {
		if raw, err := rawECDSA([]byte(der)); err == nil {
			t.Errorf("%x gave %x", der, raw)
		}
	}
	raw, err := rawECDSA([]byte("\x30\x06\x02\x01\x01\x02\x01\x02"))
	if err != nil || raw[31] != 1 || raw[63] != 2 {
		t.Errorf("%x, %v", raw, err)
	}
}

func BenchmarkSign(b *testing.B) {
	m := manager(b)
	payload := []byte(`{"iss":"https://issuer.example","sub":"` + strings.Repeat("s", 300) + `"}`)
	for _, ring := range []string{es256, rs256, eddsa} {
		b.Run(ring, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Sign(ring, "at+jwt", payload); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(ring+"/bare", func(b *testing.B) {
			s := m.current.Load().signers[ring]
			input := []byte(strings.Repeat("x", 600))
			if s.algorithm.hash != 0 {
				digest := sha256.Sum256(input)
				input = digest[:]
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.private().Sign(nil, input, s.algorithm.hash); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGenerate(b *testing.B) {
	for _, a := range algorithms {
		b.Run(a.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := a.generate(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	m := manager(b)
	for b.Loop() {
		open(b, m.config)
	}
}

func BenchmarkJWKS(b *testing.B) {
	m := manager(b)
	for b.Loop() {
		m.JWKS()
	}
}
