// Command resource-example is a sample API that verifies access tokens offline, and
// two sample applications that sign people in and call it: one with a server of its
// own (web.go), one that lives in the browser (spa.js).
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"authserver/verifier"
)

func main() {
	listen := flag.String("listen", fromEnvironment("LISTEN", "localhost:8081"), "address to listen on, or $LISTEN")
	issuer := flag.String("issuer", fromEnvironment("ISSUER", "http://localhost:8080"), "issuer of the tokens, or $ISSUER")
	audience := flag.String("audience", fromEnvironment("AUDIENCE", "http://localhost:8081"), "identifier of this API, or $AUDIENCE")
	jwks := flag.String("jwks", os.Getenv("JWKS_URI"), "URL of the issuer's keys, or $JWKS_URI; found through its metadata when empty")
	origin := flag.String("origin", fromEnvironment("ORIGIN", "http://localhost:8081"), "where browsers reach the sample applications, or $ORIGIN")
	flag.Parse()
	sample := apps{issuer: *issuer, origin: *origin, webClient: fromEnvironment("WEB_CLIENT_ID", "demo-web"),
		webSecret: fromEnvironment("WEB_CLIENT_SECRET", "demo-secret"), spaClient: fromEnvironment("SPA_CLIENT_ID", "demo-spa")}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	v, err := verifier.New(ctx, verifier.Config{
		Issuer: *issuer, Audience: *audience, JWKSURI: *jwks, RevocationsURI: os.Getenv("REVOCATIONS_URI"),
		WhenStale: verifier.AcceptUntilExpiry, // the orders are not worth an outage
	})
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: *listen, Handler: withApps(newAPI(v, *issuer), sample), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.ListenAndServe() }()
	log.Printf("sample API %s on http://%s", *audience, *listen)
	select {
	case err := <-served:
		log.Fatalf("%v (choose another address with -listen)", err)
	case <-ctx.Done():
	}
	finish, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(finish); err != nil { // waits for the requests in flight
		log.Fatalf("shutting down: %v", err)
	}
}

func fromEnvironment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

const maxOrders = 100

type order struct {
	ID   int    `json:"id"`
	Item string `json:"item"`
	By   string `json:"by,omitempty"` // subject of the token it came with
}

// api is a list of orders in memory.
type api struct {
	mu     sync.Mutex
	orders []order
	last   int
}

func newAPI(v *verifier.Verifier, issuer string) http.Handler {
	a := &api{orders: []order{{1, "tea", ""}, {2, "biscuits", ""}}, last: 2}
	mux := http.NewServeMux()
	mux.Handle("GET /orders", v.Require("orders:read")(http.HandlerFunc(a.list)))
	mux.Handle("POST /orders", v.Require("orders:write")(http.HandlerFunc(a.add)))
	// Nothing can be deleted with a token that may have been revoked in the last second.
	mux.Handle("DELETE /orders/{id}", v.Protect(verifier.Requirement{Roles: []string{"admin"}, WhenStale: verifier.Reject})(http.HandlerFunc(a.remove)))
	mux.Handle("GET /verify", forwardAuth(v))
	v.ServeMetadata(mux, verifier.Metadata{Name: "Orders", Scopes: []string{"orders:read", "orders:write"}})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, help, r.Host, issuer, r.Host) })
	return mux
}

func (a *api) list(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	orders := append([]order{}, a.orders...) // a slow reader must not hold the lock
	a.mu.Unlock()
	answer(w, http.StatusOK, orders)
}

func (a *api) add(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&o); err != nil || o.Item == "" {
		answer(w, http.StatusBadRequest, map[string]string{"error": `send {"item": "..."}`})
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.orders) >= maxOrders {
		answer(w, http.StatusConflict, map[string]string{"error": "there are 100 orders; delete one first"})
		return
	}
	a.last++
	o.ID, o.By = a.last, verifier.FromContext(r.Context()).Subject
	a.orders = append(a.orders, o)
	answer(w, http.StatusCreated, o)
}

func (a *api) remove(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, o := range a.orders {
		if err == nil && o.ID == id {
			a.orders = append(a.orders[:i:i], a.orders[i+1:]...)
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	answer(w, http.StatusNotFound, map[string]string{"error": "no such order"})
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(value)
}

const help = `A sample API at %s that verifies access tokens offline.

GET /orders           needs the scope orders:read
POST /orders          needs the scope orders:write
DELETE /orders/{id}   needs the role admin
GET /verify           for gateways: may this request pass? ?scope=...&role=...

Get a token and call it:

TOKEN=$(curl -s -u demo-service:demo-secret -d grant_type=client_credentials -d scope=orders:read %s/token | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
curl -s -H "Authorization: Bearer $TOKEN" http://%s/orders
`
