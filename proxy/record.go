package proxy

import (
	"context"
	"crypto/tls"
	"log/slog"
	"strconv"
	"time"
)

// Record is the state and statistics of a session. An Observer receives it, and
// it is logged at the end of the session.
type Record struct {
	Client
	Began    time.Time
	Duration time.Duration // set at the end
	TLS      *tls.ConnectionState
	ProxyTLS *ProxyTLS // nil unless a proxy has terminated TLS
	State    State     // 0 before the greeting

	User     string // as the client gave it; after login as the upstream knows it
	Upstream string // "" before login

	Retr       int   // messages sent whole by RETR
	Top        int   // successful TOP commands
	Dele       int   // messages marked, including marks that RSET removed
	Octets     int64 // of messages sent, without byte-stuffing
	Removed    int   // messages removed by QUIT
	Remaining  int   // messages of the snapshot minus Removed
	Mismatches int   // messages sent with another size than LIST announced

	FailedLogins int   // logins answered [AUTH], and exchanges abandoned after a challenge
	Sent         int64 // octets to the client, before encryption
	Received     int64 // octets from the client, decrypted, without a PROXY header

	Reason string // why the session ended; "" before
	Cause  string // of a failed handshake or PROXY header; else ""
}

// ProxyTLS is TLS that a proxy has terminated. Fields that it did not report are
// "".
type ProxyTLS struct {
	Version, Suite, SNI string
}

// loggedNameLimit is the most octets of a name that are logged. SASL allows far
// longer names than any upstream has.
const loggedNameLimit = 255

// loggedName shortens name for the log. The log handler escapes it.
func loggedName(name string) string {
	if len(name) <= loggedNameLimit {
		return name
	}
	return name[:loggedNameLimit] + "..."
}

// progress returns the record, updated with what is counted elsewhere.
func (s *session) progress() *Record {
	r := &s.record
	r.Sent, r.Received = s.w.total, s.r.total
	r.Remaining = len(s.snap.messages) - r.Removed
	return r
}

// closeRecord completes, logs and reports the record of the session.
func (s *session) closeRecord() {
	r := s.progress()
	r.Duration = time.Since(r.Began)
	s.logRecord(r)
	if o := s.srv.opts.Observer; o != nil {
		o.SessionEnded(r)
	}
}

// logRecord logs the record of the session. Those of clients that have sent nothing
// are rationed, as whoever connects and leaves again could fill the log with them.
func (s *session) logRecord(r *Record) {
	attrs := r.attrs()
	if s.saidNothing() {
		withheld, ok := s.srv.refusals.silent.allow(time.Now())
		if !ok {
			return
		}
		attrs = append(attrs, slog.Int("more", withheld))
	}
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "session", attrs...)
}

// saidNothing reports whether the client has sent neither a command nor what made a
// handshake or a PROXY header fail.
func (s *session) saidNothing() bool {
	failed := s.record.Reason == endHandshake || s.record.Reason == endProxy
	return s.r.total == 0 && !(s.raw.spoken && failed)
}

// attrs returns the record's attributes for the log, except those that the
// session's logger adds itself.
func (r *Record) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("listener", r.Listener)}
	if r.TLS != nil {
		attrs = append(attrs,
			slog.String("tls", tls.VersionName(r.TLS.Version)),
			slog.String("suite", tls.CipherSuiteName(r.TLS.CipherSuite)),
			slog.String("sni", r.TLS.ServerName))
	}
	if p := r.ProxyTLS; p != nil {
		attrs = append(attrs,
			slog.String("proxy_tls", p.Version),
			slog.String("proxy_suite", p.Suite),
			slog.String("proxy_sni", p.SNI))
	}
	attrs = append(attrs,
		slog.String("user", r.User),
		slog.String("upstream", r.Upstream),
		slog.Int("retr", r.Retr),
		slog.Int("top", r.Top),
		slog.Int("dele", r.Dele),
		slog.Int64("octets", r.Octets),
		slog.Int("removed", r.Removed),
		slog.Int("remaining", r.Remaining),
		slog.Int("size_mismatches", r.Mismatches),
		slog.Int("failed_logins", r.FailedLogins),
		slog.Int64("sent", r.Sent),
		slog.String("reason", r.Reason))
	if r.Cause != "" {
		attrs = append(attrs, slog.String("cause", r.Cause))
	}
	return append(attrs, slog.Duration("duration", r.Duration))
}

// logLogin logs a login, so that the log shows who is in while the session lasts.
func (s *session) logLogin() {
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "logged in",
		slog.String("user", s.record.User),
		slog.String("upstream", s.record.Upstream),
		slog.String("mechanism", s.attempt.Mechanism),
		slog.Int("messages", len(s.snap.messages)),
		slog.Int64("octets", s.snap.octets))
}

// logRemoval logs the UIDs of the messages that QUIT has removed. After an error
// it is not known which of them are gone.
func (s *session) logRemoval(marked []uint64, err error) {
	text := "messages removed"
	if err != nil {
		text = "messages were to be removed, some may be"
	}
	s.log.LogAttrs(context.Background(), slog.LevelInfo, text,
		slog.String("user", s.record.User),
		slog.String("upstream", s.record.Upstream),
		slog.Int("messages", len(marked)),
		slog.Any("uids", uidRanges(marked)))
}

// uidRanges are UIDs in ascending order that are logged as ranges, such as
// 3:5,9. A range has no UID between its ends that is not among them.
type uidRanges []uint64

// LogValue implements slog.LogValuer: the text is made only if it is logged.
func (u uidRanges) LogValue() slog.Value { return slog.StringValue(u.String()) }

func (u uidRanges) String() string {
	var b []byte
	for i := 0; i < len(u); {
		end := i
		for end+1 < len(u) && u[end+1] == u[end]+1 {
			end++
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, u[i], 10)
		if end > i {
			b = strconv.AppendUint(append(b, ':'), u[end], 10)
		}
		i = end + 1
	}
	return string(b)
}
