package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
)

// A setter stores v, as the TOML decoder yields it, in dst. It returns nil, or
// what is wrong and how to mend it.
type setter[T any] func(dst *T, v any) *fault

// A fault is what a setter has against a value.
type fault struct {
	element    string // "[1]" where one element of an array is at fault
	what, mend string
}

// keyTable holds the keys of one table of the configuration file.
type keyTable[T any] map[string]setter[T]

func (t keyTable[T]) names() []string { return slices.Sorted(maps.Keys(t)) }

var listenerKeys = keyTable[listener]{
	"address":             text(func(l *listener) *string { return &l.Address }, "127.0.0.1:110"),
	"tls":                 oneOf(func(l *listener) *string { return &l.TLS }, "none", "starttls", "implicit"),
	"min_tls":             oneOf(func(l *listener) *string { return &l.MinTLS }, "1.0", "1.1", "1.2", "1.3"),
	"legacy_ciphers":      boolean(func(l *listener) *bool { return &l.LegacyCiphers }),
	"cert_file":           text(func(l *listener) *string { return &l.CertFile }, "fullchain.pem"),
	"key_file":            text(func(l *listener) *string { return &l.KeyFile }, "privkey.pem"),
	"certificate":         tables(func(l *listener) *[]certificate { return &l.Certificates }, certificateKeys, "[[listener.certificate]]"),
	"insecure_login_from": networks(func(l *listener) *[]netip.Prefix { return &l.InsecureLoginFrom }),
	"proxy_protocol_from": networks(func(l *listener) *[]netip.Prefix { return &l.ProxyProtocolFrom }),
}

var certificateKeys = keyTable[certificate]{
	"cert_file": text(func(c *certificate) *string { return &c.CertFile }, "fullchain.pem"),
	"key_file":  text(func(c *certificate) *string { return &c.KeyFile }, "privkey.pem"),
}

var sessionKeys = keyTable[session]{
	"autologout":          duration(func(s *session) *time.Duration { return &s.Autologout }, 10*time.Minute, 24*time.Hour, "10m"),
	"login_attempts":      integer(func(s *session) *int { return &s.LoginAttempts }, 1, 100),
	"auth_list":           boolean(func(s *session) *bool { return &s.AuthList }),
	"utf8":                boolean(func(s *session) *bool { return &s.UTF8 }),
	"capabilities_hidden": anyOf(func(s *session) *[]string { return &s.CapabilitiesHidden }, capabilities...),
	"shutdown_grace":      duration(func(s *session) *time.Duration { return &s.ShutdownGrace }, 0, time.Hour, "60s"),
}

const mostConnections = 1_000_000 // more ports and descriptors no machine has

var limitsKeys = keyTable[limits]{
	"connections":             integer(func(l *limits) *int { return &l.Connections }, 0, mostConnections),
	"connections_per_address": integer(func(l *limits) *int { return &l.ConnectionsPerAddress }, 0, mostConnections),
	"unauthenticated":         integer(func(l *limits) *int { return &l.Unauthenticated }, 0, mostConnections),
	"read_ahead_total":        size(func(l *limits) *int64 { return &l.ReadAheadTotal }, 0, 1<<40, "256MiB"),
}

var storeKeys = keyTable[storage]{
	"path":     text(func(s *storage) *string { return &s.Path }, "/var/lib/popgate/store.db"),
	"max_size": size(func(s *storage) *int64 { return &s.MaxSize }, store.MinMaxSize, 1<<40, "256MiB"),
}

var throttleKeys = keyTable[throttle]{
	"delay":     duration(func(t *throttle) *time.Duration { return &t.Delay }, 0, time.Minute, "2s"),
	"max_delay": duration(func(t *throttle) *time.Duration { return &t.MaxDelay }, 0, 5*time.Minute, "15s"),
	"window":    duration(func(t *throttle) *time.Duration { return &t.Window }, time.Second, 24*time.Hour, "10m"),
}

// capabilities are the tags that CAPA may list (RFC 2449 §6, RFC 2595 §4,
// RFC 3206 §5, RFC 5034 §3, RFC 6856 §2).
var capabilities = []string{"TOP", "UIDL", "USER", "SASL", "STLS", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "UTF8"}

