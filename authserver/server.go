package authserver

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync/atomic"

	"authserver/keys"
	"authserver/store"

	"github.com/gorilla/mux"
)

// Server answers the protocol's requests. It is safe for concurrent use.
type Server struct {
	issuer    string
	https     bool
	tokens    Tokens // without zero fields
	clients   *clientDirectory
	users     *userDirectory
	resources resourceRegistry

	store     store.Store
	shared    bool // see Config, as notBefore
	notBefore func() int64
	grants    store.Table[Grant]      // by grant_id
	revoked   store.Table[revocation] // access tokens, by jti
	used      store.Table[struct{}]   // client assertions that were accepted

	login          Login                 // nil when nobody signs in with a browser
	sessions       store.Table[session]  // by sid
	sessionTimes   Sessions              // without zero fields
	consents       store.Table[consent]  // by consentKey
	spent          store.Table[struct{}] // interactions and codes that were used, by id
	interactionBox keys.Box
	codeBox        keys.Box
	totpBox        keys.Box  // secrets of authenticator apps
	knownBox       keys.Box  // the cookie of browsers that have signed in before
	logoutBox      keys.Box  // logouts that wait for the user's word
	passkeys       *passkeys // nil where there cannot be any
	scopeTexts     map[string]Text
	crossOrigin    *http.CrossOriginProtection
	outbound       *outbound
	backchannel    *backchannel
	challenges     *challenges
	outbox         *outbox
	pairwiseSalt   []byte

	keys      *keys.Manager
	log       *slog.Logger
	metrics   *metrics
	admission admission
	passwords *passwordHasher
	throttle  throttle
	guesses   *guesses // at secrets of clients
	feed      *revocationFeed
	statuses  *statusLists
	proxies   trustedProxies
	cursors   keys.Box // of the operators' lists
	listing   *grantListings
	backup    adminStream
	source    string // of the configuration, for messages to operators

	checkedAccess  *checkedTokens
	checkedRefresh *checkedTokens

	revocationsAccess string // who may read the feed

	grantTypes  []namedGrant
	clientAuths []ClientAuth
	headers     http.Header // of every answer
	handler     http.Handler
	draining    *atomic.Bool
}

// THE TABLES. Metadata is generated from them.

type namedGrant struct {
	name  string // grant_type
	grant GrantType
}

// route is one endpoint.
type route struct {
	path     string // below the issuer's path
	methods  []string
	cors     corsPolicy
	metadata string // the member of the metadata that holds its URL, if any
	handler  http.Handler
}

func (s *Server) grantTable() []namedGrant {
	return []namedGrant{
		{"authorization_code", authorizationCodeGrant{s}},
		{"client_credentials", clientCredentialsGrant{s}},
		{"refresh_token", refreshTokenGrant{s}},
		{"password", passwordGrant{s}},
	}
}

func (s *Server) clientAuthTable() []ClientAuth {
	return []ClientAuth{
		clientSecretBasic{s},
		clientSecretPost{s},
		privateKeyJWT{s},
		noClientAuth{s},
	}
}

func (s *Server) routeTable() []route {
	routes := []route{
		{"/token", post, corsRegistered, "token_endpoint", s.serveJSON("token", s.handleToken)},
		{"/introspect", post, corsNone, "introspection_endpoint", s.serveJSON("introspect", s.handleIntrospect)},
		{"/revoke", post, corsRegistered, "revocation_endpoint", s.serveJSON("revoke", s.handleRevoke)},
		{"/revocations", append(get, post...), corsNone, "revocations_endpoint", http.HandlerFunc(s.handleRevocations)},
		{"/userinfo", []string{http.MethodGet, http.MethodPost}, corsRegistered, "userinfo_endpoint", s.serveJSON("userinfo", s.handleUserInfo)},
		{statusListPath, get, corsAny, "", http.HandlerFunc(s.handleStatusList)},
		{"/.well-known/jwks.json", get, corsAny, "jwks_uri", http.HandlerFunc(s.handleJWKS)},
	}
	if s.login != nil {
		page := func(path, metadata, endpoint string, h pageHandler) {
			routes = append(routes, route{path, getAndPost, corsNone, metadata, s.servePage(endpoint, h)})
		}
		page("/authorize", "authorization_endpoint", "authorize", s.handleAuthorize)
		page("/login", "", "login", s.handleLogin)
		page("/consent", "", "consent", s.handleConsent)
		page("/account", "", "account", s.handleAccount)
		page("/logout", "end_session_endpoint", "logout", s.handleLogout)
	}
	return routes
}

