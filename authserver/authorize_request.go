package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// authorizationRequest is a request for a code that was found to be in order.
type authorizationRequest struct {
	ClientID     string   `json:"client_id"`
	RedirectURI  string   `json:"redirect_uri"`            // where the answer goes
	RedirectSent bool     `json:"redirect_sent,omitempty"` // the request named it
	ResponseMode string   `json:"response_mode,omitempty"`
	State        string   `json:"state,omitempty"`
	Scope        []string `json:"scope,omitempty"`
	Resources    []string `json:"resources,omitempty"` // RFC 8707
	Challenge    string   `json:"code_challenge,omitempty"`

	// OpenID Connect Core §3.1.2.1.
	Nonce        string        `json:"nonce,omitempty"`
	Prompt       []string      `json:"prompt,omitempty"`
	MaxAge       *int64        `json:"max_age,omitempty"` // seconds
	LoginHint    string        `json:"login_hint,omitempty"`
	UILocales    string        `json:"ui_locales,omitempty"`
	ACRValues    []string      `json:"acr_values,omitempty"`
	EssentialACR bool          `json:"essential_acr,omitempty"` // nothing less than ACRValues will do
	Subject      string        `json:"subject,omitempty"`       // the only user it is about, as the client knows him
	Claims       claimsRequest `json:"claims,omitzero"`
}

const (
	modeQuery    = "query"
	modeFormPost = "form_post"
)

// limits are the longest values of parameters, in bytes; 512 for the others. What
// passes them fits, sealed, into a URL that proxies take.
var limits = map[string]int{
	"state": 4096, "redirect_uri": 2048, "scope": 2048, "resource": 2048, "claims": 2048, "id_token_hint": 8192,
	"request": maxBody, "request_uri": maxBody, "registration": maxBody, "authorization_details": maxBody,
}

const (
	limitOfOthers  = 512
	maxQuery       = 24 << 10 // bytes of a request's parameters
	maxRequestSize = 6 << 10  // bytes of what a page's URL has to carry of it
	maxCode        = 7 << 10  // bytes: what is of the request, and who allows it
)

// prompts reports whether the request has a value of prompt.
func (a authorizationRequest) prompts(value string) bool { return slices.Contains(a.Prompt, value) }

// openID reports whether it is an OpenID Connect request.
func (a authorizationRequest) openID() bool { return slices.Contains(a.Scope, "openid") }

// consentScope is what the user is asked to allow: the scope, and the scopes that
// the single claims of the request belong to.
func (a authorizationRequest) consentScope() []string {
	scope := slices.Clone(a.Scope)
	for _, claims := range []map[string]*claimRequest{a.Claims.UserInfo, a.Claims.IDToken} {
		for name := range claims {
			if one := scopeOfClaim(name); one != "" && !slices.Contains(scope, one) {
				scope = append(scope, one)
			}
		}
	}
	return scope
}

// authorizeParameters reads the parameters of a request: those of a GET from the
// query, those of a POST from the body and nowhere else (OAuth 2.1 §3.1, ATTACKS
// AZ-08).
func authorizeParameters(w http.ResponseWriter, r *http.Request) (form, error) {
	encoded := r.URL.RawQuery
	if r.Method == http.MethodPost {
		var err error
		if encoded, err = readFormBody(w, r); err != nil {
			return form{}, err
		}
	}
	if len(encoded) > maxQuery {
		return form{}, invalidRequest("the request is longer than %d bytes", maxQuery)
	}
	return parseParameters(encoded)
}

