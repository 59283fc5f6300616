// Package imapscript is an upstream for tests: a fake IMAP server that plays a
// script and fails the test when the client deviates from it.
//
//	S: * OK [CAPABILITY IMAP4rev1] ready
//	C: <a> LOGIN ...
//	S: <a> OK done
//	# two commands in one flight, answered together
//	C: <b> UID FETCH 7 (UID BODY.PEEK[])
//	C: <c> UID FETCH 8 (UID BODY.PEEK[])
//	S: * 1 FETCH (UID 7 BODY[] {5}
//	S+: hello
//	S: )
//	S: <b> OK done
//	S: <c> NO [UNAVAILABLE] not now
//	X:
//	-- connection 2 --
//	...
//
// White space at the start of a line, empty lines and lines that begin with # are
// ignored. One space after the colon belongs to the directive.
//
//	C: text      the client's next line, which ends in CRLF. "..." matches any
//	             text. A line that begins with <name> is a command; its tag may
//	             be any that the connection has not used, and is bound to name
//	S: text      sends a line; <name> is replaced by the tag bound to name
//	S+: text     the same without CRLF, to cut within a line or a literal
//	S64: base64  sends octets
//	S*: n text   sends n octets, which repeat text; text may be a quoted Go string,
//	             for line ends: S*: 1000000000 "0123456789\r\n"
//	TLS:         TLS handshake as server: implicit TLS at the start of a
//	             connection, STARTTLS after the answer to that command
//	D: 30s       the client has this long for each following step. Default: 1h
//	T: 30s       lets this much time pass, for fake time
//	X:           closes the connection
//	R:           resets the connection; what the client has not read yet may be lost
//	W:           the client closes the connection without sending anything first
//	W: stall     the client closes the connection; what it sends is not answered
//
// Each connection plays one section, in the order in which connections are made.
// X, R or W ends a section; without one of them W is implied. A client that closes
// while the server sends, or in the TLS handshake, fails the test unless the next
// directive other than S and T is a written W. After the last section connections are
// refused, and fail the test unless that section ends in a written X, R or W: a
// client may check whether the upstream is back.
//
// A line of a message that begins like a tag must be sent with S64.
//
// A literal of the client is text at the start of its next line: C: <a> APPEND
// INBOX {3+}, then C: abc.
package imapscript
