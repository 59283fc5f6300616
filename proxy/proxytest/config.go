package proxytest

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"popgate/proxy"
)

// scenario is a parsed transcript file.
type scenario struct {
	backend  *Backend
	options  proxy.Options
	listener proxy.ListenerOptions
	faults   Faults
	readOnly bool
	messages []Stored

	prelude string
	script  struct{ name, data string }

	removed, logins, retrieved *string
}

const (
	preludeGreeting = "S: +OK POP3 server ready\n"
	preludeLogin    = preludeGreeting + "C: USER alice\nS: +OK ...\nC: PASS secret\nS: +OK ...\n"
)

func parseScenario(ar *txtar.Archive) (*scenario, error) {
	sc := &scenario{backend: NewBackend()}
	sc.options.Logger = slog.New(slog.DiscardHandler)
	sc.listener.Mode = proxy.TLSNone
	sc.listener.InsecureLoginFrom = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	for _, f := range ar.Files {
		if err := sc.section(f.Name, string(f.Data)); err != nil {
			return nil, fmt.Errorf("section %s: %w", f.Name, err)
		}
	}
	if sc.script.name == "" {
		return nil, errors.New("no transcript")
	}
	sc.backend.AddAccount("alice", "secret", sc.readOnly)
	sc.backend.Add("alice", sc.messages...)
	sc.options.Backend = sc.backend
	return sc, nil
}

func (sc *scenario) section(name, data string) error {
	words := strings.Join(strings.Fields(data), " ")
	switch name {
	case "maildrop":
		return eachLine(data, sc.message)
	case "config":
		return eachLine(data, func(line string) error { return keyValue(line, sc.config) })
	case "faults":
		return eachLine(data, func(line string) error { return keyValue(line, sc.fault) })
	case "removed":
		sc.removed = &words
	case "logins":
		sc.logins = &words
	case "retrieved":
		sc.retrieved = &words
	case "transcript, after login":
		sc.prelude = preludeLogin
	case "transcript, after greeting":
		sc.prelude = preludeGreeting
	case "transcript":
	default:
		return errors.New("unknown section")
	}
	if strings.HasPrefix(name, "transcript") {
		sc.script.name, sc.script.data = name, data
	}
	return nil
}

func eachLine(data string, f func(string) error) error {
	for line := range strings.Lines(data) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := f(line); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	return nil
}

func keyValue(line string, f func(key, value string) error) error {
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return errors.New("no =")
	}
	return f(strings.TrimSpace(key), strings.TrimSpace(value))
}

// message parses a line of the maildrop section.
func (sc *scenario) message(line string) error {
	var m Stored
	for line != "" {
		key, rest, _ := strings.Cut(line, "=")
		value := rest
		if strings.HasPrefix(rest, `"`) {
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return err
			}
			value, line = quoted, strings.TrimSpace(rest[len(quoted):])
		} else {
			value, line, _ = strings.Cut(rest, " ")
		}
		if key == "body" {
			body, err := strconv.Unquote(value)
			if err != nil {
				return err
			}
			m.Body = []byte(body)
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return err
		}
		switch key {
		case "uid":
			m.UID = uint64(n)
		case "octets":
			m.Body = Generate(uint32(m.UID), int(n))
		case "listed":
			m.Listed = n
		case "announced":
			m.Announced = n
		default:
			return fmt.Errorf("unknown key %q", key)
		}
	}
	sc.messages = append(sc.messages, m)
	return nil
}

