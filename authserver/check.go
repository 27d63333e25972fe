package authserver

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"authserver/internal/intake"
)

const (
	rotationAlways = "always"
	rotationNever  = "never"
)

// WithDefaults returns t with every zero field set to its default.
func (t Tokens) WithDefaults() Tokens {
	set := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	set(&t.Access, 10*time.Minute)
	set(&t.ID, 10*time.Minute)
	set(&t.RefreshIdle, 720*time.Hour)
	set(&t.RefreshMax, 8760*time.Hour)
	set(&t.Code, time.Minute)
	if t.RetryWindow == nil {
		window := time.Minute
		t.RetryWindow = &window
	}
	return t
}

// WithDefaults returns t with every zero field set to its default.
func (t Sessions) WithDefaults() Sessions {
	if t.Idle == 0 {
		t.Idle = 24 * time.Hour
	}
	if t.Max == 0 {
		t.Max = 720 * time.Hour
	}
	return t
}

// checker collects problems.
type checker struct{ problems []Problem }

func (c *checker) error(key, format string, args ...any) {
	c.problems = append(c.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) warn(key, format string, args ...any) {
	c.problems = append(c.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...), Warning: true})
}

// Check returns all mistakes in the operator's part of c. It never shows a secret.
func (c Config) Check() []Problem {
	var check checker
	check.issuer(c.Issuer)
	check.tokens(c.Tokens.WithDefaults())
	check.sessions(c.Sessions.WithDefaults())
	owners := check.resources(c.Resources)
	owners[verifierScope] = c.Issuer
	check.scopes(c.Scopes, owners)
	check.clients(c.Clients, c.Resources, owners)
	check.users(c.Users, c.Clients)
	check.receivers(c.Receivers, newOutbound(c.OutboundNetworks))
	if allowed := []string{"", revocationsOpen, revocationsAuthenticated}; !slices.Contains(allowed, c.Revocations) {
		check.error("revocations", "%q is unknown; allowed are open, authenticated", c.Revocations)
	}
	return check.problems
}

func (c *checker) issuer(issuer string) {
	u, err := url.Parse(issuer)
	switch {
	case issuer == "":
		c.error("issuer", "is missing; it is the https URL that clients know this server by, for example https://auth.example.com")
	case err != nil || u.Host == "" || u.Opaque != "":
		c.error("issuer", "%q is not an absolute URL; for example https://auth.example.com", issuer)
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback(strings.ToLower(u.Hostname()))):
		c.error("issuer", "%q must be https; http is allowed for localhost, 127.0.0.1 and [::1] only", issuer)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(issuer, "#"):
		c.error("issuer", "%q must have no user, query or fragment (RFC 8414 section 2)", issuer) // RFC 8414 §2
	case strings.HasSuffix(issuer, "/"):
		c.error("issuer", "%q must not end with a slash; it is compared byte for byte, write %q", issuer, strings.TrimRight(issuer, "/"))
	case u.EscapedPath() != u.Path || strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/."):
		c.error("issuer", "%q must have a plain path: no percent-encoding, empty or dot segments", issuer)
	case issuer != normalOrigin(u)+u.Path:
		c.warn("issuer", "%q is spelled %q by clients that parse it (RFC 3986 section 6.2), and compared byte for byte: they will refuse this server; write it so",
			issuer, normalOrigin(u)+u.Path)
	}
}

// normalOrigin is the scheme and the host of an https or http URL as browsers spell them,
// but for letters beyond ASCII.
func normalOrigin(u *url.URL) string {
	host := strings.TrimSuffix(strings.ToLower(u.Host), map[string]string{"https": ":443", "http": ":80"}[u.Scheme])
	return u.Scheme + "://" + host
}

func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback() && !address.Is4In6()
}

func (c *checker) tokens(t Tokens) {
	between := func(key string, found, low, high time.Duration) { c.between("tokens."+key, found, low, high) }
	between("access", t.Access, 10*time.Second, time.Hour)
	between("id", t.ID, 10*time.Second, time.Hour)
	between("refresh_idle", t.RefreshIdle, time.Minute, 10*8760*time.Hour)
	between("refresh_max", t.RefreshMax, time.Minute, 10*8760*time.Hour)
	between("retry_window", *t.RetryWindow, 0, time.Minute)
	between("code", t.Code, time.Second, 10*time.Minute)
	if t.RefreshIdle > t.RefreshMax {
		c.error("tokens.refresh_idle", "is %s, longer than tokens.refresh_max (%s)", t.RefreshIdle, t.RefreshMax)
	}
	if *t.RetryWindow == 0 {
		c.warn("tokens.retry_window", "is 0: a refresh that is repeated because its answer was lost counts as theft and signs the user out")
	}
}

