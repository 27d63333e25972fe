package authserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"authserver/authserver/authservertest"

	"github.com/go-jose/go-jose/v4"
)

// Tokens made from a good one that are none (ATTACKS JW-01 to JW-03, JW-06, JW-07,
// JW-15, JW-17, JW-20): no endpoint takes them, and the good one lives on.
func TestHostileTokens(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	access, refreshToken := signIn(t, s, "orders:read")
	for kind, good := range map[string]string{"access": access, "refresh": refreshToken} {
		for name, bad := range hostile(t, s.Issuer, good) {
			if a := introspect(t, s, web, bad); a.raw != `{"active":false}` {
				t.Errorf("%s, %s: introspection says %s", kind, name, a.raw)
			}
			refused(t, kind+", "+name, refresh(t, s, bad), 400, "invalid_grant")
			if a := post(t, s.Issuer+"/revoke", web, form("token", bad)); a.status != 200 && a.status != 400 {
				t.Errorf("%s, %s: revocation answers %d %s", kind, name, a.status, a.raw)
			}
		}
		if a := introspect(t, s, web, good); a.body["active"] != true {
			t.Errorf("the %s token died of hostile ones", kind)
		}
	}
	// One kind of token is not taken for the other.
	refused(t, "an access token for a refresh token", refresh(t, s, access), 400, "invalid_grant")
}

// respelled returns a token in other letters: what a lax decoder reads as the same.
func respelled(good string) map[string]string {
	parts := strings.Split(good, ".")
	last := len(good) - 1
	return map[string]string{
		"cut by one": good[:last], "longer by one": good + "A", "padded": good + "=", "twice padded": good + "==",
		"trailing bits": good[:last] + string(good[last]+1), "a line feed inside": parts[0] + "." + parts[1][:9] + "\n" + parts[1][9:] + "." + parts[2],
		"a line feed behind": good + "\n", "a space before": " " + good, "padding inside": parts[0] + "=." + parts[1] + "." + parts[2],
		"a dot behind": good + ".", "the standard alphabet": strings.NewReplacer("-", "+", "_", "/").Replace(good) + "+",
		"a flipped bit of the header": "f" + good[1:], "a flipped bit of the claims": parts[0] + ".f" + parts[1][1:] + "." + parts[2],
		"a flipped bit of the signature": parts[0] + "." + parts[1] + "." + string(parts[2][0]^1) + parts[2][1:],
		"upper case":                     strings.ToUpper(good), "percent-encoded": strings.Replace(good, ".", "%2E", 1),
	}
}

// ATTACKS RT-13: no other spelling of a refresh token is one, neither while it lives nor
// when it was revoked; and none of them harms it.
func TestAttackRT13(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	_, token := signIn(t, s, "orders:read")
	all := func(when string) {
		t.Helper()
		for name, bad := range respelled(token) {
			a := refresh(t, s, bad)
			if code := a.text("error"); bad == token || a.status != 400 || code != "invalid_grant" && (code != "invalid_request" || !strings.Contains(bad, "\n")) {
				t.Errorf("%s, %s: %d %s", when, name, a.status, a.raw)
			}
			if a := post(t, s.Issuer+"/introspect", web, form("token", bad)); a.body["active"] == true {
				t.Errorf("%s, %s: it is active", when, name)
			}
		}
	}
	all("live")
	next := refresh(t, s, token)
	if next.status != 200 {
		t.Fatalf("it died of its other spellings: %s", next.raw)
	}
	token = next.text("refresh_token")
	if a := post(t, s.Issuer+"/revoke", web, form("token", token)); a.status != 200 {
		t.Fatal(a.raw)
	}
	all("revoked")
	refused(t, "revoked, as it was", refresh(t, s, token), 400, "invalid_grant")
}

