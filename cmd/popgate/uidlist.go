package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"popgate/imapbackend/uniqueid"
)

// formerMaildir is a maildir of Dovecot. Its file dovecot-uidlist has the UID of each
// message, and the unique-id where that is not made from a template.
type formerMaildir struct {
	dir      string
	template string // as in the key uidl, or fileNames
}

// fileNames is a template: the names of the files are the unique-ids.
const fileNames = "filename"

// uidlistHeader begins a dovecot-uidlist of version 3: UIDVALIDITY, next UID, and the
// mailbox's GUID.
var uidlistHeader = regexp.MustCompile(`^3 (?:.* )?V([0-9]+)(?: |$)`)

// read returns the messages of the maildir, by UID.
func (f *formerMaildir) read() ([]formerMessage, error) {
	name := filepath.Join(f.dir, "dovecot-uidlist")
	template, err := uniqueid.Parse(f.template)
	if err != nil && f.template != fileNames {
		return nil, usage(`write a template such as "{uid:08x}{uidvalidity:08x}", or filename`, "--uidl: %v", err)
	}
	files, err := f.files()
	if err == nil {
		var list *os.File
		if list, err = os.Open(name); err == nil {
			defer list.Close()
			var messages []formerMessage
			if messages, err = f.parse(list, template, files); err == nil {
				return messages, nil
			}
			err = fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil, &failure{code: exitFailure, err: err, hint: "name the maildir of Dovecot that is the user's INBOX: nothing was written"}
}

// files maps the names of the messages, without flags, to their files.
func (f *formerMaildir) files() (map[string]string, error) {
	files := make(map[string]string)
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(f.dir, sub))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			files[withoutFlags(e.Name())] = filepath.Join(f.dir, sub, e.Name())
		}
	}
	return files, nil
}

// withoutFlags returns the name of a message in a maildir without its flags, which
// change.
func withoutFlags(name string) string {
	base, _, _ := strings.Cut(name, ":2,")
	return base
}

// parse reads a dovecot-uidlist. Messages that have been removed are left out.
func (f *formerMaildir) parse(r io.Reader, template *uniqueid.Template, files map[string]string) ([]formerMessage, error) {
	lines := bufio.NewScanner(r)
	lines.Scan()
	header := uidlistHeader.FindStringSubmatch(lines.Text())
	if header == nil {
		return nil, fmt.Errorf("line 1: %.80q is not the first line of version 3", lines.Text())
	}
	validity, err := strconv.ParseUint(header[1], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("line 1: %w", err)
	}
	made := func(base string, _ uint64) string { return base }
	if template != nil {
		bound := template.Bind(validity)
		made = func(_ string, uid uint64) string { return string(bound(nil, uid)) }
	}
	var messages []formerMessage
	for n := 2; lines.Scan(); n++ {
		record, name, ok := strings.Cut(lines.Text(), " :")
		fields := strings.Fields(record)
		if !ok || len(fields) == 0 {
			return nil, fmt.Errorf("line %d: %.80q is not a UID and a file", n, lines.Text())
		}
		uid, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		path, exists := files[withoutFlags(name)]
		if !exists {
			continue
		}
		m := formerMessage{number: n - 1, uniqueID: made(withoutFlags(name), uid)}
		for _, field := range fields[1:] {
			if own, ok := strings.CutPrefix(field, "P"); ok {
				m.uniqueID = cmp.Or(own, withoutFlags(name)) // Dovecot leaves out what is the name of the file
			}
		}
		if m.identity, err = identityOf(path); err != nil {
			return nil, err
		}
		messages = append(messages, m)
	}
	return messages, lines.Err()
}

// identityOf returns the identity of the message in a file, with its size as POP3 and
// IMAP count it: each line end is two octets.
func identityOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, formerHeader)
	header, err := in.Peek(formerHeader)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	header = append([]byte(nil), header...)
	octets, last := int64(0), byte(0)
	for {
		c, err := in.ReadByte()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return uniqueid.HeaderIdentity(header, octets), nil
			}
			return "", err
		}
		octets++
		if c == '\n' && last != '\r' {
			octets++
		}
		last = c
	}
}
