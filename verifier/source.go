package verifier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"authserver/internal/intake"
)

// source is the issuer as seen from here: where its endpoints are, and how they
// are asked.
type source struct {
	config    Config
	client    *http.Client // with a timeout, without redirects
	endpoints atomic.Pointer[endpoints]
	looked    time.Time // when the metadata was asked for; the zero time to ask again
}

// endpoints are those that the verifier uses, as configured or else as the
// issuer's metadata has them.
type endpoints struct {
	JWKS          string
	Revocations   string // empty where there is no feed
	Introspection string // empty where there is none
}

const (
	requestTimeout   = 5 * time.Second // of one request, unless Config.HTTPClient has another
	introspectWithin = 2 * time.Second
	pingAfter        = 2 * time.Second // of silence on a connection of HTTP/2
)

func newSource(config Config) *source {
	client := http.Client{Timeout: requestTimeout}
	if config.HTTPClient != nil {
		client = *config.HTTPClient
	} else if shared, ok := http.DefaultTransport.(*http.Transport); ok {
		transport := shared.Clone()
		// A request that is given up ends a connection of HTTP/1, and leaves one of HTTP/2 to
		// the next request: without pings a server that hangs would be asked for ever.
		transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: time.Second}
		client.Transport = transport
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &source{config: config, client: &client}
}

// discover finds the endpoints, by the issuer's metadata (RFC 8414 §3) unless the
// configuration has them. That is asked for every five minutes, and after the key set
// was not where it says; when it cannot be had, what it said before holds.
func (s *source) discover(ctx context.Context) (endpoints, error) {
	known := s.endpoints.Load()
	if known != nil && (s.config.JWKSURI != "" || time.Since(s.looked) < metadataFor) {
		return *known, nil
	}
	found := endpoints{s.config.JWKSURI, s.config.RevocationsURI, s.config.IntrospectionURI}
	if found.JWKS == "" {
		read, err := s.metadata(ctx)
		if err != nil && known == nil {
			return found, err
		}
		s.looked = time.Now()
		if err != nil {
			s.config.Logger.Warn("the issuer's endpoints are taken to be where they were", "issuer", s.config.Issuer, "error", err)
			return *known, nil
		}
		found.JWKS = read.JWKSURI
		if found.Revocations == "" {
			found.Revocations = read.RevocationsEndpoint
		}
		if found.Introspection == "" {
			found.Introspection = read.IntrospectionEndpoint
		}
	}
	s.endpoints.Store(&found)
	return found, nil
}

type metadata struct {
	Issuer                string `json:"issuer"`
	JWKSURI               string `json:"jwks_uri"`
	RevocationsEndpoint   string `json:"revocations_endpoint"`
	IntrospectionEndpoint string `json:"introspection_endpoint"`
}

func (s *source) metadata(ctx context.Context) (metadata, error) {
	var read metadata
	location, err := metadataURL(s.config.Issuer)
	if err != nil {
		return read, err
	}
	body, _, err := s.get(ctx, location)
	if err != nil {
		return read, fmt.Errorf("fetching the metadata: %w", err)
	}
	if err := intake.Decode(body, &read); err != nil {
		return read, fmt.Errorf("reading the metadata: %w", err)
	}
	if read.Issuer != s.config.Issuer { // RFC 8414 §3.3
		return read, fmt.Errorf("the metadata is of issuer %q, expected %q", read.Issuer, s.config.Issuer)
	}
	if err := checkURL("jwks_uri", read.JWKSURI); err != nil {
		return read, err
	}
	for name, location := range map[string]string{"revocations_endpoint": read.RevocationsEndpoint, "introspection_endpoint": read.IntrospectionEndpoint} {
		if location != "" {
			if err := checkURL(name, location); err != nil {
				return read, err
			}
		}
	}
	return read, nil
}

// metadataURL inserts the well-known name before the issuer's path (RFC 8414 §3.1).
func metadataURL(issuer string) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return "", err
	}
	u.Path = "/.well-known/oauth-authorization-server" + strings.TrimSuffix(u.Path, "/")
	return u.String(), nil
}

// get fetches a document of the size that a key set may have.
func (s *source) get(ctx context.Context, location string) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Accept", "application/json")
	return s.do(request, intake.MaxKeySet)
}

func (s *source) do(request *http.Request, limit int64) ([]byte, http.Header, error) {
	response, err := s.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	body, err := readAnswer(request.URL, response, limit)
	return body, response.Header, err
}

// readAnswer returns the body of a good answer.
func readAnswer(from *url.URL, response *http.Response, limit int64) ([]byte, error) {
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", from, response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("%s answered more than %d bytes", from, limit)
	}
	return body, err
}

// authenticate adds this API's credentials, if it has any (RFC 6749 §2.3.1, RFC 6750 §2.1).
func (s *source) authenticate(request *http.Request) error {
	if s.config.ClientID != "" {
		request.SetBasicAuth(url.QueryEscape(s.config.ClientID), url.QueryEscape(s.config.ClientSecret))
	}
	if s.config.Token == nil {
		return nil
	}
	token, err := s.config.Token(request.Context())
	if err != nil {
		return fmt.Errorf("getting an access token for the issuer: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	return nil
}

// introspect asks whether a token is active (RFC 7662 §2).
func (s *source) introspect(ctx context.Context, token string) (active bool, err error) {
	known := s.endpoints.Load()
	if known == nil || known.Introspection == "" {
		return false, errors.New("the issuer's introspection endpoint is not known")
	}
	ctx, cancel := context.WithTimeout(ctx, introspectWithin)
	defer cancel()
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, known.Introspection, strings.NewReader(form.Encode()))
	if err != nil {
		return false, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	if err := s.authenticate(request); err != nil {
		return false, err
	}
	body, _, err := s.do(request, intake.MaxKeySet)
	if err != nil {
		return false, err
	}
	var answer struct {
		Active bool `json:"active"`
	}
	err = intake.Decode(body, &answer)
	return answer.Active, err
}
