package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"popgate/cmd/popgate/words"
	"popgate/imapbackend/uniqueid"
	"popgate/proxy/endpoint"
)

const (
	formerDialTimeout  = 30 * time.Second
	formerReplyTimeout = 2 * time.Minute // for the next octets of a reply

	// formerBatch is how many TOP commands are sent at a time to a server with
	// PIPELINING (RFC 2449 §6.6).
	formerBatch = 50

	// formerHeader is the most that is kept of a header, in octets.
	formerHeader = 256 << 10
)

func uidlCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uidl {--server HOST:PORT --user NAME [--password-file FILE] | --maildir DIR [--uidl TEMPLATE]}",
		Short: "Write the unique-ids of a former POP3 server as a file for uidl_import",
		Long: "Log in to the POP3 server that popgate is to replace, read the unique-id, size and\n" +
			"header of each message, and write lines for the file that uidl_import names. Nothing is\n" +
			"changed on the server, and nothing is written unless everything could be read. Without\n" +
			"--password-file the password is asked for on a terminal, otherwise it is the first line\n" +
			"of standard input. --maildir reads a maildir of Dovecot instead, with its dovecot-uidlist.",
		Example: "  popgate uidl --server pop.example.com:995 --user alice > alice.uidl\n" +
			"  popgate uidl --server 127.0.0.1:110 --tls none --user alice --for alice@example.com --password-file secret >> all.uidl",
		Args: noArgs,
	}
	f := new(formerServer)
	var passwordFile, caFile, forUser string
	flags := cmd.Flags()
	flags.StringVar(&f.address, "server", "", "the former server as `HOST:PORT` (required)")
	flags.StringVar(&f.user, "user", "", "log in as this user `NAME` (required)")
	flags.StringVar(&f.tls, "tls", "implicit", "TLS `MODE`: implicit, starttls or none")
	flags.BoolVar(&f.insecure, "insecure", false, "allow --tls none for a server on another machine")
	flags.StringVar(&caFile, "ca-file", "", "PEM `FILE` of the CA to trust instead of the system's")
	flags.StringVar(&passwordFile, "password-file", "", "`FILE` with the password on its first line")
	flags.StringVar(&forUser, "for", "", "restrict the lines to this login `NAME` of the gateway")
	d := new(formerMaildir)
	flags.StringVar(&d.dir, "maildir", "", "read the maildir of Dovecot in `DIR`, without its server")
	flags.StringVar(&d.template, "uidl", "{uid:08x}{uidvalidity:08x}", "`TEMPLATE` of unique-ids that are not in the maildir, as in the key uidl, or \"filename\"")
	cmd.MarkFlagsMutuallyExclusive("server", "maildir")
	_ = cmd.MarkFlagDirname("maildir")
	_ = cmd.MarkFlagFilename("password-file") // these fail only for unknown flags
	_ = cmd.MarkFlagFilename("ca-file", "pem")
	_ = cmd.RegisterFlagCompletionFunc("tls", cobra.FixedCompletions([]string{"implicit", "starttls", "none"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if strings.ContainsAny(forUser, "\t\r\n") {
			return usage("write --for NAME", "--for %q is not a login name", forUser)
		}
		if d.dir != "" {
			messages, err := d.read()
			if err != nil {
				return err
			}
			return writeFormer(cmd.OutOrStdout(), cmd.ErrOrStderr(), d.dir, messages, forUser)
		}
		err := f.validate(caFile)
		if err != nil {
			return err
		}
		if f.password, err = formerPassword(f.user, passwordFile, cmd.InOrStdin(), cmd.ErrOrStderr()); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		messages, err := f.read(ctx, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		return writeFormer(cmd.OutOrStdout(), cmd.ErrOrStderr(), words.Printable(f.user)+" at "+f.address, messages, forUser)
	}
	return cmd
}

// formerPassword reads the password from file, or as check does if file is "".
func formerPassword(user, file string, stdin io.Reader, stderr io.Writer) (string, error) {
	hint := "type it when asked, or give it as the first line of standard input or of --password-file"
	const wanted = "the file with the password"
	if file != "" {
		opened, err := os.Open(file)
		if err != nil {
			return "", &failure{code: exitUsage, err: err, hint: cmp.Or(fileHint(err, wanted), hint)}
		}
		defer opened.Close()
		stdin = bufio.NewReader(opened) // never treated as a terminal
	}
	password, err := readPassword(user, stdin, stderr)
	if err == nil && strings.ContainsAny(password, "\x00\r") {
		err = errors.New("it contains octets that POP3 cannot carry")
	}
	if err != nil {
		return "", &failure{code: exitUsage, err: fmt.Errorf("read the password: %w", err), hint: cmp.Or(fileHint(err, wanted), hint)}
	}
	return password, nil
}

// formerServer is the POP3 server whose unique-ids are read.
type formerServer struct {
	address, tls   string
	insecure       bool
	user, password string
	roots          *x509.CertPool // nil: the system's

	conn net.Conn
	text *textproto.Reader
}

// formerMessage is one message of a formerServer.
type formerMessage struct {
	number   int
	uniqueID string
	octets   int64
	identity string // "" if it has none
}

// validate checks the flags.
func (f *formerServer) validate(caFile string) error {
	host, _, err := endpoint.Split(f.address, 1)
	switch {
	case f.address == "":
		return usage("popgate uidl --server pop.example.com:995 --user NAME", "--server is required")
	case err != nil || host == "":
		return usage("write --server HOST:PORT, such as pop.example.com:995", "--server %q is not host:port", f.address)
	case f.user == "":
		return usage("popgate uidl --server "+f.address+" --user NAME", "--user is required")
	case strings.ContainsAny(f.user, "\x00\r\n"):
		return usage("write --user NAME", "--user %q is not a user name", f.user)
	case !slices.Contains([]string{"implicit", "starttls", "none"}, f.tls):
		return usage("write implicit, starttls or none", "--tls %q is unknown", f.tls)
	case f.tls == "none" && !f.insecure && !endpoint.IsLoopback(host):
		return usage("use --tls implicit or starttls, or add --insecure if you trust the network in between",
			"--tls none would send the password to %s in the clear", host)
	}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return &failure{code: exitUsage, err: err, hint: "name a PEM file with the CA's certificate"}
		}
		if f.roots = x509.NewCertPool(); !f.roots.AppendCertsFromPEM(pem) {
			return usage("name a PEM file with the CA's certificate", "%s contains no certificate", caFile)
		}
	}
	return nil
}

