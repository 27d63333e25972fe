package verifiertest_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"authserver/verifier"
	"authserver/verifier/verifiertest"
)

// An API's own test: it serves whom it should, nobody with a wrong token, and nobody
// whose token was revoked.
func Example() {
	t := new(testing.T) // the test's own
	issuer := verifiertest.New(t)
	defer issuer.Close()
	v, err := verifier.New(context.Background(), verifier.Config{Issuer: issuer.URL, Audience: "https://api.example.com", WhenStale: verifier.AcceptUntilExpiry, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	api := v.Require("orders:read")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	ask := func(token string) int {
		r := httptest.NewRequest("GET", "/orders", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		return w.Code
	}
	good := issuer.Token(verifiertest.Claims{"aud": "https://api.example.com", "scope": "orders:read", "jti": "1"})
	fmt.Println("a good token:", ask(good))
	for what, token := range issuer.WrongTokens("https://api.example.com") {
		if status := ask(token); status == http.StatusOK {
			fmt.Println("accepted:", what)
		}
	}
	issuer.RevokeToken("1")
	for deadline := time.Now().Add(time.Minute); ask(good) != http.StatusUnauthorized && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // the revocation is on its way
	}
	fmt.Println("after it was revoked:", ask(good))
	// Output:
	// a good token: 200
	// after it was revoked: 401
}
