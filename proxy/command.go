package proxy

import (
	"errors"
	"log/slog"
	"strings"
	"time"
)

// errBadCommand marks errors of invalid lines. These are counted, unlike a
// command in the wrong state or a wrong message-number.
var errBadCommand = errors.New("bad command")

// Errors of command lines. None has a response code.
var (
	errUnknown       = &Error{Text: "unknown command", Err: errBadCommand}
	errSyntax        = &Error{Text: "syntax error", Err: errBadCommand}
	errBadLine       = &Error{Text: "invalid character in line", Err: errBadCommand}
	errLineTooLong   = &Error{Text: "line too long", Err: errBadCommand}
	errWrongState    = &Error{Text: "command not valid in this state"}
	errNoSuchMessage = &Error{Text: "no such message"}
)

func isBad(err error) bool { return errors.Is(err, errBadCommand) }

// command is a row of the command table. Everything that depends on the verb is
// here.
type command struct {
	verb   string
	in     State // states in which it is valid
	min    int   // arguments
	max    int   // arguments; wholeLine: one, the rest of the line unchanged
	scope  scope
	traits trait
	handle func(s *session, args []string) error
}

const wholeLine = -1

// scope is the set of response codes that a command may answer with (RFC 2449
// §8, RFC 3206 §5, RFC 6856 §5).
type scope uint8

const (
	scopeSys     scope = iota // SYS/TEMP and SYS/PERM
	scopeLogin                // and AUTH and IN-USE
	scopeMessage              // SYS and UTF8
)

// trait is a set of further properties of a command.
type trait uint8

const (
	longLine  trait = 1 << iota // its line may have longCommandLimit octets
	keepsUser                   // the name from USER remains valid after it
	secrets                     // after it, an invalid line may be a secret
	harmless                    // read-ahead looks past it
)

const (
	inAuth = StateAuthorization
	inTran = StateTransaction
	inBoth = StateAuthorization | StateTransaction
)

// commands are all commands: RFC 1939 §9, RFC 2449 §5, RFC 2595 §4, RFC 5034
// §4, RFC 6856 §2. init sets them, because handlers refer to the table.
var commands []command

func init() {
	commands = []command{
		{"CAPA", inBoth, 0, 0, scopeSys, 0, (*session).capa},
		{"STLS", inAuth, 0, 0, scopeSys, 0, (*session).stls},
		{"USER", inAuth, 1, wholeLine, scopeSys, keepsUser, (*session).userName},
		{"PASS", inAuth, 1, wholeLine, scopeLogin, longLine, (*session).pass},
		{"AUTH", inAuth, 0, 2, scopeLogin, longLine | secrets, (*session).auth},
		{"UTF8", inBoth, 0, 0, scopeSys, harmless, (*session).enterUTF8},
		{"STAT", inTran, 0, 0, scopeSys, harmless, (*session).stat},
		{"LIST", inTran, 0, 1, scopeMessage, harmless, (*session).list},
		{"UIDL", inTran, 0, 1, scopeSys, harmless, (*session).uidl},
		{"RETR", inTran, 1, 1, scopeMessage, 0, (*session).retr},
		{"TOP", inTran, 2, 2, scopeMessage, 0, (*session).top},
		{"DELE", inTran, 1, 1, scopeSys, harmless, (*session).dele},
		{"NOOP", inTran, 0, 0, scopeSys, harmless, (*session).noop},
		{"RSET", inTran, 0, 0, scopeSys, 0, (*session).rset},
		{"QUIT", inBoth, 0, 0, scopeSys, 0, (*session).quit},
	}
}

// notCommand is used in place of a command for a line without one.
var notCommand = command{verb: "unknown"}

// findCommand returns the command with that keyword, or nil. Letter case does
// not matter (RFC 1939 §3). The length is compared because EqualFold also folds
// some longer characters to ASCII letters.
func findCommand(verb string) *command {
	for i := range commands {
		if c := &commands[i]; len(c.verb) == len(verb) && strings.EqualFold(c.verb, verb) {
			return c
		}
	}
	return nil
}

// lookUp returns the command of a line, or nil, and the rest of the line. The
// rest includes the SP after the keyword, so that "PASS" and "PASS " differ.
func lookUp(line string) (cmd *command, rest string) {
	verb, _, _ := strings.Cut(line, " ")
	return findCommand(verb), line[len(verb):]
}

func (c *command) has(t trait) bool { return c.traits&t != 0 }

// parse splits rest, which is empty or begins with SP, into arguments.
func (c *command) parse(rest string) ([]string, error) {
	if c.max == wholeLine {
		if rest == "" {
			return nil, errSyntax
		}
		return []string{rest[1:]}, nil
	}
	rest = strings.TrimRight(rest, " ")
	if rest == "" {
		if c.min > 0 {
			return nil, errSyntax
		}
		return nil, nil
	}
	for i := range len(rest) {
		if rest[i] < ' ' || rest[i] > '~' {
			return nil, errSyntax
		}
	}
	args := strings.SplitN(rest[1:], " ", c.max+1)
	if len(args) < c.min || len(args) > c.max {
		return nil, errSyntax
	}
	for _, arg := range args {
		if arg == "" {
			return nil, errSyntax
		}
	}
	return args, nil
}

