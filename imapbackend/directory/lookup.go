package directory

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"popgate/proxy"
	"popgate/proxy/endpoint"
)

const (
	// maxAnswers bounds the answers that a Lookup remembers.
	maxAnswers = 20_000

	// maxLookups bounds the connections to its server.
	maxLookups = 64

	// maxLookupHeader is the most that an answer may have, in octets. Its body is
	// not read.
	maxLookupHeader = 64 << 10

	// maxAuthWait bounds how long an answer may have a failed login wait.
	maxAuthWait = 30 * time.Second
)

// LookupOptions are the options of a Lookup.
type LookupOptions struct {
	// URL is where GET asks, http or https.
	URL string

	// Header has further fields of the request, such as a secret that the server
	// demands.
	Header map[string]string

	// SendPassword sends the password too. Then the server decides whether it is
	// right, and may give another one for the upstream.
	SendPassword bool

	// Allowed are the addresses that an answer may name.
	Allowed []AddressPattern

	// Upstreams has the configured upstreams, by address and by name.
	Upstreams []UpstreamAddress

	Timeout       time.Duration // of one request
	Cache         time.Duration // how long an answer is used without asking again
	CacheNegative time.Duration // likewise for a refusal
	Stale         time.Duration // how long an answer is used while the server is in trouble

	// RootCAs verify the server's certificate. nil: those of the system.
	RootCAs *x509.CertPool
}

// UpstreamAddress is the name of an Upstream and its address, host:port.
type UpstreamAddress struct{ Name, Address string }

// Lookup resolves login names by asking an HTTP server as the mail proxy of nginx
// does (its auth_http module). It is safe for concurrent use.
type Lookup struct {
	opts    LookupOptions
	client  *http.Client
	key     [sha256.Size]byte // of the digests of passwords
	answers *lru.Cache[question, answer]
	flights singleflight.Group // one request for each question at a time
}

var _ Resolver = (*Lookup)(nil)

// question is what an answer depends on.
type question struct {
	name     string            // as the client gave it
	client   netip.Addr        // the server may decide by it
	password [sha256.Size]byte // keyed digest; zero if no password is sent
}

// answer is what the server has said.
type answer struct {
	target Target
	err    error         // a refusal, which is *proxy.Error; nil: target
	wait   time.Duration // with err: before the client hears of it
	at     time.Time
}

// NewLookup returns the Lookup with these options. It contacts nobody.
func NewLookup(opts LookupOptions) *Lookup {
	answers, _ := lru.New[question, answer](maxAnswers) // fails only without size
	l := &Lookup{opts: opts, answers: answers}
	rand.Read(l.key[:]) // never fails
	l.client = &http.Client{
		Timeout: opts.Timeout,
		// The answer must come from the server that was configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig:        &tls.Config{RootCAs: opts.RootCAs, MinVersion: tls.VersionTLS12},
			MaxConnsPerHost:        maxLookups,
			MaxIdleConnsPerHost:    maxLookups,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: maxLookupHeader,
			ForceAttemptHTTP2:      true,
		},
	}
	return l
}

// Local implements Resolver.
func (l *Lookup) Local() bool { return false }

// Resolve implements Resolver. A login without a password, as with a token, is not
// asked for.
func (l *Lookup) Resolve(ctx context.Context, login Login) (Target, error) {
	if login.Password == "" {
		return Target{}, ErrUnknown
	}
	q := question{name: login.Name, client: clientOf(ctx)}
	if l.opts.SendPassword {
		mac := hmac.New(sha256.New, l.key[:])
		mac.Write([]byte(login.Password))
		mac.Sum(q.password[:0])
	}
	a, err := l.answer(ctx, q, login)
	if err != nil {
		return Target{}, &proxy.Error{Code: proxy.CodeSysTemp, Text: "login cannot be verified now, try again later", Err: err}
	}
	if a.err != nil {
		if err := sleep(ctx, a.wait); errors.Is(err, context.Canceled) { // nobody waits any more
			return Target{}, err
		}
	}
	return a.target, a.err
}

// clientOf returns the address of the client of ctx, the zero Addr if it has none.
func clientOf(ctx context.Context) netip.Addr {
	c, ok := proxy.ClientOf(ctx)
	if !ok {
		return netip.Addr{}
	}
	return c.Addr.Addr().Unmap().WithZone("")
}

