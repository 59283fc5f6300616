package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"popgate/imapbackend"
	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
	"popgate/proxy"
)

// config is a configuration file that has been found good: each value is in
// its range and the files it names have been read.
type config struct {
	listeners []listener
	session   session
	limits    limits
	throttle  throttle
	upstream  upstream
	store     storage
	log       logging
}

// listener is one [[listener]].
type listener struct {
	Address           string
	TLS               string
	MinTLS            string
	LegacyCiphers     bool
	CertFile, KeyFile string
	Certificates      []certificate // further ones
	InsecureLoginFrom []netip.Prefix
	ProxyProtocolFrom []netip.Prefix

	certificates *certificates         // those of the files, nil without TLS
	options      proxy.ListenerOptions // what the above come to
}

// certificate is one [[listener.certificate]].
type certificate struct {
	CertFile, KeyFile string
}

// session is [session].
type session struct {
	Autologout         time.Duration
	LoginAttempts      int
	AuthList           bool
	UTF8               bool
	CapabilitiesHidden []string
	ShutdownGrace      time.Duration
}

// limits is [limits].
type limits struct {
	Connections           int // 0: no limit, as for the others
	ConnectionsPerAddress int
	Unauthenticated       int
	ReadAheadTotal        int64 // octets
}

// throttle is [throttle].
type throttle struct {
	Delay    time.Duration // 0: off
	MaxDelay time.Duration
	Window   time.Duration
}

// storage is [store].
type storage struct {
	Path    string // "" for memory; relative to the directory of the file
	MaxSize int64  // octets
}

// upstream is one [[upstream]].
type upstream struct {
	Name            string // "" for the host of Address
	Address         string
	TLS             string
	Insecure        bool
	ServerName      string
	CAFile          string
	Mailbox         string
	Auth            []string
	Delete          string
	WithoutUIDPLUS  string
	Trash           string // "" for the mailbox with \Trash
	Seen            string
	Sizes           string
	UIDL            string
	UIDLMemory      bool
	UIDLImport      string // a file, or ""
	ReadAhead       int64  // octets
	DeletedMessages string
	Compress        bool
	KeepOpen        time.Duration
	SendClientID    bool

	options imapbackend.Options // what the above come to
}

// logging is [log].
type logging struct {
	Level, Format string
}

func defaultListener() listener {
	return listener{
		TLS:               "starttls",
		MinTLS:            "1.2",
		InsecureLoginFrom: []netip.Prefix{},
		ProxyProtocolFrom: []netip.Prefix{},
	}
}

func defaultSession() session {
	return session{
		Autologout:         10 * time.Minute,
		LoginAttempts:      3,
		AuthList:           true,
		CapabilitiesHidden: []string{},
		ShutdownGrace:      60 * time.Second,
	}
}

func defaultLimits() limits {
	return limits{Connections: 10000, Unauthenticated: 1000, ReadAheadTotal: 256 << 20}
}

func defaultStorage() storage { return storage{MaxSize: store.DefaultMaxSize} }

func defaultThrottle() throttle {
	return throttle{Delay: 2 * time.Second, MaxDelay: 15 * time.Second, Window: 10 * time.Minute}
}

func defaultUpstream() upstream {
	return upstream{
		TLS:             "implicit",
		Mailbox:         "INBOX",
		Auth:            []string{"plain", "login"},
		Delete:          "expunge",
		WithoutUIDPLUS:  "flag",
		Seen:            "never",
		Sizes:           "reported",
		UIDL:            uniqueid.Default,
		ReadAhead:       1 << 20,
		DeletedMessages: "hide",
	}
}

func defaultLogging() logging { return logging{Level: "info", Format: "text"} }

// loadConfig reads the file: decode, defaults, validate. The error is
// *problems for mistakes in the file, and names all of them, unless the text
// is no TOML at all.
func loadConfig(file string) (*config, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseConfig(file, string(src))
}

