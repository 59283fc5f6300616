package proxy

import (
	"context"
	"crypto/tls"
	"log/slog"
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

	FailedLogins int   // logins answered [AUTH]
	Sent         int64 // octets to the client, before encryption
	Received     int64 // octets from the client, decrypted, without a PROXY header

	Reason string // why the session ended; "" before
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
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "session", r.attrs()...)
	if o := s.srv.opts.Observer; o != nil {
		o.SessionEnded(r)
	}
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
	return append(attrs,
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
		slog.String("reason", r.Reason),
		slog.Duration("duration", r.Duration))
}