// sleep waits d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer returns the remembered answer to q if it is fresh, else a new one, else the
// remembered one if it is not too old.
func (l *Lookup) answer(ctx context.Context, q question, login Login) (answer, error) {
	known, found := l.answers.Get(q)
	fresh := l.opts.Cache
	if known.err != nil {
		fresh = l.opts.CacheNegative
	}
	if found && time.Since(known.at) < fresh {
		return known, nil
	}
	// The request outlives a client that leaves: others may wait for it.
	key := q.client.String() + " " + q.name + "\x00" + string(q.password[:])
	flight := l.flights.DoChan(key, func() (any, error) {
		a, err := l.ask(context.WithoutCancel(ctx), login)
		if err == nil {
			l.answers.Add(q, a)
		}
		return a, err
	})
	select {
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case r := <-flight:
		if r.Err == nil {
			return r.Val.(answer), nil
		}
		if found && known.err == nil && time.Since(known.at) < l.opts.Stale {
			proxy.Logger(ctx).WarnContext(ctx, "lookup failed, its last answer is used", "url", l.opts.URL, "error", r.Err)
			return known, nil
		}
		return answer{}, fmt.Errorf("lookup %s: %w", l.opts.URL, r.Err)
	}
}

// ask sends one request. An error is trouble of the server.
func (l *Lookup) ask(ctx context.Context, login Login) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.opts.URL, nil)
	if err != nil {
		return answer{}, err
	}
	for name, value := range l.opts.Header {
		req.Header.Set(name, value)
	}
	set := req.Header.Set
	set("Auth-Method", "plain")
	set("Auth-User", escape(login.Name))
	if l.opts.SendPassword {
		set("Auth-Pass", escape(login.Password))
	}
	set("Auth-Protocol", "imap") // the port that is wanted is IMAP's
	set("Auth-Login-Attempt", strconv.Itoa(max(login.Attempt, 1)))
	if c := clientOf(ctx); c.IsValid() {
		set("Client-IP", c.String())
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxLookupHeader) // so that the connection can be used again
	status := resp.Header.Get("Auth-Status")
	if resp.StatusCode != http.StatusOK || status == "" {
		return answer{}, fmt.Errorf("status %d and %q in Auth-Status", resp.StatusCode, printable(status))
	}
	a := answer{at: time.Now()}
	if status != "OK" {
		seconds, err := strconv.ParseUint(resp.Header.Get("Auth-Wait"), 10, 16)
		if err == nil {
			a.wait = min(time.Duration(seconds)*time.Second, maxAuthWait)
		}
		a.err = &proxy.Error{Code: proxy.CodeAuth, Text: proxy.ErrAuth.Text, Err: fmt.Errorf("lookup: Auth-Status is %q", printable(status))}
		return a, nil
	}
	if a.target, err = l.target(login, resp.Header); err != nil {
		a.err = &proxy.Error{Code: proxy.CodeSysPerm, Text: "login is not possible, ask the operator", Err: fmt.Errorf("lookup: %w", err)}
	}
	return a, nil
}

// target reads where an accepted login goes to. The error says what the operator of
// the server has to change.
func (l *Lookup) target(login Login, header http.Header) (Target, error) {
	t := Target{User: cmp.Or(header.Get("Auth-User"), login.Name)}
	if password, given := header["Auth-Pass"]; given {
		if !l.opts.SendPassword {
			return Target{}, errors.New("an answer with Auth-Pass to a request without the password, which nobody has verified")
		}
		t.Password = password[0]
	}
	if strings.ContainsAny(t.User+t.Password, "\x00\r\n") {
		return Target{}, errors.New("control characters in Auth-User or Auth-Pass")
	}
	name, server, port := header.Get("X-Popgate-Upstream"), header.Get("Auth-Server"), header.Get("Auth-Port")
	switch {
	case name != "":
		return l.byName(t, name)
	case server != "":
		return l.byAddress(t, net.JoinHostPort(server, cmp.Or(port, "993")))
	case len(l.opts.Upstreams) == 1:
		t.Upstream = l.opts.Upstreams[0].Name
		return t, nil
	}
	return Target{}, errors.New("OK without Auth-Server, and there are several upstreams")
}

