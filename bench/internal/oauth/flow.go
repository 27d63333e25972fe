package oauth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// CodeFlow goes through AuthorizeFor with the server's scope.
func (c *Client) CodeFlow() (Tokens, error) { return c.AuthorizeFor(c.server.Scope) }

// AuthorizeFor goes through a whole authorization code flow with PKCE, as an
// application and its user's browser do: to the authorization endpoint, along every
// redirect, through a page to sign in where there is one, and to the token endpoint.
func (c *Client) AuthorizeFor(scope string) (Tokens, error) {
	verifier := rand.Text() + rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	state := rand.Text()
	query := url.Values{
		"response_type": {"code"}, "client_id": {c.server.ClientID}, "redirect_uri": {c.server.RedirectURI},
		"scope": {scope}, "state": {state}, "nonce": {rand.Text()},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}
	if c.server.Consent {
		query.Set("prompt", "consent")
	}
	callback, err := c.authorize(c.base + c.server.Authorize + "?" + query.Encode())
	if err != nil {
		return Tokens{}, err
	}
	answer := callback.Query()
	if answer.Get("code") == "" || answer.Get("state") != state {
		return Tokens{}, fmt.Errorf("the authorization response lacks code or state: %s", callback.RawQuery)
	}
	return c.RequestToken(url.Values{
		"grant_type": {"authorization_code"}, "code": {answer.Get("code")},
		"redirect_uri": {c.server.RedirectURI}, "code_verifier": {verifier},
	})
}

// authorize follows redirects until one leads back to the application.
func (c *Client) authorize(address string) (*url.URL, error) {
	response, err := c.http.Get(address)
	for range 12 {
		if err != nil {
			return nil, err
		}
		if response.StatusCode == http.StatusOK && c.server.SignIn != nil {
			response, err = c.server.SignIn(c, response)
			continue
		}
		location, missing := response.Location()
		if missing != nil {
			_, err := finish(response)
			return nil, errors.Join(err, missing)
		}
		response.Body.Close()
		if strings.HasPrefix(location.String(), c.server.RedirectURI) {
			return location, nil
		}
		response, err = c.http.Get(location.String())
	}
	return nil, errors.New("the authorization does not end")
}

// Flows returns an operation that goes through code flows.
func (c *Client) Flows() func() error {
	return func() error {
		_, err := c.CodeFlow()
		return err
	}
}
