package config

import (
	"fmt"
	"slices"
	"strings"

	"popgate/cmd/popgate/words"
)

// A problem is one mistake in a configuration file.
type problem struct {
	line   int    // 1-based
	key    string // such as listener[0].tls; "" if it concerns no key
	what   string // what is wrong
	remedy string // what to do about it
}

// Problems is an error: all mistakes found in one configuration file.
type Problems struct {
	file string
	list []problem
}

// Error returns one line per mistake: FILE:LINE: KEY: what is wrong; the remedy.
func (p *Problems) Error() string { return strings.Join(p.lines(), "\n") }

func (p *Problems) lines() []string {
	lines := make([]string, 0, len(p.list))
	for _, m := range p.list {
		key := m.key
		if key != "" {
			key += ": "
		}
		// Messages of the decoder may contain octets of the file.
		lines = append(lines, words.Printable(fmt.Sprintf("%s:%d: %s%s; %s", p.file, m.line, key, m.what, m.remedy)))
	}
	return lines
}

// sorted puts the mistakes in the order of the file.
func (p *Problems) sorted() *Problems {
	slices.SortStableFunc(p.list, func(a, b problem) int { return a.line - b.line })
	return p
}
