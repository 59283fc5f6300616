package main

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"popgate/imapbackend"
	"popgate/imapbackend/uniqueid"
	"popgate/proxy"
)

// validate checks what concerns more than one key, reads the files named, and
// sets the options of the listeners and of the upstream.
func (l *loader) validate(c *config) {
	bound := map[string]string{}
	for i := range c.listeners {
		path := elementPath("listener", i)
		l.listenerAddress(path, c.listeners[i].Address, bound)
		l.listener(path, &c.listeners[i])
	}
	if t := c.throttle; t.MaxDelay < t.Delay && !l.wrong("throttle.delay") && !l.wrong("throttle.max_delay") {
		l.fail("throttle.max_delay", fmt.Sprintf("%s is below delay", short(t.MaxDelay)),
			fmt.Sprintf("write %s or more", short(t.Delay)))
	}
	if c.store.Path != "" {
		c.store.Path = l.absolute(c.store.Path)
	} else if l.given("store.max_size") && !l.wrong("store.path") {
		l.fail("store.max_size", "has no effect without path", "set path too, or remove it")
	}
	if path := elementPath("upstream", 0); l.given(path) {
		l.upstream(path, &c.upstream)
		if c.upstream.UIDLMemory && c.store.Path == "" && !l.wrong("store.path") { // I-UIDL-5
			l.fail(path+".uidl_memory", "needs a store on disk", "set path in [store], or remove it")
		}
		c.upstream.options.Sizes = imapbackend.Sizes(c.upstream.Sizes)
		c.upstream.options.ReadAheadTotal = cmp.Or(c.limits.ReadAheadTotal, -1)
	}
}

// wrong reports whether a mistake at path or below it has been noted, so that
// nothing is said about its default in place of the value meant.
func (l *loader) wrong(path string) bool {
	for _, p := range l.list {
		if p.key == path || strings.HasPrefix(p.key, path+"[") {
			return true
		}
	}
	return false
}

// given reports whether the file has the key at path.
func (l *loader) given(path string) bool {
	_, ok := l.lines[path]
	return ok
}

func (l *loader) listenerAddress(path, address string, bound map[string]string) {
	path += ".address"
	if l.wrong(path) || !l.address(path, address, "127.0.0.1:110", 0) {
		return
	}
	host, port, _ := net.SplitHostPort(address)
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	}
	canonical := net.JoinHostPort(strings.ToLower(host), port)
	if other, ok := bound[canonical]; ok && port != "0" {
		l.fail(path, fmt.Sprintf("%q is the address of %s too", address, other), "write another address or port")
		return
	}
	bound[canonical] = strings.TrimSuffix(path, ".address")
}

// address checks the form host:port with a port from least up.
func (l *loader) address(path, address, example string, least int) bool {
	want := fmt.Sprintf("write host:port such as %q", example)
	if address == "" {
		l.fail(path, "missing", want)
		return false
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		what := fmt.Sprintf("%q is not host:port", address)
		if ae, ok := errors.AsType[*net.AddrError](err); ok && strings.HasPrefix(ae.Err, "missing port") {
			what = fmt.Sprintf("%q has no port", address)
		}
		l.fail(path, what, want)
		return false
	}
	if !isPort(port, least) {
		l.fail(path, fmt.Sprintf("%q is not a port", port), fmt.Sprintf("write a number from %d to 65535", least))
		return false
	}
	return true
}

// isPort reports whether s is a port number from least up.
func isPort(s string, least int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && least <= n && n <= 65535
}

func (l *loader) listener(path string, one *listener) {
	one.options = proxy.ListenerOptions{
		Mode:              proxy.TLSMode(one.TLS),
		InsecureLoginFrom: one.InsecureLoginFrom,
		ProxyProtocolFrom: one.ProxyProtocolFrom,
	}
	if l.wrong(path + ".tls") {
		return
	}
	nets := path + ".insecure_login_from"
	if one.TLS == "none" {
		proxies := path + ".proxy_protocol_from" // their clients may have TLS (O-PP-6)
		if len(one.InsecureLoginFrom)+len(one.ProxyProtocolFrom) == 0 && !l.wrong(nets) && !l.wrong(proxies) {
			l.fail(path+".tls", `"none" without insecure_login_from lets nobody log in`,
				`name the networks that may, such as insecure_login_from = ["127.0.0.0/8"], or use TLS`)
		}
		l.noEffect(path, one.TLS, "cert_file", "key_file", "certificate")
		if one.LegacyCiphers {
			l.noEffect(path, one.TLS, "legacy_ciphers")
		}
		return
	}
	if one.TLS == "implicit" && len(one.InsecureLoginFrom) > 0 {
		l.fail(nets, `has no effect with tls = "implicit"`, "remove it, as every login has TLS there")
	}
	l.certificates(path, one)
}