// relayed are the SASL mechanisms of which the gateway sees no secret.
var relayed = []string{"cram-md5", "scram-sha-1", "scram-sha-256"}

var upstreamKeys = keyTable[upstream]{
	"name":             text(func(u *upstream) *string { return &u.Name }, "mail"),
	"address":          text(func(u *upstream) *string { return &u.Address }, "imap.example.com:993"),
	"tls":              oneOf(func(u *upstream) *string { return &u.TLS }, "implicit", "starttls", "none"),
	"insecure":         boolean(func(u *upstream) *bool { return &u.Insecure }),
	"server_name":      text(func(u *upstream) *string { return &u.ServerName }, "imap.example.com"),
	"ca_file":          text(func(u *upstream) *string { return &u.CAFile }, "ca.pem"),
	"mailbox":          text(func(u *upstream) *string { return &u.Mailbox }, "INBOX"),
	"auth":             anyOf(func(u *upstream) *[]string { return &u.Auth }, append([]string{"plain", "login", "xoauth2", "oauthbearer"}, relayed...)...),
	"delete":           oneOf(func(u *upstream) *string { return &u.Delete }, "expunge", "trash", "flag", "keep"),
	"without_uidplus":  oneOf(func(u *upstream) *string { return &u.WithoutUIDPLUS }, "flag", "move", "expunge-if-alone", "refuse"),
	"trash":            text(func(u *upstream) *string { return &u.Trash }, "Trash"),
	"seen":             oneOf(func(u *upstream) *string { return &u.Seen }, "never", "on-retr", "on-quit"),
	"uidl":             uidl(func(u *upstream) *string { return &u.UIDL }),
	"uidl_memory":      boolean(func(u *upstream) *bool { return &u.UIDLMemory }),
	"uidl_import":      text(func(u *upstream) *string { return &u.UIDLImport }, "former.uidl"),
	"read_ahead":       size(func(u *upstream) *int64 { return &u.ReadAhead }, 0, 1<<30, "1MiB"),
	"sizes":            oneOf(func(u *upstream) *string { return &u.Sizes }, "reported", "exact"),
	"send_client_id":   boolean(func(u *upstream) *bool { return &u.SendClientID }),
	"deleted_messages": oneOf(func(u *upstream) *string { return &u.DeletedMessages }, "hide", "show"),
	"compress":         boolean(func(u *upstream) *bool { return &u.Compress }),
	"keep_open":        duration(func(u *upstream) *time.Duration { return &u.KeepOpen }, 0, 10*time.Minute, "60s"),
}

var logKeys = keyTable[logging]{
	"level":  oneOf(func(l *logging) *string { return &l.Level }, "debug", "info", "warn", "error"),
	"format": oneOf(func(l *logging) *string { return &l.Format }, "text", "json"),
}

// planned are the keys, by table, that later versions are going to know, and
// plannedTables the tables. They are refused like unknown ones; only the
// message differs.
var planned = map[string][]string{
	"session":  {"hostname"},
	"upstream": {"profile", "max_connections"},
}

var plannedTables = []string{"route", "account", "cluster", "admin"}

// text accepts a string that is neither empty nor has control characters.
func text[T any](field func(*T) *string, example string) setter[T] {
	return func(dst *T, v any) *fault {
		s, ok := v.(string)
		if !ok {
			return wrongType(v, fmt.Sprintf("a string such as %q", example))
		}
		if s == "" {
			return &fault{what: "is empty", mend: fmt.Sprintf("write a string such as %q, or remove the key", example)}
		}
		if strings.ContainsFunc(s, unicode.IsControl) {
			return &fault{what: "has control characters", mend: "remove them"}
		}
		*field(dst) = s
		return nil
	}
}

