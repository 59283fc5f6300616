package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"

	"popgate/proxy"
)

// places are where an operator says how to reach a server: keys of the
// configuration, or flags.
type places struct {
	address, implicit, plain, name, ca string
}

var (
	upstreamPlaces = places{"address", `set tls = "implicit"`, `set tls = "starttls"`, "server_name", "ca_file"}
	formerPlaces   = places{"--server", "use --tls implicit", "use --tls starttls", "--server", "--ca-file"}
)

// errSpeaksTLS is a server that waits for TLS where it is addressed without.
var errSpeaksTLS = errors.New("the server expects TLS from the first octet")

// connectHint says what to do about a connection that failed with err: one hint for
// each fault, "" if it is not known.
func connectHint(err error, p places) string {
	dns, isDNS := errors.AsType[*net.DNSError](err)
	_, isRecord := errors.AsType[tls.RecordHeaderError](err)
	_, isUnknown := errors.AsType[x509.UnknownAuthorityError](err)
	name, isName := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	network, isNetwork := errors.AsType[net.Error](err)
	switch {
	case isDNS && dns.IsNotFound:
		return fmt.Sprintf("check %s: the name %s does not exist", p.address, dns.Name)
	case isDNS:
		return fmt.Sprintf("the name %s cannot be looked up now: check the resolver of this machine", dns.Name)
	case errors.Is(err, errSpeaksTLS):
		return p.implicit + ", or use the port for connections without TLS"
	case isRecord:
		return p.plain + ", or use the port for TLS: this one begins without"
	case isUnknown:
		return fmt.Sprintf("if you trust it, name the CA's certificate in %s; else somebody may be in between", p.ca)
	case isName:
		return fmt.Sprintf("write in %s a name that the certificate has: %s", p.name, strings.Join(certifiedNames(name.Certificate), ", "))
	case isInvalid && invalid.Reason == x509.Expired:
		return "the server needs a new certificate, unless the clock of this machine is wrong"
	case isNetwork && network.Timeout():
		return fmt.Sprintf("nobody answers: check %s, and what filters packets on the way", p.address)
	case refusedBy(err):
		return fmt.Sprintf("no server listens there: check the port in %s, and whether the server runs", p.address)
	}
	return ""
}

// refusedBy reports whether err says that nothing listens at an address.
func refusedBy(err error) bool {
	const wsaECONNREFUSED = syscall.Errno(10061) // the error number on Windows
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, wsaECONNREFUSED)
}

// certifiedNames returns the names for which a certificate is valid.
func certifiedNames(c *x509.Certificate) []string {
	names := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return []string{"it has none"}
	}
	return names
}

// Limits on finding out that a server expects TLS; together they are below two
// seconds.
const (
	greetingPatience = 800 * time.Millisecond
	helloPatience    = time.Second
)

// unlessTLS runs f, which connects to address without TLS and waits for a greeting.
// If none comes and the server speaks TLS, it cancels f and returns errSpeaksTLS.
func unlessTLS(ctx context.Context, address string, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case <-time.After(greetingPatience):
	}
	if speaksTLS(ctx, address) {
		cancel(errSpeaksTLS)
	}
	err := <-done
	if err != nil && errors.Is(context.Cause(ctx), errSpeaksTLS) {
		return errSpeaksTLS
	}
	return err
}

// speaksTLS reports whether the server at address answers a ClientHello. Nothing is
// sent over the connection but that.
func speaksTLS(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, helloPatience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	err = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx) // no data follows
	remote, ok := errors.AsType[*net.OpError](err)
	return err == nil || ok && remote.Op == "remote error" // an alert is TLS, too
}

// fileHint says what to do about a file that the command line names and that cannot
// be read.
func fileHint(err error, wanted string) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file: name " + wanted
	case errors.Is(err, fs.ErrPermission):
		return "make it readable for the user that runs popgate"
	case errors.Is(err, syscall.EISDIR):
		return "this is a directory: name " + wanted + " in it"
	}
	return ""
}

// loginHint says what to check after a step that failed with err.
func loginHint(err error) string {
	e, ok := errors.AsType[*proxy.Error](err)
	if !ok {
		return ""
	}
	switch e.Code {
	case proxy.CodeAuth:
		return "the upstream refuses this user name and password"
	case proxy.CodeSysTemp:
		return "check the network and the upstream; this may be temporary"
	case proxy.CodeSysPerm:
		return "check the keys tls, mailbox and trash of the upstream"
	}
	return ""
}
