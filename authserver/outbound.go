package authserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errInward says that an address is not on the public internet and that the
// operator has not allowed it.
var errInward = errors.New("the address is not on the public internet and not in outbound_networks")

// outbound is for requests to URLs that clients registered: they must not become
// requests to what only this machine can reach (ATTACKS SS). Every address is
// judged when it is dialled, after the name was resolved, so that a name that
// changes its address gains nothing (SS-03).
type outbound struct {
	allowed []netip.Prefix // the operator's outbound_networks
	client  *http.Client
}

const outboundTimeout = 5 * time.Second // of one request altogether

func newOutbound(allowed []netip.Prefix) *outbound {
	o := &outbound{allowed: allowed}
	dialer := &net.Dialer{Timeout: outboundTimeout, Control: func(_, address string, _ syscall.RawConn) error { return o.judge(address) }}
	o.client = &http.Client{
		Timeout: outboundTimeout,
		Transport: &http.Transport{
			Proxy:                  nil, // SS-08: a proxy would be asked instead of judged
			DialContext:            dialer.DialContext,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			TLSHandshakeTimeout:    outboundTimeout,
			ResponseHeaderTimeout:  outboundTimeout,
			MaxResponseHeaderBytes: 16 << 10,
		},
		// SS-04: what redirects is not what was registered.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return o
}

// judge returns why an address with port must not be dialled.
func (o *outbound) judge(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	if ip.Zone() != "" {
		return fmt.Errorf("%w: %s", errInward, address)
	}
	ip = ip.Unmap()
	for _, prefix := range o.allowed {
		if prefix.Contains(ip) {
			return nil
		}
	}
	if !public(ip) {
		return fmt.Errorf("%w: %s", errInward, address)
	}
	if n, err := strconv.Atoi(port); err != nil || n != 443 { // SS-05
		return fmt.Errorf("the port of %s is not 443, which is the only one outside of outbound_networks", address)
	}
	return nil
}

// unicast is all of IPv6 that is given to networks of the internet (IANA, Internet
// Protocol Version 6 Address Space). What else there is stays refused, whatever it
// becomes.
var unicast = netip.MustParsePrefix("2000::/3")

// inward are the networks that are not the public internet (RFC 6890 and its
// registries), and those in which an IPv6 address stands for an IPv4 one.
var inward = func() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range strings.Fields(`0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
		192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
		2001::/23 2001:db8::/32 2002::/16 3fff::/20`) {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}()

func public(ip netip.Addr) bool {
	for _, prefix := range inward {
		if prefix.Contains(ip) {
			return false
		}
	}
	return ip.Is4() || unicast.Contains(ip)
}

// post sends a form and returns the status of the answer, whose body is not read.
func (o *outbound) post(ctx context.Context, url, form string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(form))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", formType)
	request.Header.Set("User-Agent", "authserver")
	response, err := o.client.Do(request)
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	return response.StatusCode, nil
}
