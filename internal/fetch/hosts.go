package fetch

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

// pattern is a host that may be asked, or many.
type pattern struct{ scheme, host, port string }

func parsePattern(s string) (pattern, error) {
	full := s
	if !strings.Contains(s, "://") {
		full = "https://" + s
	}
	u, err := url.Parse(full)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Path+u.RawQuery+u.Fragment != "" ||
		strings.Contains(strings.TrimPrefix(u.Hostname(), "*"), "*") {
		return pattern{}, errs.New(errs.Invalid, "host %q to fetch from: must be [SCHEME://]HOST[:PORT], with https or http, and a name, an address, *.NAME or *", s)
	}
	return pattern{u.Scheme, hostOf(u), portOf(u)}, nil
}

func (p pattern) matches(u *url.URL) bool {
	host := hostOf(u)
	below, wild := strings.CutPrefix(p.host, "*")
	return u.Scheme == p.scheme && portOf(u) == p.port && (host == p.host || wild && strings.HasSuffix(host, below))
}

// hostOf is a host as it is compared: names have no case, and may end in a dot.
func hostOf(u *url.URL) string { return strings.TrimSuffix(strings.ToLower(u.Hostname()), ".") }

func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"https": "443", "http": "80"}[u.Scheme]
}

func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Prefix(a.BitLen())
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errs.New(errs.Invalid, "network %q to fetch from: must be ADDRESS/BITS, as 10.1.0.0/16, or an address", s)
	}
	return p.Masked(), nil
}

var cidr = netip.MustParsePrefix

// special are the networks that are not of the public internet, by IANA's registries of special-purpose addresses
// (IPv4, IPv6) and of IPv6's address space. The first that has an address says what it is; "" is public.
var special = []struct {
	network netip.Prefix
	kind    string
}{
	{cidr("0.0.0.0/8"), "unspecified"},
	{cidr("10.0.0.0/8"), "private"},
	{cidr("100.64.0.0/10"), "carrier-grade NAT"},
	{cidr("127.0.0.0/8"), "loopback"},
	{cidr("169.254.0.0/16"), "link-local"},
	{cidr("172.16.0.0/12"), "private"},
	{cidr("192.0.0.0/24"), "reserved for protocols"},
	{cidr("192.0.2.0/24"), "for documentation"},
	{cidr("192.88.99.0/24"), "relays of 6to4"},
	{cidr("192.168.0.0/16"), "private"},
	{cidr("198.18.0.0/15"), "for benchmarks"},
	{cidr("198.51.100.0/24"), "for documentation"},
	{cidr("203.0.113.0/24"), "for documentation"},
	{cidr("224.0.0.0/4"), "multicast"},
	{cidr("240.0.0.0/4"), "reserved"},
	{cidr("0.0.0.0/0"), ""},

	{cidr("::/128"), "unspecified"},
	{cidr("::1/128"), "loopback"},
	{cidr("::ffff:0:0/96"), "IPv4 mapped into IPv6"},
	{cidr("::/96"), "IPv4 in IPv6"},
	{cidr("64:ff9b::/96"), "IPv4 in IPv6, NAT64"},
	{cidr("64:ff9b:1::/48"), "IPv4 in IPv6, NAT64"},
	{cidr("2001::/32"), "IPv4 in IPv6, Teredo"},
	{cidr("2001::/23"), "reserved for protocols"},
	{cidr("2001:db8::/32"), "for documentation"},
	{cidr("2002::/16"), "IPv4 in IPv6, 6to4"},
	{cidr("3fff::/20"), "for documentation"},
	{cidr("2000::/3"), ""},
	{cidr("fc00::/7"), "unique local"},
	{cidr("fe80::/10"), "link-local"},
	{cidr("fec0::/10"), "site-local"},
	{cidr("ff00::/8"), "multicast"},
	{cidr("::/0"), "reserved"},
}

// kindOf says what network an address is of; "" is the public internet.
func kindOf(a netip.Addr) string {
	for _, s := range special {
		if s.network.Contains(a) {
			return s.kind
		}
	}
	return "reserved" // not reached: the table has a last row for each length
}
