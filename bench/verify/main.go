// Command verify measures what one verification of an access token costs a resource
// server: with package verifier, first and second look, beside the libraries that
// people would take instead, and beside the bare check of the signature. All of them
// verify the same token, with issuer, audience and times, by keys of one HTTP server.
// What is counted is the CPU time of the process, so that others on the machine
// disturb little; the runs are interleaved, and the table has the least of each, which
// they disturb least, and the median of the ratio to the bare check in the same round.
//
//	cd bench && go run ./verify
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"authserver/verifier"

	"github.com/go-jose/go-jose/v4"
)

const audience = "https://api.example.com"

func main() {
	rounds := flag.Int("rounds", 21, "interleaved runs of each")
	each := flag.Duration("for", 100*time.Millisecond, "CPU time of one run")
	flag.Parse()
	fmt.Printf("%s, %s/%s, %d cores, %d interleaved runs of %s of CPU\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), *rounds, *each)
	fmt.Println("| algorithm | what | ns of CPU, least | times the bare check | median | bytes | allocations |")
	fmt.Println("|---|---|---|---|---|---|---|")
	for _, algorithm := range []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA, jose.RS256} {
		if err := measure(algorithm, *rounds, *each); err != nil {
			log.Fatalf("%s: %v", algorithm, err)
		}
	}
}

// contender verifies a token the way one library does it.
type contender struct {
	name   string
	verify func(token string) error
}

func measure(algorithm jose.SignatureAlgorithm, rounds int, each time.Duration) error {
	private, err := newKey(algorithm)
	if err != nil {
		return err
	}
	issuer := serve(algorithm, private)
	defer issuer.Close()
	token, err := sign(algorithm, private, issuer.URL)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	bare, err := bareCheck(private, token)
	if err != nil {
		return err
	}
	contenders := []contender{{"bare check of the signature", bare}}
	for _, cache := range []int{-1, 1 << 20} {
		v, err := verifier.New(ctx, verifier.Config{Issuer: issuer.URL, Audience: audience, CacheBytes: cache, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		name := "verifier, first look"
		if cache > 0 {
			name = "verifier, second look"
		}
		contenders = append(contenders, contender{name, func(token string) error { _, err := v.Verify(ctx, token); return err }})
	}
	others, err := peers(ctx, issuer.URL, algorithm)
	if err != nil {
		return err
	}
	contenders = append(contenders, others...)
	for _, c := range contenders { // each does verify
		if err := c.verify(token); err != nil {
			return fmt.Errorf("%s refuses the token: %w", c.name, err)
		}
		if c.verify(token[:len(token)-8]+"AAAAAAAA") == nil {
			return fmt.Errorf("%s accepts anything", c.name)
		}
	}
	results := make([][]result, len(contenders))
	for range rounds {
		for i, c := range contenders {
			r, err := run(c, token, each)
			if err != nil {
				return err
			}
			r.ratio = 1
			if i > 0 {
				r.ratio = r.ns / results[0][len(results[i])].ns
			}
			results[i] = append(results[i], r)
		}
	}
	sorted := func(results []result, of func(result) float64) []float64 {
		var all []float64
		for _, r := range results {
			all = append(all, of(r))
		}
		slices.Sort(all)
		return all
	}
	ns := func(r result) float64 { return r.ns }
	least := sorted(results[0], ns)[0]
	for i, c := range contenders {
		median := func(of func(result) float64) float64 { return sorted(results[i], of)[rounds/2] }
		fastest := sorted(results[i], ns)[0]
		fmt.Printf("| %s | %s | %.0f | %.3f | %.3f | %.0f | %.0f |\n", algorithm, c.name, fastest, fastest/least,
			median(func(r result) float64 { return r.ratio }), median(func(r result) float64 { return r.bytes }), median(func(r result) float64 { return r.allocations }))
	}
	return nil
}

// result is per verification.
type result struct{ ns, ratio, bytes, allocations float64 }

// run verifies until so much CPU time is used.
func run(c contender, token string, each time.Duration) (result, error) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := cpuTime()
	n := 0
	for batch := 8; cpuTime()-began < each; batch = min(2*batch, 4096) {
		for range batch {
			if err := c.verify(token); err != nil {
				return result{}, fmt.Errorf("%s: %w", c.name, err)
			}
		}
		n += batch
	}
	used := cpuTime() - began
	runtime.ReadMemStats(&after)
	per := func(x float64) float64 { return x / float64(n) }
	return result{ns: per(float64(used)), bytes: per(float64(after.TotalAlloc - before.TotalAlloc)), allocations: per(float64(after.Mallocs - before.Mallocs))}, nil
}

// cpuTime is what this process has used, in all its threads.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func newKey(algorithm jose.SignatureAlgorithm) (crypto.Signer, error) {
	switch algorithm {
	case jose.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	default:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
}

// serve publishes metadata and the key.
func serve(algorithm jose.SignatureAlgorithm, private crypto.Signer) *httptest.Server {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	answer := func(value any) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "max-age=3600")
			json.NewEncoder(w).Encode(value)
		}
	}
	metadata := answer(map[string]string{"issuer": server.URL, "jwks_uri": server.URL + "/jwks.json"})
	mux.HandleFunc("/.well-known/oauth-authorization-server", metadata)
	mux.HandleFunc("/.well-known/openid-configuration", metadata)
	mux.HandleFunc("/jwks.json", answer(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: private.Public(), KeyID: "1", Algorithm: string(algorithm), Use: "sig"},
	}}))
	return server
}

