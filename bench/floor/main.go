// Command floor is what an authorization server cannot be faster than: net/http,
// the signatures and the one store script of each operation, and nothing else. It
// serves the paths of an authorization server with answers that mean nothing.
//
//	floor -listen 127.0.0.1:9000 [-redis 127.0.0.1:6379]
package main

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"io"
	"log"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"github.com/redis/go-redis/v9"
	"golang.org/x/crypto/argon2"
)

// swap is as much as a refresh does in Redis: a record of 300 bytes is read,
// compared and written with an expiry.
var swap = redis.NewScript(`
local present = redis.call('GET', KEYS[1])
if present and #present ~= #ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', 3600000)
return 1`)

// exchange is as much as the exchange of a code does in Redis: two records are made if
// they are not there, the grant goes to an index, and five records are read.
var exchange = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) + redis.call('EXISTS', KEYS[2]) > 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', 3600000)
redis.call('SET', KEYS[2], ARGV[2], 'PX', 3600000)
redis.call('ZADD', KEYS[3], 'GT', 3600000, KEYS[2])
redis.call('PEXPIRE', KEYS[3], 3600000)
return redis.call('MGET', KEYS[2], KEYS[4], KEYS[5], KEYS[6], KEYS[7])`)

type floor struct {
	ecdsa   *ecdsa.PrivateKey
	ed25519 ed25519.PrivateKey
	redis   *redis.Client
	input   []byte // as long as a token's signing input
	payload string // as long as a token without its signature
	codes   cipher.AEAD
	checks  struct{ ecdsa, ed25519 []byte }
	hashing sync.Mutex
}

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "where to serve")
	address := flag.String("redis", "", "host:port of a Redis for all but client credentials")
	flag.Parse()
	f := &floor{input: make([]byte, 450), payload: base64.RawURLEncoding.EncodeToString(make([]byte, 340))}
	var err error
	if f.ecdsa, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		log.Fatal(err)
	}
	if _, f.ed25519, err = ed25519.GenerateKey(rand.Reader); err != nil {
		log.Fatal(err)
	}
	f.checks.ecdsa, f.checks.ed25519 = f.es256(), f.eddsa()
	block, err := aes.NewCipher(f.input[:32])
	if err != nil {
		log.Fatal(err)
	}
	if f.codes, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		log.Fatal(err)
	}
	if *address != "" {
		f.redis = redis.NewClient(&redis.Options{Addr: *address, DisableIdentity: true, Protocol: 2})
	}
	http.HandleFunc("GET /keys", f.fixed)
	http.HandleFunc("GET /metadata", f.fixed)
	http.HandleFunc("POST /token", f.token)
	http.HandleFunc("GET /authorize", f.authorize)
	http.HandleFunc("POST /refresh", f.refresh)
	http.HandleFunc("POST /introspect", f.introspect)
	http.HandleFunc("POST /signin", f.signIn)
	log.Fatal(http.ListenAndServe(*listen, nil))
}

// es256 signs as ours does, with the nonces of RFC 6979.
func (f *floor) es256() []byte {
	digest := sha256.Sum256(f.input)
	signature, err := f.ecdsa.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		log.Fatal(err)
	}
	return signature
}

func (f *floor) eddsa() []byte { return ed25519.Sign(f.ed25519, f.input) }

// fixed answers 1 KiB of JSON, about what a JWKS or the metadata is.
func (f *floor) fixed(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Access-Control-Allow-Origin", "*")
	if r.URL.Path == "/keys" {
		header.Set("Cache-Control", "public, max-age=300, must-revalidate")
		header.Set("ETag", `"0123456789abcdef0123456789abcdef"`)
	} else {
		header.Set("Cache-Control", "public, max-age=300")
	}
	send(w, document)
}

var document = []byte(`{"keys":"` + string(make1K()) + `"}`)

func make1K() []byte {
	b := make([]byte, 1000)
	for i := range b {
		b[i] = 'x'
	}
	return b
}

// token is one ES256 signature; where it is for a code, two and an Ed25519 one, after one
// script.
func (f *floor) token(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("code") == "" {
		answer(w, f.response(f.es256(), nil, nil))
		return
	}
	sealed, err := base64.RawURLEncoding.DecodeString(form.Get("code"))
	if err == nil {
		_, err = f.codes.Open(nil, nil, sealed, nil)
	}
	if err == nil {
		id := "floor:" + form.Get("code")[:32]
		err = exchange.Run(r.Context(), f.redis, []string{id + "s", id + "g", "floor:index", "floor:1", "floor:2", "floor:3", "floor:4"}, f.payload[:40], f.payload[:190]).Err()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, f.response(f.es256(), f.eddsa(), f.es256()))
}

// authorize is one question to Redis and a code of 150 bytes, sealed.
func (f *floor) authorize(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if err := f.redis.MGet(r.Context(), "floor:1", "floor:2", "floor:3", "floor:4").Err(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	code := base64.RawURLEncoding.EncodeToString(f.codes.Seal(nil, nil, f.input[:150], nil))
	w.Header().Set("Location", query.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {query.Get("state")}}.Encode())
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusSeeOther)
}

// refresh is one Ed25519 check, one script, one ES256 and one Ed25519 signature.
func (f *floor) refresh(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if !ed25519.Verify(f.ed25519.Public().(ed25519.PublicKey), f.input, f.checks.ed25519) {
		http.Error(w, "signature", http.StatusInternalServerError)
		return
	}
	key := sha256.Sum256(body)
	if err := swap.Run(r.Context(), f.redis, []string{"floor:" + strconv.Itoa(int(key[0]))}, f.payload[:300]).Err(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, f.response(f.es256(), f.eddsa(), nil))
}

// signIn is a password's hash with the parameters of ours, one at a time as there on two
// cores, one question, a script and the signatures of a refresh.
func (f *floor) signIn(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.hashing.Lock()
	key := argon2.IDKey(body, f.input[:16], 2, 19*1024, 1, 32)
	f.hashing.Unlock()
	err := f.redis.MGet(r.Context(), "floor:1", "floor:2").Err()
	if err == nil {
		err = swap.Run(r.Context(), f.redis, []string{"floor:" + strconv.Itoa(int(key[0]))}, f.payload[:300]).Err()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, f.response(f.es256(), f.eddsa(), nil))
}

// introspect is one ES256 check and one question to Redis.
func (f *floor) introspect(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	digest := sha256.Sum256(f.input)
	if !ecdsa.VerifyASN1(&f.ecdsa.PublicKey, digest[:], f.checks.ecdsa) {
		http.Error(w, "signature", http.StatusInternalServerError)
		return
	}
	if err := f.redis.MGet(r.Context(), "floor:1", "floor:2").Err(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, []byte(`{"active":true,"client_id":"web","padding":"`+f.payload[:300]+`"}`))
}

func (f *floor) response(access, refresh, id []byte) []byte {
	more := ""
	if refresh != nil {
		more = `,"refresh_token":"` + f.payload + "." + base64.RawURLEncoding.EncodeToString(refresh) + `"`
	}
	if id != nil {
		more += `,"id_token":"` + f.payload + "." + base64.RawURLEncoding.EncodeToString(id) + `"`
	}
	return []byte(`{"access_token":"` + f.payload + "." + base64.RawURLEncoding.EncodeToString(access) + `","token_type":"Bearer","expires_in":600` + more + `}`)
}

// answer sends the headers that ours sends.
func answer(w http.ResponseWriter, body []byte) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Add("Vary", "Origin")
	header.Set("Cache-Control", "no-store")
	send(w, body)
}

func send(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}
