// Package wire parses the octets of one upstream IMAP connection, below go-imap's
// client.
//
// go-imap buffers each literal whole, parses a listing at many times the cost of
// reading it, and waits forever when a login fails in certain ways; one malformed
// line makes its own goroutine panic and ends the process. So go-imap sends only
// commands that act on the selected mailbox and return no data (SELECT, STORE,
// EXPUNGE, COPY, MOVE, CREATE, NOOP). It does not read the server's octets: this
// package parses them, and writes for it only that its command has ended, and
// how. No data reach it, nor do texts, the greeting and the login. While a session
// waits there is no client of go-imap's at all (Attach, Detach).
//
// # Who reads the socket
//
// One goroutine at a time reads and parses the stream. There is no lock on it,
// only a hand-over:
//
//   - For commands of this package (Start, Next, Run), the goroutine that calls
//     them reads the answers, while go-imap's reader goroutine is parked in Read.
//   - For a command of go-imap's, the owner calls Begin first. That wakes the
//     goroutine in Read, which parses responses up to the tagged one, and parks
//     again before go-imap sees that line.
//
// Between commands no goroutine reads. A connection that the server closes is
// noticed by the next command, and no large buffer is held while it waits.
//
// # Limits
//
// Lines that are kept in memory are limited to 64 KiB, nesting to 32 levels.
// FETCH, SEARCH and ESEARCH data are consumed as they arrive and may be of any
// length, but there are limits on what one command may bring beyond what was asked
// for (budget.go). When a server breaks a limit or the grammar, the connection is
// closed with a *ProtocolError; Err returns the first cause of a loss.
package wire
