package authserver_test

import (
	"net/http"
	"testing"
	"time"

	"authserver/authserver/authservertest"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// golang.org/x/oauth2 gets, uses and refreshes tokens as it comes.
func TestOAuth2Client(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleAutoDetect, oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
		machine := clientcredentials.Config{
			ClientID: authservertest.ServiceID, ClientSecret: authservertest.Secret, TokenURL: s.Issuer + "/token",
			Scopes: []string{"orders:read"}, AuthStyle: style,
		}
		token, err := machine.Token(t.Context())
		if err != nil || !token.Valid() || token.Type() != "Bearer" || token.Extra("scope") != "orders:read" {
			t.Errorf("style %d: %v, %v", style, token, err)
		}
		person := oauth2.Config{
			ClientID: authservertest.WebID, ClientSecret: authservertest.Secret, Scopes: []string{"orders:read"},
			Endpoint: oauth2.Endpoint{TokenURL: s.Issuer + "/token", AuthStyle: style},
		}
		if token, err = person.PasswordCredentialsToken(t.Context(), authservertest.Username, authservertest.Password); err != nil {
			t.Fatal(err)
		}
		first := token.RefreshToken
		token.Expiry = time.Now().Add(-time.Minute)
		next, err := person.TokenSource(t.Context(), token).Token()
		if err != nil || next.RefreshToken == first || next.RefreshToken == "" {
			t.Errorf("refreshing in style %d: %v, %v", style, next, err)
		}
	}
	wrong := clientcredentials.Config{ClientID: authservertest.ServiceID, ClientSecret: "wrong", TokenURL: s.Issuer + "/token"}
	_, err := wrong.Token(t.Context())
	if refusal, ok := err.(*oauth2.RetrieveError); !ok || refusal.ErrorCode != "invalid_client" || refusal.Response.StatusCode != http.StatusUnauthorized {
		t.Errorf("a wrong secret: %v", err)
	}
}
