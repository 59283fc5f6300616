package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"popgate/cmd/popgate/words"
)

// A setter stores v, a value from the TOML decoder, in dst. It returns nil, or
// what is wrong with v and how to fix it.
type setter[T any] func(dst *T, v any) *fault

// A fault is what is wrong with a value.
type fault struct {
	element      string // such as "[1]" if one element of an array is wrong
	what, remedy string
}

// keyTable holds the keys of one table of the configuration file.
type keyTable[T any] map[string]setter[T]

func (t keyTable[T]) names() []string { return slices.Sorted(maps.Keys(t)) }

// text accepts a string that is not empty and has no control characters.
func text[T any](field func(*T) *string, example string) setter[T] {
	return textLike(field, fmt.Sprintf("a string such as %q", example))
}

// textLike is text with a description of what is wanted.
func textLike[T any](field func(*T) *string, want string) setter[T] {
	return func(dst *T, v any) *fault {
		s, ok := v.(string)
		if !ok {
			return wrongType(v, want)
		}
		if s == "" {
			return &fault{what: "is empty", remedy: fmt.Sprintf("write %s, or remove the key", want)}
		}
		if strings.ContainsFunc(s, unicode.IsControl) {
			return &fault{what: "has control characters", remedy: "remove them"}
		}
		*field(dst) = s
		return nil
	}
}

// oneOf accepts one of the values of W.
func oneOf[T any, W interface {
	~string
	Values() []W
}](field func(*T) *W) setter[T] {
	var zero W
	var choices []word[W]
	for _, v := range zero.Values() {
		choices = append(choices, word[W]{string(v), v})
	}
	return choice(field, choices...)
}

// word is a string in the file and the value that it sets.
type word[V any] struct {
	text  string
	value V
}

// choice accepts one of choices.
func choice[T, V any](field func(*T) *V, choices ...word[V]) setter[T] {
	var texts []string
	for _, c := range choices {
		texts = append(texts, c.text)
	}
	return func(dst *T, v any) *fault {
		s, ok := v.(string)
		if !ok {
			return wrongType(v, words.List(texts))
		}
		i := slices.Index(texts, s)
		if i < 0 {
			return unknownValue(s, texts)
		}
		*field(dst) = choices[i].value
		return nil
	}
}

// unknownValue returns the fault of s, which is none of texts.
func unknownValue(s string, texts []string) *fault {
	if near := words.Nearest(s, texts); near != "" {
		return &fault{what: fmt.Sprintf("unknown value %q", s), remedy: fmt.Sprintf("did you mean %q?", near)}
	}
	return &fault{what: fmt.Sprintf("unknown value %q", s), remedy: "write " + words.List(texts)}
}