// uidl accepts a form of unique-ids.
func uidl[T any](field func(*T) *string) setter[T] {
	return func(dst *T, v any) *fault {
		want := fmt.Sprintf("a template such as %q, or %q or %q", uniqueid.Default, uniqueid.SourceEmailID, uniqueid.SourceGmail)
		s, ok := v.(string)
		if !ok {
			return wrongType(v, want)
		}
		if s == uniqueid.SourceEmailID || s == uniqueid.SourceGmail {
			*field(dst) = s
			return nil
		}
		if _, err := uniqueid.Parse(s); err != nil {
			return &fault{what: fmt.Sprintf("%q %v", s, err), mend: "write " + want}
		}
		*field(dst) = s
		return nil
	}
}

// oneOf accepts one of words.
func oneOf[T any](field func(*T) *string, words ...string) setter[T] {
	return func(dst *T, v any) *fault {
		s, ok := v.(string)
		if !ok {
			return wrongType(v, quoteAll(words))
		}
		if f := notAmong(s, words); f != nil {
			return f
		}
		*field(dst) = s
		return nil
	}
}

// notAmong returns nil where s is one of words.
func notAmong(s string, words []string) *fault {
	if slices.Contains(words, s) {
		return nil
	}
	if near := nearest(s, words); near != "" {
		return &fault{what: fmt.Sprintf("unknown value %q", s), mend: fmt.Sprintf("did you mean %q?", near)}
	}
	return &fault{what: fmt.Sprintf("unknown value %q", s), mend: "write " + quoteAll(words)}
}

// anyOf accepts an array of distinct words, in any case of letters.
func anyOf[T any](field func(*T) *[]string, words ...string) setter[T] {
	return func(dst *T, v any) *fault {
		list, f := elements(v, words[0])
		if f != nil {
			return f
		}
		chosen := []string{}
		for i, s := range list {
			element := elementPath("", i)
			k := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, s) })
			if k < 0 {
				f := notAmong(s, words)
				f.element = element
				return f
			}
			if slices.Contains(chosen, words[k]) {
				return &fault{element: element, what: fmt.Sprintf("%q is there twice", s), mend: "remove one"}
			}
			chosen = append(chosen, words[k])
		}
		*field(dst) = chosen
		return nil
	}
}

// networks accepts an array of networks such as "10.0.0.0/8" and of single
// addresses.
func networks[T any](field func(*T) *[]netip.Prefix) setter[T] {
	return func(dst *T, v any) *fault {
		list, f := elements(v, "10.0.0.0/8")
		if f != nil {
			return f
		}
		nets := []netip.Prefix{}
		for i, s := range list {
			p, f := network(s)
			if f != nil {
				f.element = elementPath("", i)
				return f
			}
			nets = append(nets, p)
		}
		*field(dst) = nets
		return nil
	}
}

func network(s string) (netip.Prefix, *fault) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return p, &fault{what: fmt.Sprintf("%q is not a network", s), mend: `write one such as "10.0.0.0/8" or "2001:db8::/32"`}
		}
		if a.Zone() != "" {
			return p, &fault{what: fmt.Sprintf("%q has a zone", s), mend: "write the address without it"}
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	switch {
	case p.Addr().Is4In6():
		// Clients' addresses are unmapped before they are compared.
		return p, &fault{what: fmt.Sprintf("%q is an IPv4 network written as IPv6", s), mend: `write it as IPv4, such as "10.0.0.0/8"`}
	case p != p.Masked():
		return p, &fault{what: fmt.Sprintf("%q has bits outside its mask", s), mend: fmt.Sprintf("write %q", p.Masked())}
	}
	return p, nil
}

// tables accepts an array of tables with the given keys; header begins each.
func tables[T, E any](field func(*T) *[]E, keys keyTable[E], header string) setter[T] {
	return func(dst *T, v any) *fault {
		list, ok := v.([]map[string]any)
		if !ok {
			return &fault{what: "is " + kind(v), mend: "begin each with " + header}
		}
		for i, m := range list {
			var one E
			for _, name := range slices.Sorted(maps.Keys(m)) {
				f := &fault{what: "unknown key", mend: removeKey}
				if near := nearest(name, keys.names()); near != "" {
					f.mend = fmt.Sprintf("did you mean %q?", near)
				}
				if set, ok := keys[name]; ok {
					f = set(&one, m[name])
				}
				if f != nil {
					f.element = childPath(elementPath("", i), name) + f.element
					return f
				}
			}
			*field(dst) = append(*field(dst), one)
		}
		return nil
	}
}

