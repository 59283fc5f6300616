package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"popgate/cmd/popgate/certificates"
	"popgate/proxy"
	"popgate/proxy/endpoint"
)

// Listener is one [[listener]].
type Listener struct {
	Address       string
	Options       proxy.ListenerOptions
	MinTLS        uint16 // such as tls.VersionTLS12
	LegacyCiphers bool
	Certificates  *certificates.Set // nil without TLS

	files  pairFiles   // cert_file and key_file
	others []pairFiles // the certificate tables
}

// Certificates returns the pairs of all listeners.
func (c *Config) Certificates() []*certificates.Pair {
	var pairs []*certificates.Pair
	for i := range c.Listeners {
		if set := c.Listeners[i].Certificates; set != nil {
			pairs = append(pairs, set.Pairs...)
		}
	}
	return pairs
}

// pairFiles is one [[listener.certificate]].
type pairFiles struct{ cert, key string }

func defaultListener() Listener {
	return Listener{Options: proxy.ListenerOptions{Mode: proxy.TLSStartTLS}, MinTLS: tls.VersionTLS12}
}

var listenerKeys = keyTable[Listener]{
	"address": text(func(l *Listener) *string { return &l.Address }, "127.0.0.1:110"),
	"tls":     oneOf(func(l *Listener) *proxy.TLSMode { return &l.Options.Mode }),
	"min_tls": choice(func(l *Listener) *uint16 { return &l.MinTLS },
		word[uint16]{"1.0", tls.VersionTLS10}, word[uint16]{"1.1", tls.VersionTLS11},
		word[uint16]{"1.2", tls.VersionTLS12}, word[uint16]{"1.3", tls.VersionTLS13}),
	"legacy_ciphers":      boolean(func(l *Listener) *bool { return &l.LegacyCiphers }),
	"cert_file":           text(func(l *Listener) *string { return &l.files.cert }, "fullchain.pem"),
	"key_file":            text(func(l *Listener) *string { return &l.files.key }, "privkey.pem"),
	"certificate":         tablesOf(func(l *Listener) *[]pairFiles { return &l.others }, certificateKeys, "[[listener.certificate]]"),
	"insecure_login_from": networks(func(l *Listener) *[]netip.Prefix { return &l.Options.InsecureLoginFrom }),
	"proxy_protocol_from": networks(func(l *Listener) *[]netip.Prefix { return &l.Options.ProxyProtocolFrom }),
}

var certificateKeys = keyTable[pairFiles]{
	"cert_file": text(func(p *pairFiles) *string { return &p.cert }, "fullchain.pem"),
	"key_file":  text(func(p *pairFiles) *string { return &p.key }, "privkey.pem"),
}

func checkListeners(l *loader, c *Config) {
	bound := map[string]string{}
	for i := range c.Listeners {
		path := elementPath("listener", i)
		l.listenerAddress(path, c.Listeners[i].Address, bound)
		l.listener(path, &c.Listeners[i])
	}
}

// listenerAddress checks the address of the listener at path. bound maps the
// addresses of the listeners before it in the file to their paths.
func (l *loader) listenerAddress(path, address string, bound map[string]string) {
	key := path + ".address"
	if l.wrong(key) {
		return
	}
	host, port, err := endpoint.Split(address, 0)
	if address == "" {
		err = errors.New("missing")
	}
	if err != nil {
		l.fail(key, err.Error(), addressRemedy(err, 0, "127.0.0.1:110"))
		return
	}
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	}
	canonical := net.JoinHostPort(strings.ToLower(host), strconv.Itoa(int(port)))
	if other, ok := bound[canonical]; ok && port != 0 {
		l.fail(key, fmt.Sprintf("%q is also the address of %s", address, other), "write another address or port")
		return
	}
	bound[canonical] = path
}

