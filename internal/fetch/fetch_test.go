package fetch

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foretoken/foretoken/internal/errs"
)

// TestMain names a proxy that is none: what asks it does not come through.
func TestMain(m *testing.M) {
	os.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	os.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	os.Exit(m.Run())
}

// resolver looks names up by a function from a name to an IPv4 address, over DNS as it is on a TCP connection.
func resolver(lookup func(name string) string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			for answerQuestion(server, lookup) == nil {
			}
		}()
		return client, nil
	}}
}

// answerQuestion reads a message of RFC 1035 with one question, and answers one of type A; others have no answer.
func answerQuestion(conn net.Conn, lookup func(name string) string) error {
	var size uint16
	if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
		return err
	}
	question := make([]byte, size)
	if _, err := io.ReadFull(conn, question); err != nil {
		return err
	}
	const header = 12
	end, labels := header, []string{}
	for question[end] != 0 {
		next := end + 1 + int(question[end])
		labels = append(labels, string(question[end+1:next]))
		end = next
	}
	kind := binary.BigEndian.Uint16(question[end+1:])
	answer := append([]byte{}, question[:end+5]...)
	copy(answer[2:header], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}) // an answer without error, to one question
	if kind == 1 {
		answer[7] = 1
		at := netip.MustParseAddr(lookup(strings.Join(labels, "."))).As4()
		answer = append(append(answer, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), at[:]...)
	}
	_, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	return err
}

// here looks every name up as this machine.
func here(string) string { return "127.0.0.1" }

// host is a server of files; its certificate is example.com's.
func host(t *testing.T, handler http.HandlerFunc) (server *httptest.Server, address string) {
	t.Helper()
	server = httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return server, "https://example.com:" + port
}

// fetcher may ask a host, with its certificate trusted.
func fetcher(t *testing.T, server *httptest.Server, c Config) *Fetcher {
	t.Helper()
	c.Roots = x509.NewCertPool()
	c.Roots.AddCert(server.Certificate())
	if c.Resolver == nil {
		c.Resolver = resolver(here)
	}
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAFileIsFetched(t *testing.T) {
	file := []byte{0, 1, 2, 0xff}
	server, address := host(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			w.Header().Set("Set-Cookie", "a=b")
			http.Redirect(w, r, "/a?b=c", http.StatusFound)
			return
		}
		for _, header := range []string{"Authorization", "Cookie", "Referer"} {
			if r.Header.Get(header) != "" {
				t.Errorf("%s: %s", header, r.Header.Get(header))
			}
		}
		w.Write(file)
	})
	f := fetcher(t, server, Config{Hosts: []string{address}, Networks: []string{"127.0.0.0/8"}, Bytes: int64(len(file))})
	for _, path := range []string{"/a", "/moved", "/moved#fragment"} {
		if got, err := f.Get(t.Context(), address+path); err != nil || !bytes.Equal(got, file) {
			t.Errorf("%s: %v, %v", path, got, err)
		}
	}
	if _, err := f.Get(t.Context(), strings.Replace(address, "example.com", "EXAMPLE.com.", 1)+"/a"); err != nil {
		t.Errorf("a name in capitals, with a dot behind it: %v", err)
	}
}

