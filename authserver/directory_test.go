package authserver_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/store"
	"authserver/store/boltstore"

	"golang.org/x/crypto/argon2"
)

// Clients and users in the store are as good as configured ones.
func TestStoredClientAndUser(t *testing.T) {
	s, _ := instances(t, nil)
	putShop(t, s, false)
	hash, err := authserver.HashPassword("builder")
	if err != nil {
		t.Fatal(err)
	}
	if err := authserver.PutUser(t.Context(), s.Store, "sub-bob", "Bob", hash, false); err != nil {
		t.Fatal(err)
	}
	a := post(t, s.Issuer+"/token", shop, form("grant_type", "password", "username", " bOB", "password", "builder"))
	if a.status != http.StatusOK || claimsOf(t, a.text("access_token"))["sub"] != "sub-bob" {
		t.Fatal(a.raw)
	}
	refused(t, "wrong password", post(t, s.Issuer+"/token", shop, form("grant_type", "password", "username", "bob", "password", "wrong")), 400, "invalid_grant")
	refused(t, "wrong secret", post(t, s.Issuer+"/token", "shop:wrong", form("grant_type", "client_credentials")), 401, "invalid_client")
	// ATTACKS OP-05: ids that are none are unknown, and ask the store nothing.
	for _, id := range []string{"\u00e9", strings.Repeat("x", 257), "shop/../shop", "{shop}", "*", strings.Repeat("x", 60_000)} {
		refused(t, id[:min(len(id), 20)], post(t, s.Issuer+"/token", "", form("grant_type", "client_credentials", "client_id", id, "client_secret", "x")), 401, "invalid_client")
	}
	for origin, allowed := range map[string]bool{"https://shop.example.com": true, "https://web.example.com": true,
		"https://evil.example.com": false, "https://shop.example.com/": false, "null": false, "*": false} {
		request := httptest.NewRequest(http.MethodOptions, s.Issuer+"/token", nil)
		request.RequestURI = ""
		request.Header.Set("Origin", origin)
		request.Header.Set("Access-Control-Request-Method", "POST")
		a := send(t, request)
		if got := a.header.Get("Access-Control-Allow-Origin"); (got == origin) != allowed {
			t.Errorf("origin %s: Access-Control-Allow-Origin is %q", origin, got)
		}
	}
}

// A Client is stored as JSON under the names that the configuration has for it.
func TestClientNames(t *testing.T) {
	fields := reflect.TypeFor[authserver.Client]()
	for i := range fields.NumField() {
		tag := fields.Field(i).Tag
		inJSON, _, _ := strings.Cut(tag.Get("json"), ",")
		secret := strings.HasPrefix(tag.Get("yaml"), "client_secret")
		if secret != (inJSON == "-") || !secret && inJSON != tag.Get("yaml") {
			t.Errorf("%s is %q in the configuration and %q in the store", fields.Field(i).Name, tag.Get("yaml"), inJSON)
		}
	}
}

// weakHash is an argon2id hash of a quarter of the cost of new ones.
func weakHash(password string) string {
	salt := []byte("0123456789abcdef")
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=19$m=9728,t=1,p=1$%s$%s", encode(salt), encode(argon2.IDKey([]byte(password), salt, 1, 9728, 1, 32)))
}

// A weak password hash is replaced at the next successful sign-in, in the store. A
// configuration that changes wins over it.
func TestPasswordUpgrade(t *testing.T) {
	weak := func(password string) func(*authserver.Config) {
		return func(c *authserver.Config) { c.Users[0].PasswordHash = weakHash(password) }
	}
	opened, err := boltstore.Open(t.TempDir() + "/store.db")
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	s, other := instances(t, func(c *authserver.Config) { weak("first")(c); c.Store = opened })
	try := func(handler http.Handler, password string) int {
		return ask(handler, "/token", form("client_id", authservertest.SPAID, "grant_type", "password", "username", "alice", "password", password)).status
	}
	stored := func() string {
		access := post(t, s.Issuer+"/token", web, form("grant_type", "password", "username", "alice", "password", "first"))
		sub := claimsOf(t, access.text("access_token"))["sub"].(string)
		records, err := opened.Get(t.Context(), "credentials/"+sub)
		if err != nil {
			t.Fatal(err)
		}
		return string(records[0].Value)
	}
	if try(other, "wrong") != 400 {
		t.Fatal("a wrong password was taken")
	}
	first := stored()
	if !strings.Contains(first, "m=19456,t=2,p=1") || strings.Contains(first, "m=9728") {
		t.Errorf("the hash was not upgraded: %s", first)
	}
	if again := stored(); again != first {
		t.Error("a hash that is strong was replaced")
	}
	if try(other, "first") != 200 || try(other, "wrong") != 400 {
		t.Error("the upgraded hash does not count on another instance")
	}
	_, changed := instances(t, func(c *authserver.Config) { weak("second")(c); c.Store = opened })
	if try(changed, "first") != 400 || try(changed, "second") != 200 {
		t.Error("the changed configuration does not win")
	}
}