func (c *checker) between(key string, found, low, high time.Duration) {
	if found < low || found > high {
		c.error(key, "is %s; allowed are %s to %s", found, low, high)
	}
}

func (c *checker) sessions(t Sessions) {
	c.between("sessions.idle", t.Idle, time.Minute, 8760*time.Hour)
	c.between("sessions.max", t.Max, time.Minute, 8760*time.Hour)
	if t.Idle > t.Max {
		c.error("sessions.idle", "is %s, longer than sessions.max (%s)", t.Idle, t.Max)
	}
}

// resources returns the owner of each scope.
func (c *checker) resources(resources []Resource) map[string]string {
	owners := make(map[string]string)
	seen := make(map[string]bool)
	for i, resource := range resources {
		at := fmt.Sprintf("resources[%d]", i)
		u, err := url.Parse(resource.Identifier)
		switch {
		case err != nil || u.Scheme == "" || strings.Contains(resource.Identifier, "#") || u.User != nil:
			// RFC 8707 §2.
			c.error(at+".identifier", "%q is not an absolute URI without user and fragment; for example https://api.example.com", resource.Identifier)
		case seen[resource.Identifier]:
			c.error(at+".identifier", "%q is configured twice", resource.Identifier)
		}
		seen[resource.Identifier] = true
		for j, scope := range resource.Scopes {
			key := fmt.Sprintf("%s.scopes[%d]", at, j)
			switch {
			case !isScopeToken(scope):
				c.error(key, "%q is not a scope: printable ASCII without space, quote and backslash", scope)
			case slices.Contains(userScopes, scope):
				c.error(key, "%q speaks about users and belongs to no resource", scope)
			case scope == verifierScope:
				c.error(key, "%q belongs to the issuer itself: it lets a client follow the feed and introspect", scope)
			case owners[scope] != "":
				c.error(key, "%q belongs to %s already; a scope belongs to one resource", scope, owners[scope])
			}
			owners[scope] = resource.Identifier
		}
	}
	return owners
}

func (c *checker) clients(clients []Client, resources []Resource, owners map[string]string) {
	seen := make(map[string]bool)
	for i, client := range clients {
		at := fmt.Sprintf("clients[%d]", i)
		switch {
		case client.ClientID == "" || len(client.ClientID) > 256 || strings.ContainsFunc(client.ClientID, notVSCHAR):
			// RFC 6749 appendix A.1.
			c.error(at+".client_id", "%q is not 1 to 256 printable ASCII characters", client.ClientID)
		case seen[client.ClientID]:
			c.error(at+".client_id", "%q is configured twice", client.ClientID)
		}
		seen[client.ClientID] = true
		c.clientAuth(at, client)
		c.clientGrants(at, client)
		c.clientOpenID(at, client)
		for _, scope := range strings.Fields(client.Scope) {
			if owners[scope] == "" && !slices.Contains(userScopes, scope) && (len(resources) > 0 || !isScopeToken(scope)) {
				c.error(at+".scope", "%q belongs to no configured resource", scope)
			}
			if scope == verifierScope && !slices.Equal(client.GrantTypes, []string{"client_credentials"}) {
				c.error(at+".scope", "%q is for resource servers, which have no users; set grant_types to client_credentials alone", scope)
			}
		}
		for j, uri := range client.RedirectURIs {
			c.redirectURI(fmt.Sprintf("%s.redirect_uris[%d]", at, j), uri)
		}
		c.clientPages(at, client)
		isResource := func(r Resource) bool { return r.Identifier == client.Resource }
		if client.Resource != "" && !slices.ContainsFunc(resources, isResource) {
			c.error(at+".resource", "%q is not the identifier of a configured resource", client.Resource)
		}
	}
}

func notVSCHAR(r rune) bool { return r < 0x20 || r > 0x7e }

