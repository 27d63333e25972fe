package authserver

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"authserver/internal/feed"
	"authserver/internal/intake"
)

// verifierScope is the scope of access tokens for the issuer itself that let a
// resource server do there what one does: follow the feed and introspect. Any client
// authentication method gets one, by client_credentials.
const verifierScope = "verifier"

// verifierToken is what a resource server was let in by, and how long that holds.
type verifierToken struct {
	subjects feed.Subjects
	expires  time.Time
}

// authenticateVerifier finds the resource server behind a request: it authenticates
// like a client, or with an access token of verifierScope (RFC 7662 §2.1).
func (s *Server) authenticateVerifier(w http.ResponseWriter, r *http.Request, f form) (c *client, by *verifierToken, err error) {
	raw, presented := bearerHeader(r)
	if !presented {
		c, err = s.authenticateClient(r, f)
		if err != nil && asError(err).Status == http.StatusUnauthorized { // RFC 9110 §11.6.1: all that apply
			w.Header()["Www-Authenticate"] = []string{basicChallenge, bearerChallenge + `, scope="` + verifierScope + `"`}
		}
		return c, nil, err
	}
	if f.get("client_secret") != "" || (privateKeyJWT{}).Presented(r, f) {
		return nil, nil, invalidRequest("the request has an access token and client authentication; choose one")
	}
	c, by, err = s.clientOfToken(w, r, raw)
	if id := f.get("client_id"); err == nil && id != "" && id != c.id {
		return nil, nil, invalidRequest("client_id is not that of the access token's client")
	}
	return c, by, err
}

// bearerHeader returns the access token in the Authorization header (RFC 6750 §2.1).
func bearerHeader(r *http.Request) (token string, presented bool) {
	headers := r.Header.Values("Authorization")
	if len(headers) != 1 {
		return "", false // several are for the client authentication methods to refuse
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	return strings.TrimLeft(token, " "), strings.EqualFold(scheme, "Bearer")
}

// clientOfToken returns the client that an access token for the issuer was issued to.
func (s *Server) clientOfToken(w http.ResponseWriter, r *http.Request, raw string) (*client, *verifierToken, error) {
	token, err := intake.Parse(raw)
	if err != nil {
		return nil, nil, refuseToken(w, err)
	}
	claims, err := s.readAccessToken(token)
	switch {
	case err != nil:
		return nil, nil, refuseToken(w, err)
	case claims.Confirmation != nil:
		return nil, nil, refuseToken(w, errors.New("it is bound to a key and was presented without a proof"))
	case !slices.Contains(claims.Audience, s.issuer): // RFC 9068 §4
		return nil, nil, refuseToken(w, errors.New("it is for a resource server, not for the issuer"))
	case !slices.Contains(strings.Fields(claims.Scope), verifierScope) || !byClientItself(claims): // RFC 6750 §3.1
		w.Header().Set("WWW-Authenticate", bearerChallenge+`, error="insufficient_scope", scope="`+verifierScope+`"`)
		return nil, nil, &Error{Code: "insufficient_scope", Status: http.StatusForbidden, Description: "the access token has no scope " + verifierScope}
	}
	switch _, live, err := s.accessTokenLive(r.Context(), claims); {
	case err != nil:
		return nil, nil, err
	case !live:
		return nil, nil, refuseToken(w, errEnded)
	}
	c, err := s.clients.find(r.Context(), claims.ClientID)
	switch {
	case errors.Is(err, errNoClient):
		return nil, nil, refuseToken(w, err)
	case err != nil:
		return nil, nil, err
	case !slices.Contains(c.scopes, verifierScope): // it was taken from the client since
		return nil, nil, refuseToken(w, errors.New("the client does not have the scope any more"))
	}
	return c, &verifierToken{feed.SubjectsOf(token.KeyID, &claims), time.Unix(claims.Expires, 0)}, nil
}
