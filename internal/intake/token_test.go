package intake

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func part(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// ATTACKS JW-07, JW-17 to JW-21: what never gets as far as a signature check.
func TestParseRefuses(t *testing.T) {
	good := part(`{"alg":"ES256"}`)
	for name, token := range map[string]string{
		"empty":                      "",
		"two parts":                  good + ".e30",
		"five parts":                 good + ".e30.AA.AA.AA",
		"longer than the limit":      good + "." + strings.Repeat("A", MaxToken) + ".AA",
		"padding":                    good + ".e30=.AA",
		"standard alphabet":          good + ".e30.+/AA",
		"line break inside":          good + ".e3\n0.AA",
		"space around":               " " + good + ".e30.AA",
		"trailing bits":              good + ".e31.AB",
		"crit":                       part(`{"alg":"ES256","crit":["exp"]}`) + ".e30.AA",
		"empty crit":                 part(`{"alg":"ES256","crit":[]}`) + ".e30.AA",
		"b64":                        part(`{"alg":"ES256","b64":false}`) + ".e30.AA",
		"zip":                        part(`{"alg":"ES256","zip":"DEF"}`) + ".e30.AA",
		"enc":                        part(`{"alg":"dir","enc":"A256GCM"}`) + ".e30.AA",
		"duplicate member":           part(`{"alg":"ES256","alg":"none"}`) + ".e30.AA",
		"duplicate in other letters": part(`{"alg":"ES256","\u0061lg":"none"}`) + ".e30.AA",
		"kid not a string":           part(`{"alg":"ES256","kid":1}`) + ".e30.AA",
		"long kid":                   part(`{"alg":"ES256","kid":"`+strings.Repeat("k", 257)+`"}`) + ".e30.AA",
		"deep header":                part(`{"alg":"ES256","x":`+strings.Repeat("[", 9)+strings.Repeat("]", 9)+`}`) + ".e30.AA",
		"header not an object":       part(`["ES256"]`) + ".e30.AA",
		"not UTF-8":                  part("{\"alg\":\"ES256\",\"x\":\"\xff\"}") + ".e30.AA",
		"byte order mark":            part("\ufeff{\"alg\":\"ES256\"}") + ".e30.AA",
		"trailing data":              part(`{"alg":"ES256"}{}`) + ".e30.AA",
		"JSON serialization":         `{"protected":"` + good + `","payload":"e30","signature":"AA"}`,
	} {
		if _, err := Parse(token); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

func TestVerify(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, (&jose.SignerOptions{}).WithType("AT+JWT"))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(`{"sub":"alice"}`))
	if err != nil {
		t.Fatal(err)
	}
	compact, _ := signed.CompactSerialize()
	token, err := Parse(compact)
	if err != nil {
		t.Fatal(err)
	}
	if !token.HasType("at+jwt") || token.HasType("rt+jwt") {
		t.Error("HasType is wrong about AT+JWT")
	}
	if err := token.Verify(Key{Algorithm: "ES256", Public: &private.PublicKey}); err != nil {
		t.Error(err)
	}
	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := token.Verify(Key{Algorithm: "ES256", Public: &other.PublicKey}); !errors.Is(err, ErrSignature) {
		t.Errorf("another key: %v, want ErrSignature", err)
	}
	if err := token.Verify(Key{Algorithm: "ES384", Public: &private.PublicKey}); !errors.Is(err, ErrSignature) {
		t.Errorf("another algorithm: %v, want ErrSignature", err)
	}
	// RFC 8725 §3.1: the key decides; a symmetric algorithm is never its.
	forged, _ := Parse(part(`{"alg":"HS256"}`) + ".e30." + part("signature"))
	if err := forged.Verify(Key{Algorithm: "HS256", Public: &private.PublicKey}); err == nil {
		t.Error("HS256 was verified")
	}
	none, err := Parse(part(`{"alg":"none"}`) + ".e30.")
	if err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range []string{"none", "ES256", ""} {
		if none.Verify(Key{Algorithm: algorithm, Public: &private.PublicKey}) == nil {
			t.Errorf("an unsigned token was verified as %q", algorithm)
		}
	}
}
