package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/youmark/pkcs8"
)

type signing = crypto.Signer

// OP-04.
func TestParsePrivateKey(t *testing.T) {
	ec := must[signing](t)(algorithms[0].generate())
	rs := must[signing](t)(algorithms[1].generate())
	ed := must[signing](t)(algorithms[2].generate())
	block := func(kind string, der []byte, err error) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: must[[]byte](t)(der, err)}))
	}
	of8 := func(key any) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return block("PRIVATE KEY", der, err)
	}
	ofJWK := func(key any, use string) string {
		return string(must[[]byte](t)(json.Marshal(jose.JSONWebKey{Key: key, Use: use})))
	}
	ecDER, err := x509.MarshalECPrivateKey(ec.(*ecdsa.PrivateKey))
	public, err3 := x509.MarshalPKIXPublicKey(ec.Public())
	encrypted, err2 := pkcs8.MarshalPrivateKey(ec, []byte("open sesame"), nil)
	secret := block("ENCRYPTED PRIVATE KEY", encrypted, err2)
	phrase := func(text string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(text), nil } }
	for name, c := range map[string]struct {
		text   string
		phrase func() ([]byte, error)
		want   signing
	}{
		"PKCS#8 EC":      {of8(ec), nil, ec},
		"PKCS#8 RSA":     {of8(rs), nil, rs},
		"PKCS#8 Ed":      {of8(ed), nil, ed},
		"SEC 1":          {block("EC PRIVATE KEY", ecDER, err), nil, ec},
		"SEC 1, OpenSSL": {block("EC PARAMETERS", []byte{6, 0}, nil) + block("EC PRIVATE KEY", ecDER, err), nil, ec},
		"PKCS#1":         {block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rs.(*rsa.PrivateKey)), nil), nil, rs},
		"JWK":            {ofJWK(ed, ""), nil, ed},
		"JWK to sign":    {" " + ofJWK(rs, "sig"), nil, rs},
		"encrypted":      {secret, phrase("open sesame"), ec},
		"no passphrase":  {secret, nil, nil},
		"wrong":          {secret, phrase("open simsim"), nil},
		"empty phrase":   {secret, phrase(""), nil},
		"old PEM":        {strings.Replace(of8(ec), "-\n", "-\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1), phrase("x"), nil},
		"public PEM":     {block("PUBLIC KEY", public, err3), nil, nil},
		"public JWK":     {ofJWK(ec.Public(), ""), nil, nil},
		"JWK for enc":    {ofJWK(ec, "enc"), nil, nil},
		"symmetric JWK":  {ofJWK([]byte("0123456789abcdef"), ""), nil, nil},
		"nothing":        {"", nil, nil},
		"junk":           {"{junk", nil, nil},
		"certificate":    {block("CERTIFICATE", []byte("x"), nil), nil, nil},
		"damaged":        {block("PRIVATE KEY", []byte("x"), nil), nil, nil},
		"damaged too":    {block("ENCRYPTED PRIVATE KEY", encrypted[:len(encrypted)-1], nil), phrase("open sesame"), nil},
		"too large":      {of8(ec) + strings.Repeat("x", maxPrivateKeyFile), nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParsePrivateKey([]byte(c.text), c.phrase)
			switch {
			case c.want == nil && (err == nil || !isRefusal(err)):
				t.Errorf("it was taken, or failed otherwise: %v", err)
			case c.want != nil && err != nil:
				t.Error(err)
			case c.want != nil && !got.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(c.want.Public()):
				t.Error("it is another key")
			}
		})
	}
}

// What OpenSSL writes opens, and nothing that is broken makes a panic.
func TestEncryptedByOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	plain := filepath.Join(t.TempDir(), "key.pem")
	der := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(must[signing](t)(algorithms[0].generate())))
	if err := os.WriteFile(plain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, options := range [][]string{{}, {"-v2", "aes-128-cbc"}, {"-scrypt"}} {
		args := append([]string{"pkcs8", "-topk8", "-in", plain, "-passout", "pass:sesame"}, options...)
		text, err := exec.Command("openssl", args...).Output()
		if err != nil {
			t.Fatalf("openssl %v: %v", args, err)
		}
		phrase := func() ([]byte, error) { return []byte("sesame"), nil }
		got, err := ParsePrivateKey(text, phrase)
		if err != nil || string(must[[]byte](t)(x509.MarshalPKCS8PrivateKey(got))) != string(der) {
			t.Errorf("%v: %v", options, err)
		}
	}
}

func FuzzParsePrivateKey(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := pkcs8.MarshalPrivateKey(key, []byte("x"), &pkcs8.Opts{Cipher: pkcs8.AES256CBC,
		KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 8, IterationCount: 1, HMACHash: crypto.SHA256}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}))
	f.Add([]byte(`{"kty":"OKP","crv":"Ed25519","d":"","x":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		ParsePrivateKey(text, func() ([]byte, error) { return []byte("x"), nil })
	})
}

func TestWeakKeysAreRefused(t *testing.T) {
	m := open(t, testConfig(t, new(memory), es256, rs256, eddsa))
	good := must[signing](t)(algorithms[1].generate()).(*rsa.PrivateKey)
	three := *good
	three.E = 3
	wrong := *good
	wrong.D = new(big.Int).Add(good.D, big.NewInt(2))
	p384 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	small := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	for name, c := range map[string]struct {
		ring string
		key  signing
		text string
	}{
		"1024 bits":         {rs256, small, "1024 bits"},
		"exponent 3":        {rs256, &three, "exponent 3"},
		"inconsistent":      {rs256, &wrong, "not consistent"},
		"another curve":     {es256, p384, "no key for ES256"},
		"another algorithm": {es256, good, "no key for ES256"},
		"no such ring":      {"PS256", good, "no ring"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := m.Import(t.Context(), ann, c.ring, c.key); !isRefusal(err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, want a refusal that says %q", err, c.text)
			}
		})
	}
	must[KeyView](t)(m.Import(t.Context(), ann, rs256, good))
}