// noEffect refuses keys that the TLS mode makes pointless: whoever wrote them
// takes the connection for protected.
func (l *loader) noEffect(path, mode string, keys ...string) {
	for _, k := range keys {
		if l.given(path + "." + k) {
			l.fail(path+"."+k, fmt.Sprintf("has no effect with tls = %q", mode), "remove it or change tls")
		}
	}
}

// certificates reads the certificates of a listener with TLS: that of cert_file
// and key_file first, then those of its certificate tables.
func (l *loader) certificates(path string, one *listener) {
	all := one.Certificates
	paths := make([]string, len(all))
	for i := range all {
		paths[i] = elementPath(path+".certificate", i)
	}
	if one.CertFile != "" || one.KeyFile != "" || l.wrong(path+".cert_file") || l.wrong(path+".key_file") {
		all = slices.Insert(slices.Clone(all), 0, certificate{one.CertFile, one.KeyFile})
		paths = slices.Insert(paths, 0, path)
	}
	if len(all) == 0 && !l.wrong(path+".certificate") {
		l.fail(path+".tls", fmt.Sprintf("%q needs a certificate", one.TLS),
			`set cert_file and key_file, or tls = "none" with insecure_login_from`)
	}
	one.certificates = &certificates{lenient: one.lowered()}
	for i, c := range all {
		if p := l.keyPair(paths[i], c); p != nil {
			one.certificates.pairs = append(one.certificates.pairs, p)
		}
	}
	one.options.TLS = listenerTLS(one)
}

// keyPair reads the certificate and key that the table at path names.
func (l *loader) keyPair(path string, c certificate) *keyPair {
	if l.wrong(path+".cert_file") || l.wrong(path+".key_file") {
		return nil
	}
	switch {
	case c.CertFile == "" && c.KeyFile == "":
		l.fail(path, "has no certificate", "set cert_file and key_file")
		return nil
	case c.CertFile == "":
		l.fail(path+".key_file", "has no certificate", "set cert_file too")
		return nil
	case c.KeyFile == "":
		l.fail(path+".cert_file", "has no key", "set key_file too")
		return nil
	}
	_, ok := l.read(path+".cert_file", c.CertFile)
	_, okKey := l.read(path+".key_file", c.KeyFile)
	if !ok || !okKey {
		return nil
	}
	p, err := readKeyPair(l.absolute(c.CertFile), l.absolute(c.KeyFile))
	if err != nil {
		l.fail(path+".cert_file", fmt.Sprintf("no usable pair with key_file: %v", strings.TrimPrefix(err.Error(), "tls: ")),
			"name PEM files: the certificate first, then its intermediates; the key by itself, not encrypted")
		return nil
	}
	return p
}

// absolute returns the file that name stands for.
func (l *loader) absolute(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(l.dir, name)
}

// read reads a file that the key at path names.
func (l *loader) read(path, name string) ([]byte, bool) {
	name = l.absolute(name)
	b, err := os.ReadFile(name)
	if err == nil {
		return b, true
	}
	mend := "name a file that popgate can read; relative names start at the directory of this file"
	if errors.Is(err, fs.ErrPermission) {
		mend = "let the user that popgate runs as read it"
	}
	l.fail(path, fmt.Sprintf("cannot be read: %v", err), mend)
	return nil, false
}