func (c *checker) clientAuth(at string, client Client) {
	known := []string{methodSecretBasic, methodSecretPost, methodPrivateKeyJWT, methodNone}
	method := client.TokenEndpointAuthMethod
	secretMethod := method == methodSecretBasic || method == methodSecretPost
	switch {
	case method != "" && !slices.Contains(known, method):
		c.error(at+".token_endpoint_auth_method", "%q is unknown; allowed are %s", method, strings.Join(known, ", "))
	case method == "" && client.ClientSecret == "" && client.JWKS == "":
		c.error(at, "has neither client_secret nor jwks; a public client says token_endpoint_auth_method: none")
	case client.ClientSecret != "" && client.JWKS != "":
		c.error(at, "has both client_secret and jwks; a client authenticates in one way")
	case method == methodNone && (client.ClientSecret != "" || client.JWKS != ""):
		c.error(at+".token_endpoint_auth_method", "is none, but the client has a client_secret or jwks")
	case secretMethod && client.ClientSecret == "":
		c.error(at+".client_secret", "is missing, token_endpoint_auth_method %s needs it", method)
	case method == methodPrivateKeyJWT && client.JWKS == "":
		c.error(at+".jwks", "is missing, token_endpoint_auth_method private_key_jwt needs the client's public keys")
	}
	if n := len(client.ClientSecret); n > 0 && n < longSecret {
		c.warn(at+".client_secret", "has %d characters; use %d or more random ones, for example of `openssl rand -hex 32`", n, longSecret)
	}
	if client.JWKS == "" {
		return
	}
	keys, refused, err := intake.ParseKeySet([]byte(client.JWKS))
	if err != nil {
		c.error(at+".jwks", "is not a JSON Web Key Set: %v", err)
	}
	for _, why := range refused {
		c.error(at+".jwks", "holds a key that is refused: %v", why)
	}
	if err == nil && len(keys) == 0 && len(refused) == 0 {
		c.error(at+".jwks", "holds no key")
	}
}

func (c *checker) clientGrants(at string, client Client) {
	var known []string
	for _, g := range (*Server)(nil).grantTable() {
		known = append(known, g.name)
	}
	for j, name := range client.GrantTypes {
		if !slices.Contains(known, name) {
			c.error(fmt.Sprintf("%s.grant_types[%d]", at, j), "%q is unknown; allowed are %s", name, strings.Join(known, ", "))
		}
	}
	if len(client.RedirectURIs) == 0 && slices.Contains(client.AllowedGrantTypes(), "authorization_code") {
		c.warn(at+".redirect_uris", "are missing: authorization_code, the grant of a client without grant_types, needs one; a machine has grant_types: [client_credentials]")
	}
	public := client.TokenEndpointAuthMethod == methodNone
	if public && slices.Contains(client.GrantTypes, "client_credentials") {
		c.error(at+".grant_types", "a public client cannot use client_credentials (OAuth 2.1 section 4.2)") // OAuth 2.1 §4.2
	}
	if client.RequirePKCE != nil && !*client.RequirePKCE && public { // OAuth 2.1 §7.5.1
		c.error(at+".require_pkce", "a public client must use PKCE; false is for confidential OpenID Connect clients")
	}
	switch client.RefreshTokenRotation {
	case "", rotationAlways:
	case rotationNever:
		if public { // RFC 9700 §2.2.2
			c.error(at+".refresh_token_rotation", "a public client's refresh tokens must rotate; allowed is always")
		}
	default:
		c.error(at+".refresh_token_rotation", "%q is unknown; allowed are always, never", client.RefreshTokenRotation)
	}
}

func (c *checker) users(users []User, clients []Client) {
	names, subjects := make(map[string]bool), make(map[string]bool)
	for _, client := range clients {
		subjects[client.ClientID] = true // RFC 9700 §4.15: no user can pass for a client
	}
	for i, user := range users {
		at := fmt.Sprintf("users[%d]", i)
		name := foldUsername(user.Username)
		switch {
		case name == "" || len(name) > 256 || strings.ContainsFunc(name, isControl):
			c.error(at+".username", "%q is not 1 to 256 characters without control characters", user.Username)
		case names[name]:
			c.error(at+".username", "%q is configured twice (case and outer spaces do not count)", user.Username)
		}
		names[name] = true
		if len(user.Sub) > 255 || strings.ContainsFunc(user.Sub, notVSCHAR) { // OpenID Connect Core §2
			c.error(at+".sub", "has more than 255 characters, or other than printable ASCII")
		}
		if subject := user.subject(); subjects[subject] {
			c.error(at+".sub", "%q is the sub of another user or the client_id of a client", subject)
		} else {
			subjects[subject] = true
		}
		if user.PasswordHash == "" {
			c.error(at+".password_hash", "is missing; make one with `authserver user hash`")
		} else if _, err := parsePasswordHash(user.PasswordHash); err != nil {
			c.error(at+".password_hash", "%v", err)
		}
	}
}