var (
	get  = []string{http.MethodGet, http.MethodHead}
	post = []string{http.MethodPost}

	getAndPost = []string{http.MethodGet, http.MethodPost} // no HEAD: pages may start something
)

// New returns a server. It refuses a Config with mistakes; see Config.Check.
func New(c Config) (*Server, error) {
	var problems []error
	found := c.Check()
	if c.Keys != nil {
		found = append(found, c.CheckAlgorithms(c.Keys.Algorithms())...)
	}
	for _, p := range found {
		if !p.Warning {
			problems = append(problems, fmt.Errorf("%s: %s", p.Key, p.Text))
		}
	}
	if c.Store == nil || c.Keys == nil {
		problems = append(problems, errors.New("a Store and Keys are required"))
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("configuring the server: %w", errors.Join(problems...))
	}
	log := c.Logger
	if log == nil {
		log = slog.Default()
	}
	notBefore := c.NotBefore
	if notBefore == nil {
		notBefore = func() int64 { return 0 }
	}
	s := &Server{
		notBefore:  notBefore,
		shared:     c.Shared,
		issuer:     c.Issuer,
		https:      strings.HasPrefix(c.Issuer, "https:"),
		tokens:     c.Tokens.WithDefaults(),
		users:      newUserDirectory(c.Users, c.Clients, c.Store, notBefore),
		resources:  newResourceRegistry(c, c.Keys.Default()),
		store:      c.Store,
		grants:     Grants(c.Store),
		revoked:    store.Table[revocation]{Store: c.Store, Name: "revoked"},
		used:       store.Table[struct{}]{Store: c.Store, Name: "assertion"},
		keys:       c.Keys,
		log:        log,
		metrics:    newMetrics(c.Registry),
		challenges: new(challenges),
		draining:   new(atomic.Bool),
		admission:  newAdmission(log),
		passwords:  newPasswordHasher(),
		throttle:   throttle{store: c.Store},
		guesses:    newGuesses(),
		listing:    new(grantListings),
		proxies:    c.TrustedProxies,
		backup:     c.Backup,

		checkedAccess:  new(checkedTokens),
		checkedRefresh: new(checkedTokens),

		revocationsAccess: c.Revocations,
	}
	s.login, s.sessionTimes = c.Login, c.Sessions.WithDefaults()
	s.sessions = store.Table[session]{Store: c.Store, Name: "session"}
	s.consents = store.Table[consent]{Store: c.Store, Name: "consent"}
	s.spent = store.Table[struct{}]{Store: c.Store, Name: "spent"}
	var err error
	if s.feed, err = newRevocationFeed(s); err != nil {
		return nil, err
	}
	s.statuses = newStatusLists(s)
	s.outbox = newOutbox(s, c.Receivers)
	if s.interactionBox, err = c.Keys.Box("interaction"); err != nil {
		return nil, err
	}
	if err := s.preparePages(c); err != nil {
		return nil, err
	}
	if s.codeBox, err = c.Keys.Box("authorization code"); err != nil {
		return nil, err
	}
	if s.pairwiseSalt, err = pairwiseSalt(c.Store, c.Keys, c.Issuer); err != nil {
		return nil, err
	}
	if s.clients, err = newClientDirectory(c.Clients, c.Users, c.Store, notBefore); err != nil {
		return nil, err
	}
	if s.cursors, err = c.Keys.Box("admin cursor"); err != nil {
		return nil, err
	}
	if s.source = c.Source; s.source == "" {
		s.source = "the configuration"
	}
	if c.Registry != nil {
		c.Registry.MustRegister(keyMetrics{c.Keys})
	}
	s.headers = http.Header{"X-Content-Type-Options": {"nosniff"}}
	if s.https {
		s.headers.Set("Strict-Transport-Security", "max-age=31536000")
	}
	s.grantTypes, s.clientAuths = s.grantTable(), s.clientAuthTable()
	if s.handler, err = s.router(); err != nil {
		return nil, err
	}
	return s, nil
}

