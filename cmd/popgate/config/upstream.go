package config

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"popgate/imapbackend"
	"popgate/imapbackend/dialect"
	"popgate/imapbackend/uniqueid"
	"popgate/proxy"
	"popgate/proxy/endpoint"
)

// Upstream is one [[upstream]].
type Upstream struct {
	Options imapbackend.Options // without Store and Version
	Auth    []string            // SASL mechanisms offered to clients, for proxy.Options.Mechanisms

	caFile, importFile string // "" for none
}

// Relayed returns the mechanisms in Auth that are offered only while the
// upstream offers them.
func (u *Upstream) Relayed() []string {
	_, relayed := proxy.Mechanisms()
	return slices.DeleteFunc(slices.Clone(u.Auth), func(m string) bool { return !slices.Contains(relayed, m) })
}

// UpstreamNames returns the names of the upstreams, in the order of the file.
func (c *Config) UpstreamNames() []string {
	names := make([]string, len(c.Upstreams))
	for i := range c.Upstreams {
		names[i] = c.Upstreams[i].Options.Name
	}
	return names
}

func defaultUpstream() Upstream {
	return Upstream{Options: imapbackend.Defaults(), Auth: proxy.Defaults().Mechanisms}
}

var upstreamKeys = keyTable[Upstream]{
	"name":                 text(func(u *Upstream) *string { return &u.Options.Name }, "mail"),
	"address":              text(func(u *Upstream) *string { return &u.Options.Address }, "imap.example.com:993"),
	"srv":                  text(func(u *Upstream) *string { return &u.Options.SRV }, "example.com"),
	"tls":                  oneOf(func(u *Upstream) *imapbackend.TLSMode { return &u.Options.TLS }),
	"insecure":             boolean(func(u *Upstream) *bool { return &u.Options.Insecure }),
	"server_name":          text(func(u *Upstream) *string { return &u.Options.ServerName }, "imap.example.com"),
	"ca_file":              text(func(u *Upstream) *string { return &u.caFile }, "ca.pem"),
	"mailbox":              text(func(u *Upstream) *string { return &u.Options.Mailbox }, "INBOX"),
	"auth":                 mechanisms(func(u *Upstream) *[]string { return &u.Auth }),
	"delete":               oneOf(func(u *Upstream) *imapbackend.Delete { return &u.Options.Delete }),
	"without_uidplus":      oneOf(func(u *Upstream) *imapbackend.WithoutUIDPLUS { return &u.Options.WithoutUIDPLUS }),
	"trash":                text(func(u *Upstream) *string { return &u.Options.Trash }, "Trash"),
	"seen":                 oneOf(func(u *Upstream) *imapbackend.Seen { return &u.Options.Seen }),
	"uidl":                 textLike(func(u *Upstream) *string { return &u.Options.UIDL }, uidlForms),
	"uidl_memory":          boolean(func(u *Upstream) *bool { return &u.Options.UIDLMemory }),
	"uidl_import":          text(func(u *Upstream) *string { return &u.importFile }, "former.uidl"),
	"read_ahead":           size(func(u *Upstream) *int64 { return &u.Options.ReadAhead }, 0, 1<<30, "1MiB"),
	"sizes":                oneOf(func(u *Upstream) *imapbackend.Sizes { return &u.Options.Sizes }),
	"send_client_id":       boolean(func(u *Upstream) *bool { return &u.Options.SendClientID }),
	"deleted_messages":     choice(func(u *Upstream) *bool { return &u.Options.ShowDeleted }, word[bool]{"hide", false}, word[bool]{"show", true}),
	"compress":             boolean(func(u *Upstream) *bool { return &u.Options.Compress }),
	"profile":              oneOf(func(u *Upstream) *dialect.Name { return &u.Options.Dialect.Profile }),
	"pipelining":           oneOf(func(u *Upstream) *dialect.Switch { return &u.Options.Dialect.Pipelining }),
	"send_id":              oneOf(func(u *Upstream) *dialect.SendID { return &u.Options.Dialect.SendID }),
	"authenticate":         oneOf(func(u *Upstream) *dialect.Authentication { return &u.Options.Dialect.Authenticate }),
	"search":               oneOf(func(u *Upstream) *dialect.Searching { return &u.Options.Dialect.Search }),
	"partial_fetch":        oneOf(func(u *Upstream) *dialect.Switch { return &u.Options.Dialect.PartialFetch }),
	"max_user_connections": integer(func(u *Upstream) *int { return &u.Options.Dialect.UserConnections }, 0, 1000),
	"max_logins":           integer(func(u *Upstream) *int { return &u.Options.MaxLogins }, 0, 10000),
	"keep_open":            duration(func(u *Upstream) *time.Duration { return &u.Options.KeepOpen }, 0, imapbackend.MaxKeepOpen, "60s"),
}

// mechanisms accepts an array of names of SASL mechanisms; messages show them in
// lower case.
func mechanisms[T any](field func(*T) *[]string) setter[T] {
	all, _ := proxy.Mechanisms()
	lower := make([]string, len(all))
	for i, name := range all {
		lower[i] = strings.ToLower(name)
	}
	set := anyOf(field, lower...)
	return func(dst *T, v any) *fault {
		if f := set(dst, v); f != nil {
			return f
		}
		for i, name := range *field(dst) {
			(*field(dst))[i] = strings.ToUpper(name)
		}
		return nil
	}
}

var uidlForms = fmt.Sprintf("a template such as %q, or %q or %q",
	uniqueid.Default, uniqueid.SourceEmailID, uniqueid.SourceGmail)