// elements returns v as an array of strings.
func elements(v any, example string) ([]string, *fault) {
	want := fmt.Sprintf("an array of strings such as [%q]", example)
	array, ok := v.([]any)
	if !ok {
		return nil, wrongType(v, want)
	}
	list := make([]string, len(array))
	for i, e := range array {
		s, ok := e.(string)
		if !ok {
			f := wrongType(e, fmt.Sprintf("a string such as %q", example))
			f.element = elementPath("", i)
			return nil, f
		}
		list[i] = s
	}
	return list, nil
}

// duration accepts a string such as "10m" from least to most.
func duration[T any](field func(*T) *time.Duration, least, most time.Duration, example string) setter[T] {
	return func(dst *T, v any) *fault {
		want := fmt.Sprintf("a string such as %q", example)
		s, ok := v.(string)
		if !ok {
			return wrongType(v, want)
		}
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return &fault{what: fmt.Sprintf("%q is not a duration", s), mend: "write " + want}
		case d < least:
			return &fault{what: fmt.Sprintf("%q is too short", s), mend: "write " + short(least) + " or more"}
		case d > most:
			return &fault{what: fmt.Sprintf("%q is too long", s), mend: "write " + short(most) + " or less"}
		}
		*field(dst) = d
		return nil
	}
}

// size accepts a string such as "64KiB" from least to most octets.
func size[T any](field func(*T) *int64, least, most int64, example string) setter[T] {
	return func(dst *T, v any) *fault {
		want := fmt.Sprintf("a string such as %q", example)
		s, ok := v.(string)
		if !ok {
			return wrongType(v, want)
		}
		n, ok := parseSize(s)
		switch {
		case !ok:
			return &fault{what: fmt.Sprintf("%q is not a size", s), mend: "write " + want}
		case n < least:
			return &fault{what: fmt.Sprintf("%q is too small", s), mend: fmt.Sprintf("write %q or more", sizeText(least))}
		case n > most:
			return &fault{what: fmt.Sprintf("%q is too large", s), mend: fmt.Sprintf("write %q or less", sizeText(most))}
		}
		*field(dst) = n
		return nil
	}
}

// sizeUnits are the units of sizes, the largest first.
var sizeUnits = []struct {
	name   string
	octets int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

// parseSize reads a number of octets such as "64KiB" or "0".
func parseSize(s string) (int64, bool) {
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(s, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil {
			return 0, false
		}
		return int64(n) * unit.octets, true
	}
	return 0, false
}

// sizeText writes a size as one would in the file.
func sizeText(n int64) string {
	for _, unit := range sizeUnits {
		if n%unit.octets == 0 && n >= unit.octets {
			return strconv.FormatInt(n/unit.octets, 10) + unit.name
		}
	}
	return "0"
}

// short writes a duration as one would in the file: "10m", not "10m0s".
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return fmt.Sprintf("%q", s)
}

// integer accepts a whole number from least to most.
func integer[T any](field func(*T) *int, least, most int64) setter[T] {
	return func(dst *T, v any) *fault {
		want := fmt.Sprintf("a number from %d to %d", least, most)
		n, ok := v.(int64)
		if !ok {
			return wrongType(v, want)
		}
		if n < least || n > most {
			return &fault{what: fmt.Sprintf("%d is out of range", n), mend: "write " + want}
		}
		*field(dst) = int(n)
		return nil
	}
}

// boolean accepts true and false.
func boolean[T any](field func(*T) *bool) setter[T] {
	return func(dst *T, v any) *fault {
		b, ok := v.(bool)
		if !ok {
			return wrongType(v, "true or false")
		}
		*field(dst) = b
		return nil
	}
}

func wrongType(v any, want string) *fault {
	return &fault{what: "is " + kind(v), mend: "write " + want}
}

// kind names the TOML type of v.
func kind(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a floating-point number"
	case bool:
		return "a boolean"
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "an array of tables"
	case []any:
		return "an array"
	}
	return fmt.Sprintf("a %T", v)
}
