package config

import (
	"fmt"
	"maps"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"popgate/imapbackend/directory"
	"popgate/proxy/endpoint"
)

// Lookup is one [[lookup]].
type Lookup struct {
	Options directory.LookupOptions

	protocol lookupProtocol
	allowed  []string
	caFile   string // "" for none
}

// lookupProtocol is how a lookup asks.
type lookupProtocol string

// Values returns all protocols.
func (lookupProtocol) Values() []lookupProtocol { return []lookupProtocol{"auth_http"} }

func defaultLookup() Lookup {
	return Lookup{protocol: "auth_http", Options: directory.LookupOptions{
		Timeout: 5 * time.Second, Cache: time.Minute, CacheNegative: 10 * time.Second, Stale: time.Hour}}
}

var lookupKeys = keyTable[Lookup]{
	"url":            text(func(l *Lookup) *string { return &l.Options.URL }, "http://127.0.0.1:9000/auth"),
	"protocol":       oneOf(func(l *Lookup) *lookupProtocol { return &l.protocol }),
	"header":         texts(func(l *Lookup) *map[string]string { return &l.Options.Header }, `{ X-Auth-Key = "file:/etc/popgate/lookup.key" }`),
	"send_password":  boolean(func(l *Lookup) *bool { return &l.Options.SendPassword }),
	"upstreams":      textList(func(l *Lookup) *[]string { return &l.allowed }, "backend-*.example.net:993"),
	"timeout":        duration(func(l *Lookup) *time.Duration { return &l.Options.Timeout }, 100*time.Millisecond, 30*time.Second, "5s"),
	"cache":          duration(func(l *Lookup) *time.Duration { return &l.Options.Cache }, 0, 24*time.Hour, "1m"),
	"cache_negative": duration(func(l *Lookup) *time.Duration { return &l.Options.CacheNegative }, 0, time.Hour, "10s"),
	"stale":          duration(func(l *Lookup) *time.Duration { return &l.Options.Stale }, 0, 7*24*time.Hour, "1h"),
	"ca_file":        text(func(l *Lookup) *string { return &l.caFile }, "ca.pem"),
}

func checkLookups(l *loader, c *Config) {
	addresses := make([]directory.UpstreamAddress, len(c.Upstreams))
	for i := range c.Upstreams {
		o := &c.Upstreams[i].Options
		addresses[i] = directory.UpstreamAddress{Name: o.Name, Address: o.Address}
	}
	for i := range c.Lookups {
		k := &c.Lookups[i]
		path := elementPath("lookup", i)
		k.Options.Upstreams = addresses
		l.lookupURL(path+".url", k)
		l.lookupHeader(path+".header", k)
		l.lookupUpstreams(path+".upstreams", k)
		if k.caFile != "" {
			k.Options.RootCAs = l.certPool(path+".ca_file", k.caFile)
		}
	}
}

// lookupURL checks where a lookup asks.
func (l *loader) lookupURL(path string, k *Lookup) {
	const example = `write one such as "https://auth.example.com/lookup"`
	if l.wrong(path) {
		return
	}
	if k.Options.URL == "" {
		l.fail(path, "missing", example)
		return
	}
	u, err := url.Parse(k.Options.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Fragment != "":
		l.fail(path, fmt.Sprintf("%q is no address of a web server", k.Options.URL), example)
	case u.User != nil:
		l.fail(path, "has a user name", "give the server a secret in header instead")
	case u.Scheme == "http" && k.Options.SendPassword && !endpoint.IsLoopback(u.Hostname()):
		l.fail(path, "would send passwords in the clear", "use https, or a server on this machine")
	}
}

// lookupHeader checks the fields of the request, and reads those that are in files.
func (l *loader) lookupHeader(path string, k *Lookup) {
	for _, name := range slices.Sorted(maps.Keys(k.Options.Header)) {
		key, value := childPath(path, name), k.Options.Header[name]
		if file, ok := strings.CutPrefix(value, "file:"); ok {
			text, ok := l.read(key, file)
			if !ok {
				continue
			}
			value = strings.TrimRight(string(text), "\r\n")
		}
		switch canonical := textproto.CanonicalMIMEHeaderKey(name); {
		case !httpguts.ValidHeaderFieldName(name):
			l.fail(key, "is no name of an HTTP header field", `write one such as "X-Auth-Key"`)
		case strings.HasPrefix(canonical, "Auth-") || strings.HasPrefix(canonical, "Client-"):
			l.fail(key, "is what popgate itself sends", "choose another name")
		case !httpguts.ValidHeaderFieldValue(value):
			l.fail(key, "has characters that HTTP cannot carry", "write one line of printable characters")
		}
		k.Options.Header[name] = value
	}
}

// lookupUpstreams checks which addresses an answer may name (O-DISC-1).
func (l *loader) lookupUpstreams(path string, k *Lookup) {
	const example = `write those that answers may name, such as ["backend-*.example.net:993", "10.1.0.0/16:143"]`
	if len(k.allowed) == 0 && !l.wrong(path) {
		l.fail(path, "missing", example)
	}
	for i, s := range k.allowed {
		p, err := directory.ParseAddressPattern(s)
		if err != nil {
			l.fail(path+elementPath("", i), fmt.Sprintf("%q %v", s, err), example)
		}
		k.Options.Allowed = append(k.Options.Allowed, p)
	}
}
