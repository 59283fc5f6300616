package proxy

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"
)

// Record is what is known of a session: what the log has of it at its end, and
// what an Observer receives.
type Record struct {
	Client
	Began    time.Time
	Duration time.Duration // set at the end
	TLS      *tls.ConnectionState
	ProxyTLS *ProxyTLS // nil where no proxy has ended TLS
	State    State     // 0 before the greeting

	User     string // as the client gave it, then as the upstream knows it
	Upstream string // "" before login

	Retr       int   // messages sent whole by RETR
	Top        int   // replies to TOP
	Dele       int   // messages marked, whether or not RSET came later
	Octets     int64 // of messages, without byte-stuffing
	Removed    int   // messages removed by QUIT
	Remaining  int   // messages of the snapshot without Removed
	Mismatches int   // messages whose octets were not those of LIST

	FailedLogins int   // that were answered [AUTH]
	Sent         int64 // octets to the client, under TLS before encryption
	Received     int64 // octets from the client, likewise, without a PROXY header

	Reason string // why the session ended; "" before
}

// ProxyTLS is the TLS that a proxy has ended. Each part may be unknown, "".
type ProxyTLS struct {
	Version, Suite, SNI string
}

// loggedNameLimit is how many octets of a name the log has at most. Mechanisms
// of SASL bring far longer ones than any upstream has.
const loggedNameLimit = 255

// loggedName returns name as the log has it; the handler escapes it.
func loggedName(name string) string {
	if len(name) <= loggedNameLimit {
		return name
	}
	return name[:loggedNameLimit] + "..."
}

// progress returns the record with what is counted elsewhere until now.
func (s *session) progress() *Record {
	r := &s.record
	r.Sent, r.Received = s.w.total, s.r.total
	r.Remaining = len(s.snap.messages) - r.Removed
	return r
}

// closeRecord completes the record of the session, logs and reports it.
func (s *session) closeRecord() {
	r := s.progress()
	r.Duration = time.Since(r.Began)
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "session", r.attrs()...)
	if o := s.srv.opts.Observer; o != nil {
		o.SessionEnded(r)
	}
}

// attrs returns the record as the log has it, without what the logger of the
// session adds by itself.
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
