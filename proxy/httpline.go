package proxy

import (
	"bytes"
	"errors"
	"slices"
	"strings"
)

// httpMethods are the methods with which an HTTP request may begin (RFC 9110 §9,
// RFC 5789).
var httpMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

var (
	// errHTTP ends a session whose client speaks HTTP: a web page has made a browser
	// connect, in whose request lines are that would be taken for commands.
	errHTTP = errors.New("HTTP request")

	// errLongRequest is errLineTooLong for a line that begins as an HTTP request does.
	errLongRequest = &Error{Text: errLineTooLong.Text, Err: errBadCommand}
)

// isHTTPRequest reports whether a line, read with that error, is the first one of
// an HTTP request (RFC 9112 §3). One that is too long was not read to its end.
func isHTTPRequest(line string, lineErr error) bool {
	return lineErr == errLongRequest || beginsHTTP(line) && strings.Contains(strings.ToUpper(line), " HTTP/")
}

// beginsHTTP reports whether line begins with a method and SP.
func beginsHTTP(line string) bool {
	method, _, found := strings.Cut(line, " ")
	return found && slices.Contains(httpMethods, strings.ToUpper(method))
}

// longLineError returns the error for a line that is too long and begins with head.
func longLineError(kind lineKind, head []byte) error {
	if method, _, found := bytes.Cut(head, []byte(" ")); kind == commandLine && found && beginsHTTP(string(method)+" ") {
		return errLongRequest
	}
	return errLineTooLong
}
