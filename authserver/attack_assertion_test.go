package authserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"authserver/internal/intake"
	"authserver/store"

	"github.com/go-jose/go-jose/v4"
)

// partner is a client that authenticates with a key.
type partner struct {
	t       *testing.T
	private *ecdsa.PrivateKey
}

const partnerKID = "partner-1"

// newPartner returns a partner and what is registered of it.
func newPartner(t *testing.T) (partner, Client) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return partner{t, private}, Client{ClientID: "partner", JWKS: setOf(t, private, partnerKID), GrantTypes: []string{"client_credentials"}, Scope: "orders:read"}
}

func setOf(t *testing.T, private *ecdsa.PrivateKey, kid string) string {
	t.Helper()
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &private.PublicKey, KeyID: kid, Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(set)
}

// claims are those of an assertion, with changes; nil takes one away.
func (p partner) claims(changes map[string]any) map[string]any {
	claims := map[string]any{"iss": "partner", "sub": "partner", "aud": testIssuer, "jti": rand.Text(), "exp": time.Now().Add(time.Minute).Unix()}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

func (p partner) assertion(changes map[string]any) string {
	return signedBy(p.t, p.private, map[string]any{"alg": "ES256", "kid": partnerKID}, p.claims(changes))
}

// present asks for a token with an assertion.
func (b *browser) present(assertion string) tokenAnswer {
	b.t.Helper()
	return b.token("", url.Values{"grant_type": {"client_credentials"}, "client_assertion_type": {assertionType}, "client_assertion": {assertion}})
}

// unsigned is the part of a token that is signed.
func unsigned(t *testing.T, header, claims map[string]any) string {
	t.Helper()
	var parts [2]string
	for i, part := range []map[string]any{header, claims} {
		text, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(text)
	}
	return parts[0] + "." + parts[1]
}

// signedBy returns a token with whatever header.
func signedBy(t *testing.T, private *ecdsa.PrivateKey, header, claims map[string]any) string {
	t.Helper()
	input := unsigned(t, header, claims)
	hash := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, private, hash[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// ATTACKS CA-12: an assertion without a signature, or with one that is made of what
// everybody knows, or of a secret.
func TestAttackCA12(t *testing.T) {
	partner, client := newPartner(t)
	b := newBrowser(t, browserServer(t, func(c *Config) { c.Clients = append(c.Clients, client) }))
	refused := func(what, assertion string) {
		t.Helper()
		if a := b.present(assertion); a.status != 401 || a.text("error") != "invalid_client" {
			t.Errorf("%s: %d %v", what, a.status, a.body)
		}
	}
	for _, algorithm := range []string{"none", "None", "NONE", "nOnE", ""} {
		input := unsigned(t, map[string]any{"alg": algorithm, "kid": partnerKID}, partner.claims(nil))
		_, signature, _ := cutLast(partner.assertion(nil))
		refused("alg "+algorithm, input+".")
		refused("alg "+algorithm+" with the signature of another", input+"."+signature)
	}
	der, err := x509.MarshalPKIXPublicKey(&partner.private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	point, err := partner.private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal([]byte(client.JWKS), &set); err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	for what, secret := range map[string][]byte{
		"its key set": []byte(client.JWKS), "its JWK": set.Keys[0], "its key in DER": der, "its key in PEM": block,
		"its key in PEM, trimmed": block[:len(block)-1], "the point": point, "nothing": nil, "its id": []byte("partner"), "the secret of another": []byte(testSecret),
	} {
		for _, algorithm := range []string{"HS256", "ES256"} {
			for _, claims := range []map[string]any{partner.claims(nil), partner.claims(map[string]any{"iss": "web", "sub": "web"})} {
				input := unsigned(t, map[string]any{"alg": algorithm, "kid": partnerKID}, claims)
				mac := hmac.New(sha256.New, secret)
				mac.Write([]byte(input))
				refused(algorithm+" with "+what, input+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
			}
		}
	}
	// client_secret_jwt, with the right secret of a client that has one.
	input := unsigned(t, map[string]any{"alg": "HS256"}, partner.claims(map[string]any{"iss": "web", "sub": "web"}))
	mac := hmac.New(sha256.New, []byte(testSecret))
	mac.Write([]byte(input))
	refused("HS256 with the client's secret", input+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	if a := b.present(partner.assertion(nil)); a.status != 200 {
		t.Errorf("its own: %d %v", a.status, a.body)
	}
}

// ATTACKS CA-19: one key, one algorithm: an assertion by another one than that of the
// registered key is refused, whoever signed it; a key that is too weak is not registered.
func TestAttackCA19(t *testing.T) {
	partner, client := newPartner(t)
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	jwks := func(key any, algorithm string) string {
		set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: partnerKID, Algorithm: algorithm, Use: "sig"}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(set)
	}
	byRSA := client
	byRSA.ClientID, byRSA.JWKS = "rsa", jwks(&private.PublicKey, "PS256")
	b := newBrowser(t, browserServer(t, func(c *Config) { c.Clients = append(c.Clients, client, byRSA) }))
	for _, c := range []struct {
		id        string
		algorithm jose.SignatureAlgorithm
		key       any
		status    int
	}{
		{"partner", jose.ES256, partner.private, 200},
		{"partner", jose.RS256, private, 401},
		{"partner", jose.PS256, private, 401},
		{"rsa", jose.PS256, private, 200},
		{"rsa", jose.RS256, private, 401}, // by its own key
		{"rsa", jose.PS384, private, 401},
		{"rsa", jose.ES256, partner.private, 401},
	} {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: c.algorithm, Key: c.key}, (&jose.SignerOptions{}).WithHeader("kid", partnerKID))
		if err != nil {
			t.Fatal(err)
		}
		payload, err := json.Marshal(partner.claims(map[string]any{"iss": c.id, "sub": c.id}))
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		compact, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		if a := b.present(compact); a.status != c.status || c.status != 200 && a.text("error") != "invalid_client" {
			t.Errorf("%s by %s: %d %v, want %d", c.algorithm, c.id, a.status, a.body, c.status)
		}
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	config := browserConfig()
	config.Clients = append(config.Clients, Client{ClientID: "weak", JWKS: jwks(&weak.PublicKey, "PS256"), GrantTypes: []string{"client_credentials"}})
	if problems := config.Check(); len(problems) != 1 || problems[0].Warning || !strings.HasSuffix(problems[0].Key, ".jwks") {
		t.Errorf("a key of 1024 bits in the configuration: %v", problems)
	}
	if _, _, err := b.server.addClient(t.Context(), config.Clients[len(config.Clients)-1], store.Forever); err == nil {
		t.Error("a client was added with a key of 1024 bits")
	}
}

func cutLast(token string) (input, signature string, found bool) {
	for i := len(token) - 1; i >= 0; i-- {
		if token[i] == '.' {
			return token[:i], token[i+1:], true
		}
	}
	return token, "", false
}

// ATTACKS CA-21: a key in the header, or the address of one, is not looked at: who signs
// with it is refused, and nothing is fetched.
func TestAttackCA21(t *testing.T) {
	partner, client := newPartner(t)
	b := newBrowser(t, browserServer(t, func(c *Config) {
		c.Clients, c.OutboundNetworks = append(c.Clients, client), []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} // nothing else would stop it
	}))
	canary, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer canary.Close()
	at := "http://" + canary.Addr().String() + "/keys"
	attacker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var his struct{ Keys []any }
	if err := json.Unmarshal([]byte(setOf(t, attacker, partnerKID)), &his); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&attacker.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]any{"jku": at, "x5u": at, "jwk": his.Keys[0], "x5c": []string{base64.StdEncoding.EncodeToString(der)}}
	for member, value := range members {
		for _, kid := range []any{partnerKID, "unknown", at, nil} {
			header := map[string]any{"alg": "ES256", member: value}
			if kid != nil {
				header["kid"] = kid
			}
			if a := b.present(signedBy(t, attacker, header, partner.claims(nil))); a.status != 401 || a.text("error") != "invalid_client" {
				t.Errorf("%s, kid %v: %d %v", member, kid, a.status, a.body)
			}
		}
		// Its own signature counts, whatever stands beside it.
		a := b.present(signedBy(t, partner.private, map[string]any{"alg": "ES256", "kid": partnerKID, member: value}, partner.claims(nil)))
		if a.status != 200 && a.text("error") != "invalid_client" {
			t.Errorf("%s in its own: %d %v", member, a.status, a.body)
		}
	}
	// Connections are accepted in the order in which they came: ours is the first.
	ours, err := net.Dial("tcp", canary.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	first, err := canary.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != ours.LocalAddr().String() {
		t.Error("the address in the header was asked")
	}
}

// ATTACKS JK-10: a client's key with the kid of one of the server's is for the client's
// assertions and nothing else, and the server's is for its tokens.
func TestAttackJK10(t *testing.T) {
	s := browserServer(t, nil)
	b := signedIn(t, s)
	good := b.exchange("web", b.code()).text("access_token")
	claims, _ := b.verified(good, "ES256")
	token, err := intake.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	kid := token.KeyID
	partner, client := newPartner(t)
	client.JWKS = setOf(t, partner.private, kid)
	b.server = browserServerWith(t, s, func(c *Config) { c.Clients = append(c.Clients, client) })
	header := map[string]any{"alg": "ES256", "kid": kid}
	if a := b.present(signedBy(t, partner.private, header, partner.claims(nil))); a.status != 200 {
		t.Errorf("its assertion: %d %v", a.status, a.body)
	}
	assertion, err := json.Marshal(partner.claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []string{"JWT", assertionTypeHeader} {
		byServer, err := s.keys.Sign("ES256", typ, assertion)
		if err != nil {
			t.Fatal(err)
		}
		if a := b.present(byServer); a.status != 401 || a.text("error") != "invalid_client" {
			t.Errorf("an assertion that the server's key has signed: %d %v", a.status, a.body)
		}
	}
	header["typ"] = "at+jwt"
	forged := signedBy(t, partner.private, header, claims)
	if b.active("web", forged) || !b.active("web", good) {
		t.Error("the client's key makes access tokens")
	}
	if a := b.ask("GET", "/userinfo", "Bearer "+forged, nil); a.status != 401 {
		t.Errorf("userinfo: %d %v", a.status, a.body)
	}
	if a := b.ask("GET", "/userinfo", "Bearer "+good, nil); a.status != 200 {
		t.Errorf("userinfo with a good one: %d %v", a.status, a.body)
	}
	header["typ"] = refreshTokenType
	if a := b.renew(signedBy(t, partner.private, header, claims)); a.text("error") != "invalid_grant" {
		t.Errorf("refreshing: %d %v", a.status, a.body)
	}
}
