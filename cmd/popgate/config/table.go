package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"popgate/cmd/popgate/words"
	"popgate/proxy"
)

// tables returns the tables of a file, in the order of config.toml.example.
func tables() []table {
	return []table{
		arrayTable("listener", listenerKeys, defaultListener, func(c *Config) *[]Listener { return &c.Listeners }, checkListeners),
		{name: "listener.certificate", header: "[[listener.certificate]]", keys: certificateKeys.names()},
		singleTable("session", sessionKeys, func(c *Config) *Session { return &c.Session }, nil),
		singleTable("limits", limitsKeys, func(c *Config) *Limits { return &c.Limits }, nil),
		singleTable("throttle", throttleKeys, func(c *Config) *proxy.ThrottleOptions { return &c.Throttle }, checkThrottle),
		arrayTable("upstream", upstreamKeys, defaultUpstream, func(c *Config) *[]Upstream { return &c.Upstreams }, checkUpstreams),
		optional(arrayTable("route", routeKeys, func() Route { return Route{} }, func(c *Config) *[]Route { return &c.Routes }, checkRoutes)),
		optional(arrayTable("lookup", lookupKeys, defaultLookup, func(c *Config) *[]Lookup { return &c.Lookups }, checkLookups)),
		singleTable("store", storeKeys, func(c *Config) *Store { return &c.Store }, checkStore),
		singleTable("log", logKeys, func(c *Config) *Log { return &c.Log }, nil),
	}
}

// planned lists the keys, by table, that later versions will have, and
// plannedTables the tables. They are rejected like unknown ones, with another
// message.
var planned = map[string][]string{
	"session":  {"hostname"},
	"upstream": {"max_connections"},
}

var plannedTables = []string{"account", "cluster", "admin"}

// table is one kind of table.
type table struct {
	name, header string // listener, [[listener]]
	keys         []string
	required     bool

	// decode sets the fields of c that the table v of the file describes. nil
	// for a table inside another one, whose key sets it.
	decode func(l *loader, c *Config, v any)

	// check examines what concerns more than one key; it may be nil.
	check func(l *loader, c *Config)
}

// singleTable returns a table that a file has at most once.
func singleTable[T any](name string, keys keyTable[T], field func(*Config) *T, check func(*loader, *Config)) table {
	return table{
		name: name, header: "[" + name + "]", keys: keys.names(), check: check,
		decode: func(l *loader, c *Config, v any) {
			m, ok := v.(map[string]any)
			if !ok {
				l.fail(name, "is "+kind(v), fmt.Sprintf("begin it with [%s]", name))
			}
			fill(l, name, name, keys, field(c), m)
		},
	}
}

// arrayTable returns a table that a file has once or more.
func arrayTable[T any](name string, keys keyTable[T], defaults func() T, field func(*Config) *[]T, check func(*loader, *Config)) table {
	return table{
		name: name, header: "[[" + name + "]]", keys: keys.names(), required: true, check: check,
		decode: func(l *loader, c *Config, v any) {
			for i, m := range l.arrayOfTables(name, v) {
				one := defaults()
				fill(l, elementPath(name, i), name, keys, &one, m)
				*field(c) = append(*field(c), one)
			}
		},
	}
}

// optional returns an array of tables that a file need not have.
func optional(t table) table {
	t.required = false
	return t
}

func (l *loader) arrayOfTables(name string, v any) []map[string]any {
	switch v := v.(type) {
	case []map[string]any:
		if len(v) > 0 {
			return v
		}
	case []any: // the decoder returns it for [] too
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

// fill sets the fields of dst from m, the table at path.
func fill[T any](l *loader, path, table string, keys keyTable[T], dst *T, m map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		set, ok := keys[name]
		if !ok {
			l.unknownKey(childPath(path, name), table, name, keys.names())
			continue
		}
		if f := set(dst, m[name]); f != nil {
			l.fail(childPath(path, name)+f.element, f.what, f.remedy)
		}
	}
}

// unknownKey records an unknown key of a table that has the keys names.
func (l *loader) unknownKey(path, table, name string, names []string) {
	if slices.Contains(planned[table], name) {
		l.fail(path, "not supported in this version", "remove it")
		return
	}
	l.misspelt(path, name, names)
	l.fail(path, "unknown key", misplaced(name, names))
}

// misspelt records which of names the unknown name at the end of path was meant to
// be: that it is missing is no further mistake.
func (l *loader) misspelt(path, name string, names []string) {
	if near := words.Nearest(name, names); near != "" {
		l.meant = append(l.meant, strings.TrimSuffix(path, childPath("", name))+near)
	}
}

// unknownTable records an unknown name at the top level of the file.
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
	var names []string
	for _, t := range tables() {
		if t.decode != nil {
			names = append(names, t.name)
		}
	}
	l.misspelt(childPath("", name), name, names)
	l.fail(childPath("", name), what, misplaced(name, names))
}

// misplaced returns the remedy for an unknown key in a table with the keys names.
func misplaced(name string, names []string) string {
	if near := words.Nearest(name, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	for _, t := range tables() {
		if slices.Contains(t.keys, name) {
			return "it belongs in " + t.header
		}
	}
	return removeKey
}

// removeKey is the remedy for a key that resembles no other.
const removeKey = "remove it; config.toml.example shows all keys"