// troubled is a store that does not answer while it is down.
type troubled struct {
	store.Store
	down  atomic.Bool
	asked atomic.Int64 // questions about clients
}

func (s *troubled) Get(ctx context.Context, keys ...string) ([]store.Record, error) {
	if strings.HasPrefix(keys[0], "client/") {
		s.asked.Add(1)
	}
	if s.down.Load() {
		return nil, context.DeadlineExceeded
	}
	return s.Store.Get(ctx, keys...)
}

// A busy stored client costs the store one question a second. When the store does
// not answer, known clients go on for a while, and others get a 503.
func TestDirectoryInStoreTrouble(t *testing.T) {
	opened, err := boltstore.Open(t.TempDir() + "/store.db")
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	trouble := &troubled{Store: opened}
	s, _ := instances(t, func(c *authserver.Config) { c.Store = trouble })
	s.Store = opened
	putShop(t, s, false)
	own := func(basic string) answer {
		return post(t, s.Issuer+"/token", basic, form("grant_type", "client_credentials"))
	}
	started := time.Now()
	for range 200 {
		if a := own(shop); a.status != http.StatusOK {
			t.Fatal(a.raw)
		}
	}
	if most := int64(time.Since(started)/time.Second) + 1; trouble.asked.Load() > most {
		t.Errorf("200 requests asked the store %d times, at most %d were due", trouble.asked.Load(), most)
	}
	trouble.down.Store(true)
	if a := own(shop); a.status != http.StatusOK {
		t.Errorf("a client known a moment ago: %d %s", a.status, a.raw)
	}
	a := own("other:secret")
	refused(t, "an unknown client in trouble", a, 503, "temporarily_unavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if a := own(service); a.status != http.StatusOK {
		t.Errorf("a configured client in trouble: %d %s", a.status, a.raw)
	}
}

// noSwap is a store that changes no client while it is set.
type noSwap struct {
	store.Store
	set atomic.Bool
}

func (s *noSwap) Swap(ctx context.Context, key string, version uint64, value []byte, expires time.Time) (store.Record, error) {
	if s.set.Load() && strings.HasPrefix(key, "client/") {
		return store.Record{}, errors.New("no space left on device")
	}
	return s.Store.Swap(ctx, key, version, value, expires)
}

// Of a client that could not be added as a whole nothing is left: nobody has its secret,
// and the operator repeats the command.
func TestClientHalfAdded(t *testing.T) {
	opened, err := boltstore.Open(t.TempDir() + "/store.db")
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	full := &noSwap{Store: opened}
	o := operate(t, func(c *authserver.Config) { c.Store = full })
	full.set.Store(true)
	half := map[string]any{"client_id": "half", "grant_types": []string{"client_credentials"}}
	if status, code := o.call(t, "/client/add", half, nil); status != 503 || code != "unavailable" {
		t.Fatalf("on a full disk: %d %s", status, code)
	}
	full.set.Store(false)
	if status, code := o.call(t, "/client/show", authserver.ClientRef{ClientID: "half"}, nil); status != 404 {
		t.Errorf("half a client is left: %d %s", status, code)
	}
	var added authserver.ClientSecretAnswer
	if status, code := o.call(t, "/client/add", half, &added); status != 200 || added.Client.Disabled || added.ClientSecret == "" {
		t.Errorf("once more: %d %s %+v", status, code, added)
	}
}