// parseConfig is loadConfig for the text src of file.
func parseConfig(file, src string) (*config, error) {
	var top map[string]any
	if _, err := toml.Decode(src, &top); err != nil {
		return nil, syntaxProblem(file, src, err)
	}
	l := &loader{
		problems: problems{file: file},
		lines:    locate(src),
		dir:      filepath.Dir(file),
	}
	c := l.decode(top)
	l.validate(c)
	if len(l.list) > 0 {
		return nil, l.sorted()
	}
	return c, nil
}

func syntaxProblem(file, src string, err error) error {
	p := problem{line: 1, what: "not TOML: " + err.Error(), mend: "mend it as https://toml.io describes"}
	if pe, ok := errors.AsType[toml.ParseError](err); ok {
		// The line of a Position is one too far where the line end is at fault.
		before := src[:min(max(pe.Position.Start, 0), len(src))]
		p.line, p.key = 1+strings.Count(before, "\n"), pe.LastKey
		p.what = "not TOML: " + strings.TrimSuffix(pe.Message, ".")
	}
	return &problems{file: file, list: []problem{p}}
}

// loader collects the mistakes of one file.
type loader struct {
	problems
	lines map[string]int // where each path stands
	dir   string         // what relative file names are relative to
}

// fail notes a mistake at path, or where path is not in the file, at the table
// it would stand in.
func (l *loader) fail(path, what, mend string) {
	l.list = append(l.list, problem{line: l.lineOf(path), key: path, what: what, mend: mend})
}

func (l *loader) lineOf(path string) int {
	for i := len(path); i > 0; i-- {
		if i < len(path) && path[i] != '.' && path[i] != '[' {
			continue
		}
		if line, ok := l.lines[path[:i]]; ok {
			return line
		}
	}
	return 1
}

// decode puts the values of the file over the defaults.
func (l *loader) decode(top map[string]any) *config {
	c := &config{session: defaultSession(), limits: defaultLimits(), throttle: defaultThrottle(), store: defaultStorage(), log: defaultLogging()}
	for _, name := range slices.Sorted(maps.Keys(top)) {
		v := top[name]
		switch name {
		case "listener":
			for i, m := range l.arrayOfTables(name, v) {
				one := defaultListener()
				fill(l, elementPath(name, i), name, listenerKeys, &one, m)
				c.listeners = append(c.listeners, one)
			}
		case "upstream":
			for i, m := range l.arrayOfTables(name, v) {
				one := defaultUpstream()
				fill(l, elementPath(name, i), name, upstreamKeys, &one, m)
				if i == 0 {
					c.upstream = one
					continue
				}
				l.fail(elementPath(name, i), "a second upstream is not supported in this version",
					"run one popgate for each upstream")
			}
		case "session":
			fill(l, name, name, sessionKeys, &c.session, l.table(name, v))
		case "limits":
			fill(l, name, name, limitsKeys, &c.limits, l.table(name, v))
		case "throttle":
			fill(l, name, name, throttleKeys, &c.throttle, l.table(name, v))
		case "store":
			fill(l, name, name, storeKeys, &c.store, l.table(name, v))
		case "log":
			fill(l, name, name, logKeys, &c.log, l.table(name, v))
		default:
			l.unknownTable(name, v)
		}
	}
	for _, name := range []string{"listener", "upstream"} {
		if _, ok := top[name]; !ok {
			l.fail(name, "missing", fmt.Sprintf("add a [[%s]] with its address", name))
		}
	}
	return c
}

// fill sets the fields of dst from the table m, which stands at path.
func fill[T any](l *loader, path, table string, keys keyTable[T], dst *T, m map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		set, ok := keys[name]
		if !ok {
			l.unknownKey(childPath(path, name), table, name, keys.names())
			continue
		}
		if f := set(dst, m[name]); f != nil {
			l.fail(childPath(path, name)+f.element, f.what, f.mend)
		}
	}
}

