// Package dovecottest runs a private Dovecot as the upstream of a test, in the
// manner of net/http/httptest, and looks into its mailboxes by IMAP without the
// gateway.
//
// Start needs only the dovecot program (Debian: dovecot-imapd): all state is in a
// directory of its own, the ports are free ones of 127.0.0.1, and the server runs
// as the user who runs the test, root or not. Every login name exists; the
// password is Password.
//
// Dovecot 2.3 changes a message that is appended, as Stored does: a bare LF
// becomes CRLF, IMAP shows NUL as 0x80, and one CR right before a line end or at
// the end of the message is dropped. All other octets stay, and a missing final
// line end is not added. A message without octets is refused.
//
// The package is built under the tag "integration" only.
package dovecottest
