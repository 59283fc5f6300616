package main

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"popgate/cmd/popgate/words"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

const (
	// maxSeen is how much of a line is looked at, and maxShown how much is written,
	// in octets.
	maxSeen  = 16 << 10
	maxShown = 1000

	blanked = "***"
)

// transcript writes the dialogue with an upstream, for a report: without credentials
// and messages, wherever they occur. It is safe for concurrent use.
type transcript struct {
	mu      sync.Mutex
	w       io.Writer
	secrets *regexp.Regexp // nil: there are none
	user    *regexp.Regexp // of the login name; nil: none
	opened  int            // connections
	last    int            // connection that was written last
	err     error          // first error of writing
}

// newTranscript returns a transcript of connections on which cred is used, or nobody
// logs in if it is nil.
func newTranscript(w io.Writer, cred *proxy.Credential) *transcript {
	t := &transcript{w: w}
	if cred != nil {
		t.secrets = textsOf(cred.Password)
		if len(cred.Username) > 2 { // else it would be found in other words
			t.user = textsOf(cred.Username)
		}
	}
	t.write("# popgate %s\n", version())
	return t
}

// textsOf matches a secret as it may occur in a dialogue: as it is, quoted, in base64
// also as a part of something else, in hexadecimal digits, or encoded for URLs.
func textsOf(secret string) *regexp.Regexp {
	forms := []string{secret, strings.Trim(wire.Quote(secret), `"`), hex.EncodeToString([]byte(secret)), url.QueryEscape(secret), url.PathEscape(secret)}
	for shift := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + secret))
		// What depends on the octets before and after it is not part of it.
		from, to := (shift*8+5)/6, (shift+len(secret))*8/6
		if encoded = encoded[from:to]; len(encoded) > 3 {
			forms = append(forms, encoded)
		}
	}
	for i, form := range forms {
		forms[i] = regexp.QuoteMeta(form)
	}
	slices.SortFunc(forms, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return regexp.MustCompile("(?i)" + strings.Join(slices.Compact(forms), "|"))
}

// tap returns what records one more connection.
func (t *transcript) tap() wire.Tap {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.opened++
	return &recorder{t: t, number: t.opened}
}

// close returns the first error of writing.
func (t *transcript) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// write writes a line; t.mu is held, or nobody else has t.
func (t *transcript) write(format string, args ...any) {
	if _, err := fmt.Fprintf(t.w, format, args...); err != nil && t.err == nil {
		t.err = err
	}
}

// recorder records one connection.
type recorder struct {
	t      *transcript
	number int

	sent, received lines
	login          string // tag of the LOGIN or AUTHENTICATE in flight; "": none
	literals       bool   // it is a LOGIN, whose arguments may be on lines of their own
}

// lines collects the octets of one direction.
type lines struct {
	line    []byte // up to maxSeen octets
	literal int64  // octets of a literal that are still to come
}

var (
	loginLine    = regexp.MustCompile(`(?is)^(\S+) (LOGIN|AUTHENTICATE \S+)(.*)`)
	commandLine  = regexp.MustCompile(`^[0-9A-Za-z]+ [A-Z]+( |$)`)
	literalStart = regexp.MustCompile(`\{(\d{1,18})\+?\}$`)
	quotedBody   = regexp.MustCompile(`(BODY\[[^\]]*\](?:<[0-9.]+>)?) ?"(?:[^"\\]|\\.)*"?`)
)

// Sent implements wire.Tap.
func (r *recorder) Sent(p []byte) {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	r.sent.each(p, func(line string) {
		m := loginLine.FindStringSubmatch(line)
		switch {
		case r.login != "" && (r.literals || !commandLine.MatchString(line)):
			r.write("C", blanked)
		case m != nil:
			r.login, r.literals = m[1], strings.EqualFold(m[2], "LOGIN")
			if m[3] != "" {
				m[3] = " " + blanked
			}
			r.write("C", m[1]+" "+m[2]+m[3])
		default:
			r.write("C", line)
		}
	})
}

// Received implements wire.Tap.
func (r *recorder) Received(p []byte) {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	for len(p) > 0 {
		if n := min(r.received.literal, int64(len(p))); n > 0 {
			r.received.literal -= n
			p = p[n:]
			continue
		}
		end := bytes.IndexByte(p, '\n') + 1
		if end == 0 {
			end = len(p)
		}
		r.received.each(p[:end], func(line string) {
			if m := literalStart.FindStringSubmatch(line); m != nil {
				r.received.literal, _ = strconv.ParseInt(m[1], 10, 64) // 18 digits
				line += " [octets left out]"
			}
			if r.login != "" && strings.HasPrefix(line, "+") {
				line = "+ " + blanked
			}
			if r.login != "" && strings.HasPrefix(line, r.login+" ") {
				r.login = ""
			}
			r.write("S", quotedBody.ReplaceAllString(line, `$1 "`+blanked+`"`))
		})
		p = p[end:]
	}
}

// each calls f with each whole line of what has come, without its end. A line that is
// never ended is never shown: it might end within a secret.
func (l *lines) each(p []byte, f func(line string)) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		part := p
		if end >= 0 {
			part = p[:end]
		}
		l.line = append(l.line, part[:min(len(part), maxSeen-len(l.line))]...)
		if end < 0 {
			return
		}
		line := strings.TrimSuffix(string(l.line), "\r")
		l.line, p = l.line[:0], p[end+1:]
		f(line)
	}
}

// write writes one line without secrets.
func (r *recorder) write(from, line string) {
	t := r.t
	if t.secrets != nil {
		line = t.secrets.ReplaceAllString(line, blanked)
	}
	if t.user != nil {
		line = t.user.ReplaceAllString(line, "USER")
	}
	if len(line) > maxShown {
		line = line[:maxShown] + "..."
	}
	if t.last != r.number {
		t.last = r.number
		t.write("# connection %d\n", r.number)
	}
	t.write("%s: %s\n", from, words.Printable(line))
}
