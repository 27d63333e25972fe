package main

import (
	"embed"
	"html/template"
	"net/http"
)

// The browser-only application is four files: this one, spa.html, spa.css and spa.js.
//
//go:embed spa.html spa.css spa.js
var spaFiles embed.FS

// spaRoutes serves the browser-only application. Its policy lets the page talk to
// this origin and to the issuer: what gets into it can send a token nowhere else.
func spaRoutes(mux *http.ServeMux, issuer, clientID string) {
	mux.HandleFunc("GET /spa", func(w http.ResponseWriter, r *http.Request) {
		page, err := template.ParseFS(spaFiles, "spa.html")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' "+issuer+
			"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'")
		w.Header().Set("Cache-Control", "no-store")
		page.Execute(w, map[string]string{"Issuer": issuer, "Client": clientID})
	})
	files := http.FileServerFS(spaFiles)
	mux.Handle("GET /spa.js", files)
	mux.Handle("GET /spa.css", files)
}
