package config

import (
	"fmt"
	"slices"

	"popgate/cmd/popgate/words"
	"popgate/imapbackend/directory"
)

// Route is one [[route]].
type Route struct {
	Rule directory.Route

	matchFile string // "" for none
}

var routeKeys = keyTable[Route]{
	"match":      text(func(r *Route) *string { return &r.Rule.Match }, "*@example.com"),
	"match_file": text(func(r *Route) *string { return &r.matchFile }, "domains.map"),
	"upstream":   text(func(r *Route) *string { return &r.Rule.Upstream }, "mail"),
	"user":       text(func(r *Route) *string { return &r.Rule.User }, "{local}"),
}

// Rules returns the rules of all routes, in the order of the file.
func (c *Config) Rules() []directory.Route {
	rules := make([]directory.Route, len(c.Routes))
	for i := range c.Routes {
		rules[i] = c.Routes[i].Rule
	}
	return rules
}

// Resolves reports whether something decides by the login name where it goes to.
func (c *Config) Resolves() bool { return len(c.Routes) > 0 || len(c.Lookups) > 0 }

func checkRoutes(l *loader, c *Config) {
	names := c.UpstreamNames()
	reached := map[string]bool{}
	for i := range c.Routes {
		r := &c.Routes[i]
		path := elementPath("route", i)
		l.routeMatch(path, r)
		l.routeUpstream(path, r, names)
		reached[r.Rule.Upstream] = true
		if err := directory.CheckTemplate(r.Rule.User); err != nil {
			l.fail(path+".user", fmt.Sprintf("%q %v", r.Rule.User, err), `write a login name such as "{local}" or "{local}@example.com"`)
		}
	}
	for i := range c.Upstreams {
		path := elementPath("upstream", i)
		if name := names[i]; len(names) > 1 && len(c.Lookups) == 0 && name != "" && !reached[name] && !l.wrong("route") && !l.wrong(path+".name") {
			l.fail(path, "is one of several, and no [[route]] leads to it", fmt.Sprintf("add a [[route]] with upstream = %q, or a [[lookup]]", name))
		}
		if relayed := c.Upstreams[i].Relayed(); len(relayed) > 0 && (len(names) > 1 || c.Resolves()) { // P-SASL-5
			l.fail(path+".auth", fmt.Sprintf("%s cannot be relayed where the login name decides on the upstream", words.List(relayed)),
				"remove it, or all routes, lookups and other upstreams")
		}
	}
}

// routeMatch checks what says which logins the route at path is for.
func (l *loader) routeMatch(path string, r *Route) {
	switch {
	case l.wrong(path+".match") || l.wrong(path+".match_file"):
	case r.Rule.Match == "" && r.matchFile == "":
		l.fail(path, "has neither match nor match_file", `add match = "*@example.com", or match_file`)
	case r.Rule.Match != "" && r.matchFile != "":
		l.fail(path+".match_file", "has match beside it", "make two routes of it")
	case r.matchFile != "":
		var err error
		if r.Rule.Names, err = directory.ReadNameFile(l.absolute(r.matchFile)); err != nil {
			l.fail(path+".match_file", fmt.Sprintf("cannot be read: %v", err), "write one domain or login name on each line")
		}
	}
}

// routeUpstream checks where the route at path leads. names are those of the
// upstreams.
func (l *loader) routeUpstream(path string, r *Route, names []string) {
	key := path + ".upstream"
	switch {
	case l.wrong(key):
	case r.Rule.Upstream == "" && len(names) == 1:
		r.Rule.Upstream = names[0]
	case r.Rule.Upstream == "":
		l.fail(key, "missing", "name one of the upstreams: "+words.List(names))
	case !slices.Contains(names, r.Rule.Upstream):
		f := unknownValue(r.Rule.Upstream, names)
		l.fail(key, "is the name of no upstream", f.remedy)
	}
}
