package intake

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"
	"unicode/utf16"
)

func part(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// utf16Of is text in UTF-16, big endian.
func utf16Of(text string) string {
	var encoded []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		encoded = binary.BigEndian.AppendUint16(encoded, unit)
	}
	return string(encoded)
}

// ATTACKS JW-01, JW-04, JW-07, JW-15 to JW-21: what never gets as far as a
// signature check.
func TestParseRefuses(t *testing.T) {
	good := part(`{"alg":"ES256"}`)
	if _, err := Parse(good + ".e30.AA"); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"empty":                      "",
		"two parts":                  good + ".e30",
		"five parts":                 good + ".e30.AA.AA.AA",
		"no header":                  ".e30.AA",
		"not signed":                 good + ".e30.",
		"longer than the limit":      good + "." + strings.Repeat("A", MaxToken) + ".AA",
		"padding":                    good + ".e30=.AA",
		"standard alphabet":          good + ".e30.+/AA",
		"line break inside":          good + ".e3\n0.AA",
		"line break at the end":      good + ".e30.AA\r\n",
		"space around":               " " + good + ".e30.AA",
		"trailing bits":              good + ".e31.AA",
		"trailing bits at the end":   good + ".e30.AB",
		"crit":                       part(`{"alg":"ES256","crit":["exp"],"exp":1}`) + ".e30.AA",
		"crit of an absent name":     part(`{"alg":"ES256","crit":["exp"]}`) + ".e30.AA",
		"crit with alg":              part(`{"alg":"ES256","crit":["alg"]}`) + ".e30.AA",
		"empty crit":                 part(`{"alg":"ES256","crit":[]}`) + ".e30.AA",
		"crit twice the same":        part(`{"alg":"ES256","crit":["exp","exp"],"exp":1}`) + ".e30.AA",
		"crit twice":                 part(`{"alg":"ES256","crit":["exp"],"crit":["exp"],"exp":1}`) + ".e30.AA",
		"crit null":                  part(`{"alg":"ES256","crit":null}`) + ".e30.AA",
		"b64":                        part(`{"alg":"ES256","b64":false,"crit":["b64"]}`) + ".e30.AA",
		"b64 alone":                  part(`{"alg":"ES256","b64":true}`) + ".e30.AA",
		"zip":                        part(`{"alg":"ES256","zip":"DEF"}`) + ".e30.AA",
		"JWE":                        part(`{"alg":"dir","enc":"A256GCM"}`) + "..AA.AA.AA",
		"JWE with an empty key":      part(`{"alg":"A128KW","enc":"A128GCM"}`) + "..AA.AA.AA",
		"JWE by RSA1_5":              part(`{"alg":"RSA1_5","enc":"A128CBC-HS256"}`) + ".AA.AA.AA.AA",
		"JWE by PBES2":               part(`{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2s":"AA","p2c":1000000}`) + ".AA.AA.AA.AA",
		"JWE, deflated":              part(`{"alg":"dir","enc":"A256GCM","zip":"DEF"}`) + "..AA.AA.AA",
		"JWE of a JWS":               part(`{"alg":"dir","enc":"A256GCM","cty":"JWT"}`) + "..AA.AA.AA",
		"enc":                        part(`{"alg":"dir","enc":"A256GCM"}`) + ".e30.AA",
		"duplicate member":           part(`{"alg":"ES256","alg":"none"}`) + ".e30.AA",
		"duplicate in other letters": part(`{"alg":"ES256","\u0061lg":"none"}`) + ".e30.AA",
		"alg not a string":           part(`{"alg":["ES256"]}`) + ".e30.AA",
		"kid a number":               part(`{"alg":"ES256","kid":1}`) + ".e30.AA",
		"kid an array":               part(`{"alg":"ES256","kid":["a"]}`) + ".e30.AA",
		"kid null":                   part(`{"alg":"ES256","kid":null}`) + ".e30.AA",
		"long kid":                   part(`{"alg":"ES256","kid":"`+strings.Repeat("k", 257)+`"}`) + ".e30.AA",
		"deep header":                part(`{"alg":"ES256","x":`+strings.Repeat("[", 8)+strings.Repeat("]", 8)+`}`) + ".e30.AA",
		"header not an object":       part(`["ES256"]`) + ".e30.AA",
		"not UTF-8":                  part("{\"alg\":\"ES256\",\"x\":\"\xff\"}") + ".e30.AA",
		"UTF-16":                     part(utf16Of(`{"alg":"ES256"}`)) + ".e30.AA",
		"byte order mark":            part("\ufeff{\"alg\":\"ES256\"}") + ".e30.AA",
		"trailing data":              part(`{"alg":"ES256"}{}`) + ".e30.AA",
		"flattened serialization":    `{"protected":"` + good + `","payload":"e30","signature":"AA"}`,
		"two signatures":             `{"payload":"e30","signatures":[{"protected":"` + good + `","signature":"AA"},{"protected":"` + good + `","signature":"AA"}]}`,
		"an unprotected header":      `{"payload":"e30","signatures":[{"header":{"alg":"ES256"},"signature":"AA"}]}`,
		"general serialization":      `{"payload":"e30","signatures":[{"protected":"` + good + `","signature":"AA"}]}`,
	} {
		if _, err := Parse(token); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

// ATTACKS JW-16: members are found by their exact name.
func TestParseReadsTheHeader(t *testing.T) {
	token, err := Parse(part(`{"alg":"ES256","kid":"a","typ":"at+jwt","ALG":"none","KID":"b","Typ":"JWT","CRIT":["x"],"jku":"https://x","x5c":["AA"]}`) + ".e30.AA")
	if err != nil {
		t.Fatal(err)
	}
	if token.Algorithm != "ES256" || token.KeyID != "a" || token.Type != "at+jwt" || string(token.Payload) != "{}" {
		t.Errorf("%+v", token)
	}
	for typ, want := range map[string]bool{
		"at+jwt": true, "AT+JWT": true, "application/at+jwt": true, "Application/At+Jwt": true,
		"": false, "JWT": false, "rt+jwt": false, "text/at+jwt": false, "at+jwt ": false, "application/application/at+jwt": false,
	} {
		if got := (&Token{Type: typ}).HasType("at+jwt"); got != want {
			t.Errorf("typ %q: %v, want %v", typ, got, want)
		}
	}
}

// ATTACKS JW-20: refusing costs less than 64 KiB, whatever is sent.
func TestAttackJW20(t *testing.T) {
	var names strings.Builder
	for i := range maxMembers - 1 {
		names.WriteString(`"` + string(rune(0x4e00+i)) + `":1,`)
	}
	for name, token := range map[string]string{
		"10 MB":       strings.Repeat("A", 10<<20),
		"10M dots":    strings.Repeat(".", 10<<20),
		"dots":        strings.Repeat(".", MaxToken),
		"arrays":      part(`{"a":`+strings.Repeat("[", 12_000)) + ".e30.AA",
		"objects":     part(`{"a":[`+strings.Repeat("{},", 4000)+"{}],\"alg\":1}") + ".e30.AA",
		"names":       part("{"+names.String()+`"alg":1}`) + ".e30.AA",
		"many names":  part("{"+strings.Repeat(`"":1,`, 2400)+`"":1}`) + ".e30.AA",
		"JWE":         part(`{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":1000000000}`) + ".AA.AA.AA.AA",
		"long kid":    part(`{"kid":"`+strings.Repeat("k", 12_000)+`"}`) + ".e30.AA",
		"bad payload": part(`{"alg":"ES256"}`) + "." + strings.Repeat("A", 16_001) + ".AA",
	} {
		const rounds = 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			if _, err := Parse(token); !errors.Is(err, ErrMalformed) {
				t.Fatalf("%s: %v, want ErrMalformed", name, err)
			}
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / rounds; each > 64<<10 {
			t.Errorf("%s: refusing it allocates %d bytes", name, each)
		}
	}
}
