package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"popgate/cmd/popgate/config"
	"popgate/cmd/popgate/words"
	"popgate/imapbackend"
	"popgate/imapbackend/dialect"
	"popgate/imapbackend/directory"
	"popgate/imapbackend/store"
	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check --config FILE [--login USER] [--transcript FILE]",
		Short: "Validate a configuration file, then examine the upstream",
		Long: "Validate a configuration file, then contact each upstream and report what it offers.\n" +
			"No port is bound. With --login, follow that login to its upstream, log in, list the\n" +
			"messages and read the header of the first one; nothing is changed. The password is asked for on a terminal, otherwise\n" +
			"it is the first line of standard input. --transcript writes the dialogue with the\n" +
			"upstream, without credentials, names and messages, for a report on a server that\n" +
			"popgate does not know; read it before you send it.",
		Example: "  popgate check --config config.toml\n  popgate check --config config.toml --login alice < password-file\n" +
			"  popgate check --config config.toml --login alice --transcript dialogue.txt",
		Args: noArgs,
	}
	load := configFlag(cmd)
	user := cmd.Flags().String("login", "", "also log in as this `USER` and try a session without changing anything")
	transcriptFile := cmd.Flags().String("transcript", "", "write the dialogue with the upstream to a new `FILE`, with all secrets blanked")
	_ = cmd.MarkFlagFilename("transcript") // fails only for unknown flags
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		var cred *proxy.Credential
		if cmd.Flags().Changed("login") {
			if cred, err = credential(*user, cmd.InOrStdin(), cmd.ErrOrStderr()); err != nil {
				return err
			}
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		// What is logged of a fault is what the findings report, too.
		ctx = proxy.WithLogger(ctx, slog.New(slog.DiscardHandler))
		fmt.Fprintf(cmd.OutOrStdout(), "configuration: good, %d listener(s)\n", len(c.Listeners))
		for _, w := range c.Warnings(time.Now()) {
			fmt.Fprintf(cmd.OutOrStdout(), "configuration: warning: %s\n", w)
		}
		if err := checkStore(c.Store, cmd.OutOrStdout()); err != nil {
			return err
		}
		only := -1
		if cred != nil {
			if only, err = follow(ctx, c, cred, cmd.OutOrStdout()); err != nil {
				return err
			}
		}
		if !cmd.Flags().Changed("transcript") {
			return checkUpstreams(ctx, c, only, cred, cmd.OutOrStdout())
		}
		return writeTranscript(*transcriptFile, cred, func(t *transcript) error {
			for i := range c.Upstreams {
				c.Upstreams[i].Options.Tap = t.tap
			}
			return checkUpstreams(ctx, c, only, cred, cmd.OutOrStdout())
		})
	}
	return cmd
}

// checkStore examines the store on disk, if one is configured.
func checkStore(c config.Store, out io.Writer) error {
	if c.Path == "" {
		return nil
	}
	finding, err := store.Inspect(c.Path)
	if err != nil {
		return &failure{code: exitFailure, err: err, hint: storeHint(err)}
	}
	fmt.Fprintf(out, "store %s: %s\n", c.Path, finding)
	return nil
}

// credential asks for the password of user.
func credential(user string, stdin io.Reader, stderr io.Writer) (*proxy.Credential, error) {
	if user == "" {
		return nil, usage("write --login USER", "--login needs a user name")
	}
	password, err := readPassword(user, stdin, stderr)
	if err != nil {
		return nil, &failure{code: exitUsage, err: fmt.Errorf("read the password: %w", err),
			hint: "type it when asked, or give it as the first line of standard input"}
	}
	return &proxy.Credential{Username: user, Password: password}, nil
}

// checker examines one upstream and reports the result of each step.
type checker struct {
	name string // of the upstream
	out  io.Writer
	now  func() time.Time
}

// say reports one finding.
func (k *checker) say(format string, args ...any) {
	fmt.Fprintf(k.out, "%s: %s\n", k.name, fmt.Sprintf(format, args...))
}

// step runs f and returns how long it took, as a text for the report.
func (k *checker) step(what string, f func() error) (string, error) {
	start := k.now()
	if err := f(); err != nil {
		return "", &failure{code: exitFailure, err: fmt.Errorf("%s: %s: %s", k.name, what, explain(err)),
			hint: cmp.Or(connectHint(err, upstreamPlaces), loginHint(err))}
	}
	return k.now().Sub(start).Round(100 * time.Microsecond).String(), nil
}

// explain describes err for an operator: the cause, which clients never see, and
// the response code that they get.
func explain(err error) string {
	e, ok := errors.AsType[*proxy.Error](err)
	if !ok || e.Err == nil {
		return words.Printable(err.Error())
	}
	return fmt.Sprintf("%s (clients get -ERR [%s])", words.Printable(e.Err.Error()), e.Code)
}

