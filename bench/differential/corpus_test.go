package differential

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authserver/internal/intake"
)

// sample is a token, and the key that it is to be verified with.
type sample struct {
	name  string
	token string
	key   intake.Key
	jwk   string // the key for npm jose
	raw   bool   // its payload need not be claims
}

// signer signs whatever header and payload it is given.
type signer struct {
	key     intake.Key
	jwk     string
	private crypto.Signer
}

func newSigners(t *testing.T) []signer {
	t.Helper()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var signers []signer
	for algorithm, private := range map[string]crypto.Signer{"ES256": ec, "EdDSA": ed, "RS256": rs, "PS256": rs} {
		signers = append(signers, signer{key: intake.Key{ID: "1", Algorithm: algorithm, Public: private.Public()}, jwk: jwkOf(t, algorithm, private.Public()), private: private})
	}
	return signers
}

func part(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// signature of what a token begins with, in JWS form (RFC 7518 §3).
func (s signer) signature(t *testing.T, input string) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte(input))
	var made []byte
	var err error
	switch private := s.private.(type) {
	case ed25519.PrivateKey:
		made = ed25519.Sign(private, []byte(input))
	case *ecdsa.PrivateKey:
		r, v, failed := ecdsa.Sign(rand.Reader, private, digest[:])
		if err = failed; err == nil {
			made = append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...)
		}
	case *rsa.PrivateKey:
		if s.key.Algorithm == "PS256" {
			made, err = rsa.SignPSS(rand.Reader, private, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			made, err = rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, digest[:])
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (s signer) sign(t *testing.T, header, payload string) string {
	t.Helper()
	input := part([]byte(header)) + "." + part([]byte(payload))
	return input + "." + part(s.signature(t, input))
}

const usual = `{"iss":"https://a.example","sub":"alice","aud":"https://api.example","client_id":"web","scope":"a b","jti":"1","iat":1700000000,"exp":4000000000}`

// headers are of tokens that are properly signed; ALG stands for the key's algorithm.
var headers = []string{
	`{"alg":"ALG"}`, `{"alg":"ALG","kid":"1","typ":"at+jwt"}`, " {\t\"alg\" :\r\n\"ALG\" } ", `{"alg":"ALG","cty":"JWT"}`, `{"alg":"ALG","more":{"a":[1,2,{"b":null}]}}`,
	`{"\u0061lg":"ALG"}`, `{"alg":"ALG","kid":"ü"}`, `{"alg":"ALG","typ":"application/at+jwt"}`, `{"alg":"ALG","x5t":"AA","jku":"https://a.example","x5u":"https://a.example"}`,
	`{"alg":"ALG","alg":"ALG"}`, `{"alg":"none","alg":"ALG"}`, `{"alg":"ALG","alg":"none"}`, `{"alg":"ALG","\u0061lg":"none"}`, `{"alg":"ALG","kid":"1","kid":"2"}`,
	`{"Alg":"ALG"}`, `{"ALG":"ALG"}`, `{"alg":"ALG","ALG":"none"}`, `{"alg":"none"}`, `{"alg":"HS256"}`, `{"alg":"ES384"}`, `{"alg":"PS384"}`, `{"alg":""}`, `{"alg":null}`, `{"alg":1}`, `{}`,
	`{"alg":"ALG","crit":["exp"],"exp":1}`, `{"alg":"ALG","crit":[]}`, `{"alg":"ALG","crit":["b64"],"b64":true}`, `{"alg":"ALG","b64":true}`, `{"alg":"ALG","b64":false}`,
	`{"alg":"ALG","crit":null}`, `{"alg":"ALG","zip":"DEF"}`, `{"alg":"ALG","enc":"A128GCM"}`, `{"alg":"ALG","kid":1}`, `{"alg":"ALG","kid":null}`, `{"alg":"ALG","typ":1}`, `{"alg":"ALG","typ":null}`,
	`{"alg":"ALG","jwk":{"kty":"oct","k":"AA"}}`, `{"alg":"ALG","x5c":["AA"]}`, `{"alg":"ALG","kid":"` + strings.Repeat("x", 300) + `"}`,
	`{"alg":"ALG"} {}`, `{"alg":"ALG"},`, `{"alg":"ALG",}`, `{"alg":'ALG'}`, `{alg:"ALG"}`, `["ALG"]`, `"ALG"`, `null`, ``, "\ufeff" + `{"alg":"ALG"}`, "{\"alg\":\"ALG\",\"a\":\"\xff\"}",
	"{\"alg\":\"ALG\",\"a\":\"\x01\"}", `{"alg":"ALG","a":"\ud800"}`, `{"alg":"ALG","a":01}`, `{"alg":"ALG","a":NaN}`, `{"alg":"ALG","a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`,
}

// payloads are of tokens that are properly signed.
var payloads = []string{
	usual, `{}`, ` { } `, `{"sub":"alice"}`, `{"sub":"\u00fc\ud83d\ude00"}`, `{"sub":"ü😀"}`, `{"\u0073ub":"alice"}`, `{"sub":"a\/b\n"}`, `{"aud":["a","b"]}`, `{"aud":[]}`, `{"aud":""}`,
	`{"exp":4000000000,"iat":0}`, `{"exp":9007199254740993}`, `{"iat":-1}`, `{"more":{"sub":"bob","deep":[[[1]]]}}`, `{"n":1e3,"m":-0,"o":1.50}`, `{"roles":["a"],"amr":["pwd"],"auth_time":1700000000}`,
	`{"sub":"alice","sub":"bob"}`, `{"sub":"alice","\u0073ub":"bob"}`, `{"sub":"alice","SUB":"bob","Sub":"eve"}`, `{"more":{"a":1,"a":2}}`, `{"sub":"alice"} {}`, `{"sub":"alice"}x`, `{"sub":"alice",}`,
	`{"sub":1}`, `{"sub":null}`, `{"aud":1}`, `{"aud":null}`, `{"aud":[1]}`, `{"aud":{"a":"b"}}`, `{"exp":"4000000000"}`, `{"exp":4e9}`, `{"exp":4000000000.5}`, `{"exp":1e400}`, `{"exp":null}`, `{"exp":true}`,
	`{"iat":99999999999999999999}`, `{"iss":["https://a.example"]}`, `{"jti":5}`, `{"scope":["a"]}`, `{"nbf":"x"}`, `[]`, `null`, `"text"`, `1`, ``, "\ufeff{}", "{\"sub\":\"\xff\"}", "{\"sub\":\"\x02\"}",
	`{"sub":"\ud800"}`, `{"sub":"\x41"}`, `{'sub':'a'}`, `{"a":01}`, `{"a":.5}`, `{"a":+1}`, `{"a":tru}`, `{"a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`, manyMembers(200),
	`{"":"empty"}`, `{"sub":"a\u0000b"}`, `{"__proto__":{"sub":"eve"}}`, `{"sub":"` + strings.Repeat("x", 13000) + `"}`,
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"m%d":%d`, i, i)
	}
	return "{" + b.String()[1:] + "}"
}

// forms are other spellings and other signatures of a good token.
func (s signer) forms(t *testing.T) map[string]string {
	t.Helper()
	good := s.sign(t, `{"alg":"`+s.key.Algorithm+`"}`, usual)
	header, rest, _ := strings.Cut(good, ".")
	payload, made, _ := strings.Cut(rest, ".")
	signature, err := base64.RawURLEncoding.DecodeString(made)
	if err != nil {
		t.Fatal(err)
	}
	with := func(signature []byte) string { return header + "." + payload + "." + part(signature) }
	zeros := make([]byte, len(signature))
	forms := map[string]string{
		"good": good, "padded": good + "=", "padded twice": good + "==", "space before": " " + good, "space behind": good + " ", "line behind": good + "\n",
		"line inside": header + ".\n" + rest, "line in the payload": header + "." + payload[:8] + "\r\n" + payload[8:] + "." + made, "line in the signature": header + "." + payload + "." + made[:8] + "\n" + made[8:],
		"dot behind": good + ".", "dot before": "." + good, "four parts": good + ".AA", "two parts": header + "." + payload, "no signature": header + "." + payload + ".", "nothing": "", "dots": "..",
		"Bearer": "Bearer " + good, "standard alphabet": strings.NewReplacer("-", "+", "_", "/").Replace(good), "percent": strings.ReplaceAll(good, ".", "%2E"),
		"one byte more": with(append(signature[:len(signature):len(signature)], 0)), "one byte less": with(signature[:len(signature)-1]), "zero in front": with(append([]byte{0}, signature...)),
		"zeros": with(zeros), "the first half": with(signature[:len(signature)/2]), "twice": with(append(signature[:len(signature):len(signature)], signature...)),
		"JSON": `{"protected":"` + header + `","payload":"` + payload + `","signature":"` + made + `"}`, "upper case": strings.ToUpper(good),
		"JSON, general": `{"payload":"` + payload + `","signatures":[{"protected":"` + header + `","signature":"` + made + `"}]}`,
	}
	for _, c := range letters { // other bits at the end of it
		forms["last character "+string(c)] = good[:len(good)-1] + string(c)
		forms["last of the header "+string(c)] = header[:len(header)-1] + string(c) + "." + rest
	}
	if private, ok := s.private.(*ecdsa.PrivateKey); ok {
		digest := sha256.Sum256([]byte(header + "." + payload))
		der, err := ecdsa.SignASN1(rand.Reader, private, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		forms["DER"] = with(der)
	}
	return forms
}

// corpus returns so many samples: vectors of others, tokens that are signed and odd,
// and mutations of all of them, which a seed decides.
func corpus(t *testing.T, n int) []sample {
	t.Helper()
	samples := vectors(t)
	for _, s := range newSigners(t) {
		add := func(name, token string) {
			samples = append(samples, sample{name: s.key.Algorithm + ": " + name, token: token, key: s.key, jwk: s.jwk})
		}
		for _, header := range headers {
			header = strings.ReplaceAll(header, "ALG", s.key.Algorithm)
			add("header "+header, s.sign(t, header, usual))
		}
		for _, payload := range payloads {
			add("payload "+payload, s.sign(t, `{"alg":"`+s.key.Algorithm+`"}`, payload))
		}
		for name, form := range s.forms(t) {
			add(name, form)
		}
		for _, other := range []string{"ES256", "RS256", "PS256", "EdDSA", "HS256"} { // signed by this key, whatever it says
			add("signed as "+other, s.sign(t, `{"alg":"`+other+`"}`, usual))
		}
	}
	random := mathrand.New(mathrand.NewPCG(33, 1))
	for _, s := range newSigners(t) {
		for i := range 200 {
			name := fmt.Sprintf("%s: good one %d", s.key.Algorithm, i)
			samples = append(samples, sample{name: name, token: s.sign(t, `{"typ":"at+jwt","alg":"`+s.key.Algorithm+`"}`, goodClaims(t, random)), key: s.key, jwk: s.jwk})
		}
	}
	for base := len(samples); len(samples) < n; {
		samples = append(samples, mutate(random, samples[random.IntN(base)], samples[random.IntN(base)]))
	}
	return samples
}

// goodClaims are claims as issuers write them, with text of any kind in them.
func goodClaims(t *testing.T, random *mathrand.Rand) string {
	t.Helper()
	text := func() string {
		var b strings.Builder
		for range random.IntN(30) {
			b.WriteRune([]rune{'a', 'Z', '0', ' ', '"', '\\', '/', '\n', '<', 'ü', '€', '😀', '\u2028', 0x7f, '{', ']'}[random.IntN(16)])
		}
		return b.String()
	}
	claims := map[string]any{
		"iss": "https://" + text(), "sub": text(), "aud": text(), "client_id": text(), "jti": text(), "iat": random.Int64N(1 << 40), "exp": random.Int64N(1 << 53),
		"scope": text(), text(): map[string]any{text(): []any{nil, true, random.Float64(), text()}}, text() + "n": -random.Int64N(1 << 62),
	}
	if random.IntN(2) == 0 {
		claims["aud"], claims["roles"], claims["amr"] = []string{text(), text()}, []string{text()}, []string{}
	}
	written, err := json.MarshalIndent(claims, "", strings.Repeat(" ", random.IntN(3)))
	if err != nil {
		t.Fatal(err)
	}
	return string(written)
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// mutate changes a sample a little, or puts two together.
func mutate(random *mathrand.Rand, s, other sample) sample {
	s.name = "mutation of " + s.name
	b := []byte(s.token)
	for range 1 + random.IntN(3) {
		if len(b) == 0 {
			break
		}
		at := random.IntN(len(b))
		switch random.IntN(7) {
		case 0:
			b[at] = (letters + ".=+/ \n")[random.IntN(len(letters)+6)]
		case 1:
			b = append(b[:at], b[at+1:]...)
		case 2:
			b = append(b[:at], append([]byte{"A._=\n{"[random.IntN(6)]}, b[at:]...)...)
		case 3:
			b = b[:at]
		case 4:
			b[at] ^= 1 << random.IntN(8)
		case 5: // a part of one and the others of another
			mine, others := strings.Split(string(b), "."), strings.Split(other.token, ".")
			i := random.IntN(len(mine))
			mine[i] = others[random.IntN(len(others))]
			b = []byte(strings.Join(mine, "."))
		case 6: // the last bits of a part
			parts := strings.Split(string(b), ".")
			if i := random.IntN(len(parts)); parts[i] != "" {
				parts[i] = parts[i][:len(parts[i])-1] + string(letters[random.IntN(len(letters))])
			}
			b = []byte(strings.Join(parts, "."))
		}
	}
	s.token = string(b)
	return s
}

// vectors are Wycheproof's, with the keys that are admitted.
func vectors(t *testing.T) []sample {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "vectors", "wycheproof", "json_web_signature_test.json"))
	if os.IsNotExist(err) {
		t.Log("third-party vectors are not here: without them")
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			Public json.RawMessage `json:"public"`
			Tests  []struct {
				ID  int             `json:"tcId"`
				JWS json.RawMessage `json:"jws"`
			} `json:"tests"`
		} `json:"testGroups"`
	}
	if err := json.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	var samples []sample
	for _, group := range file.TestGroups {
		set := group.Public
		if !strings.Contains(string(set), `"keys"`) {
			set = fmt.Appendf(nil, `{"keys":[%s]}`, set)
		}
		keys, _, err := intake.ParseKeySet(set)
		if err != nil {
			continue // symmetric, or none
		}
		for _, key := range keys {
			for _, test := range group.Tests {
				var compact string
				if json.Unmarshal(test.JWS, &compact) != nil {
					compact = string(test.JWS)
				}
				samples = append(samples, sample{name: fmt.Sprint("Wycheproof ", test.ID), token: compact, key: key, jwk: jwkOf(t, key.Algorithm, key.Public), raw: true})
			}
		}
	}
	return samples
}
