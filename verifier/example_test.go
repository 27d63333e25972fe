package verifier_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/verifier"
	"authserver/verifier/verifiertest"
)

func contextWithTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// A few lines protect an API; docs/resource-servers.md and the package's comment
// have them from here.
func Example() {
	ctx := context.Background()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "an order of", verifier.FromContext(r.Context()).Subject)
	})
	mux := http.NewServeMux()

	v, err := verifier.New(ctx, verifier.Config{Issuer: "https://auth.example.com", Audience: "https://api.example.com"})
	if err != nil {
		log.Fatal(err)
	}
	mux.Handle("POST /orders", v.Require("orders:write")(handler))            // verifier.FromContext(ctx) has the claims
	v.ServeMetadata(mux, verifier.Metadata{Scopes: []string{"orders:write"}}) // RFC 9728: clients find the issuer
	log.Fatal(http.ListenAndServe(":8081", mux))
}

// What the documentation shows is compiled: each of its lines is one of Example.
func TestSnippetsAreTheExample(t *testing.T) {
	example := linesBetween(t, "example_test.go", "func Example() {", "\n}\n")
	for _, snippet := range []struct{ file, from, to string }{
		{"../docs/resource-servers.md", "```go\n", "```"},
		{"verifier.go", "per request.\n//\n", "\n//\n"},
	} {
		lines := linesBetween(t, snippet.file, snippet.from, snippet.to)
		if len(lines) < 2 {
			t.Errorf("the snippet of %s has %d lines", snippet.file, len(lines))
		}
		for _, line := range lines {
			if !slices.Contains(example, line) {
				t.Errorf("%s shows what Example does not have: %s", snippet.file, line)
			}
		}
	}
}

// linesBetween returns the lines of code between two texts, without indentation,
// comments and empty ones.
func linesBetween(t *testing.T, file, from, to string) []string {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), from)
	inside, _, ends := strings.Cut(after, to)
	if !found || !ends {
		t.Fatalf("%s has nothing between %q and %q", file, from, to)
	}
	var lines []string
	for line := range strings.Lines(inside) {
		line, _, _ = strings.Cut(strings.TrimPrefix(line, "//\t"), " // ")
		line, _, _ = strings.Cut(line, "  //")
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// A route that moves money asks for more: a role, a recent sign-in with a second
// factor, and no token while nobody knows what was revoked in the last second.
func ExampleVerifier_Protect() {
	v, err := verifier.New(context.Background(), verifier.Config{
		Issuer: "http://localhost:8080", Audience: "https://api.example.com", Logger: slog.New(slog.DiscardHandler),
		WhenStale: verifier.AcceptUntilExpiry, // on the other routes
	})
	if err != nil {
		log.Fatal(err)
	}
	pay := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	mux := http.NewServeMux()
	mux.Handle("POST /payments", v.Protect(verifier.Requirement{
		Scopes: []string{"payments"}, Roles: []string{"cashier"},
		ACR: []string{"urn:example:mfa"}, MaxAge: 5 * time.Minute,
		WhenStale: verifier.Reject,
	})(pay))
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("POST", "/payments", nil))
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output: 401 Bearer scope="payments"
}

// Metrics count what came of each token, by a reason that does not change; Health is for
// readiness. The HTTP client is the API's own, here with a certificate authority of its
// company.
func ExampleConfig() {
	t := new(testing.T) // the test's own
	issuer := verifiertest.New(t)
	defer issuer.Close()
	roots := x509.NewCertPool() // roots.AppendCertsFromPEM(…)
	counted := make(chan string, 2)
	v, err := verifier.New(context.Background(), verifier.Config{
		Issuer: issuer.URL, Audience: "https://api.example.com", WhenStale: verifier.AcceptUntilExpiry, Logger: slog.New(slog.DiscardHandler),
		HTTPClient: &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}},
		Observe:    func(o verifier.Observation) { counted <- fmt.Sprintf("reason %q, cached %t", o.Reason, o.Cached) },
	})
	if err != nil {
		log.Fatal(err)
	}
	v.Verify(context.Background(), issuer.Token(verifiertest.Claims{"aud": "https://api.example.com"}))
	v.Verify(context.Background(), issuer.Token(verifiertest.Claims{"aud": "https://other.example.com"}))
	fmt.Println(<-counted)
	fmt.Println(<-counted)
	fmt.Println(v.Health().CachedTokens, "token is remembered")
	// Output:
	// reason "", cached false
	// reason "wrong_audience", cached false
	// 1 token is remembered
}

// A user who signed in too long ago is sent to sign in again (RFC 9470): the challenge
// says what the client is to ask the issuer for.
func ExampleRequirement() {
	t := new(testing.T) // the test's own
	issuer := verifiertest.New(t)
	defer issuer.Close()
	v, err := verifier.New(context.Background(), verifier.Config{Issuer: issuer.URL, Audience: "https://api.example.com", WhenStale: verifier.AcceptUntilExpiry, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	fresh := v.Protect(verifier.Requirement{ACR: []string{"urn:example:mfa"}, MaxAge: 5 * time.Minute})
	r := httptest.NewRequest("POST", "/payments", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token(verifiertest.Claims{
		"aud": "https://api.example.com", "acr": "urn:example:mfa", "auth_time": time.Now().Add(-time.Hour).Unix()}))
	w := httptest.NewRecorder()
	fresh(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})).ServeHTTP(w, r)
	fmt.Println(w.Code)
	for part := range strings.SplitSeq(w.Header().Get("WWW-Authenticate"), ", ") {
		fmt.Println(part)
	}
	// Output:
	// 401
	// Bearer error="insufficient_user_authentication"
	// error_description="the user signed in too long ago for this"
	// acr_values="urn:example:mfa"
	// max_age=300
}

// Clients that know nothing but the API find the issuer by its metadata (RFC 9728).
func ExampleVerifier_ServeMetadata() {
	v, err := verifier.New(context.Background(), verifier.Config{Issuer: "http://localhost:8080", Audience: "https://api.example.com", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	v.ServeMetadata(mux, verifier.Metadata{Scopes: []string{"orders:read"}})
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/.well-known/oauth-protected-resource", nil))
	fmt.Println(w.Body)
	// Output: {"resource":"https://api.example.com","authorization_servers":["http://localhost:8080"],"scopes_supported":["orders:read"],"bearer_methods_supported":["header"]}
}

// Handlers that are not net/http's verify by themselves.
func ExampleVerifier_Verify() {
	t := new(testing.T) // the test's own
	issuer := verifiertest.New(t)
	defer issuer.Close()
	v, err := verifier.New(context.Background(), verifier.Config{Issuer: issuer.URL, Audience: "https://api.example.com", WhenStale: verifier.AcceptUntilExpiry, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	token := issuer.Token(verifiertest.Claims{"aud": "https://api.example.com", "sub": "alice", "scope": "orders:read"})
	claims, err := v.Verify(context.Background(), token)
	fmt.Println(claims.Subject, claims.HasScope("orders:read"), err)
	_, err = v.Verify(context.Background(), token[:len(token)-4]+"AAAA")
	fmt.Println(err)
	// Output:
	// alice true <nil>
	// invalid_token: the signature is not valid
}