// writeTranscript runs check with a transcript in a new file that only its owner can
// read.
func writeTranscript(name string, cred *proxy.Credential, check func(*transcript) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return &failure{code: exitUsage, err: fmt.Errorf("transcript: %w", err), hint: "name a file that does not exist yet"}
	}
	t := newTranscript(f, cred)
	err = check(t)
	if lost := errors.Join(t.close(), f.Close()); err == nil && lost != nil {
		err = &failure{code: exitFailure, err: fmt.Errorf("transcript: %w", lost)}
	}
	return err
}

// follow finds the upstream of a login and reports it. It returns the upstream's
// position in c, and changes cred to the name there.
func follow(ctx context.Context, c *config.Config, cred *proxy.Credential, out io.Writer) (int, error) {
	d, err := newDirectory(c, make([]*imapbackend.Backend, len(c.Upstreams)), nil) // nobody logs in yet
	if err != nil {
		return 0, &failure{code: exitUsage, err: err}
	}
	t, err := d.Resolve(ctx, directory.Login{Name: cred.Username, Password: cred.Password})
	if err != nil {
		return 0, &failure{code: exitFailure, err: fmt.Errorf("login %s: %s", words.Printable(cred.Username), explain(err)),
			hint: "look at the [[route]] and [[lookup]] tables, which decide on this login name"}
	}
	if c.Resolves() {
		fmt.Fprintf(out, "login %s: goes to upstream %q as %s\n", words.Printable(cred.Username),
			words.Printable(cmp.Or(t.Upstream, t.Address)), words.Printable(t.User))
	}
	cred.Username, cred.Password = t.User, cmp.Or(t.Password, cred.Password)
	if t.Upstream == "" {
		c.Upstreams = append(c.Upstreams, *otherUpstream(c, t.Address))
		return len(c.Upstreams) - 1, nil
	}
	return slices.Index(c.UpstreamNames(), t.Upstream), nil
}

// checkUpstreams examines the upstreams of c, or one only, unless that is negative,
// and writes its findings to out. It logs in if cred is not nil. Nothing is changed
// upstream.
func checkUpstreams(ctx context.Context, c *config.Config, only int, cred *proxy.Credential, out io.Writer) error {
	var failed []error
	for i := range c.Upstreams {
		if only < 0 || only == i {
			failed = append(failed, checkUpstream(ctx, c, &c.Upstreams[i], cred, out))
		}
	}
	return errors.Join(failed...)
}

// checkUpstream examines u, an upstream of c.
func checkUpstream(ctx context.Context, c *config.Config, u *config.Upstream, cred *proxy.Credential, out io.Writer) error {
	backend, err := newBackend(u, nil)
	if err != nil {
		return err
	}
	defer backend.Close()
	k := &checker{name: fmt.Sprintf("upstream %q", u.Options.Name), out: out, now: time.Now}
	r, err := k.probe(ctx, backend, u)
	if err != nil {
		return err
	}
	if err := k.remembered(c.Store.Path, u.Options.Name, r); err != nil {
		return err
	}
	if cred != nil {
		if err := k.session(ctx, backend, *cred); err != nil {
			return err
		}
	}
	k.say("good")
	return nil
}

// probe connects to u without logging in.
func (k *checker) probe(ctx context.Context, backend *imapbackend.Backend, u *config.Upstream) (r imapbackend.Report, err error) {
	took, err := k.step("connect", func() (err error) {
		probe := func(ctx context.Context) (err error) {
			r, err = backend.Probe(ctx)
			return err
		}
		if u.Options.TLS == imapbackend.TLSImplicit {
			return probe(ctx)
		}
		return unlessTLS(ctx, u.Options.Address, probe)
	})
	if err != nil {
		return r, err
	}
	if r.TLSVersion == "" {
		r.TLSVersion = "without TLS"
	}
	k.say("connected, %s (%s)", r.TLSVersion, took)
	k.say("greeting: %s", words.Printable(r.Greeting))
	k.say("capabilities: %s", words.Printable(strings.Join(r.Capabilities, " ")))
	k.say("dialect: %s", r.Dialect)
	k.profile(r.Dialect.Profile)
	for _, w := range r.Warnings {
		k.say("warning: %s", words.Printable(w))
	}
	k.defences(u, r)
	for _, m := range u.Auth {
		switch key := strings.ToLower(m); {
		case slices.Contains(u.Relayed(), m) && !upstream.Relays(r.Capabilities, m):
			k.say("warning: does not offer %s, or offers SCRAM bound to TLS (-PLUS): not offered to clients", key)
		case (m == "XOAUTH2" || m == "OAUTHBEARER") && !acceptsTokens(r.Capabilities):
			k.say("warning: does not accept tokens: %s logins will fail", key)
		}
	}
	return r, nil
}

