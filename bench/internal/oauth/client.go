// Package oauth is the clients' side of what is measured: it sends requests as an
// application does and checks every answer. Of the tokens it gets, it verifies a
// sample by the published keys.
package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// Server is an authorization server and a client registered there.
type Server struct {
	Endpoints
	// Hosts are host:port of its instances; requests go to them in turns.
	Hosts []string

	ClientID, Secret, RedirectURI string
	// SignIn fills in a page that the authorization endpoint led to and returns what
	// came of it.
	SignIn func(browser *Client, page *http.Response) (*http.Response, error)

	next atomic.Uint64
	keys keySet
}

// Endpoints are what a server offers, and how.
type Endpoints struct {
	// Paths of the endpoints; an empty one says that there is none. Keys is where the
	// keys to verify tokens with are, also where JWKS is not to be measured.
	Token, Introspect, Authorize, JWKS, Keys, Metadata string

	Scope   string // of code flows, with openid
	Plain   string // without openid, so that a refresh makes no ID token; empty where that cannot be
	Opaque  bool   // its access tokens are not JWTs
	Consent bool   // is asked for with prompt=consent, without which there is no refresh token
}

// Tokens is a token response (RFC 6749 §5.1).
type Tokens struct {
	Access    string `json:"access_token"`
	Refresh   string `json:"refresh_token"`
	Type      string `json:"token_type"`
	ExpiresIn int64  `json:"expires_in"`
}

// Client is one application, with a connection and a cookie jar of its own.
type Client struct {
	server *Server
	base   string
	http   *http.Client
	sent   int
}

// NewClient returns a client of the server's next instance. It does not follow
// redirects by itself.
func (s *Server) NewClient() *Client {
	jar, _ := cookiejar.New(nil) // never fails without options
	host := s.Hosts[int(s.next.Add(1)-1)%len(s.Hosts)]
	return &Client{
		server: s,
		base:   "http://" + host,
		http: &http.Client{
			Jar:           jar,
			Timeout:       30 * time.Second,
			Transport:     &http.Transport{DialContext: toHost(host), DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// toHost dials one instance, whatever name it is asked for.
func toHost(host string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, host)
	}
}

// every is how many tokens lie between two that are verified.
const every = 200

// RequestToken sends a token request and checks the answer.
func (c *Client) RequestToken(form url.Values) (Tokens, error) {
	var answer Tokens
	if err := c.post(c.server.Token, form, &answer); err != nil {
		return Tokens{}, err
	}
	if answer.Access == "" || !strings.EqualFold(answer.Type, "Bearer") || answer.ExpiresIn <= 0 {
		return Tokens{}, errors.New("the token response lacks access_token, token_type or expires_in")
	}
	if c.sent++; c.sent%every == 1 && !c.server.Opaque {
		if err := c.server.keys.verify(c, answer.Access); err != nil {
			return Tokens{}, fmt.Errorf("verifying an access token: %w", err)
		}
	}
	return answer, nil
}

// ClientCredentials asks for a token for the client itself.
func (c *Client) ClientCredentials() error {
	_, err := c.RequestToken(url.Values{"grant_type": {"client_credentials"}})
	return err
}

// Refresher returns an operation that moves a chain of refresh tokens on.
func (c *Client) Refresher(current Tokens) func() error {
	return func() error {
		next, err := c.RequestToken(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {current.Refresh}})
		if err != nil {
			return err
		}
		if next.Refresh == "" || next.Refresh == current.Refresh {
			return errors.New("the refresh token did not rotate")
		}
		current = next
		return nil
	}
}

// Poster returns an operation that sends as much as a refresh does, anywhere.
func (c *Client) Poster(path string) func() error {
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {strings.Repeat("x", 500)}}
	return func() error {
		var answer Tokens
		err := c.post(path, form, &answer)
		if err == nil && answer.Refresh == "" {
			err = errors.New("no refresh token")
		}
		return err
	}
}

// Introspector returns an operation that asks about a token that is live.
func (c *Client) Introspector(token string) func() error {
	return func() error {
		var answer struct {
			Active bool   `json:"active"`
			Client string `json:"client_id"`
		}
		err := c.post(c.server.Introspect, url.Values{"token": {token}}, &answer)
		if err == nil && (!answer.Active || answer.Client != c.server.ClientID) {
			err = errors.New("a live token is not active")
		}
		return err
	}
}

// Getter returns an operation that fetches a public document.
func (c *Client) Getter(path string) func() error {
	return func() error {
		response, err := c.http.Get(c.base + path)
		if err != nil {
			return err
		}
		body, err := finish(response)
		if err == nil && (len(body) < 50 || body[0] != '{') {
			err = fmt.Errorf("%s is not a document", path)
		}
		return err
	}
}

func (c *Client) post(path string, form url.Values, answer any) error {
	request, err := http.NewRequest(http.MethodPost, c.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(c.server.ClientID, c.server.Secret)
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	body, err := finish(response)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, answer)
}

// finish reads an answer to its end, so that the connection serves again.
func finish(response *http.Response) ([]byte, error) {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", response.Request.URL.Path, response.Status, body)
	}
	return body, err
}
