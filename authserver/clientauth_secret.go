package authserver

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// clientSecretBasic is the secret in the Authorization header (RFC 6749 §2.3.1).
type clientSecretBasic struct{ server *Server }

func (clientSecretBasic) Name() string { return methodSecretBasic }

func (clientSecretBasic) Presented(r *http.Request, _ form) bool {
	return len(r.Header.Values("Authorization")) > 0
}

func (m clientSecretBasic) Authenticate(ctx context.Context, r *http.Request, _ form) (*client, error) {
	id, secret, err := basicCredentials(r.Header.Values("Authorization"))
	if err != nil {
		return nil, invalidClient(err)
	}
	// RFC 6749 §2.3.1 has both parts form-encoded before they go into the header;
	// many clients leave that out. Both forms are compared, so that neither breaks.
	decodedID, err1 := url.QueryUnescape(id)
	decodedSecret, err2 := url.QueryUnescape(secret)
	presented := []idAndSecret{{id, secret}}
	if decoded := (idAndSecret{decodedID, decodedSecret}); err1 == nil && err2 == nil && decoded != presented[0] {
		presented = []idAndSecret{decoded, presented[0]}
	}
	return m.server.checkSecret(ctx, r, presented...)
}

// basicCredentials takes a Basic Authorization header apart (RFC 7617 §2).
func basicCredentials(headers []string) (id, secret string, err error) {
	if len(headers) != 1 {
		return "", "", errors.New("more than one Authorization header")
	}
	scheme, encoded, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", errors.New("the Authorization header is not of the Basic scheme")
	}
	decoded, err := base64.StdEncoding.Strict().DecodeString(strings.TrimLeft(encoded, " ")) // RFC 9110 §11.4: 1*SP
	if err != nil {
		return "", "", errors.New("the Basic credentials are not base64")
	}
	id, secret, found := strings.Cut(string(decoded), ":")
	if !found {
		return "", "", errors.New("the Basic credentials hold no colon")
	}
	return id, secret, nil
}

// clientSecretPost is the secret in the request body (RFC 6749 §2.3.1).
type clientSecretPost struct{ server *Server }

func (clientSecretPost) Name() string { return methodSecretPost }

func (clientSecretPost) Presented(_ *http.Request, f form) bool { return f.get("client_secret") != "" }

func (m clientSecretPost) Authenticate(ctx context.Context, r *http.Request, f form) (*client, error) {
	return m.server.checkSecret(ctx, r, idAndSecret{f.get("client_id"), f.get("client_secret")})
}

// idAndSecret is what a client presents.
type idAndSecret struct{ id, secret string }

// checkSecret returns the client that one of the readings of its credentials is right for.
// A wrong one is answered alike whatever there is of the client, also when it is one too many.
func (s *Server) checkSecret(ctx context.Context, r *http.Request, presented ...idAndSecret) (*client, error) {
	var c *client
	var right bool
	var wrong error
	left := presented // readings that are not known to be wrong
	for ; len(left) > 0; left = left[1:] {
		if c, right, wrong = s.compareSecret(ctx, left[0]); right || c == nil {
			break
		}
	}
	switch {
	case c == nil:
		return nil, wrong
	case right && c.longSecrets:
		return c, nil
	}
	from := guesser(presented[0].id, network(s.proxies.clientAddress(r)))
	if wait := s.guesses.attempt(from, right); wait > 0 {
		for range left { // the right one is not told by its time: a wrong one asks the store
			s.clients.find(ctx, newID())
		}
		s.metrics.guesses.WithLabelValues("too_early").Inc()
		return nil, c.refused(tooMany(wait))
	}
	if right {
		return c, nil
	}
	s.metrics.guesses.WithLabelValues("wrong").Inc()
	return nil, c.refused(invalidClient(wrong))
}

// compareSecret compares a secret with those of the client. Unknown clients and clients
// without a secret cost as much as wrong secrets. There is no client at all when nobody
// knows whether there is one.
func (s *Server) compareSecret(ctx context.Context, presented idAndSecret) (c *client, right bool, err error) {
	c, unknown := s.clients.find(ctx, presented.id)
	if unknown != nil {
		if !errors.Is(unknown, errNoClient) {
			return nil, false, unknown
		}
		c = s.clients.nobody
	}
	if wrong := c.hasSecret(presented.secret); wrong != nil || unknown != nil {
		if unknown == nil { // whether there is such a client is not told by the time of a question to the store
			s.clients.find(ctx, newID())
		}
		return c, false, errors.Join(wrong, unknown)
	}
	return c, true, nil
}