// anyOf accepts an array of distinct texts, in upper or lower case.
func anyOf[T any](field func(*T) *[]string, texts ...string) setter[T] {
	return func(dst *T, v any) *fault {
		list, f := elements(v, texts[0])
		if f != nil {
			return f
		}
		chosen := []string{}
		for i, s := range list {
			element := elementPath("", i)
			k := slices.IndexFunc(texts, func(w string) bool { return strings.EqualFold(w, s) })
			if k < 0 {
				f := unknownValue(s, texts)
				f.element = element
				return f
			}
			if slices.Contains(chosen, texts[k]) {
				return &fault{element: element, what: fmt.Sprintf("%q is listed twice", s), remedy: "remove one"}
			}
			chosen = append(chosen, texts[k])
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
			return p, &fault{what: fmt.Sprintf("%q is not a network", s), remedy: `write one such as "10.0.0.0/8" or "2001:db8::/32"`}
		}
		if a.Zone() != "" {
			return p, &fault{what: fmt.Sprintf("%q has a zone", s), remedy: "write the address without it"}
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	switch {
	case p.Addr().Is4In6():
		// Client addresses are unmapped before they are compared.
		return p, &fault{what: fmt.Sprintf("%q is an IPv4 network written as IPv6", s), remedy: `write it as IPv4, such as "10.0.0.0/8"`}
	case p != p.Masked():
		return p, &fault{what: fmt.Sprintf("%q has bits outside its mask", s), remedy: fmt.Sprintf("write %q", p.Masked())}
	}
	return p, nil
}

// textList accepts an array of strings.
func textList[T any](field func(*T) *[]string, example string) setter[T] {
	return func(dst *T, v any) *fault {
		list, f := elements(v, example)
		if f == nil {
			*field(dst) = list
		}
		return f
	}
}

// texts accepts a table of strings.
func texts[T any](field func(*T) *map[string]string, example string) setter[T] {
	return func(dst *T, v any) *fault {
		table, ok := v.(map[string]any)
		if !ok {
			return wrongType(v, "a table such as "+example)
		}
		all := make(map[string]string, len(table))
		for _, name := range slices.Sorted(maps.Keys(table)) {
			if all[name], ok = table[name].(string); !ok {
				f := wrongType(table[name], "a string")
				f.element = "." + childPath("", name)
				return f
			}
		}
		*field(dst) = all
		return nil
	}
}

// tablesOf accepts an array of tables with the given keys; header begins each.
func tablesOf[T, E any](field func(*T) *[]E, keys keyTable[E], header string) setter[T] {
	return func(dst *T, v any) *fault {
		list, ok := v.([]map[string]any)
		if !ok {
			return &fault{what: "is " + kind(v), remedy: "begin each with " + header}
		}
		for i, m := range list {
			var one E
			for _, name := range slices.Sorted(maps.Keys(m)) {
				f := &fault{what: "unknown key", remedy: removeKey}
				if near := words.Nearest(name, keys.names()); near != "" {
					f.remedy = fmt.Sprintf("did you mean %q?", near)
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

// duration accepts a string such as "10m" from lowest to highest.
func duration[T any](field func(*T) *time.Duration, lowest, highest time.Duration, example string) setter[T] {
	return func(dst *T, v any) *fault {
		want := fmt.Sprintf("a string such as %q", example)
		s, ok := v.(string)
		if !ok {
			return wrongType(v, want)
		}
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return &fault{what: fmt.Sprintf("%q is not a duration", s), remedy: "write " + want}
		case d < lowest:
			return &fault{what: fmt.Sprintf("%q is too short", s), remedy: "write " + short(lowest) + " or more"}
		case d > highest:
			return &fault{what: fmt.Sprintf("%q is too long", s), remedy: "write " + short(highest) + " or less"}
		}
		*field(dst) = d
		return nil
	}
}

// size accepts a string such as "64KiB" from lowest to highest octets.
func size[T any](field func(*T) *int64, lowest, highest int64, example string) setter[T] {
	return func(dst *T, v any) *fault {
		want := fmt.Sprintf("a string such as %q", example)
		s, ok := v.(string)
		if !ok {
			return wrongType(v, want)
		}
		n, ok := parseSize(s)
		switch {
		case !ok:
			return &fault{what: fmt.Sprintf("%q is not a size", s), remedy: "write " + want}
		case n < lowest:
			return &fault{what: fmt.Sprintf("%q is too small", s), remedy: fmt.Sprintf("write %q or more", sizeText(lowest))}
		case n > highest:
			return &fault{what: fmt.Sprintf("%q is too large", s), remedy: fmt.Sprintf("write %q or less", sizeText(highest))}
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

// sizeText returns a size as it is written in the file.
func sizeText(n int64) string {
	for _, unit := range sizeUnits {
		if n%unit.octets == 0 && n >= unit.octets {
			return strconv.FormatInt(n/unit.octets, 10) + unit.name
		}
	}
	return "0"
}

// short returns a duration as it is written in the file, quoted: "10m", not
// "10m0s".
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

// integer accepts a whole number from lowest to highest.
func integer[T any](field func(*T) *int, lowest, highest int64) setter[T] {
	return func(dst *T, v any) *fault {
		want := fmt.Sprintf("a number from %d to %d", lowest, highest)
		n, ok := v.(int64)
		if !ok {
			return wrongType(v, want)
		}
		if n < lowest || n > highest {
			return &fault{what: fmt.Sprintf("%d is out of range", n), remedy: "write " + want}
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

// negated accepts true and false for a field with the opposite meaning.
func negated[T any](field func(*T) *bool) setter[T] {
	set := boolean(func(b *bool) *bool { return b })
	return func(dst *T, v any) *fault {
		var b bool
		if f := set(&b, v); f != nil {
			return f
		}
		*field(dst) = !b
		return nil
	}
}

func wrongType(v any, want string) *fault {
	return &fault{what: "is " + kind(v), remedy: "write " + want}
}

// kind returns the name of the TOML type of v.
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