func (l *loader) listener(path string, one *Listener) {
	if l.wrong(path + ".tls") {
		return
	}
	o := &one.Options
	nets := path + ".insecure_login_from"
	if o.Mode == proxy.TLSNone {
		proxies := path + ".proxy_protocol_from" // clients may use TLS to the proxy (O-PP-6)
		if len(o.InsecureLoginFrom)+len(o.ProxyProtocolFrom) == 0 && !l.wrong(nets) && !l.wrong(proxies) {
			l.fail(path+".tls", `"none" without insecure_login_from lets nobody log in`,
				`list the networks that may, such as insecure_login_from = ["127.0.0.0/8"], or use TLS`)
		}
		l.noEffect(path, o.Mode, "cert_file", "key_file", "certificate")
		if one.LegacyCiphers {
			l.noEffect(path, o.Mode, "legacy_ciphers")
		}
		return
	}
	if o.Mode == proxy.TLSImplicit && len(o.InsecureLoginFrom) > 0 {
		l.fail(nets, `has no effect with tls = "implicit"`, "remove it: every login uses TLS there")
	}
	l.certificates(path, one)
}

// noEffect rejects keys that have no effect in a TLS mode: whoever wrote them
// believes that the connection is protected.
func (l *loader) noEffect(path string, mode proxy.TLSMode, keys ...string) {
	for _, k := range keys {
		if l.given(path + "." + k) {
			l.fail(path+"."+k, fmt.Sprintf("has no effect with tls = %q", mode), "remove it or change tls")
		}
	}
}

// certificates reads the certificates of a listener with TLS: first the one of
// cert_file and key_file, then those of its certificate tables.
func (l *loader) certificates(path string, one *Listener) {
	all := one.others
	paths := make([]string, len(all))
	for i := range all {
		paths[i] = elementPath(path+".certificate", i)
	}
	if one.files != (pairFiles{}) || l.wrong(path+".cert_file") || l.wrong(path+".key_file") {
		all = slices.Insert(slices.Clone(all), 0, one.files)
		paths = slices.Insert(paths, 0, path)
	}
	if len(all) == 0 && !l.wrong(path+".certificate") {
		l.fail(path+".tls", fmt.Sprintf("%q needs a certificate", one.Options.Mode),
			`set cert_file and key_file, or tls = "none" with insecure_login_from`)
	}
	one.Certificates = &certificates.Set{Lenient: one.acceptsOldTLS()}
	for i, files := range all {
		if p := l.pair(paths[i], files); p != nil {
			one.Certificates.Pairs = append(one.Certificates.Pairs, p)
		}
	}
	one.Options.TLS = listenerTLS(one)
}

// pair reads the certificate and key that the table at path names.
func (l *loader) pair(path string, files pairFiles) *certificates.Pair {
	if l.wrong(path+".cert_file") || l.wrong(path+".key_file") {
		return nil
	}
	switch {
	case files == pairFiles{}:
		l.fail(path, "has no certificate", "set cert_file and key_file")
		return nil
	case files.cert == "":
		l.fail(path+".key_file", "has no certificate", "set cert_file too")
		return nil
	case files.key == "":
		l.fail(path+".cert_file", "has no key", "set key_file too")
		return nil
	}
	_, ok := l.read(path+".cert_file", files.cert)
	_, okKey := l.read(path+".key_file", files.key)
	if !ok || !okKey {
		return nil
	}
	if mode := certificates.Exposed(l.absolute(files.key)); mode != "" {
		l.fail(path+".key_file", fmt.Sprintf("all users of this machine may read or change it (mode %s)", mode),
			"leave it to its owner and group: chmod o= "+files.key)
		return nil
	}
	p, err := certificates.ReadPair(l.absolute(files.cert), l.absolute(files.key))
	if err != nil {
		l.fail(path+".cert_file", fmt.Sprintf("does not form a usable pair with key_file: %v", strings.TrimPrefix(err.Error(), "tls: ")),
			"name PEM files: the certificate first, then its intermediates; the key alone, not encrypted")
		return nil
	}
	return p
}
