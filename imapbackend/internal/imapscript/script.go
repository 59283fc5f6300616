package imapscript

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// step is one directive of a script.
type step struct {
	op    string // the directive, without the colon
	text  string // C, S, S+: without <tag>; S64: octets; S*: the text to repeat; W: "" or "stall"
	tag   string // C, S and S+: the name at the start of the line, or ""
	count int64  // S*: octets
	wait  time.Duration

	implied bool // W: not written
}

// ends reports whether s ends its section.
func (s step) ends() bool { return s.op == "X" || s.op == "R" || s.op == "W" }

// sends reports whether s makes the server send IMAP.
func (s step) sends() bool { return s.op[0] == 'S' }

var (
	sectionLine = regexp.MustCompile(`^-- connection (\d+) --$`)
	tagged      = regexp.MustCompile(`^<([a-z][a-z0-9]*)> ?`)
	tagName     = regexp.MustCompile(`<[a-z][a-z0-9]*>`)
)

// parse returns the steps of each connection. Errors contain the line number.
func parse(script string) ([][]step, error) {
	sections := [][]step{nil}
	bound := make(map[string]bool)
	n := 0
	for line := range strings.Lines(script) {
		n++
		line = strings.TrimLeft(strings.TrimRight(line, "\r\n"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		steps := &sections[len(sections)-1]
		if m := sectionLine.FindStringSubmatch(line); m != nil {
			if m[1] == "1" && len(sections) == 1 && len(*steps) == 0 {
				continue
			}
			sections = append(sections, nil)
			clear(bound)
			if m[1] != strconv.Itoa(len(sections)) {
				return nil, fmt.Errorf("line %d: connection %s is number %d", n, m[1], len(sections))
			}
			continue
		}
		s, err := parseStep(line, bound)
		if last := len(*steps) - 1; err == nil && last >= 0 && (*steps)[last].ends() {
			err = errors.New("the connection has ended")
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", n, line, err)
		}
		*steps = append(*steps, s)
	}
	for i, steps := range sections {
		if len(steps) == 0 {
			return nil, fmt.Errorf("connection %d has no steps", i+1)
		}
		if !steps[len(steps)-1].ends() {
			sections[i] = append(steps, step{op: "W", implied: true})
		}
	}
	return sections, nil
}

// parseStep parses one line. bound are the names that have been bound to a tag in
// this section.
func parseStep(line string, bound map[string]bool) (step, error) {
	op, text, ok := strings.Cut(line, ":")
	if !ok {
		return step{}, errors.New("no directive")
	}
	s := step{op: op, text: strings.TrimPrefix(text, " ")}
	var err error
	switch op {
	case "C":
		if s.cutTag(); s.tag != "" {
			bound[s.tag] = true
		}
	case "S", "S+":
		if s.cutTag(); s.tag != "" && !bound[s.tag] {
			err = fmt.Errorf("no command has the tag <%s>", s.tag)
		}
	case "S64":
		var octets []byte
		octets, err = base64.StdEncoding.DecodeString(s.text)
		s.text = string(octets)
	case "S*":
		err = s.parseRepeat()
	case "D", "T":
		if s.wait, err = time.ParseDuration(s.text); err == nil && s.wait <= 0 {
			err = errors.New("must be above 0")
		}
	case "W":
		if s.text != "" && s.text != "stall" {
			err = errors.New(`the argument can be "stall" only`)
		}
	case "X", "R", "TLS":
		if s.text != "" {
			err = errors.New("takes no argument")
		}
	default:
		err = errors.New("unknown directive")
	}
	return s, err
}

// cutTag moves the name at the start of the text to tag.
func (s *step) cutTag() {
	if m := tagged.FindStringSubmatch(s.text); m != nil {
		s.tag = m[1]
		s.text = s.text[len(m[0]):]
	}
}

func (s *step) parseRepeat() (err error) {
	count, text, _ := strings.Cut(s.text, " ")
	if s.count, err = strconv.ParseInt(count, 10, 64); err != nil {
		return err
	}
	if strings.HasPrefix(text, `"`) {
		if text, err = strconv.Unquote(text); err != nil {
			return err
		}
	}
	s.text = text
	if text == "" || s.count < 0 {
		return errors.New("needs a number of octets and a text")
	}
	return nil
}

// match reports whether line matches pattern, in which "..." matches any text.
func match(pattern, line string) bool {
	parts := strings.Split(pattern, "...")
	line, ok := strings.CutPrefix(line, parts[0])
	if !ok || len(parts) == 1 {
		return ok && line == ""
	}
	last := len(parts) - 1
	for _, p := range parts[1:last] {
		if _, line, ok = strings.Cut(line, p); !ok {
			return false
		}
	}
	return strings.HasSuffix(line, parts[last])
}