func (l *loader) arrayOfTables(name string, v any) []map[string]any {
	switch v := v.(type) {
	case []map[string]any:
		if len(v) > 0 {
			return v
		}
	case []any: // what the decoder makes of []
		if len(v) == 0 {
			break
		}
		l.fail(name, "is "+kind(v), fmt.Sprintf("begin each with [[%s]]", name))
		return nil
	default:
		l.fail(name, "is "+kind(v), fmt.Sprintf("begin it with [[%s]]", name))
		return nil
	}
	l.fail(name, "is empty", fmt.Sprintf("add a [[%s]] with its address", name))
	return nil
}

func (l *loader) table(name string, v any) map[string]any {
	m, ok := v.(map[string]any)
	if !ok {
		l.fail(name, "is "+kind(v), fmt.Sprintf("begin it with [%s]", name))
	}
	return m
}

// tableKeys are the keys of each table, to tell where a misplaced one belongs.
var tableKeys = []struct {
	table string
	keys  []string
}{
	{"[[listener]]", listenerKeys.names()},
	{"[[listener.certificate]]", certificateKeys.names()},
	{"[session]", sessionKeys.names()},
	{"[limits]", limitsKeys.names()},
	{"[throttle]", throttleKeys.names()},
	{"[[upstream]]", upstreamKeys.names()},
	{"[store]", storeKeys.names()},
	{"[log]", logKeys.names()},
}

// unknownKey refuses the key name of a table that knows the given names.
func (l *loader) unknownKey(path, table, name string, names []string) {
	if slices.Contains(planned[table], name) {
		l.fail(path, "not supported in this version", "remove it")
		return
	}
	l.fail(path, "unknown key", misplaced(name, names))
}

// unknownTable refuses what stands at the top of the file.
func (l *loader) unknownTable(name string, v any) {
	if slices.Contains(plannedTables, name) {
		l.fail(childPath("", name), "not supported in this version", "remove it")
		return
	}
	what := "unknown key"
	switch v.(type) {
	case map[string]any, []map[string]any:
		what = "unknown table"
	}
	l.fail(childPath("", name), what, misplaced(name, []string{"listener", "session", "limits", "throttle", "upstream", "store", "log"}))
}

// misplaced says what to do about an unknown key where names are known.
func misplaced(name string, names []string) string {
	if near := nearest(name, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	for _, t := range tableKeys {
		if slices.Contains(t.keys, name) {
			return "it belongs in " + t.table
		}
	}
	return removeKey
}

// removeKey is what to do about a key that nothing is known like.
const removeKey = "remove it; config.toml.example shows all keys"

// proxyOptions are the options of the server, without its Backend, Logger and
// Throttler.
func (c *config) proxyOptions() proxy.Options {
	mechanisms := []string{}
	for _, m := range c.upstream.Auth {
		mechanisms = append(mechanisms, strings.ToUpper(m))
	}
	return proxy.Options{
		Autologout:         c.session.Autologout,
		LoginAttempts:      c.session.LoginAttempts,
		NoAuthList:         !c.session.AuthList,
		UTF8:               c.session.UTF8,
		Mechanisms:         mechanisms,
		HiddenCapabilities: c.session.CapabilitiesHidden,
		Limits: proxy.Limits{
			Connections:     c.limits.Connections,
			PerAddress:      c.limits.ConnectionsPerAddress,
			Unauthenticated: c.limits.Unauthenticated,
		},
	}
}

// throttler returns what slows down failed logins, nil if nothing does.
func (c *config) throttler() (proxy.Throttler, error) {
	if c.throttle.Delay == 0 {
		return nil, nil
	}
	return proxy.NewThrottle(proxy.ThrottleOptions{
		Delay:    c.throttle.Delay,
		MaxDelay: c.throttle.MaxDelay,
		Window:   c.throttle.Window,
	})
}
