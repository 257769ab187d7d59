// Package fetch gets files from other hosts, at addresses that somebody else chose. What such an address leads to is
// therefore not trusted: only hosts that are allowed are asked, only on the public internet and networks that are allowed,
// in bounded time and size, without a proxy, cookies or credentials. It knows nothing of who asks, nor of what the files are.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"

	"github.com/foretoken/foretoken/internal/errs"
)

// Config says where from files may be fetched, and their limits. Zero limits mean the defaults.
type Config struct {
	// Hosts are those that may be asked, each [SCHEME://]HOST[:PORT]. The scheme is https or http, by default https; the port
	// is by default the scheme's. HOST is a name, an address, *.NAME for all hosts below a name, or * for all.
	Hosts []string
	// Networks may be reached though they are not of the public internet: 10.1.0.0/16, or one address.
	Networks []string
	Bytes    int64          // most of a file: default 64 MiB
	Time     time.Duration  // of a whole fetch, with its wait for others: default 10 s
	Parallel int            // requests at once, for which others wait: default 8
	Roots    *x509.CertPool // of hosts' certificates; nil for the system's
	Resolver *net.Resolver  // of hosts' names; nil for the system's
}

// maxRedirects is how many redirects a fetch follows.
const maxRedirects = 3

// Fetcher gets files. It is safe for concurrent use.
type Fetcher struct {
	hosts     []pattern
	networks  []netip.Prefix
	bytes     int64
	time      time.Duration
	turns     chan struct{} // has one for each request under way
	transport *http.Transport
}

// New makes a fetcher; hosts and networks that can't be read are refused with [errs.Invalid].
func New(c Config) (*Fetcher, error) {
	f := &Fetcher{bytes: c.Bytes, time: c.Time}
	if f.bytes == 0 {
		f.bytes = 64 << 20
	}
	if f.time == 0 {
		f.time = 10 * time.Second
	}
	if c.Parallel == 0 {
		c.Parallel = 8
	}
	f.turns = make(chan struct{}, c.Parallel)
	for _, h := range c.Hosts {
		p, err := parsePattern(h)
		if err != nil {
			return nil, err
		}
		f.hosts = append(f.hosts, p)
	}
	for _, n := range c.Networks {
		p, err := parseNetwork(n)
		if err != nil {
			return nil, err
		}
		f.networks = append(f.networks, p)
	}
	dialer := &net.Dialer{Timeout: f.time, Resolver: c.Resolver, Control: f.control}
	f.transport = &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: c.Roots},
		DisableKeepAlives:      true, // each fetch looks names up for itself
		DisableCompression:     true, // what is read is what was sent
		MaxResponseHeaderBytes: 64 << 10,
	}
	return f, nil
}

// errLate is why a fetch's own time ended, and not its caller's.
var errLate = errors.New("fetch: time is up")

// Get returns the file at an address. It fails with [errs.Invalid] where the address may not be fetched or names no file,
// [errs.TooLarge] where the file is, and [errs.Unavailable] where its host does not answer.
func (f *Fetcher) Get(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.time, errLate)
	defer cancel()
	u, err := url.Parse(address)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the address begins %.40q and is none that can be read: give https://HOST/PATH", address)
	}
	for range maxRedirects + 1 {
		file, next, err := f.ask(ctx, u)
		if err != nil {
			return nil, f.problem(ctx, u, err)
		}
		if next == nil {
			return file, nil
		}
		u = next
	}
	return nil, errs.New(errs.Invalid, "%.200s: more than %d redirects before it; give the address that they lead to", shown(u), maxRedirects)
}

