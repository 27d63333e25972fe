package authserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// metadata is the document of RFC 8414 §2, made from the tables.
func (s *Server) metadata(routes []route) ([]byte, error) {
	var methods []string
	for _, method := range s.clientAuths {
		methods = append(methods, method.Name())
	}
	authenticated := slices.DeleteFunc(slices.Clone(methods), func(m string) bool { return m == methodNone })
	document := map[string]any{
		"issuer":                                                   s.issuer,
		"subject_types_supported":                                  []string{subjectPublic, subjectPairwise},
		"id_token_signing_alg_values_supported":                    s.keys.Algorithms(),
		"userinfo_signing_alg_values_supported":                    s.keys.Algorithms(),
		"claim_types_supported":                                    []string{"normal"},
		"claims_supported":                                         claimsSupported(),
		"scopes_supported":                                         s.resources.scopes(),
		"response_types_supported":                                 []string{}, // without an authorization endpoint
		"grant_types_supported":                                    s.grantTypeNames(),
		"token_endpoint_auth_methods_supported":                    methods,
		"token_endpoint_auth_signing_alg_values_supported":         assertionAlgorithms,
		"revocation_endpoint_auth_methods_supported":               methods,
		"revocation_endpoint_auth_signing_alg_values_supported":    assertionAlgorithms,
		"introspection_endpoint_auth_methods_supported":            authenticated,
		"introspection_endpoint_auth_signing_alg_values_supported": assertionAlgorithms,
	}
	if s.login != nil {
		document["response_types_supported"] = []string{"code"}
		document["response_modes_supported"] = []string{modeQuery, modeFormPost}
		document["code_challenge_methods_supported"] = []string{"S256"}   // RFC 8414 §2
		document["authorization_response_iss_parameter_supported"] = true // RFC 9207 §3
		document["prompt_values_supported"] = promptValues
		document["acr_values_supported"] = acrLevels
		document["claims_parameter_supported"] = true
		document["request_parameter_supported"] = false
		document["request_uri_parameter_supported"] = false // its default is true
		document["require_request_uri_registration"] = false
		// Back-Channel Logout §2.1, Front-Channel Logout §3: every client gets the sid.
		document["backchannel_logout_supported"], document["backchannel_logout_session_supported"] = true, true
		document["frontchannel_logout_supported"], document["frontchannel_logout_session_supported"] = true, true
	}
	for _, route := range routes {
		if route.metadata != "" {
			document[route.metadata] = s.issuer + route.path
		}
	}
	encoded, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encoding the metadata: %w", err)
	}
	return encoded, nil
}

// assertionAlgorithms are what private_key_jwt may be signed with.
var assertionAlgorithms = []string{"ES256", "ES384", "ES512", "EdDSA", "RS256", "PS256"}

func (r resourceRegistry) scopes() []string {
	scopes := slices.Clone(userScopes)
	for scope := range r.owner {
		scopes = append(scopes, scope)
	}
	slices.Sort(scopes)
	return scopes
}

// claimsSupported are the claims that a client can get about a user.
func claimsSupported() []string {
	claims := slices.Clone(protocolClaims)
	for _, ofScope := range claimScopes {
		claims = append(claims, ofScope...)
	}
	slices.Sort(claims)
	return slices.DeleteFunc(claims, func(name string) bool { return name == "azp" })
}

// metadataPaths are the two well-known names, with the issuer's path inserted
// (RFC 8414 §3.1) and appended (OpenID Connect Discovery §4).
func metadataPaths(issuerPath string) []string {
	var paths []string
	for _, name := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
		paths = append(paths, name+issuerPath)
		if issuerPath != "" {
			paths = append(paths, issuerPath+name)
		}
	}
	return paths
}

// staticJSON serves a public document that does not change while the process lives.
func staticJSON(body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=300")
		writeBody(w, r, "application/json", body)
	})
}

// handleJWKS serves the public keys from memory, whatever the store does. Caches
// may keep them until the next key could be in use (DESIGN: keys).
func (s *Server) handleJWKS(w http.ResponseWriter, r *http.Request) {
	jwks := s.keys.JWKS()
	seconds := int64(jwks.MaxAge / time.Second)
	w.Header().Set("Cache-Control", "public, max-age="+strconv.FormatInt(seconds, 10)+", must-revalidate")
	w.Header().Set("ETag", jwks.ETag)
	if matchesETag(r.Header.Get("If-None-Match"), jwks.ETag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writeBody(w, r, "application/jwk-set+json", jwks.Body) // RFC 7517 §8.5
}

// matchesETag is RFC 9110 §13.1.2 with weak comparison.
func matchesETag(header, etag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == "*" || candidate == etag {
			return true
		}
	}
	return false
}

func writeBody(w http.ResponseWriter, r *http.Request, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}

// handleHealth says that the process is alive.
func (s *Server) handleHealth(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// handleReady says whether a balancer should send requests here (ATTACKS FT-35).
func (s *Server) handleReady(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	w.Header().Set("Cache-Control", "no-store")
	if s.draining.Load() {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "stopping: requests are answered for a while yet; send them to another instance"})
		return
	}
	if err := s.store.Ping(ctx); err != nil {
		s.log.Error("not ready", "error", err)
		w.Header().Set("Retry-After", "1")
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "the store does not answer or takes no writes"})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}
