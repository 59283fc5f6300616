//go:build integration

package dovecottest

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// mailID is the id of the user and of the group that own the mail when root runs
// the test: Dovecot does not open a mailbox as root.
const mailID = 20000

// Option changes the server that Start runs.
type Option func(*options)

type options struct {
	program    string
	store      string
	capability string
	perProcess int
	compress   bool
	mechanisms string
	extra      string // settings in addition to those of configuration
	tokens     bool
	pop3       bool
}

func defaults() options {
	return options{store: "maildir", perProcess: 1, mechanisms: "plain login"}
}

// WithStore sets the mailbox format: "maildir" (default), "sdbox" or "mdbox".
func WithStore(format string) Option {
	return func(o *options) { o.store = format }
}

// WithCapability sets the capabilities that the server announces, for instance
// only "IMAP4rev1", for a server without UIDPLUS, LITERAL+ and SASL-IR. It still
// accepts what it does not announce.
func WithCapability(list string) Option {
	return func(o *options) { o.capability = list }
}

// WithCompression makes the server offer COMPRESS=DEFLATE (RFC 4978).
func WithCompression() Option {
	return func(o *options) { o.compress = true }
}

// WithMechanisms sets the SASL mechanisms, by default plain and login. With
// xoauth2 or oauthbearer among them the server accepts the tokens that Token
// returns.
func WithMechanisms(names ...string) Option {
	return func(o *options) {
		o.mechanisms = strings.Join(names, " ")
		o.tokens = slices.Contains(names, "xoauth2") || slices.Contains(names, "oauthbearer")
	}
}

// WithTrustedClients makes the server believe clients on this machine that say,
// with ID, for which client they act.
func WithTrustedClients() Option {
	return func(o *options) { o.extra += "login_trusted_networks = 127.0.0.0/8\n" }
}

// WithTrash gives each user a mailbox with this name and the attribute \Trash
// (RFC 6154 §2).
func WithTrash(name string) Option {
	return func(o *options) {
		o.extra += fmt.Sprintf("namespace inbox {\n  inbox = yes\n  mailbox %q {\n    auto = create\n    special_use = \\Trash\n  }\n}\n", name)
	}
}

// WithQuota limits the octets in all mailboxes of a user together.
func WithQuota(octets int64) Option {
	return func(o *options) {
		o.extra += fmt.Sprintf("mail_plugins = quota\nplugin {\n  quota = count:all\n  quota_vsizes = yes\n  quota_grace = 0\n  quota_rule = *:bytes=%d\n}\n", octets)
	}
}

// WithPOP3 makes the server speak POP3 too, at POP3Addr. uidlFormat is the
// pop3_uidl_format for unique-ids, "" Dovecot's default.
func WithPOP3(uidlFormat string) Option {
	return func(o *options) {
		o.pop3 = true
		if uidlFormat != "" {
			o.extra += "pop3_uidl_format = " + uidlFormat + "\n"
		}
	}
}

// WithSavedUniqueIDs makes the POP3 server write the unique-ids that it shows into
// the maildir.
func WithSavedUniqueIDs() Option {
	return func(o *options) { o.extra += "pop3_save_uidl = yes\n" }
}

// WithSessionsPerProcess lets n sessions share one process, for tests with very
// many of them. By default each session has its own, which KillSessions ends.
func WithSessionsPerProcess(n int) Option {
	return func(o *options) { o.perProcess = n }
}

// config returns dovecot.conf.
func (s *Server) config() string {
	port := func(addr string) string { _, p, _ := net.SplitHostPort(addr); return p }
	replace := strings.NewReplacer(
		"DIR", s.dir,
		"PASSWORD", Password,
		"STORE", s.options.store,
		"CAPABILITY", s.options.capability,
		"PER_PROCESS", strconv.Itoa(s.options.perProcess),
		"SERVICE_COUNT", strconv.Itoa(serviceCount(s.options.perProcess)),
		"IMAP_PORT", port(s.Addr),
		"IMAPS_PORT", port(s.TLSAddr),
		"MAIL_IDS", mailIDs(),
		"MECHANISMS", s.options.mechanisms,
		"TOKEN_PASSDB", s.tokenPassdb(),
	)
	text := replace.Replace(configuration) + s.options.extra + userSettings()
	if s.options.pop3 {
		text += "protocols = imap pop3\nservice pop3-login {\n  inet_listener pop3 {\n    port = " + port(s.POP3Addr) +
			"\n  }\n  inet_listener pop3s {\n    port = 0\n  }\n  chroot =\n}\n"
	}
	if s.options.compress {
		text += "protocol imap {\n  mail_plugins = imap_zlib\n}\n"
	}
	return text
}

// serviceCount is the number of sessions after which a process ends, 0 for no
// limit. A process with one session at a time serves only that one.
func serviceCount(perProcess int) int {
	if perProcess == 1 {
		return 1
	}
	return 0
}

func mailIDs() string {
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = mailID, mailID
	}
	return fmt.Sprintf("uid=%d gid=%d", uid, gid)
}

// userSettings returns what Dovecot needs to run as an ordinary user, who can
// neither change users nor call chroot.
func userSettings() string {
	if os.Geteuid() == 0 {
		return ""
	}
	name, group := strconv.Itoa(os.Geteuid()), strconv.Itoa(os.Getegid())
	if u, err := user.Current(); err == nil {
		name = u.Username
		if g, err := user.LookupGroupId(u.Gid); err == nil {
			group = g.Name
		}
	}
	return fmt.Sprintf(`
default_internal_user = %[1]s
default_internal_group = %[2]s
default_login_user = %[1]s
service anvil {
  chroot =
}
service imap-login {
  chroot =
}
`, name, group)
}

// configuration is dovecot.conf, with words in capitals for what config replaces.
// It disables the delay after a failed login and the penalty by address; half a
// second of delay remains that cannot be disabled.
const configuration = `
base_dir = DIR/run
state_dir = DIR/state
log_path = DIR/dovecot.log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <DIR/cert.pem
ssl_key = <DIR/key.pem
disable_plaintext_auth = no
auth_mechanisms = MECHANISMS
auth_failure_delay = 0
first_valid_uid = 1
TOKEN_PASSDB
passdb {
  driver = static
  args = password={PLAIN}PASSWORD
}
userdb {
  driver = static
  args = MAIL_IDS home=DIR/mail/%u
}
mail_location = STORE:~/STORE
mail_fsync = never
mail_max_userip_connections = 0
imap_capability = CAPABILITY
imap_max_line_length = 1M
shutdown_clients = yes
default_vsz_limit = 4G
default_client_limit = 20000
service anvil {
  client_limit = 20000
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  client_limit = 20000
}
service stats {
  client_limit = 20000
}
service imap-login {
  inet_listener imap {
    port = IMAP_PORT
  }
  inet_listener imaps {
    port = IMAPS_PORT
    ssl = yes
  }
  service_count = 0
  client_limit = 4000
  process_limit = 2
}
service imap {
  service_count = SERVICE_COUNT
  client_limit = PER_PROCESS
  process_limit = 4000
}
`
