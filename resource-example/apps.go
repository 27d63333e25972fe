package main

import (
	"fmt"
	"net/http"
	"strings"
)

// apps are the two sample applications that sign people in and call the API.
type apps struct {
	issuer string
	origin string // scheme, host and port by which browsers reach this program

	webClient, webSecret, spaClient string
}

// withApps serves the applications beside the API.
func withApps(api http.Handler, a apps) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", api)
	newWebApp(a.issuer, a.webClient, a.webSecret, a.origin).routes(mux)
	spaRoutes(mux, a.issuer, a.spaClient)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept"), "text/html") {
			api.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		fmt.Fprint(w, index)
	})
	return mux
}

const index = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Sample applications</title>
<style>body{font:1rem/1.5 system-ui;max-width:36rem;margin:2rem auto;padding:0 1rem}</style>
<h1>Sample applications</h1>
<p>Two ways to sign people in and to call the API with their tokens:</p>
<ul>
<li><a href="/web">From a server</a>: the tokens stay there, the browser has a cookie. This is the one to copy.</li>
<li><a href="/spa">In the browser</a>: the tokens are in the memory of the page.</li>
</ul>
<p>The API itself says on this page what it can do, when it is asked by curl.</p>
</html>
`