// Handler returns the handler of all public endpoints.
func (s *Server) Handler() http.Handler { return s }

// Drain says that the server is about to stop, and goes on to answer: /readyz says 503 from
// now on, so that balancers send requests elsewhere, and every answer asks the client to
// close its connection, so that none is in the middle of a request when it is closed
// (RFC 9112 §9.6; over HTTP/2, net/http makes that a GOAWAY, RFC 9113 §6.8).
func (s *Server) Drain() { s.draining.Store(true) }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			e := asError(errors.New("a panic: the record before this one has it"))
			e.trace = newTrace()
			s.log.Error("panic in a handler", "trace_id", e.trace, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			s.logRefusal(r, "any", e)
			writeJSON(w, http.StatusInternalServerError, errorBody{Error: e.Code, Trace: e.trace})
		}
	}()
	if s.draining.Load() || r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
		// RFC 9112 §6.1: it may have had a length, too, by which a proxy sees its end
		// elsewhere. net/http does not tell, so that nothing is read behind any such request.
		w.Header().Set("Connection", "close")
	}
	maps.Copy(w.Header(), s.headers)
	s.handler.ServeHTTP(w, r)
}

func (s *Server) router() (http.Handler, error) {
	issuer, err := url.Parse(s.issuer)
	if err != nil {
		return nil, err
	}
	routes := s.routeTable()
	handlers := make(map[string]http.Handler) // by path
	for _, route := range routes {
		handlers[issuer.Path+route.path] = s.serveRoute(route)
	}
	document, err := s.metadata(routes)
	if err != nil {
		return nil, err
	}
	for _, path := range metadataPaths(issuer.Path) {
		handlers[path] = s.serveRoute(route{methods: get, cors: corsAny, handler: staticJSON(document)})
	}
	handlers["/healthz"] = s.serveRoute(route{methods: get, handler: http.HandlerFunc(s.handleHealth)})
	handlers["/readyz"] = s.serveRoute(route{methods: get, handler: http.HandlerFunc(s.handleReady)})
	// Paths match byte for byte: no cleaning, which would turn a POST to //token
	// into a redirected GET, and no decoding. One lookup finds the handler, instead of
	// the regular expression of each route in turn; behind a path that ends with a
	// slash, one more part may follow.
	router := mux.NewRouter().SkipClean(true).UseEncodedPath()
	router.MatcherFunc(func(r *http.Request, match *mux.RouteMatch) bool {
		path := r.URL.EscapedPath()
		if match.Handler = handlers[path]; match.Handler == nil {
			match.Handler = handlers[path[:strings.LastIndexByte(path, '/')+1]]
		}
		return match.Handler != nil
	})
	router.NotFoundHandler = s.serveUnknown(handlers, issuer)
	return router, nil
}

// serveRoute answers what all endpoints answer alike: CORS and wrong methods.
func (s *Server) serveRoute(route route) http.Handler {
	allowed := strings.Join(append([]string{http.MethodOptions}, route.methods...), ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if preflight := s.allowOrigin(w, r, route); preflight {
			return
		}
		for _, method := range route.methods {
			if r.Method == method {
				route.handler.ServeHTTP(w, r)
				return
			}
		}
		w.Header().Set("Allow", allowed) // RFC 9110 §15.5.6
		writeJSON(w, http.StatusMethodNotAllowed, errorBody{Error: "invalid_request",
			Description: "this endpoint takes " + strings.Join(route.methods, " or ") + " requests only"})
	})
}