// TestAddressesThatAreRefused asks a fetcher to which all hosts are allowed, and no network.
func TestAddressesThatAreRefused(t *testing.T) {
	f, err := New(Config{Hosts: []string{"https://*", "http://*"}, Resolver: resolver(here), Time: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for address, words := range map[string]string{
		"https://127.0.0.1/a":                      "(loopback)",
		"https://127.0.0.1:443/a":                  "(loopback)",
		"http://localhost/a":                       "(loopback)",
		"https://127.1/a":                          "no host of that name",
		"https://2130706433/a":                     "no host of that name",
		"https://0x7f000001/a":                     "(loopback)",
		"https://a.name/a":                         "(loopback)",
		"https://0.0.0.0/a":                        "(unspecified)",
		"https://10.1.2.3/a":                       "(private)",
		"https://172.31.255.255/a":                 "(private)",
		"https://192.168.0.1/a":                    "(private)",
		"https://100.127.0.1/a":                    "(carrier-grade NAT)",
		"http://169.254.169.254/latest/meta-data/": "(link-local)",
		"https://192.88.99.1/a":                    "(relays of 6to4)",
		"https://198.19.0.1/a":                     "(for benchmarks)",
		"https://224.0.0.251/a":                    "(multicast)",
		"https://255.255.255.255/a":                "(reserved)",
		"https://[::]/a":                           "(unspecified)",
		"https://[::1]/a":                          "(loopback)",
		"https://[::ffff:127.0.0.1]/a":             "(IPv4 mapped into IPv6)",
		"https://[::ffff:8.8.8.8]/a":               "(IPv4 mapped into IPv6)",
		"https://[::7f00:1]/a":                     "(IPv4 in IPv6)",
		"https://[64:ff9b::7f00:1]/a":              "(IPv4 in IPv6, NAT64)",
		"https://[64:ff9b:1::a00:1]/a":             "(IPv4 in IPv6, NAT64)",
		"https://[2002:7f00:1::]/a":                "(IPv4 in IPv6, 6to4)",
		"https://[2001:0:7f00:1::]/a":              "(IPv4 in IPv6, Teredo)",
		"https://[2001:db8::1]/a":                  "(for documentation)",
		"https://[fd00::1]/a":                      "(unique local)",
		"https://[fe80::1]/a":                      "(link-local)",
		"https://[fe80::1%25lo]/a":                 "(link-local)",
		"https://[fec0::1]/a":                      "(site-local)",
		"https://[ff02::1]/a":                      "(multicast)",
		"https://[4000::1]/a":                      "(reserved)",
		"https://8.8.8.8:22/a":                     "https://8.8.8.8:22 is not among the hosts",
		"http://8.8.8.8:443/a":                     "not among the hosts",
		"https://me:secret@8.8.8.8/a":              "leave them out",
		"https:///a":                               "must be https://HOST/PATH",
		"https:a":                                  "must be https://HOST/PATH",
		"ftp://8.8.8.8/a":                          "must be https://HOST/PATH",
		"file:///etc/passwd":                       "must be https://HOST/PATH",
		"//8.8.8.8/a":                              "must be https://HOST/PATH",
		"https://8.8.8.8:port/a":                   "none that can be read",
		"https://a b/":                             "none that can be read",
	} {
		_, err := f.Get(t.Context(), address)
		if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %s", address, err, words)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(address, "name") && strings.Contains(err.Error(), "127.0.0.1")) {
			t.Errorf("%s: the error tells too much: %v", address, err)
		}
	}
	for _, public := range []string{"8.8.8.8", "1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"} {
		if kind := kindOf(netip.MustParseAddr(public)); kind != "" {
			t.Errorf("%s is %s", public, kind)
		}
	}
}

func TestHostsThatAreAllowed(t *testing.T) {
	for address, hosts := range map[string]map[string]bool{
		"https://img.example.com/a":      {"img.example.com": true, "https://IMG.example.com.": true, "*.example.com": true, "*": true, "example.com": false, "http://*": false, "*:8443": false, "*.img.example.com": false},
		"https://example.com/a":          {"*.example.com": false, "example.com:443": true},
		"https://badexample.com/a":       {"*.example.com": false, "example.com": false},
		"https://example.com.evil.org/a": {"example.com": false, "*.example.com": false},
		"https://example.com:8443/a":     {"example.com": false, "*": false, "*:8443": true},
		"http://example.com/a":           {"example.com": false, "http://example.com": true, "http://example.com:8080": false},
		"https://[2606:4700::1]/a":       {"[2606:4700::1]": true, "[2606:4700::2]": false},
	} {
		for h, want := range hosts {
			f, err := New(Config{Hosts: []string{h}, Resolver: resolver(here), Time: time.Nanosecond})
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.Get(t.Context(), address)
			if got := !strings.Contains(err.Error(), "not among the hosts"); got != want {
				t.Errorf("%s where %s is allowed: %v", address, h, err)
			}
		}
	}
	for _, bad := range []Config{
		{Hosts: []string{""}},
		{Hosts: []string{"ftp://a"}},
		{Hosts: []string{"a/b"}},
		{Hosts: []string{"me@a"}},
		{Hosts: []string{"a.*"}},
		{Hosts: []string{"*.*.a"}},
		{Networks: []string{"10.0.0.0/33"}},
		{Networks: []string{"host"}},
	} {
		if _, err := New(bad); errs.Of(err) != errs.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// TestARedirectIsCheckedAnew has a host that is allowed lead to what is not.
func TestARedirectIsCheckedAnew(t *testing.T) {
	var location string
	var asked atomic.Int32
	server, address := host(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	f := fetcher(t, server, Config{Hosts: []string{address, "*", "http://*"}, Networks: []string{"127.0.0.1"}})
	for to, c := range map[string]struct {
		words string
		asked int32
	}{
		"http://169.254.169.254/latest":      {"(link-local)", 1},
		"https://10.0.0.1/a":                 {"(private)", 1},
		"//[::1]/a":                          {"(loopback)", 1},
		"https://127.0.0.1:1/a":              {"not among the hosts", 1},
		"https://me:secret@example.com/a":    {"leave them out", 1},
		"file:///etc/passwd":                 {"must be https", 1},
		"https://a b/":                       {"no address", 1},
		"/again":                             {"more than 3 redirects", 4},
		"":                                   {"more than 3 redirects", 4},
		strings.Replace(address, "s", "", 1): {"not among the hosts", 1},
	} {
		location = to
		asked.Store(0)
		_, err := f.Get(t.Context(), address+"/a?signature=secret")
		if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "secret") {
			t.Errorf("to %q: %v, want %s", to, err, c.words)
		}
		if asked.Load() != c.asked {
			t.Errorf("to %q: the host was asked %d times, want %d", to, asked.Load(), c.asked)
		}
	}
}

// TestAnAnswerOfDNSThatChanges lets a name lead to an allowed address first, and then to another.
func TestAnAnswerOfDNSThatChanges(t *testing.T) {
	server, address := host(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "file") })
	var lookups atomic.Int32
	f := fetcher(t, server, Config{Hosts: []string{address}, Networks: []string{"127.0.0.1"}, Resolver: resolver(func(string) string {
		return fmt.Sprintf("127.0.0.%d", lookups.Add(1))
	})})
	if b, err := f.Get(t.Context(), address); err != nil || string(b) != "file" {
		t.Fatalf("%q, %v", b, err)
	}
	if n := lookups.Load(); n != 1 {
		t.Errorf("%d lookups: the address that was checked may not be the one that was asked", n)
	}
	if b, err := f.Get(t.Context(), address); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), "(loopback)") {
		t.Errorf("%q, %v", b, err)
	}
}