// redirectTarget finds the client of a request and where its answer goes. Until
// both are certain nobody is redirected (OAuth 2.1 §4.1.2.1), so an error here is a page.
func (s *Server) redirectTarget(ctx context.Context, f form) (*client, authorizationRequest, error) {
	refuse := func(detail string, id string) error {
		return &pageError{kind: ErrorRequest, status: http.StatusBadRequest, detail: detail, client: id}
	}
	var none authorizationRequest
	for _, name := range []string{"client_id", "redirect_uri"} {
		if f.repeated(name) {
			return nil, none, refuse("the parameter "+name+" is given more than once", "")
		}
		if f.malformed(name) || len(f.get(name)) > 2048 {
			return nil, none, refuse("the parameter "+name+" is too long, or holds control characters", "")
		}
	}
	id, uri := f.get("client_id"), f.get("redirect_uri")
	if id == "" {
		return nil, none, refuse("the parameter client_id is missing", "")
	}
	c, err := s.clients.find(ctx, id)
	switch {
	case errors.Is(err, errNoClient):
		return nil, none, refuse("the client_id is not one of this server's clients, or the client is disabled", "")
	case err != nil:
		return nil, none, err
	case len(c.redirectURIs) == 0:
		return nil, none, refuse("the client has no redirect_uris: register where its users come back to", id)
	case uri == "" && slices.Contains(strings.Fields(f.get("scope")), "openid"):
		return nil, none, refuse("the parameter redirect_uri is missing; OpenID Connect requires it", id) // OpenID Connect Core §3.1.2.1
	case uri == "" && len(c.redirectURIs) > 1:
		return nil, none, refuse("the parameter redirect_uri is missing, and the client has several", id) // OAuth 2.1 §2.3.2
	case uri != "" && !matchesRedirectURI(c.redirectURIs, uri):
		return nil, none, refuse("the redirect_uri is not registered for this client; it is compared byte for byte, "+
			"down to the last slash, and only the port of http://127.0.0.1, http://[::1] and http://localhost may differ", id)
	}
	request := authorizationRequest{ClientID: id, RedirectURI: uri, RedirectSent: uri != ""}
	if uri == "" {
		request.RedirectURI = c.redirectURIs[0]
	}
	// The state and the mode are part of the answer even when it is an error.
	if !f.malformed("state") && !f.repeated("state") && len(f.get("state")) <= limits["state"] {
		request.State = f.get("state")
	}
	if !f.repeated("response_mode") && f.get("response_mode") == modeFormPost {
		request.ResponseMode = modeFormPost
	}
	if !f.repeated("prompt") && f.get("prompt") == "none" {
		request.Prompt = []string{"none"}
	}
	return c, request, nil
}

// readAuthorizationRequest checks all other parameters and adds them to request.
// An error is an *Error for the client. Parameters that nobody knows, and display,
// are ignored (OAuth 2.1 §3.1).
func (s *Server) readAuthorizationRequest(f form, c *client, request *authorizationRequest) error {
	if err := f.wellFormed(); err != nil {
		return err
	}
	for name := range f.values {
		limit := limits[name]
		if limit == 0 {
			limit = limitOfOthers
		}
		if len(f.get(name)) > limit {
			return invalidRequest("a parameter is too long: state may have %d bytes, most others %d", limits["state"], limitOfOthers)
		}
	}
	for _, name := range []string{"request", "request_uri", "registration"} { // OpenID Connect Core §3.1.2.6
		if f.get(name) != "" {
			return refusal(name+"_not_supported", "the parameter %s is not supported here; send the parameters themselves", name)
		}
	}
	switch mode := f.get("response_mode"); mode {
	case "", modeQuery, modeFormPost:
	case "fragment":
		return invalidRequest("response_mode fragment is not for codes; use query or form_post")
	default:
		return invalidRequest("the response_mode is unknown; use query or form_post")
	}
	switch f.get("response_type") {
	case "":
		return invalidRequest("response_type is missing")
	case "code":
	default: // OAuth 2.1 §10.1: no implicit grant, and no mixture with it
		return refusal("unsupported_response_type", "the only response_type here is code")
	}
	if !c.may("authorization_code") {
		return refusal("unauthorized_client", "the client is not registered for the grant type authorization_code")
	}
	if f.get("authorization_details") != "" { // RFC 9396 §5
		return refusal("invalid_authorization_details", "no authorization_details are known here")
	}
	for _, read := range []func(form, *client, *authorizationRequest) error{s.readScope, readChallenge, s.readOpenID, s.readHints} {
		if err := read(f, c, request); err != nil {
			return err
		}
	}
	return nil
}

var errRequestTooLong = invalidRequest("the request is too long: state, scope, claims and all else have %d bytes together", maxRequestSize)

// fits reports whether the URL of a page can carry the request.
func (a authorizationRequest) fits() bool {
	encoded, err := json.Marshal(a)
	return err == nil && len(encoded) <= maxRequestSize
}

