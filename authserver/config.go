package authserver

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"authserver/keys"
	"authserver/store"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is everything a Server is made of. The first part comes from the
// operator (the yaml names are those of authserver.yaml), the second from the
// program that wires the server.
type Config struct {
	// Issuer is the issuer identifier (RFC 8414 §2): an https URL without query,
	// fragment or trailing slash; http is taken for loopback hosts only. It may
	// have a path. It is compared byte for byte and never derived from a request.
	Issuer string
	// Tokens are the lifetimes; zero fields take their defaults.
	Tokens Tokens
	// Sessions are the lifetimes of signed-in browsers; zero fields take their defaults.
	Sessions Sessions
	// Resources are the resource servers that tokens can be meant for. Without
	// any, access tokens are meant for the issuer itself.
	Resources []Resource
	// Scopes describes scopes for the pages where people allow them.
	Scopes []Scope
	// Clients and Users are the configured ones.
	Clients []Client
	Users   []User
	// Revocations is who may read the feed of revocations: open (the default) or
	// authenticated, which is clients with a Resource.
	Revocations string
	// Receivers are told of sessions that end and credentials that change, by security
	// event tokens that are pushed to them (RFC 8935).
	Receivers []Receiver
	// Source says where Clients and Users were read from, for messages to operators.
	Source string
	// TrustedProxies are the networks whose X-Forwarded-For is believed when
	// sign-ins are throttled by address. No other use is made of such headers.
	TrustedProxies []netip.Prefix

	// OutboundNetworks are networks, beside the public internet, that the server may
	// send requests to when a client or Receiver has a URL there: on the same machine
	// or in a private network. Outside of them the only port is 443.
	OutboundNetworks []netip.Prefix

	// Login draws the pages that people see. Without one nobody signs in with a
	// browser: there is no authorization endpoint. Package authserver/login has one.
	Login Login

	// NotBefore is the instant, in seconds since 1970, up to which the store cannot be
	// relied on to know what has ended, because it lost something and was accepted by an
	// operator all the same: what was granted by then is dead. It may move while the
	// server runs. Nil is never.
	NotBefore func() int64

	// Backup writes a backup of the store while it is used, for operators. Nil where the
	// store makes its own.
	Backup func(ctx context.Context, w io.Writer) error

	// Shared says that other instances use the Store as well. Whoever ends very much is
	// then told so when none of them believes what the Store said before.
	Shared bool

	Store    store.Store           // required
	Keys     *keys.Manager         // required; the caller runs and closes it
	Logger   *slog.Logger          // slog.Default() when nil
	Registry prometheus.Registerer // where the metrics go; nowhere when nil
}

// Tokens are lifetimes.
type Tokens struct {
	Access      time.Duration `yaml:"access"`       // of access tokens; 10m by default, 1h at most
	ID          time.Duration `yaml:"id"`           // of ID tokens; 10m by default, 1h at most
	RefreshIdle time.Duration `yaml:"refresh_idle"` // a grant that is not refreshed for so long ends; 720h by default
	RefreshMax  time.Duration `yaml:"refresh_max"`  // a grant ends after so long in any case; 8760h by default
	// RetryWindow is how long after a refresh the same refresh token is answered
	// with the same successor; 60s by default and at most. See Config.Check for zero.
	RetryWindow *time.Duration `yaml:"retry_window"`
	Code        time.Duration  `yaml:"code"` // of authorization codes; 60s by default, 10m at most
}

// Sessions are lifetimes of signed-in browsers.
type Sessions struct {
	Idle time.Duration `yaml:"idle"` // a session that is not used for so long ends; 24h by default
	Max  time.Duration `yaml:"max"`  // a session ends after so long in any case; 720h by default
	// KeepOfflineAccess lets grants with the scope offline_access outlive the session
	// that they were given in; their tokens then have no sid. By default the end of a
	// session ends all its grants (OpenID Connect Core §11 leaves it to us).
	KeepOfflineAccess bool `yaml:"keep_offline_access"`
}

// Resource is a resource server (RFC 8707).
type Resource struct {
	Identifier string   `yaml:"identifier"` // absolute URI without fragment; the aud of its tokens
	Scopes     []string `yaml:"scopes"`     // the scopes that belong to it; a scope belongs to one resource
	Algorithm  string   `yaml:"algorithm"`  // signs its tokens; the first of keys.algorithms by default
	// StatusList gives its tokens a status claim (draft-ietf-oauth-status-list), for
	// resource servers that follow no feed. Each token costs one write to the store.
	StatusList bool `yaml:"status_list"`
}