// failed returns the error of a step of the session.
func (f *formerServer) failed(step string, err error, hint string) error {
	return &failure{code: exitFailure, err: fmt.Errorf("%s: %s: %s", f.address, step, words.Printable(err.Error())), hint: hint}
}

// read runs the session.
func (f *formerServer) read(ctx context.Context, progress io.Writer) ([]formerMessage, error) {
	connect := f.connect
	if f.tls != "implicit" {
		connect = func(ctx context.Context) error { return unlessTLS(ctx, f.address, f.connect) }
	}
	if err := connect(ctx); err != nil {
		return nil, f.failed("connect", err, cmp.Or(connectHint(err, formerPlaces), "check --server, --tls and the network"))
	}
	defer f.conn.Close()
	defer context.AfterFunc(ctx, func() { f.conn.Close() })()
	if _, err := f.ask("USER " + f.user); err != nil {
		return nil, f.failed("log in", err, "the server refuses this user name")
	}
	if _, err := f.ask("PASS " + f.password); err != nil {
		return nil, f.failed("log in", err, "the server refuses this user name and password, or another session has locked the maildrop")
	}
	messages, err := f.list()
	if err == nil {
		err = f.headers(messages, progress)
	}
	if err != nil {
		return nil, f.failed("read the maildrop", err, "nothing was written; run the command again")
	}
	_, _ = f.ask("QUIT") // nothing is marked as deleted, so it changes nothing
	return messages, nil
}

