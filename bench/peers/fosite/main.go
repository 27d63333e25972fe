// Command fosite is an authorization server on ory/fosite with its store in memory,
// for comparison. Access tokens are JWTs by ES256, client secrets are generated and
// so hashed once, and whoever comes to the authorization endpoint is signed in.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v3"
	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/openid"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/jwt"
)

const kid = "key"

// hasher is for secrets of 256 random bits.
type hasher struct{}

func (hasher) Hash(_ context.Context, data []byte) ([]byte, error) {
	sum := sha256.Sum256(data)
	return sum[:], nil
}

func (h hasher) Compare(ctx context.Context, hash, data []byte) error {
	sum, err := h.Hash(ctx, data)
	if err == nil && subtle.ConstantTimeCompare(sum, hash) != 1 {
		err = errors.New("wrong secret")
	}
	return err
}

// session has what both JWT access tokens and ID tokens want.
type session struct {
	*openid.DefaultSession
	JWTClaims *jwt.JWTClaims
	JWTHeader *jwt.Headers
}

func (s *session) GetJWTClaims() jwt.JWTClaimsContainer { return s.JWTClaims }
func (s *session) GetJWTHeader() *jwt.Headers           { return s.JWTHeader }
func (s *session) Clone() fosite.Session {
	return &session{s.DefaultSession.Clone().(*openid.DefaultSession), s.JWTClaims, s.JWTHeader}
}

// store guards refresh tokens by one lock. That of fosite writes some of them under
// another lock than it reads them under, and ends the process when the two meet.
type store struct {
	*storage.MemoryStore
	mu sync.Mutex
}

func (s *store) CreateRefreshTokenSession(ctx context.Context, signature, access string, request fosite.Requester) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.MemoryStore.CreateRefreshTokenSession(ctx, signature, access, request)
}

func (s *store) GetRefreshTokenSession(ctx context.Context, signature string, session fosite.Session) (fosite.Requester, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.MemoryStore.GetRefreshTokenSession(ctx, signature, session)
}

func (s *store) DeleteRefreshTokenSession(ctx context.Context, signature string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.MemoryStore.DeleteRefreshTokenSession(ctx, signature)
}

func (s *store) RotateRefreshToken(ctx context.Context, id, signature string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.MemoryStore.RotateRefreshToken(ctx, id, signature)
}

type server struct {
	provider fosite.OAuth2Provider
	issuer   string
}

func (s *server) session(subject string) *session {
	header := &jwt.Headers{Extra: map[string]any{"kid": kid}}
	return &session{
		&openid.DefaultSession{
			Claims:  &jwt.IDTokenClaims{Issuer: s.issuer, Subject: subject, AuthTime: time.Now(), RequestedAt: time.Now()},
			Headers: header, Subject: subject,
		},
		&jwt.JWTClaims{Issuer: s.issuer, Subject: subject, Audience: []string{"https://api.example.com"}}, header,
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:9001", "where to serve")
	redirect := flag.String("redirect", "http://localhost/callback", "the client's redirect URI")
	secret := flag.String("secret", "", "the client's secret")
	flag.Parse()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	config := &fosite.Config{
		AccessTokenLifespan: 10 * time.Minute, GlobalSecret: []byte("0123456789abcdef0123456789abcdef"),
		ClientSecretsHasher: hasher{}, AccessTokenIssuer: "http://" + *listen, IDTokenIssuer: "http://" + *listen,
	}
	keyGetter := func(context.Context) (any, error) { return key, nil }
	strategy := &compose.CommonStrategy{
		CoreStrategy:               compose.NewOAuth2JWTStrategy(keyGetter, compose.NewOAuth2HMACStrategy(config), config),
		OpenIDConnectTokenStrategy: compose.NewOpenIDConnectStrategy(keyGetter, config),
		Signer:                     &jwt.DefaultSigner{GetPrivateKey: keyGetter},
	}
	store := &store{MemoryStore: storage.NewMemoryStore()}
	hash, _ := hasher{}.Hash(context.Background(), []byte(*secret))
	store.Clients["web"] = &fosite.DefaultClient{
		ID: "web", Secret: hash, RedirectURIs: []string{*redirect}, ResponseTypes: []string{"code"},
		GrantTypes: []string{"client_credentials", "authorization_code", "refresh_token"}, Scopes: []string{"openid", "offline", "orders:read"},
	}
	s := &server{issuer: "http://" + *listen, provider: compose.Compose(config, store, strategy,
		compose.OAuth2AuthorizeExplicitFactory, compose.OAuth2ClientCredentialsGrantFactory, compose.OAuth2RefreshTokenGrantFactory,
		compose.OpenIDConnectExplicitFactory, compose.OpenIDConnectRefreshFactory, compose.OAuth2TokenIntrospectionFactory, compose.OAuth2PKCEFactory)}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: kid, Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/token", s.token)
	http.HandleFunc("/introspect", s.introspect)
	http.HandleFunc("/authorize", s.authorize)
	http.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { w.Write(keys) })
	log.Fatal(http.ListenAndServe(*listen, nil))
}

func (s *server) token(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	request, err := s.provider.NewAccessRequest(ctx, r, s.session("web"))
	if err != nil {
		s.provider.WriteAccessError(ctx, w, request, err)
		return
	}
	if request.GetGrantTypes().ExactOne("client_credentials") {
		for _, scope := range request.GetRequestedScopes() {
			request.GrantScope(scope)
		}
	}
	response, err := s.provider.NewAccessResponse(ctx, request)
	if err != nil {
		s.provider.WriteAccessError(ctx, w, request, err)
		return
	}
	s.provider.WriteAccessResponse(ctx, w, request, response)
}

func (s *server) introspect(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	response, err := s.provider.NewIntrospectionRequest(ctx, r, s.session(""))
	if err != nil {
		s.provider.WriteIntrospectionError(ctx, w, err)
		return
	}
	s.provider.WriteIntrospectionResponse(ctx, w, response)
}

func (s *server) authorize(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	request, err := s.provider.NewAuthorizeRequest(ctx, r)
	if err != nil {
		s.provider.WriteAuthorizeError(ctx, w, request, err)
		return
	}
	for scope := range strings.FieldsSeq(r.FormValue("scope")) {
		request.GrantScope(scope)
	}
	response, err := s.provider.NewAuthorizeResponse(ctx, request, s.session("alice"))
	if err != nil {
		s.provider.WriteAuthorizeError(ctx, w, request, err)
		return
	}
	s.provider.WriteAuthorizeResponse(ctx, w, request, response)
}
