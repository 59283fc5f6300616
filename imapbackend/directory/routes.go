package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"popgate/imapbackend/upstream"
)

// Route is one rule of Routes. It has either Match or Names.
type Route struct {
	// Match is a login name, in which each * stands for any text. Spellings of a
	// name that are the same to servers are the same here (RFC 8265).
	Match string

	// Names are the domains and login names of a file.
	Names *NameFile

	// Upstream is the Name of an Upstream.
	Upstream string

	// User is the login name at the upstream. {login}, {local} and {domain} stand
	// for the client's login name and its parts before and after the last @; a
	// name without @ is all local. "": the login name unchanged.
	User string
}

// Routes resolves login names by rules, of which the first that matches is taken.
// It is safe for concurrent use, and does not change but for its NameFiles.
type Routes struct {
	rules   []rule
	exact   map[string]int // the rule of a login name
	domains map[string]int // the rule of *@domain
	others  []int          // rules with other patterns, or with a file, ascending
}

type rule struct {
	Route
	pattern string // Match, folded
	user    template
}

var _ Resolver = (*Routes)(nil)

// NewRoutes returns the Routes with these rules, in their order.
func NewRoutes(routes []Route) (*Routes, error) {
	r := &Routes{exact: make(map[string]int), domains: make(map[string]int)}
	for i, one := range routes {
		user, err := parseTemplate(one.User)
		if err != nil {
			return nil, err
		}
		r.rules = append(r.rules, rule{one, fold(one.Match), user})
		r.add(i)
	}
	return r, nil
}

// add puts rule i where resolve finds it. An earlier rule for the same names wins.
func (r *Routes) add(i int) {
	pattern := r.rules[i].pattern
	domain, isDomain := strings.CutPrefix(pattern, "*@")
	index := r.exact
	switch {
	case r.rules[i].Names != nil, !isDomain && strings.Contains(pattern, "*"), strings.Contains(domain, "*"):
		r.others = append(r.others, i)
		return
	case isDomain:
		index, pattern = r.domains, domain
	}
	if _, taken := index[pattern]; !taken {
		index[pattern] = i
	}
}

// Local implements Resolver.
func (r *Routes) Local() bool { return true }

// Resolve implements Resolver.
func (r *Routes) Resolve(_ context.Context, l Login) (Target, error) {
	name := fold(l.Name)
	i := r.find(name)
	if i < 0 {
		return Target{}, ErrUnknown
	}
	rule := &r.rules[i]
	login := l.Name
	if strings.Count(login, "@") != strings.Count(name, "@") {
		login = name // it has an @ of another width, at which it is to be split too
	}
	user := rule.user.expand(login)
	if user == "" {
		return Target{}, errNoUser
	}
	return Target{Upstream: rule.Upstream, User: user}, nil
}

// find returns the first rule that matches name, which is folded, or -1.
func (r *Routes) find(name string) int {
	first := len(r.rules)
	if i, ok := r.exact[name]; ok {
		first = i
	}
	domain := domainOf(name)
	if i, ok := r.domains[domain]; ok && domain != "" {
		first = min(first, i)
	}
	for _, i := range r.others {
		if i >= first {
			break
		}
		if rule := &r.rules[i]; rule.Names != nil && rule.Names.has(name, domain) || rule.Names == nil && matches(rule.pattern, name) {
			return i
		}
	}
	if first == len(r.rules) {
		return -1
	}
	return first
}

// fold returns one text for all spellings of a login name or pattern.
func fold(name string) string { return strings.ToLower(upstream.CanonicalUser("", name)) }

// domainOf returns what is after the last @, "" without one.
func domainOf(name string) string {
	_, domain := split(name)
	return domain
}

// split divides a login name at its last @.
func split(name string) (local, domain string) {
	if i := strings.LastIndexByte(name, '@'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return name, ""
}

// matches reports whether name matches a pattern in which each * stands for any
// text.
func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(name, part)
		if !found {
			return false
		}
		name = after
	}
	return true
}

// template is a login name with placeholders: texts and placeholders in turns, a
// text first.
type template []string

// placeholders are what a template may contain.
var placeholders = []string{"{login}", "{local}", "{domain}"}

// parseTemplate parses Route.User.
func parseTemplate(s string) (template, error) {
	if s == "" {
		s = "{login}"
	}
	var t template
	for {
		text, rest, found := strings.Cut(s, "{")
		if strings.Contains(text, "}") {
			return nil, errors.New("has a } without its {")
		}
		t = append(t, text)
		if !found {
			return t, nil
		}
		name, after, found := strings.Cut(rest, "}")
		if name = "{" + name + "}"; !found || !slices.Contains(placeholders, name) {
			return nil, fmt.Errorf("has %q, which is none of %s", name, strings.Join(placeholders, ", "))
		}
		t = append(t, name)
		s = after
	}
}

// expand returns the login name at the upstream.
func (t template) expand(login string) string {
	local, domain := split(login)
	var b strings.Builder
	for i, s := range t {
		if i%2 == 1 {
			s = map[string]string{"{login}": login, "{local}": local, "{domain}": domain}[s]
		}
		b.WriteString(s)
	}
	return b.String()
}

// CheckTemplate returns what is wrong with Route.User, or nil. The error is to be
// read after the name of its key.
func CheckTemplate(user string) error {
	_, err := parseTemplate(user)
	return err
}
