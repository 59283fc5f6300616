package proxy

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"
)

// record is what the log tells of a session at its end.
type record struct {
	began      time.Time
	tls        *tls.ConnectionState
	proxyTLS   *proxyTLS
	user       string // as the client gave it, then as the upstream knows it
	upstream   string
	retr       int // messages sent whole by RETR
	top        int
	dele       int
	octets     int64 // of messages, without byte-stuffing
	removed    int
	mismatches int // messages whose octets were not those of LIST
	reason     string
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

// logRecord writes the one record of the session.
func (s *session) logRecord() {
	r := &s.record
	attrs := []slog.Attr{slog.String("listener", s.lis.addr)}
	if r.tls != nil {
		attrs = append(attrs,
			slog.String("tls", tls.VersionName(r.tls.Version)),
			slog.String("suite", tls.CipherSuiteName(r.tls.CipherSuite)),
			slog.String("sni", r.tls.ServerName))
	}
	if p := r.proxyTLS; p != nil {
		attrs = append(attrs,
			slog.String("proxy_tls", p.version),
			slog.String("proxy_suite", p.suite),
			slog.String("proxy_sni", p.sni))
	}
	attrs = append(attrs,
		slog.String("user", r.user),
		slog.String("upstream", r.upstream),
		slog.Int("retr", r.retr),
		slog.Int("top", r.top),
		slog.Int("dele", r.dele),
		slog.Int64("octets", r.octets),
		slog.Int("removed", r.removed),
		slog.Int("remaining", len(s.snap.messages)-r.removed),
		slog.Int("size_mismatches", r.mismatches),
		slog.Int("failed_logins", s.failures),
		slog.Int64("sent", s.w.total),
		slog.String("reason", r.reason),
		slog.Duration("duration", time.Since(r.began)))
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "session", attrs...)
}
