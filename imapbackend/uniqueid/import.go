package uniqueid

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Import contains the unique-ids that a former POP3 server has shown, by the
// identities of the messages (requirement I-UIDL-5). It never changes, and is
// safe for concurrent use. nil is an empty Import.
type Import struct {
	byID   map[string][]former // by identity, and by identity without size
	byName map[string][]string // identities by unique-id
	has    [numKinds]bool      // which kinds of identity occur
}

// former is the unique-id of a message, for one user or, if user is "", for all.
type former struct{ name, user string }

var (
	importID       = regexp.MustCompile(`^(emailid:[A-Za-z0-9_-]{1,70}|gmail:[0-9]{1,20}|header:[A-Za-z0-9_-]{43}:[0-9]{1,19})$`)
	importUniqueID = regexp.MustCompile(`^[!-~]{1,70}$`)
)

// maxImportLine is the maximum of a line in octets.
const maxImportLine = 4096

// ReadImport reads a file of former unique-ids. Each line has an identity, a tab
// and the unique-id and, if it is for one user only, another tab and the user's
// login name. Empty lines and those that begin with "#" are comments. An identity
// is "emailid:" and an EMAILID, "gmail:" and an X-GM-MSGID in decimal, or what
// HeaderIdentity returns. Errors begin with name and the line number. Two
// spellings of a login name are one user if canonical makes them equal.
func ReadImport(name string, r io.Reader, canonical func(user string) string) (*Import, error) {
	im := &Import{byID: make(map[string][]former), byName: make(map[string][]string)}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxImportLine)
	n := 0
	for lines.Scan() {
		n++
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		if err := im.add(line, canonical); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("a line of more than %d octets", maxImportLine)
		}
		return nil, fmt.Errorf("%s:%d: %w", name, n+1, err)
	}
	return im, nil
}

func (im *Import) add(line string, canonical func(string) string) error {
	fields := strings.Split(line, "\t")
	if len(fields) < 2 || len(fields) > 3 {
		return errors.New("want IDENTITY<tab>UNIQUE-ID[<tab>USER]")
	}
	id, f := fields[0], former{name: fields[1]}
	if !importID.MatchString(id) {
		return fmt.Errorf("%.60q is not an identity: want emailid:ID, gmail:NUMBER, or header:HASH:OCTETS as popgate uidl writes them", id)
	}
	if !importUniqueID.MatchString(f.name) {
		return fmt.Errorf("%.80q is not a unique-id: want 1 to 70 ASCII characters without spaces", f.name)
	}
	if len(fields) == 3 {
		if fields[2] == "" {
			return errors.New("a tab without a user after it")
		}
		f.user = canonical(fields[2])
	}
	im.has[kindOf(id)] = true
	im.byID[id] = append(im.byID[id], f)
	if short := sizeless(id); short != "" {
		im.byID[short] = append(im.byID[short], f)
	}
	im.byName[f.name] = append(im.byName[f.name], id)
	return nil
}

// sizeless returns a Header identity without its size, which another server may
// have computed differently; "" for other kinds.
func sizeless(id string) string {
	if kindOf(id) != Header {
		return ""
	}
	return id[:strings.LastIndexByte(id, ':')+1]
}

// Kinds returns the kinds of identity that occur in the file.
func (im *Import) Kinds() []Kind {
	var kinds []Kind
	if im != nil {
		for k, has := range im.has {
			if has {
				kinds = append(kinds, Kind(k))
			}
		}
	}
	return kinds
}

// Has reports whether the file has the unique-id name.
func (im *Import) Has(name string) bool { return im != nil && len(im.byName[name]) > 0 }

// For returns the unique-ids for a user, whose name must be canonical.
func (im *Import) For(user string) Imported { return Imported{im, user} }

// Imported is an Import for one user.
type Imported struct {
	*Import
	user string
}

// lookup returns the unique-id that was shown for the only message with the
// identity; "" if there is none, or several could be meant. present is the
// number of messages by identity.
func (im Imported) lookup(id string, present map[string]int) string {
	if im.Import == nil || id == "" {
		return ""
	}
	if im.byID[id] == nil {
		id = sizeless(id)
	}
	if present[id] != 1 {
		return ""
	}
	var own, all string // "\x00": several
	for _, f := range im.byID[id] {
		p := &all
		if f.user != "" {
			if f.user != im.user {
				continue
			}
			p = &own
		}
		switch *p {
		case "":
			*p = f.name
		case f.name:
		default:
			*p = "\x00"
		}
	}
	if own == "" {
		own = all
	}
	if own == "\x00" {
		return ""
	}
	return own
}

// shownForOther reports whether name was shown, but not for the message with these
// identities.
func (im Imported) shownForOther(id Identities, name string) bool {
	if !im.Has(name) {
		return false
	}
	for _, owner := range im.byName[name] {
		for _, one := range id {
			if one != "" && (owner == one || sizeless(one) != "" && sizeless(owner) == sizeless(one)) {
				return false
			}
		}
	}
	return true
}
