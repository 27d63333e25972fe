package authserver

import (
	"fmt"
	"net/url"
	"strings"
)

// clientPages checks what a client is registered with for the pages and logout.
func (c *checker) clientPages(at string, client Client) {
	for j, uri := range client.PostLogoutRedirectURIs { // ATTACKS RU-22: the rules of redirect URIs
		c.redirectURI(fmt.Sprintf("%s.post_logout_redirect_uris[%d]", at, j), uri)
	}
	link := func(key, uri string) {
		u, err := url.Parse(uri)
		if uri != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsFunc(uri, notVSCHAR)) {
			c.error(at+"."+key, "%q is not an https URL", uri)
		}
	}
	link("policy_uri", client.PolicyURI)
	link("tos_uri", client.TosURI)
	for key, uri := range map[string]string{"backchannel_logout_uri": client.BackchannelLogoutURI, "frontchannel_logout_uri": client.FrontchannelLogoutURI} {
		if uri == "" {
			continue
		}
		// Back-Channel Logout §2.2, Front-Channel Logout §2: https, without fragment.
		c.redirectURI(at+"."+key, uri)
		if u, err := url.Parse(uri); err == nil && u.Scheme != "https" && u.Scheme != "http" {
			c.error(at+"."+key, "%q is not an https URL", uri)
		}
	}
}