// ask makes one request when it is its turn: it returns the file, or where a redirect leads.
func (f *Fetcher) ask(ctx context.Context, u *url.URL) (file []byte, next *url.URL, err error) {
	if err := f.permit(u); err != nil {
		return nil, nil, err
	}
	select {
	case f.turns <- struct{}{}:
		defer func() { <-f.turns }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, errs.New(errs.Invalid, "%w", err)
	}
	request.Header.Set("User-Agent", "foretoken")
	answer, err := f.transport.RoundTrip(request) // which follows no redirect, and keeps no cookie
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	switch status := answer.StatusCode; {
	case status == http.StatusOK:
		if file, err = f.read(answer); err == nil {
			err = ctx.Err() // a host may end its answer because we hung up
		}
		return file, nil, err
	case slices.Contains(redirects, status):
		next, err = u.Parse(answer.Header.Get("Location"))
		if err != nil {
			return nil, nil, errs.New(errs.Invalid, "it redirects to what is no address")
		}
		return nil, next, nil
	case status >= http.StatusInternalServerError || status == http.StatusTooManyRequests:
		return nil, nil, errs.New(errs.Unavailable, "its host answers %d %s", status, http.StatusText(status))
	default:
		return nil, nil, errs.New(errs.Invalid, "its host answers %d %s, must be 200", status, http.StatusText(status))
	}
}

var redirects = []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect}

// read reads a file up to the limit.
func (f *Fetcher) read(answer *http.Response) ([]byte, error) {
	tooLarge := errs.New(errs.TooLarge, "the file has more than %d bytes, the limit", f.bytes)
	if answer.ContentLength > f.bytes {
		return nil, tooLarge
	}
	file, err := io.ReadAll(io.LimitReader(answer.Body, f.bytes+1))
	if int64(len(file)) > f.bytes {
		return nil, tooLarge
	}
	return file, err
}

// permit refuses an address that may not be asked, whatever its host's name leads to.
func (f *Fetcher) permit(u *url.URL) error {
	if u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
		return errs.New(errs.Invalid, "must be https://HOST/PATH")
	}
	if u.User != nil {
		return errs.New(errs.Invalid, "it has a user's name or password, which are not sent: leave them out")
	}
	if !slices.ContainsFunc(f.hosts, func(p pattern) bool { return p.matches(u) }) {
		return errs.New(errs.Invalid, "%s is not among the hosts that this server fetches from; whoever runs it can add it with --fetch", origin(u))
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		return f.reachable(a)
	}
	return nil
}

// control is called with the address that a connection is about to be made to, after names were looked up: what a name
// led to before, or leads to the next time, is of no account.
func (f *Fetcher) control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return f.reachable(at.Addr())
}

// reachable refuses addresses that are neither public nor of a network that is allowed.
func (f *Fetcher) reachable(a netip.Addr) error {
	a = a.WithZone("")
	if slices.ContainsFunc(f.networks, func(n netip.Prefix) bool { return n.Contains(a) }) {
		return nil
	}
	if kind := kindOf(a); kind != "" {
		return errs.New(errs.Invalid, "its host is at an address of another network than the public internet (%s); whoever runs this server can allow it with --fetch-networks", kind)
	}
	return nil
}

// problem says of what address an error is. What tells of the network that this machine is in is left out.
func (f *Fetcher) problem(ctx context.Context, u *url.URL, err error) error {
	dns, isDNS := errors.AsType[*net.DNSError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	certificate, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case errs.Of(err) != errs.Internal && errs.Of(err) != errs.Canceled:
		if isOp {
			err = op.Err // without the host's address
		}
		return errs.New(errs.Of(err), "%.200s: %w", shown(u), err)
	case context.Cause(ctx) == errLate:
		return errs.New(errs.Unavailable, "%.200s: not whole within %s, the limit", shown(u), f.time)
	case ctx.Err() != nil:
		return ctx.Err()
	case isDNS && dns.IsNotFound:
		return errs.New(errs.Invalid, "%.200s: there is no host of that name", shown(u))
	case isDNS:
		return errs.New(errs.Unavailable, "%.200s: the host's name can't be looked up now", shown(u))
	case isCertificate:
		return errs.New(errs.Invalid, "%.200s: %w", shown(u), certificate)
	case isOp:
		return errs.New(errs.Unavailable, "%.200s: %w", shown(u), op.Err)
	}
	return errs.New(errs.Unavailable, "%.200s: %w", shown(u), err)
}

// shown is an address without what may be secret in it: a password, a signature.
func shown(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// origin is scheme and host of an address, as they are allowed.
func origin(u *url.URL) string { return fmt.Sprintf("%s://%.100s", u.Scheme, u.Host) }
