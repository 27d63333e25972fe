// Package verifiertest is an issuer for the tests of APIs that are protected by
// package verifier: it publishes its metadata, its keys and a feed of revocations on
// a loopback port, and mints tokens, valid ones and deliberately wrong ones.
//
//	issuer := verifiertest.New(t)
//	v := issuer.Verifier(t, "https://api.example.com")
//	token := issuer.Token(verifiertest.Claims{"aud": "https://api.example.com", "scope": "orders:read"})
//	for name, wrong := range issuer.WrongTokens("https://api.example.com") { … } // each must be refused
package verifiertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"authserver/verifier"

	"github.com/go-jose/go-jose/v4"
)

// Claims are the claims of a token by their names.
type Claims map[string]any

// Issuer is a running issuer. Its methods are safe for concurrent use.
type Issuer struct {
	URL string // the issuer identifier

	t      testing.TB
	server *httptest.Server
	feed   *revocations

	mu   sync.Mutex
	keys []signingKey // all are published; the last is the next, the one before it signs
}

type signingKey struct {
	id      string
	private *ecdsa.PrivateKey
}

// New starts an issuer that lives as long as the test.
func New(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{t: t, keys: []signingKey{newKey(t)}}
	i.Rotate()
	i.feed = newRevocations(i)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/jwks.json", "revocations_endpoint": i.URL + "/revocations",
			"introspection_endpoint": i.URL + "/introspect"})
	})
	mux.HandleFunc("GET /jwks.json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		writeJSON(w, i.published())
	})
	mux.HandleFunc("GET /revocations", i.feed.serve)
	mux.HandleFunc("POST /introspect", i.introspect)
	i.server = httptest.NewServer(mux)
	i.URL = i.server.URL
	t.Cleanup(i.Close)
	return i
}

// Close stops the issuer: nothing of it answers any more.
func (i *Issuer) Close() {
	i.feed.end()
	i.server.CloseClientConnections()
	i.server.Close()
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(value)
}

// Verifier returns a verifier of this issuer's tokens for an API.
func (i *Issuer) Verifier(t testing.TB, audience string) *verifier.Verifier {
	t.Helper()
	return i.Configured(t, verifier.Config{Audience: audience})
}

// Configured returns a verifier of this issuer's tokens with a configuration; the
// issuer and a silent logger need not be in it.
func (i *Issuer) Configured(t testing.TB, config verifier.Config) *verifier.Verifier {
	t.Helper()
	config.Issuer = i.URL
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	v, err := verifier.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Rotate lets the next key sign, which was published before. The ones before stay
// published.
func (i *Issuer) Rotate() {
	next := newKey(i.t)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, next)
}

func newKey(t testing.TB) signingKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signingKey{rand.Text(), private}
}

func (i *Issuer) current() signingKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[len(i.keys)-2]
}

func (i *Issuer) published() jose.JSONWebKeySet {
	i.mu.Lock()
	defer i.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, key := range i.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &key.private.PublicKey, KeyID: key.id, Algorithm: "ES256", Use: "sig"})
	}
	return set
}

// complete returns the claims of a token for a minute, with the given ones in place
// of its own. A claim that is nil is left out.
func (i *Issuer) complete(claims Claims) Claims {
	now := time.Now()
	all := Claims{
		"iss": i.URL, "sub": "alice", "client_id": "client", "jti": rand.Text(), "grant_id": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}
	maps.Copy(all, claims)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	return all
}

// Token returns an access token with the claims, which must hold aud. What they do
// not say is as in a token of user alice, of client "client", for a minute. A claim
// that is nil is left out, so that Token can mint wrong tokens, too.
func (i *Issuer) Token(claims Claims) string {
	i.t.Helper()
	return i.sign(i.current(), "at+jwt", i.complete(claims))
}

// sign signs any payload with a type, by a key.
func (i *Issuer) sign(key signingKey, typ string, payload any) string {
	i.t.Helper()
	token, err := sign(key, typ, payload)
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

func (i *Issuer) signText(algorithm jose.SignatureAlgorithm, key any, options *jose.SignerOptions, text []byte) string {
	i.t.Helper()
	token, err := signText(algorithm, key, options, text)
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

// sign is for handlers: they run when a fuzz target does, which forbids to call the
// test's methods.
func sign(key signingKey, typ string, payload any) (string, error) {
	text, err := json.Marshal(payload)
	if err != nil {
		return "", err
	}
	return signText(jose.ES256, key.private, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("kid", key.id), text)
}

func signText(algorithm jose.SignatureAlgorithm, key any, options *jose.SignerOptions, text []byte) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(text)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