// readScope reads scope and resource. Of the scopes of OpenID Connect and others
// that nobody here knows, the unknown are ignored (OpenID Connect Core §3.1.2.1).
func (s *Server) readScope(f form, c *client, request *authorizationRequest) error {
	asked, err := parseScope(f.get("scope"))
	if err != nil {
		return err
	}
	known := func(one string) bool {
		return s.resources.owner[one] != "" || slices.Contains(userScopes, one) || slices.Contains(c.scopes, one)
	}
	for _, one := range asked {
		switch {
		case one == "offline_access" && !c.may("refresh_token"): // OpenID Connect Core §11: ignored
		case slices.Contains(c.scopes, one):
			request.Scope = append(request.Scope, one)
		case known(one) || !slices.Contains(asked, "openid"):
			return refusal("invalid_scope", "the scope asks for something that the client is not registered for%s", listedScopes(c.scopes))
		}
	}
	if len(asked) == 0 { // RFC 6749 §3.3: the default is all of it, but for what is asked for by name only
		request.Scope = slices.DeleteFunc(slices.Clone(c.scopes), func(one string) bool { return one == "openid" || one == "offline_access" })
	}
	request.Resources = slices.Compact(f.all("resource"))
	if len(request.Resources) > 10 {
		return invalidTarget("the request names more than 10 resources")
	}
	for _, resource := range request.Resources { // RFC 8707 §2
		if _, known := s.resources.algorithm[resource]; !known {
			return invalidTarget("the resource is unknown here%s", s.resources.meant(resource))
		}
	}
	if len(request.Resources) > 0 && slices.ContainsFunc(request.Scope, func(one string) bool {
		owner := s.resources.owner[one]
		return owner != "" && !slices.Contains(request.Resources, owner)
	}) {
		return refusal("invalid_scope", "the scope asks for something that belongs to another resource than the requested ones")
	}
	return nil
}

// readChallenge reads the parameters of PKCE (RFC 7636, OAuth 2.1 §4.1.1).
func readChallenge(f form, c *client, request *authorizationRequest) error {
	challenge, method := f.get("code_challenge"), f.get("code_challenge_method")
	switch {
	case challenge == "" && method == "" && !c.requiresPKCE && request.openID():
		return nil // OAuth 2.1 §7.5.1: confidential OpenID Connect clients that were registered so
	case challenge == "":
		return invalidRequest("code_challenge is missing: PKCE with S256 is required")
	case method != "S256": // absent means plain (RFC 7636 §4.3), which is no protection
		return invalidRequest("code_challenge_method must be S256")
	case !isBase64URL(challenge, 43): // SHA-256 without padding
		return invalidRequest("code_challenge must be 43 characters of base64url")
	}
	request.Challenge = challenge
	return nil
}

// readOpenID reads what OpenID Connect Core §3.1.2.1 adds.
func (s *Server) readOpenID(f form, c *client, request *authorizationRequest) error {
	request.Nonce = f.get("nonce")
	request.Prompt = strings.Fields(f.get("prompt"))
	for _, value := range request.Prompt {
		if !slices.Contains(promptValues, value) {
			return invalidRequest("prompt has an unknown value; known are %s", strings.Join(promptValues, ", "))
		}
	}
	if request.prompts("none") && len(request.Prompt) > 1 {
		request.Prompt = nil
		return invalidRequest("prompt none does not go with another value")
	}
	if text := f.get("max_age"); text != "" {
		age, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return invalidRequest("max_age is not a number of seconds")
		}
		seconds := int64(age)
		request.MaxAge = &seconds
	} else {
		request.MaxAge = c.defaultMaxAge // OpenID Connect Registration §2
	}
	request.ACRValues = strings.Fields(f.get("acr_values"))
	request.UILocales, request.LoginHint = f.get("ui_locales"), f.get("login_hint")
	return nil
}

var promptValues = []string{"none", "login", "consent", "select_account"}

// readHints reads what says whom the request is about: claims and id_token_hint.
func (s *Server) readHints(f form, c *client, request *authorizationRequest) error {
	if text := f.get("claims"); text != "" {
		claims, err := parseClaims(text)
		if err != nil {
			return err
		}
		request.Claims = claims.within(c.scopes)
		if acr := claims.IDToken["acr"]; acr != nil && acr.Essential { // OpenID Connect Core §5.5.1.1
			request.ACRValues, request.EssentialACR = acr.wanted(), true
		}
		if sub := claims.IDToken["sub"]; sub != nil && len(sub.wanted()) == 1 {
			request.Subject = sub.wanted()[0]
		}
	}
	if hint := f.get("id_token_hint"); hint != "" {
		subject, err := s.hintedSubject(c, hint)
		if err != nil {
			return invalidRequest("the id_token_hint is not an ID token that this server issued to this client").because(err)
		}
		if request.Subject != "" && request.Subject != subject {
			return invalidRequest("id_token_hint and claims speak of different users")
		}
		request.Subject = subject
	}
	return nil
}

// isBase64URL reports whether text is n characters of base64url without padding.
func isBase64URL(text string, n int) bool {
	return len(text) == n && !strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}
