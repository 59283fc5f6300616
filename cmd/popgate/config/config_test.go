package config

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"popgate/imapbackend"
	"popgate/proxy"
)

const exampleFile = "../../../config.toml.example"

// smallest is the README's configuration: the smallest that is complete.
const smallest = `[[listener]]
address = "127.0.0.1:3110"
tls = "none"
insecure_login_from = ["127.0.0.0/8"]
[[upstream]]
address = "127.0.0.1:1143"
tls = "none"
`

// writeConfig writes text to a new file and returns its name.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// defaultsOf returns the Config of the smallest file.
func defaultsOf() *Config {
	c := defaults()
	l, u := defaultListener(), defaultUpstream()
	l.Address = "127.0.0.1:3110"
	l.Options.Mode = proxy.TLSNone
	l.Options.InsecureLoginFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	u.Options.Name, u.Options.ServerName = "127.0.0.1", "127.0.0.1"
	u.Options.Address = "127.0.0.1:1143"
	u.Options.TLS = proxy.TLSNone
	c.Listeners, c.Upstreams = []Listener{l}, []Upstream{u}
	return c
}

// The smallest file and the example set the same five keys; everything else in
// both equals the defaults.
func TestDefaults(t *testing.T) {
	for name, file := range map[string]string{
		"smallest": writeConfig(t, smallest),
		"example":  exampleFile,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(defaultsOf(), got, cmp.AllowUnexported(Listener{}, Upstream{}, pairFiles{}), cmpopts.EquateEmpty(), samePrefix); diff != "" {
				t.Errorf("(-defaults +file):\n%s", diff)
			}
		})
	}
}

var samePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

// The example lists every key once, set or commented out, and no other.
func TestExampleComplete(t *testing.T) {
	src, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	table := ""
	for _, line := range strings.Split(string(src), "\n") {
		if m := regexp.MustCompile(`^#?(\[+[\w.]+\]+)$`).FindStringSubmatch(line); m != nil {
			table = m[1]
		}
		if m := regexp.MustCompile(`^#?(\w+) = `).FindStringSubmatch(line); m != nil {
			got = append(got, table+" "+m[1])
		}
	}
	var want []string
	for _, tk := range tables() {
		for _, k := range tk.keys {
			if k == "certificate" {
				continue // a table of its own
			}
			want = append(want, tk.header+" "+k)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-known +example):\n%s", diff)
	}
}

func TestOptions(t *testing.T) {
	c, err := Load(writeConfig(t, `
[[listener]]
address = ":110"
tls = "none"
insecure_login_from = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]
proxy_protocol_from = ["192.0.2.1"]
[session]
autologout = "15m"
login_attempts = 5
auth_list = false
utf8 = true
capabilities_hidden = ["top", "STLS"]
[limits]
connections = 100
connections_per_address = 5
unauthenticated = 20
read_ahead_total = "1GiB"
[throttle]
delay = "1s"
max_delay = "4s"
window = "1h"
[[upstream]]
name = "mail"
address = "imap.example.com:143"
tls = "starttls"
server_name = "mail.example.com"
mailbox = "Eingänge"
auth = ["LOGIN", "scram-sha-256", "oauthbearer"]
send_client_id = true
delete = "trash"
trash = "Gelöscht"
without_uidplus = "refuse"
seen = "on-quit"
sizes = "exact"
uidl = "{uid:08x}{uidvalidity:08x}"
read_ahead = "64KiB"
deleted_messages = "show"
[log]
level = "debug"
format = "json"
`))
	if err != nil {
		t.Fatal(err)
	}
	wantProxy := proxy.Defaults()
	wantProxy.Autologout = 15 * time.Minute
	wantProxy.LoginAttempts = 5
	wantProxy.NoAuthList = true
	wantProxy.Mechanisms = []string{"LOGIN", "SCRAM-SHA-256", "OAUTHBEARER"}
	wantProxy.UTF8 = true
	wantProxy.HiddenCapabilities = []string{"TOP", "STLS"}
	wantProxy.Limits = proxy.Limits{Connections: 100, PerAddress: 5, Unauthenticated: 20}
	if diff := cmp.Diff(wantProxy, c.ProxyOptions()); diff != "" {
		t.Errorf("proxy options (-want +got):\n%s", diff)
	}
	wantUpstream := imapbackend.Defaults()
	wantUpstream.Name = "mail"
	wantUpstream.Address = "imap.example.com:143"
	wantUpstream.TLS = imapbackend.TLSStartTLS
	wantUpstream.ServerName = "mail.example.com"
	wantUpstream.Mailbox = "Eingänge"
	wantUpstream.Delete = imapbackend.DeleteTrash
	wantUpstream.Trash = "Gelöscht"
	wantUpstream.WithoutUIDPLUS = imapbackend.Refuse
	wantUpstream.Seen = imapbackend.SeenOnQuit
	wantUpstream.Sizes = imapbackend.SizesExact
	wantUpstream.UIDL = "{uid:08x}{uidvalidity:08x}"
	wantUpstream.ReadAhead = 64 << 10
	wantUpstream.ReadAheadTotal = 1 << 30
	wantUpstream.ShowDeleted = true
	wantUpstream.SendClientID = true
	if diff := cmp.Diff(wantUpstream, c.Upstreams[0].Options); diff != "" {
		t.Errorf("upstream options (-want +got):\n%s", diff)
	}
	wantListener := proxy.ListenerOptions{
		Mode: proxy.TLSNone,
		InsecureLoginFrom: []netip.Prefix{
			netip.MustParsePrefix("10.0.0.0/8"),
			netip.MustParsePrefix("192.0.2.7/32"),
			netip.MustParsePrefix("2001:db8::/32"),
		},
		ProxyProtocolFrom: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
	}
	if want := (proxy.ThrottleOptions{Delay: time.Second, MaxDelay: 4 * time.Second, Window: time.Hour}); c.Throttle != want {
		t.Errorf("throttle %+v, want %+v", c.Throttle, want)
	}
	if want := (Log{Level: slog.LevelDebug, JSON: true}); c.Log != want {
		t.Errorf("log %+v, want %+v", c.Log, want)
	}
	if diff := cmp.Diff(wantListener, c.Listeners[0].Options, samePrefix); diff != "" {
		t.Errorf("listener options (-want +got):\n%s", diff)
	}
}

