package authserver

import (
	"context"
	"errors"
	"net/http"
	"slices"
)

// Client authentication methods as registered with IANA (RFC 7591 §2, OpenID
// Connect Core §9).
const (
	methodSecretBasic   = "client_secret_basic"
	methodSecretPost    = "client_secret_post"
	methodPrivateKeyJWT = "private_key_jwt"
	methodNone          = "none"
)

// ClientAuth is one client authentication method.
type ClientAuth interface {
	// Name is the registered name of the method.
	Name() string
	// Presented reports whether the request carries the method's credentials,
	// good or bad.
	Presented(r *http.Request, f form) bool
	// Authenticate returns the client whose credentials the request carries.
	Authenticate(ctx context.Context, r *http.Request, f form) (*client, error)
}

// authenticateClient finds the client behind a request. The request carries
// credentials of exactly one method (OAuth 2.1 §2.4), one that the client is
// registered for.
func (s *Server) authenticateClient(r *http.Request, f form) (*client, error) {
	var method ClientAuth
	for _, candidate := range s.clientAuths {
		if !candidate.Presented(r, f) {
			continue
		}
		if method != nil {
			return nil, invalidRequest("the request uses more than one client authentication method")
		}
		method = candidate
	}
	if method == nil {
		missing := invalidClient(errors.New("no client authentication in the request"))
		missing.Description = "the request names no client: authenticate it as it is registered, or send client_id if it is a public one"
		return nil, missing
	}
	c, err := method.Authenticate(r.Context(), r, f)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(c.methods, method.Name()) {
		return nil, invalidClient(errors.New("the client is not registered for " + method.Name()))
	}
	if id := f.get("client_id"); id != "" && id != c.id {
		return nil, invalidRequest("client_id is not that of the authenticated client")
	}
	return c, nil
}

// findClient is clients.find for client authentication: who may do nothing here is
// an invalid_client.
func (s *Server) findClient(ctx context.Context, id string) (*client, error) {
	c, err := s.clients.find(ctx, id)
	if errors.Is(err, errNoClient) {
		return nil, invalidClient(err)
	}
	return c, err
}

// noClientAuth identifies public clients by their client_id alone.
type noClientAuth struct{ server *Server }

func (noClientAuth) Name() string { return methodNone }

func (noClientAuth) Presented(r *http.Request, f form) bool {
	return f.get("client_id") != "" && f.get("client_secret") == "" &&
		!(clientSecretBasic{}).Presented(r, f) && !(privateKeyJWT{}).Presented(r, f)
}

func (m noClientAuth) Authenticate(ctx context.Context, _ *http.Request, f form) (*client, error) {
	return m.server.findClient(ctx, f.get("client_id"))
}