// ATTACKS RT-16: a token that the server has not signed ends nothing, whatever it says:
// neither of a generation that would be theft nor of one that never was.
func TestAttackRT16(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	_, first := signIn(t, s, "orders:read")
	second := refresh(t, s, first).text("refresh_token")
	third := refresh(t, s, second).text("refresh_token")
	parts, others := strings.Split(first, "."), strings.Split(second, ".")
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	var its struct{ Kid, Typ string }
	if err := json.Unmarshal(header, &its); err != nil || its.Typ != "rt+jwt" || its.Kid == "" {
		t.Fatalf("%s %v", header, err)
	}
	attacker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(its.Typ)).WithHeader("kid", its.Kid)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: attacker}, options)
	if err != nil {
		t.Fatal(err)
	}
	claims := claimsOf(t, first)
	for _, generation := range []int{0, 1, 2, 3, 4, 1000} {
		claims["gen"], claims["jti"] = generation, "unknown"
		payload, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		forged, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		encoded := base64.RawURLEncoding.EncodeToString(payload)
		none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"rt+jwt","kid":"`+its.Kid+`"}`)) + "." + encoded + "."
		for name, token := range map[string]string{
			"the attacker's key": forged, "alg none": none, "alg none and a signature": none + parts[2], "the signature of another": parts[0] + "." + encoded + "." + others[2],
		} {
			refused(t, fmt.Sprint(name, ", generation ", generation), refresh(t, s, token), 400, "invalid_grant")
			post(t, s.Issuer+"/revoke", web, form("token", token))
		}
	}
	refused(t, "the signature of the second on the first", refresh(t, s, parts[0]+"."+parts[1]+"."+others[2]), 400, "invalid_grant")
	if a := refresh(t, s, third); a.status != 200 {
		t.Errorf("the grant has ended: %d %s", a.status, a.raw)
	}
}

// hostile returns what attackers make of a token.
func hostile(t *testing.T, issuer, good string) map[string]string {
	t.Helper()
	parts := strings.Split(good, ".")
	decode, encode := base64.RawURLEncoding.DecodeString, base64.RawURLEncoding.EncodeToString
	header, err := decode(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := decode(parts[1])
	with := func(members string) string { return strings.Replace(string(header), "{", "{"+members+",", 1) }
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// signed is the payload under a header that the attacker signs with his own key.
	signed := func(options *jose.SignerOptions) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: other}, options)
		if err != nil {
			t.Fatal(err)
		}
		object, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		compact, _ := object.CompactSerialize()
		return compact
	}
	var its struct{ Kid, Typ string }
	if err := json.Unmarshal(header, &its); err != nil || its.Kid == "" || its.Typ == "" {
		t.Fatalf("%s %v", header, err)
	}
	typ := jose.ContentType(its.Typ)
	spelled := func(alg string) string {
		return encode([]byte(`{"alg":"` + alg + `","typ":"` + its.Typ + `","kid":"` + its.Kid + `"}`))
	}
	tokens := map[string]string{
		"alg none":                spelled("none") + "." + parts[1] + ".",
		"alg none, signature":     spelled("none") + "." + parts[1] + "." + parts[2],
		"alg None":                spelled("None") + "." + parts[1] + "." + parts[2],
		"alg NONE":                spelled("NONE") + "." + parts[1] + ".",
		"alg nOnE":                spelled("nOnE") + "." + parts[1] + ".",
		"alg empty":               spelled("") + "." + parts[1] + ".",
		"HS256 with the key set":  hmacToken(t, issuer, header, parts[1]),
		"the attacker's jwk":      signed((&jose.SignerOptions{EmbedJWK: true}).WithType(typ)),
		"jku":                     signed((&jose.SignerOptions{}).WithType(typ).WithHeader("jku", issuer+"/keys").WithHeader("kid", its.Kid)),
		"x5u":                     signed((&jose.SignerOptions{}).WithType(typ).WithHeader("x5u", issuer+"/keys").WithHeader("kid", its.Kid)),
		"x5c":                     signed((&jose.SignerOptions{}).WithType(typ).WithHeader("x5c", []string{"AA"}).WithHeader("kid", its.Kid)),
		"another key":             signed((&jose.SignerOptions{}).WithType(typ)),
		"another key, its kid":    signed((&jose.SignerOptions{}).WithType(typ).WithHeader("kid", its.Kid)),
		"crit":                    encode([]byte(with(`"crit":["exp"]`))) + "." + parts[1] + "." + parts[2],
		"alg twice":               encode([]byte(with(`"alg":"none"`))) + "." + parts[1] + "." + parts[2],
		"altered claims":          parts[0] + "." + encode([]byte(strings.Replace(string(payload), `"scope":"`, `"scope":"orders:write `, 1))) + "." + parts[2],
		"no signature":            parts[0] + "." + parts[1] + ".",
		"two parts":               parts[0] + "." + parts[1],
		"five parts":              good + ".AAAA.AAAA",
		"truncated":               good[:len(good)-10],
		"padded":                  good + "=",
		"JSON serialization":      fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2]),
		"twenty thousand letters": strings.Repeat("A", 20_000),
		"dots":                    strings.Repeat(".", 20_000),
	}
	return tokens
}

// hmacToken is signed with the published key set as an HMAC secret.
func hmacToken(t *testing.T, issuer string, header []byte, payload string) string {
	t.Helper()
	response, err := http.Get(issuer + "/.well-known/jwks.json")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	set, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer("ES256", "HS256", "EdDSA", "HS256").Replace(string(header))
	input := base64.RawURLEncoding.EncodeToString([]byte(changed)) + "." + payload
	mac := hmac.New(sha256.New, set)
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