func (l *loader) upstream(path string, u *upstream) {
	example := "imap.example.com:993"
	if u.TLS != "implicit" {
		example = "imap.example.com:143"
	}
	if !l.wrong(path+".address") && l.address(path+".address", u.Address, example, 1) {
		l.upstreamHost(path, u)
	}
	if u.TLS == "none" {
		l.noEffect(path, u.TLS, "server_name", "ca_file")
	} else if u.Insecure && !l.wrong(path+".tls") {
		l.fail(path+".insecure", fmt.Sprintf("has no effect with tls = %q", u.TLS),
			"remove it; certificates are always verified, ca_file adds a private CA")
	}
	if strings.ContainsAny(u.ServerName, ":/ ") && net.ParseIP(u.ServerName) == nil {
		l.fail(path+".server_name", fmt.Sprintf("%q is not a host name", u.ServerName),
			`write the name in the certificate, such as "imap.example.com"`)
	}
	l.deletion(path, u)
	if u.KeepOpen > 0 && u.SendClientID {
		l.fail(path+".keep_open", "keeps connections whose client the upstream was told of for another login",
			"set keep_open = \"0s\" or send_client_id = false")
	}
	u.options = imapbackend.Options{
		Name:           u.Name,
		Address:        u.Address,
		TLS:            imapbackend.TLSMode(u.TLS),
		Insecure:       u.Insecure,
		ServerName:     u.ServerName,
		RootCAs:        l.rootCAs(path, u),
		Mailbox:        u.Mailbox,
		Delete:         imapbackend.Delete(u.Delete),
		Trash:          u.Trash,
		WithoutUIDPLUS: imapbackend.WithoutUIDPLUS(u.WithoutUIDPLUS),
		Seen:           imapbackend.Seen(u.Seen),
		UIDL:           u.UIDL,
		UIDLMemory:     u.UIDLMemory,
		UIDLImport:     l.uidlImport(path, u),
		ReadAhead:      cmp.Or(u.ReadAhead, -1), // 0 stands for none in the file
		ShowDeleted:    u.DeletedMessages == "show",
		KeepOpen:       u.KeepOpen,
		Compress:       u.Compress,
		SendClientID:   u.SendClientID,
		Version:        version(),
	}
}

// deletion checks the keys about what QUIT does with deleted messages.
func (l *loader) deletion(path string, u *upstream) {
	if l.wrong(path+".delete") || l.wrong(path+".without_uidplus") {
		return
	}
	if u.DeletedMessages == "show" && imapbackend.MayFlag(imapbackend.Delete(u.Delete), imapbackend.WithoutUIDPLUS(u.WithoutUIDPLUS)) {
		culprit, mend := fmt.Sprintf("without_uidplus = %q", u.WithoutUIDPLUS), `set without_uidplus = "refuse", or deleted_messages = "hide"`
		if u.Delete == "flag" {
			culprit, mend = `delete = "flag"`, `set deleted_messages = "hide", or another delete`
		}
		l.fail(path+".deleted_messages", `"show" would bring back what `+culprit+" has removed", mend)
	}
	switch {
	case u.Trash == "":
	case imapbackend.SameMailbox(u.Trash, u.Mailbox):
		l.fail(path+".trash", fmt.Sprintf("%q is the mailbox that is served", u.Trash),
			`name another one, or remove the key for the mailbox with \Trash`)
	case u.Delete != "trash" && u.WithoutUIDPLUS != "move":
		l.fail(path+".trash", fmt.Sprintf("has no effect with delete = %q", u.Delete),
			`set delete = "trash", or without_uidplus = "move", or remove it`)
	}
}

func (l *loader) upstreamHost(path string, u *upstream) {
	host, _, _ := net.SplitHostPort(u.Address)
	switch {
	case host == "":
		l.fail(path+".address", fmt.Sprintf("%q has no host", u.Address), "write the IMAP server's name before the colon")
	case u.TLS == "none" && !u.Insecure && !loopback(host):
		l.fail(path+".tls", fmt.Sprintf(`"none" would send passwords to %s in the clear`, host),
			`set tls = "implicit" or "starttls", or insecure = true if the network between is trusted`)
	}
	if u.Name == "" {
		u.Name = host
	}
}

// loopback reports whether host can only be this machine.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// uidlImport reads uidl_import; nil if there is none.
func (l *loader) uidlImport(path string, u *upstream) *uniqueid.Import {
	if u.UIDLImport == "" {
		return nil
	}
	path += ".uidl_import"
	if !u.UIDLMemory {
		l.fail(path, "has no effect without uidl_memory", "set uidl_memory = true")
		return nil
	}
	text, ok := l.read(path, u.UIDLImport)
	if !ok {
		return nil
	}
	im, err := imapbackend.ReadImport(u.UIDLImport, bytes.NewReader(text))
	if err != nil {
		l.fail(path, err.Error(), "mend that line, or write the file by popgate uidl")
		return nil
	}
	return im
}

// rootCAs reads ca_file; nil stands for the system's certificates.
func (l *loader) rootCAs(path string, u *upstream) *x509.CertPool {
	if u.CAFile == "" {
		return nil
	}
	pem, ok := l.read(path+".ca_file", u.CAFile)
	if !ok {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		l.fail(path+".ca_file", "has no certificate in it", "name a PEM file with the CA's certificate")
	}
	return pool
}