// execute runs one command line and writes its reply. lineErr is the error of
// reading the line, if any. An error of execute ends the session.
func (s *session) execute(line string, lineErr error) error {
	began := time.Now()
	s.w.last = "none"
	err := s.dispatch(line, lineErr)
	verb := s.cmd.verb
	if s.afterAuth && s.record.State == StateAuthorization {
		verb = notCommand.verb
	}
	if err != nil && !isEnd(err) {
		s.replyError(verb, s.cmd.scope, err)
	}
	s.commandDone(CommandRecord{Verb: verb, Status: s.w.last, Octets: len(line), Elapsed: time.Since(began)})
	if s.cmd.has(secrets) {
		s.afterAuth = true
	}
	if isEnd(err) {
		return err
	}
	return s.tooMany()
}

// dispatch finds the command of a line, which is then s.cmd, and runs it.
func (s *session) dispatch(line string, lineErr error) error {
	s.cmd = &notCommand
	if s.record.State == StateAuthorization && isHTTPRequest(line, lineErr) {
		return &endError{endHTTP, errHTTP}
	}
	err := lineErr
	if err == nil {
		err = errUnknown
		if cmd, rest := lookUp(line); cmd != nil {
			s.cmd = cmd
			err = s.call(cmd, rest)
		}
	}
	if err != nil || !s.cmd.has(keepsUser) {
		s.user = pendingUser{} // PASS is valid only directly after USER
	}
	if err != nil && !isEnd(err) && s.ctx.Err() != nil {
		return &endError{endShutdown, err} // interrupted by Close
	}
	return err
}

// call checks state and arguments of a command and runs it.
func (s *session) call(cmd *command, rest string) error {
	if cmd.in&s.record.State == 0 {
		return errWrongState
	}
	args, err := cmd.parse(rest)
	if err != nil {
		return err
	}
	return cmd.handle(s, args)
}

// replyError writes the -ERR of err, and counts and logs it.
func (s *session) replyError(verb string, sc scope, err error) {
	e, known := sc.classify(err)
	level := slog.LevelDebug
	switch {
	case isBad(err):
		s.bad++
	case !known:
		level = slog.LevelError // unexpected: a bug
	case e.Code == CodeAuth, isAbandoned(err): // logged by logFailure
	case errors.Is(err, errThrottled): // logged by logThrottled
	case e.Code == CodeInUse, e.Code == CodeLoginDelay:
		level = slog.LevelInfo
	case e.Code != CodeNone:
		level = slog.LevelWarn
	}
	if level > slog.LevelDebug || e.Err != nil && !isBad(err) {
		s.log.Log(s.ctx, level, "command failed", "verb", verb, "error", err)
	}
	s.w.fail(e)
}

// classify returns the error that the client sees for err. known is false if it
// is a generic one, because err is no *Error or its code is outside the scope.
func (sc scope) classify(err error) (e *Error, known bool) {
	e, known = errors.AsType[*Error](err)
	if known && !sc.allows(e.Code) {
		err, known = errors.New(e.Error()), false
	}
	return AsError(err), known
}

// allows reports whether sc contains code.
func (sc scope) allows(code Code) bool {
	switch code {
	case CodeNone, CodeSysTemp, CodeSysPerm:
		return true
	case CodeAuth, CodeInUse, CodeLoginDelay:
		return sc == scopeLogin
	case CodeUTF8:
		return sc == scopeMessage
	}
	return false
}

// tooMany returns the error that ends the session after too many failures, or
// nil.
func (s *session) tooMany() error {
	reason := ""
	switch {
	case s.bad >= maxBadCommands:
		reason = endBad
	case s.record.State == StateAuthorization && s.record.FailedLogins >= s.srv.opts.LoginAttempts:
		reason = endLogins
	default:
		return nil
	}
	if err := s.flush(); err != nil {
		return err
	}
	return &endError{reason: reason}
}

// commandDone logs one command at level debug and reports it to the Observer.
// Verbs that are not from the table are not named, and none after a failed AUTH:
// they may be secrets sent by mistake.
func (s *session) commandDone(c CommandRecord) {
	if o := s.srv.opts.Observer; o != nil {
		o.CommandDone(s.progress(), c)
	}
	if !s.log.Enabled(s.ctx, slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{slog.String("verb", c.Verb), slog.String("status", c.Status), slog.Duration("elapsed", c.Elapsed)}
	if c.Verb == notCommand.verb {
		attrs = append(attrs, slog.Int("octets", c.Octets))
	}
	s.log.LogAttrs(s.ctx, slog.LevelDebug, "command", attrs...)
}
