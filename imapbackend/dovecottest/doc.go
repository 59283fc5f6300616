// Package dovecottest runs a private Dovecot as the upstream of a test, in the
// manner of net/http/httptest, and looks into its mailboxes by IMAP without
// going through the gateway.
//
// Start needs nothing but the dovecot program (Debian: dovecot-imapd): all
// state lies in a directory of its own, the ports are free ones of 127.0.0.1,
// and the server runs as the user who runs the test, root or not. Every login
// name exists; the password is Password.
//
// What Dovecot 2.3 does to a message that is appended, and Stored repeats: a
// bare LF becomes CRLF, IMAP shows NUL as 0x80, one CR just before a line end or at
// the end of the message is dropped, all other octets stay, and a final line
// end is not added. A message of no octets is refused.
//
// The package is built under the tag "integration" only.
package dovecottest