func TestLimits(t *testing.T) {
	const limit = 1000
	gone := make(chan struct{})
	server, address := host(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/told": // its size in the header
			w.Header().Set("Content-Length", fmt.Sprint(limit+1))
			w.Write(make([]byte, limit+1))
		case "/untold":
			w.(http.Flusher).Flush()
			w.Write(make([]byte, limit+1))
		case "/just":
			w.Write(make([]byte, limit))
		case "/slow":
			w.Write([]byte{1})
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			close(gone)
		case "/short":
			w.Header().Set("Content-Length", "10")
			w.Write([]byte{1})
		case "/busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/partial":
			w.WriteHeader(http.StatusPartialContent)
		case "/header":
			w.Header().Set("A", strings.Repeat("a", 1<<20))
		default:
			http.NotFound(w, r)
		}
	})
	c := Config{Hosts: []string{address}, Networks: []string{"127.0.0.1"}, Bytes: limit}
	f := fetcher(t, server, c)
	c.Time = 100 * time.Millisecond
	hurried := fetcher(t, server, c)
	for path, want := range map[string]struct {
		f     *Fetcher
		kind  errs.Kind
		words string
	}{
		"/told":    {f, errs.TooLarge, "1000 bytes"},
		"/untold":  {f, errs.TooLarge, "1000 bytes"},
		"/slow":    {hurried, errs.Unavailable, "not whole within 100ms"},
		"/short":   {f, errs.Unavailable, "EOF"},
		"/busy":    {f, errs.Unavailable, "503"},
		"/partial": {f, errs.Invalid, "206"},
		"/none":    {f, errs.Invalid, "404"},
		"/header":  {f, errs.Unavailable, "header"},
	} {
		if _, err := want.f.Get(t.Context(), address+path); errs.Of(err) != want.kind || !strings.Contains(err.Error(), want.words) || !strings.Contains(err.Error(), address+path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	<-gone // the host's handler is told
	if b, err := f.Get(t.Context(), address+"/just"); err != nil || len(b) != limit {
		t.Errorf("a file as large as the limit: %d bytes, %v", len(b), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Get(ctx, address+"/just"); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that is gone: %v", err)
	}
	server.Close()
	if _, err := f.Get(t.Context(), address+"/just"); errs.Of(err) != errs.Unavailable || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a host that is gone: %v", err)
	}
}

// TestFetchesWait: no more are under way than may be, and one that waits in vain says so.
func TestFetchesWait(t *testing.T) {
	var under, most atomic.Int32
	release := make(chan struct{})
	server, address := host(t, func(w http.ResponseWriter, r *http.Request) {
		now := under.Add(1)
		defer under.Add(-1)
		for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
		}
		<-release
	})
	f := fetcher(t, server, Config{Hosts: []string{address}, Networks: []string{"127.0.0.1"}, Parallel: 2})
	failed := make(chan error)
	for range 6 {
		go func() {
			_, err := f.Get(t.Context(), address)
			failed <- err
		}()
	}
	for under.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Get(ctx, address); !errors.Is(err, context.Canceled) {
		t.Errorf("who hung up while waiting is told %v", err)
	}
	close(release)
	for range 6 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if most.Load() != 2 {
		t.Errorf("%d fetches at once, want 2", most.Load())
	}
}

// TestCertificatesAreChecked asks a host whose certificate nobody vouches for.
func TestCertificatesAreChecked(t *testing.T) {
	_, address := host(t, http.NotFound)
	f, err := New(Config{Hosts: []string{address}, Networks: []string{"127.0.0.1"}, Roots: x509.NewCertPool(), Resolver: resolver(here)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Get(t.Context(), address); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
}
