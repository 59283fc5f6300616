package imapbackend

import (
	"context"
	"crypto/tls"
)

// Report is what an upstream tells before anybody has logged in.
type Report struct {
	Greeting     string
	TLSVersion   string // "" without TLS
	Capabilities []string
	Warnings     []string // what the gateway will miss, in words for an operator
}

// Probe connects to the upstream as a session would, up to where a user would
// log in, and leaves again. Errors are *proxy.Error whose cause tells more.
func (b *Backend) Probe(ctx context.Context) (Report, error) {
	u, err := b.connect(ctx)
	if err != nil {
		return Report{}, err
	}
	defer u.logout(ctx)
	r := Report{Greeting: u.greeting, Capabilities: u.conn.Capabilities()}
	if u.tls != nil {
		r.TLSVersion = tls.VersionName(u.tls.Version)
	}
	warn := func(text string) { r.Warnings = append(r.Warnings, text) }
	switch {
	case u.conn.Has("AUTH=PLAIN"):
	case u.conn.Has("LOGINDISABLED"):
		warn("offers neither AUTH=PLAIN nor LOGIN: nobody can log in")
	default:
		warn("lacks AUTH=PLAIN: names and passwords must be ASCII")
	}
	if !u.conn.Has("UIDPLUS") && !u.conn.Has("IMAP4REV2") {
		warn("does not show UIDPLUS before login: if it lacks it, without_uidplus decides what DELE does")
	}
	return r, nil
}
