package authserver

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

const maxReceivers = 32 // each has a goroutine and reads the store

// receivers checks who is told of security events.
func (c *checker) receivers(receivers []Receiver, o *outbound) {
	if len(receivers) > maxReceivers {
		c.error("receivers", "has %d, at most %d are told of events", len(receivers), maxReceivers)
	}
	seen := make(map[string]bool)
	for i, r := range receivers {
		at := fmt.Sprintf("receivers[%d]", i)
		switch {
		case r.Name == "" || len(r.Name) > 64 || strings.ContainsFunc(r.Name, notReceiverName):
			c.error(at+".name", "%q is not 1 to 64 letters, digits, dots, dashes and underscores", r.Name)
		case seen[r.Name]:
			c.error(at+".name", "%q is configured twice", r.Name)
		}
		seen[r.Name] = true
		c.receiverURL(at+".url", r.URL, o)
		if r.Audience == "" || len(r.Audience) > 512 || strings.ContainsFunc(r.Audience, notVSCHAR) { // RFC 8417 §2.2
			c.error(at+".audience", "%q is not 1 to 512 printable ASCII characters; it is the aud by which the receiver knows what is meant for it", r.Audience)
		}
		for j, event := range r.Events {
			key := fmt.Sprintf("%s.events[%d]", at, j)
			if !slices.Contains(eventTypes, event) {
				c.error(key, "%q is unknown; allowed are %s", event, strings.Join(eventTypes, ", "))
			} else if slices.Index(r.Events, event) != j {
				c.error(key, "%q is given twice", event)
			}
		}
		if scheme, credentials, _ := strings.Cut(r.Authorization, " "); r.Authorization != "" &&
			(scheme == "" || credentials == "" || strings.ContainsFunc(r.Authorization, notVSCHAR)) { // RFC 9110 §11.6.2
			c.error(at+".authorization", `is not a scheme, a space and credentials in printable ASCII, for example "Bearer …"`)
		}
	}
}

func notReceiverName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
}

// receiverURL says of an address that is written out whether it may be dialled; what
// a name resolves to is seen when it is.
func (c *checker) receiverURL(key, uri string, o *outbound) {
	u, err := url.Parse(uri)
	switch {
	case uri == "":
		c.error(key, "is missing; it is where events are pushed to, for example https://api.example.com/events")
		return
	case err != nil || u.Hostname() == "" || u.User != nil || strings.Contains(uri, "#") || strings.ContainsFunc(uri, notVSCHAR) || len(uri) > 2048:
		c.error(key, "is not an absolute URL without user and fragment; a secret goes into authorization") // it may hold one
		return
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())): // RFC 8935: over TLS
		c.error(key, "%q must be https; http is allowed for localhost, 127.0.0.1 and [::1] only", uri)
		return
	}
	host, port := u.Hostname(), u.Port()
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return
	}
	if err := o.judge(net.JoinHostPort(host, port)); err != nil {
		c.error(key, "%q will not be dialled: %v", uri, err)
	}
}
