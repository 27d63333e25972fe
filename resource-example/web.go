package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

// webApp is a web application with a server of its own, a backend for its frontend:
// the tokens stay here, and the browser has a cookie that is good for nothing else.
// A script that gets into the page can misuse the application while it is open; it
// cannot carry a token away.
type webApp struct {
	oauth          *oauth2.Config
	issuer, origin string
	mu             sync.Mutex
	visits         map[string]*visit // by cookie
}

// visit is one browser: on its way to the issuer first, signed in later.
type visit struct {
	state, verifier string
	tokens          oauth2.TokenSource // renews the access token when it is due
	idToken         string             // tells the issuer who signs out
	until           time.Time
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
	c := &http.Cookie{Name: "visit", Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if c.Secure = strings.HasPrefix(a.origin, "https:"); c.Secure {
		c.Name = "__Host-visit"
	}
	return c
}

// visitOf returns the visit of a browser; an empty one when it is not known.
func (a *webApp) visitOf(r *http.Request) *visit {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cookie, err := r.Cookie(a.cookie("").Name); err == nil {
		if v := a.visits[cookie.Value]; v != nil && time.Now().Before(v.until) {
			return v
		}
	}
	return &visit{}
}

// begin gives a browser a new cookie, so that nobody knows it beforehand.
func (a *webApp) begin(w http.ResponseWriter, v *visit) {
	id := rand.Text()
	v.until = time.Now().Add(8 * time.Hour)
	a.mu.Lock()
	defer a.mu.Unlock()
	for old, one := range a.visits { // who is over goes, and somebody when there are too many
		if time.Now().After(one.until) || len(a.visits) >= 10_000 {
			delete(a.visits, old)
		}
	}
	a.visits[id] = v
	http.SetCookie(w, a.cookie(id))
}

func (a *webApp) login(w http.ResponseWriter, r *http.Request) {
	v := &visit{state: rand.Text(), verifier: oauth2.GenerateVerifier()}
	a.begin(w, v)
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
		a.page(w, view{Problem: "The sign-in was not completed. " + query.Get("error")})
		return
	}
	signedIn := &visit{tokens: a.oauth.TokenSource(context.Background(), token)}
	signedIn.idToken, _ = token.Extra("id_token").(string)
	a.begin(w, signedIn)
	http.Redirect(w, r, "/web", http.StatusSeeOther)
}

// view is what web.html shows.
type view struct {
	SignedIn bool
	Orders   []order
	Problem  string
}

//go:embed web.html
var webHTML string

func (a *webApp) page(w http.ResponseWriter, v view) {
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self' "+a.issuer+"; frame-ancestors 'none'")
	w.Header().Set("Cache-Control", "no-store")
	template.Must(template.New("web").Parse(webHTML)).Execute(w, v)
}

// show calls the API with the visitor's access token.
func (a *webApp) show(w http.ResponseWriter, r *http.Request) {
	visit, shown := a.visitOf(r), view{}
	if shown.SignedIn = visit.tokens != nil; shown.SignedIn {
		response, err := oauth2.NewClient(r.Context(), visit.tokens).Get(a.origin + "/orders")
		if err == nil {
			defer response.Body.Close()
			if err = json.NewDecoder(response.Body).Decode(&shown.Orders); response.StatusCode != http.StatusOK {
				err = fmt.Errorf("the API answers %s", response.Status)
			}
		}
		if err != nil { // the access was taken away, or something is down: signing in again tells which
			shown = view{Problem: err.Error()}
		}
	}
	a.page(w, shown)
}

// logout forgets the visitor here, and asks the issuer to do so too.
func (a *webApp) logout(w http.ResponseWriter, r *http.Request) {
	end := url.Values{"client_id": {a.oauth.ClientID}, "post_logout_redirect_uri": {a.origin + "/web"}, "id_token_hint": {a.visitOf(r).idToken}}
	a.begin(w, &visit{})
	http.Redirect(w, r, a.issuer+"/logout?"+end.Encode(), http.StatusSeeOther)
}