// connect dials, negotiates TLS and reads the greeting.
func (f *formerServer) connect(ctx context.Context) error {
	host, _, _ := net.SplitHostPort(f.address)
	config := &tls.Config{ServerName: host, RootCAs: f.roots}
	conn, err := (&net.Dialer{Timeout: formerDialTimeout}).DialContext(ctx, "tcp", f.address)
	if err != nil {
		return err
	}
	if f.tls == "implicit" {
		conn = tls.Client(conn, config)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	f.use(conn)
	_, err = f.reply()
	if err == nil && f.tls == "starttls" {
		if _, err = f.ask("STLS"); err == nil {
			f.use(tls.Client(conn, config)) // what the server sent before TLS is dropped
			err = f.conn.(*tls.Conn).HandshakeContext(ctx)
		}
	}
	if err != nil {
		conn.Close()
	}
	return err
}

func (f *formerServer) use(conn net.Conn) {
	f.conn, f.text = conn, textproto.NewReader(bufio.NewReader(conn))
}

// send writes one or more commands.
func (f *formerServer) send(lines string) error {
	if err := f.conn.SetDeadline(time.Now().Add(formerReplyTimeout)); err != nil {
		return err
	}
	_, err := io.WriteString(f.conn, lines)
	return err
}

// refusal is a reply with -ERR; text is the whole line.
type refusal struct{ text string }

func (r *refusal) Error() string { return "the server says " + r.text }

// reply reads a status line and returns the text after +OK.
func (f *formerServer) reply() (string, error) {
	if err := f.conn.SetDeadline(time.Now().Add(formerReplyTimeout)); err != nil {
		return "", err
	}
	line, err := f.text.ReadLine()
	if err != nil {
		return "", err
	}
	if text, ok := strings.CutPrefix(line, "+OK"); ok {
		return strings.TrimSpace(text), nil
	}
	return "", &refusal{line}
}

// ask sends one command and reads its status line.
func (f *formerServer) ask(command string) (string, error) {
	if err := f.send(command + "\r\n"); err != nil {
		return "", err
	}
	return f.reply()
}

// numbered sends command and reads its listing, a message-number and a value
// per line.
func (f *formerServer) numbered(command string, each func(number int, value string) error) error {
	if _, err := f.ask(command); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	lines, err := f.text.ReadDotLines()
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	for _, line := range lines {
		first, value, _ := strings.Cut(line, " ")
		number, err := strconv.Atoi(first)
		if err == nil {
			err = each(number, strings.TrimSpace(value))
		}
		if err != nil {
			return fmt.Errorf("%s: unexpected line %.80q in the listing", command, line)
		}
	}
	return nil
}

// list returns the messages as UIDL and LIST report them.
func (f *formerServer) list() ([]formerMessage, error) {
	var messages []formerMessage
	index := make(map[int]int)
	err := f.numbered("UIDL", func(number int, value string) error {
		if value == "" {
			return errors.New("no unique-id")
		}
		index[number] = len(messages)
		messages = append(messages, formerMessage{number: number, uniqueID: value, octets: -1})
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = f.numbered("LIST", func(number int, value string) error {
		octets, _, _ := strings.Cut(value, " ") // some servers add more
		n, err := strconv.ParseInt(octets, 10, 64)
		if i, ok := index[number]; ok && err == nil && n >= 0 {
			messages[i].octets = n
		}
		return err
	})
	return messages, err
}

// headers reads the header of each message for its identity.
func (f *formerServer) headers(messages []formerMessage, progress io.Writer) error {
	batch := 1
	if f.pipelines() {
		batch = formerBatch
	}
	done := 0
	for part := range slices.Chunk(messages, batch) {
		var commands strings.Builder
		for _, m := range part {
			fmt.Fprintf(&commands, "TOP %d 0\r\n", m.number)
		}
		if err := f.send(commands.String()); err != nil {
			return err
		}
		for i := range part {
			if err := f.top(&part[i], progress); err != nil {
				return fmt.Errorf("TOP %d 0: %w", part[i].number, err)
			}
			if done++; done%1000 == 0 {
				fmt.Fprintf(progress, "%d of %d headers read\n", done, len(messages))
			}
		}
	}
	return nil
}

// pipelines reports whether the server announces PIPELINING.
func (f *formerServer) pipelines() bool {
	if _, err := f.ask("CAPA"); err != nil {
		return false
	}
	lines, err := f.text.ReadDotLines()
	return err == nil && slices.ContainsFunc(lines, func(s string) bool { return strings.EqualFold(s, "PIPELINING") })
}

// top reads the reply to TOP. If it is -ERR, the message has no identity.
func (f *formerServer) top(m *formerMessage, progress io.Writer) error {
	if _, err := f.reply(); err != nil {
		if _, refused := errors.AsType[*refusal](err); refused {
			fmt.Fprintf(progress, "message %d: no header: %s\n", m.number, words.Printable(err.Error()))
			return nil
		}
		return err
	}
	body := f.text.DotReader()
	header, err := io.ReadAll(io.LimitReader(body, formerHeader))
	if err == nil {
		_, err = io.Copy(io.Discard, body)
	}
	if err == nil && m.octets >= 0 {
		m.identity = uniqueid.HeaderIdentity(header, m.octets)
	}
	return err
}

// writeFormer writes the file to out, whose first line names the source, and a
// summary to progress.
func writeFormer(out, progress io.Writer, source string, messages []formerMessage, forUser string) error {
	count := make(map[string]int)
	for _, m := range messages {
		count[m.identity]++
	}
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "# unique-ids of %s\n", words.Printable(source))
	duplicates := 0
	for _, m := range messages {
		if m.identity == "" {
			continue
		}
		if count[m.identity] > 1 {
			duplicates++
		}
		fmt.Fprintf(w, "%s\t%s", m.identity, m.uniqueID)
		if forUser != "" {
			fmt.Fprintf(w, "\t%s", forUser)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return &failure{code: exitFailure, err: err}
	}
	fmt.Fprintf(progress, "%d messages; clients will download again: %d with duplicates, %d without identity\n",
		len(messages), duplicates, count[""])
	return nil
}