// sign makes a token as authserver's own are.
func sign(algorithm jose.SignatureAlgorithm, private crypto.Signer, issuer string) (string, error) {
	now := time.Now()
	payload, err := json.Marshal(map[string]any{
		"iss": issuer, "sub": "user-Zm9vYmFyYmF6cXV4MTIzNA", "aud": audience, "client_id": "web", "scope": "orders:read orders:write profile",
		"jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "grant_id": rand.Text(), "auth_time": now.Unix(),
		"amr": []string{"pwd", "otp"}, "sid": rand.Text(), "preferred_username": "alice", "roles": []string{"admin", "clerk"},
	})
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: private}, (&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", "1"))
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// bareCheck hashes the token's signing input and checks the signature, with all
// else done before: nobody can verify with less.
func bareCheck(private crypto.Signer, good string) (func(string) error, error) {
	valid := func(input, signature []byte) bool {
		switch public := private.Public().(type) {
		case *ecdsa.PublicKey:
			digest := sha256.Sum256(input)
			return ecdsa.VerifyASN1(public, digest[:], signature)
		case ed25519.PublicKey:
			return ed25519.Verify(public, input, signature)
		case *rsa.PublicKey:
			digest := sha256.Sum256(input)
			return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
		}
		return false
	}
	end := strings.LastIndexByte(good, '.')
	input := []byte(good[:end])
	signature, err := base64.RawURLEncoding.DecodeString(good[end+1:])
	if err != nil {
		return nil, err
	}
	if _, ok := private.(*ecdsa.PrivateKey); ok {
		signature = asn1(signature)
	}
	return func(token string) error {
		if token != good || !valid(input, signature) {
			return errors.New("not valid")
		}
		return nil
	}, nil
}

// asn1 is a raw ECDSA signature of P-256 in DER.
func asn1(raw []byte) []byte {
	integer := func(b []byte) []byte {
		for len(b) > 1 && b[0] == 0 {
			b = b[1:]
		}
		if b[0]&0x80 != 0 {
			b = append([]byte{0}, b...)
		}
		return append([]byte{2, byte(len(b))}, b...)
	}
	body := append(integer(raw[:32]), integer(raw[32:])...)
	return append([]byte{0x30, byte(len(body))}, body...)
}
