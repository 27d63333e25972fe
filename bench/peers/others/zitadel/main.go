// Command zitadel is the example of zitadel/oidc with its store in memory, for
// comparison. Its keys are ES256 instead of RS256, its access tokens JWTs instead of
// opaque, its log goes nowhere, and whoever comes to its page is signed in.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"flag"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	clientID = "web"
	// the example's client for client_credentials
	serviceID, serviceSecret = "sid1", "verysecret"
)

type key struct{ private *ecdsa.PrivateKey }

func (key) ID() string                                  { return "key" }
func (key) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k key) Key() any                                  { return k.private }

type publicKey struct{ key }

func (publicKey) Algorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                         { return &k.private.PublicKey }

// jwtClient gets JWTs.
type jwtClient struct{ op.Client }

func (jwtClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

type store struct {
	*storage.Storage
	key    key
	secret string
}

func (s store) SigningKey(context.Context) (op.SigningKey, error) { return s.key, nil }
func (s store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}
func (s store) KeySet(context.Context) ([]op.Key, error) { return []op.Key{publicKey{s.key}}, nil }

func (s store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	client, err := s.Storage.GetClientByClientID(ctx, id)
	return jwtClient{client}, err
}

func (s store) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	if id != clientID || secret != s.secret {
		return nil, errors.New("wrong secret")
	}
	client, err := s.Storage.ClientCredentials(ctx, serviceID, serviceSecret)
	return jwtClient{client}, err
}

func (s store) ClientCredentialsTokenRequest(ctx context.Context, _ string, scopes []string) (op.TokenRequest, error) {
	return s.Storage.ClientCredentialsTokenRequest(ctx, serviceID, scopes)
}

func main() {
	listen := flag.String("listen", "127.0.0.1:9002", "where to serve")
	redirect := flag.String("redirect", "http://localhost/callback", "the client's redirect URI")
	secret := flag.String("secret", "", "the client's secret")
	flag.Parse()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	issuer := "http://" + strings.Replace(*listen, "127.0.0.1", "localhost", 1) + "/"
	storage.RegisterClients(storage.WebClient(clientID, *secret, *redirect))
	s := store{storage.NewStorage(storage.NewUserStore(issuer)), key{private}, *secret}
	router := exampleop.SetupServer(issuer, s, slog.New(slog.DiscardHandler), false)
	http.HandleFunc("GET /login/username", func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Query().Get("authRequestID")
		if err := s.CheckUsernamePassword("test-user@localhost", "verysecure", id); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		http.Redirect(w, r, "/auth/callback?id="+url.QueryEscape(id), http.StatusFound)
	})
	http.Handle("/", router)
	log.Fatal(http.ListenAndServe(*listen, nil))
}
