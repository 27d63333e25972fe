package verifier

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// wellKnown is where RFC 9728 §3 has a resource's metadata.
const wellKnown = "/.well-known/oauth-protected-resource"

// resourceMetadata is RFC 9728 §2.
type resourceMetadata struct {
	Resource      string   `json:"resource"`
	Servers       []string `json:"authorization_servers"`
	Scopes        []string `json:"scopes_supported,omitempty"`
	Methods       []string `json:"bearer_methods_supported"`
	Name          string   `json:"resource_name,omitempty"`
	Documentation string   `json:"resource_documentation,omitempty"`
}

// Metadata says more about this API in its protected resource metadata (RFC 9728).
type Metadata struct {
	Scopes        []string // those that a client may ask for
	Name          string   // for people
	Documentation string   // URL, for developers
}

// metadataLocation inserts the well-known name before the path of the audience
// (RFC 9728 §3.1). It is empty for an audience that is no http URL.
func metadataLocation(audience string) (path, location string) {
	u, err := url.Parse(audience)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.Fragment != "" {
		return "", ""
	}
	path = wellKnown + strings.TrimSuffix(u.EscapedPath(), "/")
	location = u.Scheme + "://" + u.Host + path
	if u.RawQuery != "" {
		location += "?" + u.RawQuery
	}
	return path, location
}

// ServeMetadata adds the protected resource metadata (RFC 9728) to mux, at the path
// that the audience gives, and from then on challenges tell clients where it is, so
// that they find the issuer by themselves. It does nothing for an audience that is
// no http URL. Call it before the verifier is used.
func (v *Verifier) ServeMetadata(mux *http.ServeMux, about Metadata) {
	path, location := metadataLocation(v.config.Audience)
	if path == "" {
		return
	}
	document, err := json.Marshal(resourceMetadata{
		Resource: v.config.Audience, Servers: []string{v.config.Issuer}, Methods: []string{"header"},
		Scopes: about.Scopes, Name: about.Name, Documentation: about.Documentation,
	})
	if err != nil { // strings only
		panic(err)
	}
	v.metadataURL = location
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json") // RFC 9728 §3.2
		w.Header().Set("Access-Control-Allow-Origin", "*") // clients in browsers look here first
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Write(document)
	})
}