// upstreamRemedies are the remedies for errors of imapbackend, by key.
var upstreamRemedies = map[string]func(u *Upstream, err error) string{
	"address": func(u *Upstream, err error) string {
		if host, _, err := endpoint.Split(u.Options.Address, 1); err == nil && host == "" {
			return "write the IMAP server's name before the colon"
		}
		if u.Options.TLS == imapbackend.TLSImplicit {
			return addressRemedy(err, 1, "imap.example.com:993")
		}
		return addressRemedy(err, 1, "imap.example.com:143")
	},
	"srv": func(*Upstream, error) string { return `write the domain alone, such as srv = "example.com"` },
	"tls": func(*Upstream, error) string {
		return `set tls = "implicit" or "starttls", or insecure = true if you trust the network in between`
	},
	"server_name": func(*Upstream, error) string {
		return `write the name in the certificate, such as "imap.example.com"`
	},
	"trash": func(*Upstream, error) string {
		return `name another mailbox, or remove the key to use the one marked \Trash`
	},
	"uidl":        func(*Upstream, error) string { return "write " + uidlForms },
	"uidl_import": func(*Upstream, error) string { return "set uidl_memory = true" },
	"deleted_messages": func(u *Upstream, _ error) string {
		if u.Options.Delete == imapbackend.DeleteFlag {
			return `set deleted_messages = "hide", or another delete`
		}
		return `set without_uidplus = "refuse", or deleted_messages = "hide"`
	},
	"keep_open": func(*Upstream, error) string { return `set keep_open = "0s" or send_client_id = false` },
}

func checkUpstreams(l *loader, c *Config) {
	for i := range c.Upstreams {
		path := elementPath("upstream", i)
		u := &c.Upstreams[i]
		u.Options.ReadAheadTotal = c.Limits.ReadAheadTotal
		u.Options.RootCAs = l.rootCAs(path, u)
		u.Options.UIDLImport = l.uidlImport(path, u)
		var wrong imapbackend.OptionErrors
		u.Options, wrong = u.Options.Resolve()
		for _, e := range wrong {
			l.optionError(path, u, e)
		}
		l.withoutEffect(path, u)
		l.upstreamName(path, c.Upstreams[:i], u.Options.Name)
		if u.Options.UIDLMemory && c.Store.Path == "" && !l.wrong("store.path") { // I-UIDL-5
			l.fail(path+".uidl_memory", "needs a store on disk", "set path in [store], or remove it")
		}
	}
}

// upstreamName refuses a name that one of the upstreams before it has. Logs, locks
// and the store tell upstreams apart by it.
func (l *loader) upstreamName(path string, before []Upstream, name string) {
	for i := range before {
		if before[i].Options.Name == name && name != "" {
			l.fail(path+".name", fmt.Sprintf("%q is the name of another upstream", name), "give each upstream a name of its own")
			return
		}
	}
}

// optionError records an error of imapbackend, unless a mistake has been
// recorded already for its key or for one of the others that cause it.
func (l *loader) optionError(path string, u *Upstream, e *imapbackend.OptionError) {
	for _, key := range append([]string{e.Option}, e.Others...) {
		if l.wrong(path + "." + key) {
			return
		}
	}
	remedy := "see config.toml.example"
	if f := upstreamRemedies[e.Option]; f != nil {
		remedy = f(u, e.Err)
	}
	l.fail(path+"."+e.Option, e.Err.Error(), remedy)
}

// withoutEffect rejects keys that have no effect with the values of others.
func (l *loader) withoutEffect(path string, u *Upstream) {
	o := &u.Options
	if o.SRV != "" && l.given(path+".tls") && !l.wrong(path+".srv") {
		l.fail(path+".tls", "has no effect with srv", "remove it; the records say which TLS, and there is always one")
	}
	if o.TLS == imapbackend.TLSNone {
		l.noEffect(path, o.TLS, "server_name", "ca_file")
	} else if o.Insecure && !l.wrong(path+".tls") {
		l.fail(path+".insecure", fmt.Sprintf("has no effect with tls = %q", o.TLS),
			"remove it; certificates are always verified, ca_file names a private CA")
	}
	if o.Trash != "" && o.Delete != imapbackend.DeleteTrash && o.WithoutUIDPLUS != imapbackend.Move &&
		!l.wrong(path+".trash") && !l.wrong(path+".delete") && !l.wrong(path+".without_uidplus") {
		l.fail(path+".trash", fmt.Sprintf("has no effect with delete = %q", o.Delete),
			`set delete = "trash", or without_uidplus = "move", or remove it`)
	}
}

// uidlImport reads uidl_import; nil if there is none.
func (l *loader) uidlImport(path string, u *Upstream) *uniqueid.Import {
	switch {
	case u.importFile == "":
		return nil
	case !u.Options.UIDLMemory:
		return new(uniqueid.Import) // Options.Resolve rejects it, whatever the file contains
	}
	path += ".uidl_import"
	text, ok := l.read(path, u.importFile)
	if !ok {
		return nil
	}
	im, err := imapbackend.ReadImport(u.importFile, bytes.NewReader(text))
	if err != nil {
		l.fail(path, err.Error(), "fix that line, or write the file with popgate uidl")
		return nil
	}
	return im
}

// rootCAs reads ca_file; nil for the system's certificates.
func (l *loader) rootCAs(path string, u *Upstream) *x509.CertPool {
	if u.caFile == "" {
		return nil
	}
	return l.certPool(path+".ca_file", u.caFile)
}