// profile reports what a profile means.
func (k *checker) profile(name string) {
	for _, p := range dialect.Profiles() {
		if p.Name != name {
			continue
		}
		k.say("profile %s, by %s: %s (%s)", p.Name, p.Recognised(), p.Differs, p.Source)
		if p.Advice != "" {
			k.say("profile %s needs: %s", p.Name, p.Advice)
		}
	}
}

// defences reports what can be seen of how the upstream treats this machine's
// address, from which all clients come.
func (k *checker) defences(u *config.Upstream, r imapbackend.Report) {
	const section = "see \"The upstream's own defences\" in docs/operations.md"
	sends, hasID := u.Options.SendClientID, slices.Contains(r.Capabilities, "ID")
	switch {
	case sends && !hasID:
		k.say("warning: does not announce ID: send_client_id has no effect, and all clients have this machine's address there")
	case sends:
		k.say("client addresses: sent by ID; whether they are believed shows in the upstream's log only: %s", section)
	default:
		k.say("client addresses: not sent, all clients have this machine's address there: %s", section)
	}
}

// slowLogin is how long a login may take before check suspects a penalty: Dovecot's
// is four seconds and more.
const slowLogin = 3 * time.Second

// remembered reports what the store has about the server of r.
func (k *checker) remembered(path, name string, r imapbackend.Report) error {
	if path == "" {
		return nil
	}
	learned, inUse, err := store.InspectFact(path, name, dialect.Fingerprint(r.Greeting, r.Capabilities))
	switch {
	case err != nil:
		return &failure{code: exitFailure, err: err, hint: storeHint(err)}
	case inUse:
		k.say("learned: not known, as a running popgate uses the store")
	case learned == "":
		k.say("learned: nothing yet")
	default:
		k.say("learned: %s", words.Printable(learned))
	}
	return nil
}

// acceptsTokens reports whether an upstream with these capabilities offers a
// mechanism for tokens. Either will do: a token is rewritten for the other one.
func acceptsTokens(capabilities []string) bool {
	return slices.Contains(capabilities, "AUTH=XOAUTH2") || slices.Contains(capabilities, "AUTH=OAUTHBEARER")
}

// session does what a POP3 session does, without its UPDATE.
func (k *checker) session(ctx context.Context, backend proxy.Backend, cred proxy.Credential) error {
	var login proxy.Login
	began := k.now()
	took, err := k.step("log in", func() (err error) {
		login, err = backend.Login(ctx, cred)
		return err
	})
	if err != nil {
		return err
	}
	defer login.Close()
	id := login.Identity()
	k.say("logged in as %s (%s)", words.Printable(id.User), took)
	if k.now().Sub(began) > slowLogin {
		k.say("warning: a slow login: the upstream may delay this machine's address because of failed ones")
	}

	var drop proxy.Maildrop
	took, err = k.step("open "+id.Mailbox, func() (err error) {
		drop, err = login.Open(ctx)
		return err
	})
	if err != nil {
		return err
	}
	defer drop.Close()
	messages := drop.Messages()
	var octets int64
	for _, m := range messages {
		octets += m.Octets
	}
	k.say("%s has %d messages, %d octets (%s)", words.Printable(id.Mailbox), len(messages), octets, took)
	if drop.ReadOnly() {
		k.say("warning: the mailbox is read-only, clients cannot delete")
	}
	if err := k.deletion(ctx, drop); err != nil {
		return err
	}
	uniqueID, err := drop.UniqueIDs()
	if err != nil {
		k.say("warning: no unique-ids: %v", err)
	}
	if len(messages) == 0 {
		return nil
	}
	first := messages[0].UID
	if err == nil {
		k.say("unique-id of message 1: %s", uniqueID(nil, first))
	}
	var n int64
	took, err = k.step("read message 1", func() error {
		n, err = readTop(ctx, drop, first)
		return err
	})
	if err != nil {
		return err
	}
	k.say("header of message 1: %d octets (%s)", n, took)
	return nil
}

// deletion reports what QUIT would do with deleted messages.
func (k *checker) deletion(ctx context.Context, drop proxy.Maildrop) error {
	p, ok := drop.(imapbackend.Planner)
	if !ok {
		return nil
	}
	var plan string
	_, err := k.step("find out what QUIT would do", func() (err error) {
		plan, err = p.Plan(ctx)
		return err
	})
	if err == nil {
		k.say("deleted messages: %s", words.Printable(plan))
	}
	return err
}

// readTop reads the header of a message and returns its length in octets.
func readTop(ctx context.Context, drop proxy.Maildrop, uid uint64) (int64, error) {
	body, err := drop.Top(ctx, uid, 0)
	if err != nil {
		return 0, err
	}
	n, err := body.WriteTo(io.Discard)
	return n, errors.Join(err, body.Close())
}
