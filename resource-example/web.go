package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"golang.org/x/oauth2"
)

// webApp is a web application with a server of its own, a backend for its frontend:
// the tokens stay here, and the browser has a cookie that is good for nothing else.
// A script that gets into the page can misuse the application while it is open; it
// cannot carry a token away, as it could from local storage.
type webApp struct {
	oauth          *oauth2.Config
	issuer, origin string
	mu             sync.Mutex
	visits         map[string]*visit // by cookie
}

// visit is one browser: on its way to the issuer first, signed in later, for as long as
// the issuer lets its tokens be.
type visit struct {
	state, verifier string
	tokens          oauth2.TokenSource // renews the access token when it is due
	idToken         string             // tells the issuer who signs out
}

func newWebApp(issuer, clientID, secret, origin string) *webApp {
	return &webApp{issuer: issuer, origin: origin, visits: make(map[string]*visit), oauth: &oauth2.Config{
		ClientID: clientID, ClientSecret: secret, RedirectURL: origin + "/callback", Scopes: []string{"openid", "profile", "orders:read"},
		Endpoint: oauth2.Endpoint{AuthURL: issuer + "/authorize", TokenURL: issuer + "/token", AuthStyle: oauth2.AuthStyleInHeader},
	}}
}

func (a *webApp) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /web", a.show)
	mux.HandleFunc("GET /web/login", a.login)
	mux.HandleFunc("GET /callback", a.callback)
	mux.Handle("POST /web/logout", http.NewCrossOriginProtection().Handler(http.HandlerFunc(a.logout))) // from our own page only
}

// cookie is one that scripts cannot read and, with TLS, no other host can set.
func (a *webApp) cookie(value string) *http.Cookie {
	secure := strings.HasPrefix(a.origin, "https:")
	name := map[bool]string{false: "visit", true: "__Host-visit"}[secure]
	return &http.Cookie{Name: name, Value: value, Path: "/", HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode}
}

// visitOf returns the visit of a browser; an empty one when it is not known.
func (a *webApp) visitOf(r *http.Request) *visit {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, err := r.Cookie(a.cookie("").Name); err == nil && a.visits[c.Value] != nil {
		return a.visits[c.Value]
	}
	return &visit{}
}

// begin gives a browser a new cookie, that nobody knows beforehand, in place of the old one.
func (a *webApp) begin(w http.ResponseWriter, r *http.Request, v *visit) {
	before, c := a.visitOf(r), a.cookie(rand.Text())
	http.SetCookie(w, c)
	a.mu.Lock()
	defer a.mu.Unlock()
	for old, one := range a.visits { // and somebody's, when there are too many
		if one == before || len(a.visits) >= 10_000 {
			delete(a.visits, old)
		}
	}
	a.visits[c.Value] = v
}

func (a *webApp) login(w http.ResponseWriter, r *http.Request) {
	v := &visit{state: rand.Text(), verifier: oauth2.GenerateVerifier()}
	a.begin(w, r, v)
	http.Redirect(w, r, a.oauth.AuthCodeURL(v.state, oauth2.S256ChallengeOption(v.verifier)), http.StatusSeeOther)
}

func (a *webApp) callback(w http.ResponseWriter, r *http.Request) {
	v, query := a.visitOf(r), r.URL.Query()
	if v.state == "" || query.Get("state") != v.state || query.Get("iss") != a.issuer { // RFC 9207
		http.Error(w, "this answer does not belong to a sign-in that this browser began", http.StatusBadRequest)
		return
	}
	token, err := a.oauth.Exchange(r.Context(), query.Get("code"), oauth2.VerifierOption(v.verifier))
	if query.Get("error") != "" || err != nil {
		a.page(w, map[string]any{"Problem": "The sign-in was not completed. " + query.Get("error")})
		return
	}
	signedIn := &visit{tokens: a.oauth.TokenSource(context.Background(), token)}
	signedIn.idToken, _ = token.Extra("id_token").(string)
	a.begin(w, r, signedIn)
	http.Redirect(w, r, "/web", http.StatusSeeOther)
}

//go:embed web.html
var webHTML string

// page shows web.html with SignedIn, Orders and Problem.
func (a *webApp) page(w http.ResponseWriter, shown map[string]any) {
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self' "+a.issuer+"; frame-ancestors 'none'")
	w.Header().Set("Cache-Control", "no-store")
	template.Must(template.New("web").Parse(webHTML)).Execute(w, shown)
}

// show calls the API with the visitor's access token. Where that fails, the access was
// taken away or something is down: signing in again tells which.
func (a *webApp) show(w http.ResponseWriter, r *http.Request) {
	v, shown := a.visitOf(r), map[string]any{}
	if v.tokens != nil {
		shown["Problem"] = "The orders could not be fetched."
		if response, err := oauth2.NewClient(r.Context(), v.tokens).Get(a.origin + "/orders"); err == nil {
			defer response.Body.Close()
			var orders []order
			if json.NewDecoder(response.Body).Decode(&orders) == nil && response.StatusCode == http.StatusOK {
				shown = map[string]any{"SignedIn": true, "Orders": orders}
			}
		}
	}
	a.page(w, shown)
}

// logout forgets the visitor here, and asks the issuer to do so too.
func (a *webApp) logout(w http.ResponseWriter, r *http.Request) {
	end := url.Values{"client_id": {a.oauth.ClientID}, "post_logout_redirect_uri": {a.origin + "/web"}, "id_token_hint": {a.visitOf(r).idToken}}
	a.begin(w, r, &visit{})
	http.Redirect(w, r, a.issuer+"/logout?"+end.Encode(), http.StatusSeeOther)
}