// The name of an upstream defaults to the host of its address.
func TestUpstreamName(t *testing.T) {
	c, err := Load(writeConfig(t, strings.Replace(smallest, "127.0.0.1:1143", "localhost:1143", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Upstreams[0].Options.Name; got != "localhost" {
		t.Errorf("name %q, want localhost", got)
	}
}

// mistakes returns what is wrong with text, one mistake per line, without the
// name of the file.
func mistakes(t *testing.T, text string) string {
	t.Helper()
	return mistakesIn(t, t.TempDir(), text)
}

// mistakesIn is mistakes of a file in dir.
func mistakesIn(t *testing.T, dir, text string) string {
	t.Helper()
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(file)
	if err == nil {
		return ""
	}
	if _, ok := errors.AsType[*Problems](err); !ok {
		t.Fatalf("%T: %v", err, err)
	}
	return strings.ReplaceAll(strings.ReplaceAll(err.Error(), file+":", ""), dir+string(filepath.Separator), "")
}

func TestMistakesAll(t *testing.T) {
	got := mistakes(t, `[log]
level = "loud"
[[upstream]]
tls = "none"
adress = "x"
[[listener]]
tls = "startls"
`)
	want := strings.Join([]string{
		`2: log.level: unknown value "loud"; write "debug", "info", "warn" or "error"`,
		`5: upstream[0].adress: unknown key; did you mean "address"?`,
		`6: listener[0].address: missing; write host:port such as "127.0.0.1:110"`,
		`7: listener[0].tls: unknown value "startls"; did you mean "starttls"?`,
	}, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConfigUnreadable(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.toml"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want os.ErrNotExist", err)
	}
}

// FuzzConfig checks that every text is either a configuration or has mistakes,
// each on one line, with its place, a reason and a remedy.
func FuzzConfig(f *testing.F) {
	f.Add(smallest)
	for _, test := range mistakeTests {
		f.Add(expand(test.fragment))
	}
	f.Fuzz(func(t *testing.T, src string) {
		if strings.Contains(src, "_file") || strings.Contains(src, "uidl_import") {
			return // it could name any file of this machine
		}
		c, err := parse("f", src)
		if err == nil {
			if len(c.Listeners) == 0 || c.Upstreams[0].Options.Address == "" {
				t.Error("no mistake found, though there is no listener or no upstream")
			}
			return
		}
		p, ok := errors.AsType[*Problems](err)
		if !ok {
			t.Fatalf("%T: %v", err, err)
		}
		last := strings.Count(src, "\n") + 1
		for i, m := range p.list {
			if m.line < 1 || m.line > last || m.what == "" || m.remedy == "" {
				t.Errorf("of %d lines: %+v", last, m)
			}
			if line := p.lines()[i]; strings.ContainsAny(line, "\r\n") {
				t.Errorf("a mistake on more than one line: %q", line)
			}
		}
	})
}

// I-UIDL-2: there is a warning about a template without UIDVALIDITY.
func TestTemplateWarning(t *testing.T) {
	for template, want := range map[string]bool{"{uid:08x}": true, "{uid}{uidvalidity}": false} {
		c, err := Load(writeConfig(t, smallest+"uidl = \""+template+"\"\n"))
		if err != nil {
			t.Fatal(err)
		}
		got := slices.ContainsFunc(c.Warnings(time.Now()), func(w Warning) bool {
			return strings.HasPrefix(w.String(), "unique-ids without {uidvalidity}") && strings.Contains(w.String(), template)
		})
		if got != want {
			t.Errorf("%s: warned %v", template, got)
		}
	}
}
