package main

import (
	"net/http"
	"net/url"
	"strings"

	"authserver/verifier"
)

// forwardAuth answers gateways that ask, for each request, whether it may pass:
// nginx's auth_request, Traefik's forwardAuth, Envoy's ext_authz over HTTP. They pass
// the Authorization header on; what the route needs is in the query: scope and role,
// repeated for several (all of the scopes, one of the roles). 200 comes with the
// claims as headers, 401 and 403 with the challenge for the client.
//
//	location /orders {
//		auth_request /verify;
//		auth_request_set $subject $upstream_http_x_auth_subject;
//		proxy_set_header X-Auth-Subject $subject;   # never the client's own
//		proxy_pass http://orders;
//	}
//	location = /verify {
//		internal;
//		proxy_pass http://127.0.0.1:8081/verify?scope=orders:read;
//		proxy_pass_request_body off;
//		proxy_set_header Content-Length "";
//	}
func forwardAuth(v *verifier.Verifier) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		claims, err := v.Authenticate(r, verifier.Requirement{Scopes: query["scope"], Roles: query["role"]})
		if err != nil {
			v.WriteError(w, err)
			return
		}
		for name, values := range map[string][]string{
			"X-Auth-Subject": {claims.Subject}, "X-Auth-Client": {claims.ClientID}, "X-Auth-Username": {claims.PreferredUsername},
			"X-Auth-Scope": strings.Fields(claims.Scope), "X-Auth-Roles": claims.Roles,
		} {
			for i, value := range values {
				values[i] = headerText(value)
			}
			w.Header().Set(name, strings.Join(values, " "))
		}
		w.Header().Set("Cache-Control", "no-store")
	}
}

// headerText percent-encodes what is no printable ASCII, and spaces and commas,
// which would make two values of one.
func headerText(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ',' || r == '%' }) < 0 {
		return s
	}
	return url.PathEscape(s)
}
