package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"authserver/internal/intake"
)

// findKeys returns the usable keys of a key set and where they were found: in a
// file, at a URL, or where the issuer's metadata says.
func findKeys(ctx context.Context, issuer, jwks string) (found []intake.Key, where string, err error) {
	if jwks == "" {
		metadata, err := discover(ctx, issuer)
		if err != nil {
			return nil, "", err
		}
		jwks = metadata.JWKS
	}
	var body []byte
	if strings.Contains(jwks, "://") {
		body, err = fetch(ctx, jwks, intake.MaxKeySet)
	} else {
		body, _, err = readFile(jwks, intake.MaxKeySet)
	}
	if err != nil {
		return nil, jwks, fmt.Errorf("reading the key set: %w", err)
	}
	found, refused, err := intake.ParseKeySet(body)
	if err == nil && len(found) == 0 {
		err = errors.Join(append([]error{errors.New("it has no usable key")}, refused...)...)
	}
	if err != nil {
		return nil, jwks, fmt.Errorf("the key set at %s: %w", jwks, err)
	}
	return found, jwks, nil
}

// issuerMetadata is what is looked up of an issuer.
type issuerMetadata struct {
	Issuer      string `json:"issuer"`
	JWKS        string `json:"jwks_uri"`
	Revocations string `json:"revocations_endpoint"`
}

// discover asks for the issuer's metadata (RFC 8414 §3).
func discover(ctx context.Context, issuer string) (metadata issuerMetadata, err error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return metadata, fmt.Errorf("the issuer %q is not a URL", issuer)
	}
	u.Path = "/.well-known/oauth-authorization-server" + strings.TrimSuffix(u.Path, "/")
	body, err := fetch(ctx, u.String(), intake.MaxKeySet)
	if err != nil {
		return metadata, fmt.Errorf("reading the issuer's metadata: %w", err)
	}
	if err := json.Unmarshal(body, &metadata); err != nil {
		return metadata, fmt.Errorf("the metadata at %s is not JSON", u)
	}
	if metadata.Issuer != issuer { // RFC 8414 §3.3
		return metadata, fmt.Errorf("the metadata at %s is of issuer %q, not of %q", u, metadata.Issuer, issuer)
	}
	return metadata, nil
}

// fetch gets a document of limit bytes at most: over https, or from this machine, and without
// following redirects.
func fetch(ctx context.Context, location string, limit int64) ([]byte, error) {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%q is not an absolute URL", location)
	}
	address, err := netip.ParseAddr(u.Hostname())
	local := u.Hostname() == "localhost" || err == nil && address.IsLoopback()
	if u.Scheme != "https" && !(u.Scheme == "http" && local) {
		return nil, fmt.Errorf("%s must be https; http is allowed on loopback hosts only", location)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", location, response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("%s answered more than %d bytes", location, limit)
	}
	return body, err
}