// config sets an option of the server, its listener or the Backend.
func (sc *scenario) config(key, value string) (err error) {
	o, l := &sc.options, &sc.listener
	switch key {
	case "tls": // none, starttls, implicit
		l.Mode = proxy.TLSMode(value)
	case "insecure_login_from": // networks; the client is 198.51.100.7
		l.InsecureLoginFrom = nil
		for word := range strings.FieldsSeq(value) {
			l.InsecureLoginFrom = append(l.InsecureLoginFrom, netip.MustParsePrefix(word))
		}
	case "autologout":
		o.Autologout, err = time.ParseDuration(value)
	case "login_attempts":
		o.LoginAttempts, err = strconv.Atoi(value)
	case "auth_list":
		o.NoAuthList = value == "false"
	case "mechanisms":
		o.Mechanisms = append([]string{}, strings.Fields(value)...)
	case "expire":
		sc.options.Expire = value
	case "login_delay":
		sc.options.LoginDelay, err = time.ParseDuration(value)
	case "implementation":
		sc.options.Implementation = value
	case "utf8":
		o.UTF8 = value == "true"
	case "account": // name and password of another account
		name, password, _ := strings.Cut(value, " ")
		sc.backend.AddAccount(name, password, false)
	case "hidden":
		o.HiddenCapabilities = strings.Fields(value)
	case "throttle": // delay, maximum and window
		o.Throttler, err = throttle(strings.Fields(value))
	case "proxy_protocol_from": // networks; the proxy is 198.51.100.7
		for word := range strings.FieldsSeq(value) {
			l.ProxyProtocolFrom = append(l.ProxyProtocolFrom, netip.MustParsePrefix(word))
		}
	case "read_only":
		sc.readOnly = value == "true"
	default:
		err = errors.New("unknown key")
	}
	return err
}

func throttle(words []string) (proxy.Throttler, error) {
	var d [3]time.Duration
	if len(words) != len(d) {
		return nil, errors.New("want delay, maximum and window")
	}
	for i, word := range words {
		var err error
		if d[i], err = time.ParseDuration(word); err != nil {
			return nil, err
		}
	}
	return proxy.NewThrottle(proxy.ThrottleOptions{Delay: d[0], MaxDelay: d[1], Window: d[2]})
}

// namedErrors are the errors that the faults section can name.
var namedErrors = map[string]error{
	"auth":    proxy.ErrAuth,
	"in-use":  proxy.ErrInUse,
	"temp":    &proxy.Error{Code: proxy.CodeSysTemp, Text: "mail server not reachable"},
	"perm":    &proxy.Error{Code: proxy.CodeSysPerm, Text: "mailbox missing"},
	"utf8":    &proxy.Error{Code: proxy.CodeUTF8, Text: "message needs UTF8 mode"},
	"odd":     &proxy.Error{Code: "X-ODD", Text: "code that no one has registered"},
	"hostile": &proxy.Error{Text: "[AUTH] a\r\n+OK b\x00\u00e9" + strings.Repeat("y", 600)},
	"unknown": errors.New("imap.example.net: NO secret cause"),
}

// fault sets a fault of the Backend. Keys may end in a UID.
func (sc *scenario) fault(key, value string) error {
	f := &sc.faults
	key, uidText, _ := strings.Cut(key, " ")
	uid, _ := strconv.ParseUint(uidText, 10, 64)
	named, known := namedErrors[value]
	number, numErr := strconv.Atoi(value)
	duration, durErr := time.ParseDuration(value)
	target := map[string]*error{"login": &f.Login, "open": &f.Open, "unique_ids": &f.UniqueIDs, "update": &f.Update}[key]
	delay := map[string]*time.Duration{
		"login_delay": &f.LoginDelay, "open_delay": &f.OpenDelay, "read_delay": &f.ReadDelay,
		"update_delay": &f.UpdateDelay, "update_late": &f.UpdateLate,
	}[key]
	switch {
	case target != nil && known:
		*target = named
	case delay != nil && durErr == nil:
		*delay = duration
	case key == "read" && known:
		if f.Read == nil {
			f.Read = make(map[uint64]error)
		}
		f.Read[uid] = named
	case key == "cut" && numErr == nil:
		if f.Cut == nil {
			f.Cut = make(map[uint64]int)
		}
		f.Cut[uid] = number
	case key == "chunk" && numErr == nil:
		f.Chunk = number
	case key == "unremovable" && numErr == nil:
		f.Unremovable = append(f.Unremovable, uint64(number))
	case key == "retain_all":
		f.RetainAll = value == "true"
	case key == "no_exchanges":
		f.NoExchanges = value == "true"
	case key == "panic":
		f.Panic = value
	default:
		return errors.New("unknown fault")
	}
	return nil
}
