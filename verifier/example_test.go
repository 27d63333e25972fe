package verifier_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"testing"
	"time"

	"authserver/verifier"
)

func contextWithTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

func Example() {
	v, err := verifier.New(context.Background(), verifier.Config{Issuer: "https://auth.example.com", Audience: "https://api.example.com"})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /orders", v.Require("orders:read")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "orders of", verifier.FromContext(r.Context()).Subject)
	})))
	_ = mux // http.ListenAndServe(":8081", mux)
	// Output:
}