// byName completes t with the upstream of that name, if its address is allowed.
func (l *Lookup) byName(t Target, name string) (Target, error) {
	for _, u := range l.opts.Upstreams {
		if u.Name != name {
			continue
		}
		if u.Address != "" && !l.allows(u.Address) { // the servers of a domain have no address
			return Target{}, fmt.Errorf("upstream %q at %s is not among the upstreams that the lookup may choose", printable(name), u.Address)
		}
		t.Upstream = name
		return t, nil
	}
	return Target{}, fmt.Errorf("X-Popgate-Upstream is %q, which is no upstream", printable(name))
}

// byAddress completes t with an address, and with the upstream that has it, if there
// is one.
func (l *Lookup) byAddress(t Target, address string) (Target, error) {
	if _, _, err := endpoint.Split(address, 1); err != nil {
		return Target{}, fmt.Errorf("Auth-Server and Auth-Port: %w", err)
	}
	if !l.allows(address) {
		return Target{}, fmt.Errorf("%s is not among the upstreams that the lookup may choose", printable(address))
	}
	for _, u := range l.opts.Upstreams {
		if sameAddress(u.Address, address) {
			t.Upstream = u.Name
			return t, nil
		}
	}
	t.Address = canonicalAddress(address)
	return t, nil
}

// canonicalAddress returns one text for all spellings of an address that
// endpoint.Split accepts, so that one server is one upstream.
func canonicalAddress(address string) string {
	host, port, _ := endpoint.Split(address, 1)
	host = strings.ToLower(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func (l *Lookup) allows(address string) bool {
	for _, p := range l.opts.Allowed {
		if p.matches(address) {
			return true
		}
	}
	return false
}

// sameAddress reports whether two addresses, host:port, are one.
func sameAddress(a, b string) bool {
	hostA, portA, errA := endpoint.Split(a, 1)
	hostB, portB, errB := endpoint.Split(b, 1)
	if errA != nil || errB != nil || portA != portB {
		return false
	}
	ipA, errA := netip.ParseAddr(hostA)
	ipB, errB := netip.ParseAddr(hostB)
	return strings.EqualFold(hostA, hostB) || errA == nil && errB == nil && ipA.Unmap() == ipB.Unmap()
}

// AddressPattern matches addresses of upstreams.
type AddressPattern struct {
	network netip.Prefix // invalid: host
	host    string       // in lower case, * stands for any text without a dot
	port    uint16
}

// ParseAddressPattern parses "imap.example.net:993", "backend-*.example.net:993" or
// "10.1.0.0/16:143". The error is to be read after the text.
func ParseAddressPattern(s string) (AddressPattern, error) {
	address, bits, isNetwork := strings.Cut(s, "/")
	if isNetwork {
		// 10.1.0.0/16:143, [2001:db8::]/32:993
		bits, port, _ := strings.Cut(bits, ":")
		s = address + ":" + port
		address = strings.Trim(address, "[]") + "/" + bits
	}
	host, port, err := endpoint.Split(s, 1)
	if err != nil || host == "" {
		return AddressPattern{}, errors.New("is neither host:port nor network:port")
	}
	if isNetwork {
		network, err := netip.ParsePrefix(address)
		if err != nil || network != network.Masked() || network.Addr().Is4In6() {
			return AddressPattern{}, errors.New("is not a network and a port, such as 10.1.0.0/16:143")
		}
		return AddressPattern{network: network, port: port}, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		return AddressPattern{network: netip.PrefixFrom(ip, ip.BitLen()), port: port}, nil
	}
	return AddressPattern{host: strings.ToLower(host), port: port}, nil
}

// matches reports whether the pattern matches an address, host:port.
func (p AddressPattern) matches(address string) bool {
	host, port, err := endpoint.Split(address, 1)
	if err != nil || port != p.port {
		return false
	}
	if p.network.IsValid() {
		ip, err := netip.ParseAddr(host)
		return err == nil && ip.Zone() == "" && p.network.Contains(ip.Unmap())
	}
	labels, patterns := strings.Split(strings.ToLower(host), "."), strings.Split(p.host, ".")
	if len(labels) != len(patterns) {
		return false
	}
	for i := range labels {
		if !matches(patterns[i], labels[i]) {
			return false
		}
	}
	return true
}

// escape encodes a value as nginx does: octets that a header cannot carry, spaces
// and the percent sign.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '%' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// printable shortens what a server has sent, for the log, which quotes it.
func printable(s string) string { return strings.ToValidUTF8(s[:min(len(s), 100)], "?") }
