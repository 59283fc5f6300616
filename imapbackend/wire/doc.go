// Package wire frames the byte stream of one upstream IMAP connection, below
// go-imap's client.
//
// go-imap buffers each literal whole, parses a listing at many times the cost
// of reading it, waits forever where a login goes wrong in certain ways, and
// one malformed line panics in its own goroutine and ends the process. So it has
// only the commands that act on the selected mailbox and bring no data (SELECT,
// STORE, EXPUNGE, COPY, MOVE, CREATE, NOOP), and what it reads is not the
// server's octets but that its command has ended, and how, written by this
// package from what it has parsed itself. Data of any kind never reach it, nor
// do texts, greeting and login. While a session waits there is no client of
// go-imap's at all (Attach, Detach).
//
// # Who reads the socket
//
// One goroutine at a time reads and parses the stream, and there is no lock on
// it, only a hand-over:
//
//   - Commands of this package (Start, Next, Run) are read by the goroutine that
//     calls them. go-imap's reader goroutine is parked in Read meanwhile.
//   - For a command of go-imap's, the owner calls Begin first. That wakes the
//     goroutine in Read, which frames responses up to the tagged one, and
//     parks again before go-imap sees that line.
//
// Between commands nobody reads. A connection that the server closes is
// noticed by the next command, and no large buffer is held while it waits.
//
// # Limits
//
// Lines that are kept in memory end at 64 KiB, nesting at 32 levels. FETCH,
// SEARCH and ESEARCH data are consumed as they come and may be of any length. A
// server that breaks a limit or the grammar loses this connection with a
// *ProtocolError; the first cause of a loss is kept in Err.
package wire
