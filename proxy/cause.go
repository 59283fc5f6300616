package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// beginCause says, for the log, why a connection ended before its greeting, or
// before STLS was done: the cause of an end that is a failed handshake or PROXY
// header, "" for any other.
func beginCause(end *endError) string {
	if end.reason != endHandshake && end.reason != endProxy {
		return ""
	}
	err := end.err
	var cause string
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		cause = "client sends nothing, or too slowly"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		cause = "client closed the connection"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		cause = "client reset the connection"
	default:
		cause = tlsCause(err)
	}
	if end.reason == endProxy {
		cause = strings.Replace(cause, "client", "proxy", 1)
	}
	return loggedName(cause)
}

// distrust are the alerts, as crypto/tls words them, by which a client rejects
// the certificate of the server (RFC 8446 §6.2).
var distrust = []string{
	"tls: bad certificate", "tls: unsupported certificate", "tls: revoked certificate", "tls: expired certificate",
	"tls: unknown certificate", "tls: unknown certificate authority",
}

// alertRecord is the length of a record with an alert that is not encrypted.
const alertRecord = 7

// plainAlert returns the error of a handshake, or the alert that the client has sent
// last, in the clear: clients with OpenSSL that do not trust the certificate do so in
// TLS 1.3, which crypto/tls takes for a record that is damaged.
func plainAlert(err error, last []byte) error {
	local, ok := errors.AsType[*net.OpError](err)
	const alert, length, fatal = 21, 2, 2 // RFC 8446 §5.1, §6
	if !ok || local.Op != "local error" || len(last) != alertRecord ||
		last[0] != alert || last[1] != 3 || last[3] != 0 || last[4] != length || last[5] != fatal {
		return err
	}
	return &net.OpError{Op: "remote error", Err: tls.AlertError(last[6])}
}

// tlsCause describes an error of a handshake.
func tlsCause(err error) string {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "client does not speak TLS: " + err.Error()
	}
	remote, ok := errors.AsType[*net.OpError](err)
	if !ok || remote.Op != "remote error" {
		return err.Error()
	}
	for _, alert := range distrust {
		if remote.Err.Error() == alert {
			return "client does not trust the certificate: " + err.Error()
		}
	}
	return "client ended the handshake: " + err.Error()
}