// Client is an OAuth client, with the metadata names of RFC 7591 §2 where it has
// them. Configured and stored clients are described alike; as JSON, a Client never
// holds a secret.
type Client struct {
	ClientID   string `yaml:"client_id" json:"client_id"`
	ClientName string `yaml:"client_name" json:"client_name,omitempty"`
	// ClientSecret is the secret itself, or a file that holds it.
	ClientSecret     string `yaml:"client_secret" json:"-" secret:"true"`
	ClientSecretFile string `yaml:"client_secret_file" json:"-"`
	// TokenEndpointAuthMethod is client_secret_basic, client_secret_post,
	// private_key_jwt or none. Empty means either of the first two for a client
	// with a secret and private_key_jwt for one with keys.
	TokenEndpointAuthMethod string `yaml:"token_endpoint_auth_method" json:"token_endpoint_auth_method,omitempty"`
	// JWKS is the client's public key set (RFC 7517 §5) as JSON, for private_key_jwt.
	JWKS string `yaml:"jwks" json:"jwks,omitempty"`
	// GrantTypes are what the client may use at the token endpoint;
	// authorization_code by default. "password" is for first-party clients only.
	GrantTypes   []string `yaml:"grant_types" json:"grant_types,omitempty"`
	RedirectURIs []string `yaml:"redirect_uris" json:"redirect_uris,omitempty"`
	Scope        string   `yaml:"scope" json:"scope,omitempty"` // space-separated; what the client may ask for
	// RefreshTokenRotation is always (the default) or never; never is for
	// confidential clients only (RFC 9700 §2.2.2).
	RefreshTokenRotation string `yaml:"refresh_token_rotation" json:"refresh_token_rotation,omitempty"`
	// Resource is the identifier of the resource server that this client is. It
	// lets the client introspect the tokens meant for that resource.
	Resource string `yaml:"resource" json:"resource,omitempty"`
	// RequirePKCE is true by default. False is for confidential OpenID Connect
	// clients that cannot do PKCE but check the nonce (OAuth 2.1 §7.5.1).
	RequirePKCE *bool `yaml:"require_pkce" json:"require_pkce,omitempty"`
	// SkipConsent is for first-party clients: their users are not asked whether the
	// client may have what it asks for. Native apps without a secret ask all the same.
	SkipConsent bool `yaml:"skip_consent" json:"skip_consent,omitempty"`
	// PolicyURI and TosURI are shown where a user is asked for consent; https.
	PolicyURI string `yaml:"policy_uri" json:"policy_uri,omitempty"`
	TosURI    string `yaml:"tos_uri" json:"tos_uri,omitempty"`
	// PostLogoutRedirectURIs are where a browser may be sent after a logout that the
	// client began (OpenID Connect RP-Initiated Logout §3.1). The rules are those of
	// redirect_uris.
	PostLogoutRedirectURIs []string `yaml:"post_logout_redirect_uris" json:"post_logout_redirect_uris,omitempty"`
	// BackchannelLogoutURI is told of the end of each session in which the client got
	// tokens, by a signed logout token (OpenID Connect Back-Channel Logout §2.2).
	BackchannelLogoutURI string `yaml:"backchannel_logout_uri" json:"backchannel_logout_uri,omitempty"`
	// FrontchannelLogoutURI is loaded in an iframe when such a session ends in the
	// same browser (OpenID Connect Front-Channel Logout §2). Browsers that keep
	// cookies of other sites away make that useless; the back channel is better.
	FrontchannelLogoutURI string `yaml:"frontchannel_logout_uri" json:"frontchannel_logout_uri,omitempty"`
	// IDTokenSignedResponseAlg is one of keys.algorithms; by default RS256 if it is
	// among them, else the first.
	IDTokenSignedResponseAlg string `yaml:"id_token_signed_response_alg" json:"id_token_signed_response_alg,omitempty"`
	// UserInfoSignedResponseAlg makes /userinfo answer with a signed JWT instead of JSON.
	UserInfoSignedResponseAlg string `yaml:"userinfo_signed_response_alg" json:"userinfo_signed_response_alg,omitempty"`
	// DefaultMaxAge is how old a sign-in may be, in seconds, for a request that has no
	// max_age; nil for as old as the session (OpenID Connect Registration §2).
	DefaultMaxAge *int64 `yaml:"default_max_age" json:"default_max_age,omitempty"`
	// RequireAuthTime asks for auth_time in the client's ID tokens. All ID tokens have
	// it; the name is here so that registrations that say so are understood.
	RequireAuthTime bool `yaml:"require_auth_time" json:"require_auth_time,omitempty"`
	// SubjectType is public (the default) or pairwise: then the client knows users by
	// identifiers that clients of other hosts cannot connect with theirs. When its
	// redirect URIs have several hosts, SectorIdentifierURI says which one counts;
	// it is not fetched (OpenID Connect Core §8.1).
	SubjectType         string `yaml:"subject_type" json:"subject_type,omitempty"`
	SectorIdentifierURI string `yaml:"sector_identifier_uri" json:"sector_identifier_uri,omitempty"`
}

// User is somebody who can sign in.
type User struct {
	Username string `yaml:"username"`
	// Sub is the subject identifier in tokens, unique and never reassigned; when
	// empty it is derived from the username.
	Sub          string `yaml:"sub"`
	PasswordHash string `yaml:"password_hash" secret:"true"` // PHC string; `authserver user hash` makes one
	// PasswordHashFile is a file that holds the PHC string.
	PasswordHashFile string         `yaml:"password_hash_file"`
	Roles            []string       `yaml:"roles"`
	Disabled         bool           `yaml:"disabled"`
	Claims           map[string]any `yaml:"claims"` // OpenID Connect Core §5.1, for example email
}

// Receiver is told of security events (OpenID CAEP 1.0).
type Receiver struct {
	// Name is for logs and metrics, and under it the store remembers what was
	// delivered: 1 to 64 letters, digits, dots, dashes and underscores.
	Name string `yaml:"name"`
	// URL is where events are pushed to: https, or http on the same machine. See
	// OutboundNetworks.
	URL string `yaml:"url"`
	// Audience is the aud of its events (RFC 8417 §2.2): what it calls itself.
	Audience string `yaml:"audience"`
	// Events are the last parts of the event types' URIs, session-revoked and
	// credential-change; both by default.
	Events []string `yaml:"events"`
	// Authorization is sent as the header of that name, for example "Bearer …", or a
	// file that holds it. Without one the receiver relies on the signature alone.
	Authorization     string `yaml:"authorization" secret:"true"`
	AuthorizationFile string `yaml:"authorization_file"`
}

// Problem is one mistake in a Config.
type Problem struct {
	// Key is the path of the value in authserver.yaml, for example
	// "clients[0].redirect_uris[1]".
	Key string
	// Text says what was found, what is allowed and, where it helps, what to do.
	Text string
	// Warning marks what works but deserves a thought.
	Warning bool
}
