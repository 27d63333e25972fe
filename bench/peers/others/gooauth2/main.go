// Command gooauth2 is a token endpoint of go-oauth2/oauth2 with its store in memory
// or with Redis, for comparison. Access tokens are JWTs by ES256.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"log"
	"net/http"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-oauth2/oauth2/v4"
	"github.com/go-oauth2/oauth2/v4/generates"
	"github.com/go-oauth2/oauth2/v4/manage"
	"github.com/go-oauth2/oauth2/v4/models"
	"github.com/go-oauth2/oauth2/v4/server"
	"github.com/go-oauth2/oauth2/v4/store"
	"github.com/golang-jwt/jwt/v5"
	"github.com/redis/go-redis/v9"
)

const kid = "key"

func main() {
	listen := flag.String("listen", "127.0.0.1:9003", "where to serve")
	redirect := flag.String("redirect", "http://localhost/callback", "the client's redirect URI")
	secret := flag.String("secret", "", "the client's secret")
	address := flag.String("redis", "", "host:port of a Redis; without it tokens are kept in memory")
	flag.Parse()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		log.Fatal(err)
	}
	manager := manage.NewDefaultManager()
	if *address != "" {
		manager.MapTokenStorage(redisStore{redis.NewClient(&redis.Options{Addr: *address})})
	} else {
		manager.MustTokenStorage(store.NewMemoryTokenStore())
	}
	manager.MapAccessGenerate(generates.NewJWTAccessGenerate(kid, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), jwt.SigningMethodES256))
	clients := store.NewClientStore()
	clients.Set("web", &models.Client{ID: "web", Secret: *secret, Domain: *redirect})
	manager.MapClientStorage(clients)
	s := server.NewDefaultServer(manager)
	s.SetAllowedGrantType(oauth2.ClientCredentials, oauth2.PasswordCredentials, oauth2.Refreshing)
	s.SetClientInfoHandler(server.ClientBasicHandler)
	s.SetPasswordAuthorizationHandler(func(_ context.Context, _, username, _ string) (string, error) { return username, nil })
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: kid, Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		if err := s.HandleTokenRequest(w, r); err != nil {
			log.Print(err)
		}
	})
	http.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { w.Write(keys) })
	log.Fatal(http.ListenAndServe(*listen, nil))
}
