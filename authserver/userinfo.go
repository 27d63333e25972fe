package authserver

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"authserver/internal/accesstoken"
	"authserver/internal/intake"
)

// handleUserInfo is the UserInfo endpoint (OpenID Connect Core §5.3): the claims of
// whom an access token with scope openid speaks about, as JSON or, where the client
// is registered so, as a signed JWT.
func (s *Server) handleUserInfo(w http.ResponseWriter, r *http.Request) (any, error) {
	raw, err := bearerToken(w, r)
	if err != nil {
		return nil, err
	}
	claims, err := s.presentedToken(w, raw)
	if err != nil {
		return nil, err
	}
	c, err := s.clients.find(r.Context(), claims.ClientID)
	if errors.Is(err, errNoClient) {
		return nil, refuseToken(w, err)
	} else if err != nil {
		return nil, err
	}
	behind, live, err := s.accessTokenLive(r.Context(), claims)
	if err == nil && !live {
		err = refuseToken(w, errEnded)
	}
	if err != nil {
		return nil, err
	}
	answer := claimsOf(behind.user, strings.Fields(claims.Scope), behind.grant.UserInfoClaims)
	answer["sub"] = s.subjectFor(c, claims.Subject) // the same as in the ID token (§5.3.2)
	if c.userInfoAlgorithm == "" {
		return answer, nil
	}
	answer["iss"], answer["aud"] = s.issuer, c.id // §5.3.2
	signed, err := s.sign(c.userInfoAlgorithm, userInfoType, answer)
	return jwtAnswer(signed), err
}

// presentedToken returns the claims of an access token that may ask for a user's.
func (s *Server) presentedToken(w http.ResponseWriter, raw string) (accesstoken.Claims, error) {
	if raw == "" { // RFC 6750 §3.1: no code when nothing was presented
		w.Header().Set("WWW-Authenticate", bearerChallenge)
		return accesstoken.Claims{}, &Error{Code: "invalid_token", Status: http.StatusUnauthorized, Description: "an access token is missing"}
	}
	token, err := intake.Parse(raw)
	if err != nil {
		return accesstoken.Claims{}, refuseToken(w, err)
	}
	claims, err := s.readAccessToken(token)
	switch {
	case err != nil:
		return claims, refuseToken(w, err)
	case claims.Confirmation != nil:
		return claims, refuseToken(w, errors.New("it is bound to a key and was presented without a proof"))
	case !slices.Contains(strings.Fields(claims.Scope), "openid") || byClientItself(claims):
		const description = "the access token has no scope openid"
		w.Header().Set("WWW-Authenticate", bearerChallenge+`, error="insufficient_scope", scope="openid", error_description="`+description+`"`)
		return claims, &Error{Code: "insufficient_scope", Status: http.StatusForbidden, Description: description}
	}
	return claims, nil
}

const bearerChallenge = `Bearer realm="authserver"`

// userInfoType is the typ of signed answers, so that none passes for an ID token.
const userInfoType = "userinfo+jwt"

// refuseToken answers to an access token that is not good, without saying why.
func refuseToken(w http.ResponseWriter, cause error) error {
	const description = "the access token is malformed, expired, revoked or not from here"
	w.Header().Set("WWW-Authenticate", described(bearerChallenge, "invalid_token", description)) // RFC 6750 §3.1
	return &Error{Code: "invalid_token", Status: http.StatusUnauthorized, cause: cause, Description: description}
}

// bearerToken returns the access token of a request: in the Authorization header or
// in the body of a form, not in both and never in the query (RFC 6750 §2, OAuth 2.1
// §5.2).
func bearerToken(w http.ResponseWriter, r *http.Request) (string, error) {
	refuse := func(why string) error {
		w.Header().Set("WWW-Authenticate", described(bearerChallenge, "invalid_request", why))
		return invalidRequest("%s", why)
	}
	var inBody string
	if r.Method == http.MethodPost && r.Header.Get("Content-Type") != "" {
		f, err := parseForm(w, r)
		if err != nil {
			return "", refuse(asError(err).Description)
		}
		inBody = f.get("access_token")
	}
	headers := r.Header.Values("Authorization")
	switch {
	case len(headers) == 0:
		return inBody, nil
	case len(headers) > 1 || inBody != "":
		return "", refuse("the request carries more than one access token")
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", refuse("the Authorization header is not of the Bearer scheme")
	}
	return strings.TrimLeft(token, " "), nil
}
