// Package proxy is the POP3 side of popgate: listeners, sessions, commands and
// replies. It knows nothing of IMAP; what it needs of an upstream is the
// Backend of backend.go, and what a Backend or a Maildrop may be besides.
//
// # States
//
// A session is in one of the states of RFC 1939 §3. AUTHORIZATION begins with
// the greeting; a login leads to TRANSACTION; QUIT in TRANSACTION, and nothing
// else, leads to UPDATE, in which the marked messages are removed. A session
// that ends in any other way removes nothing.
//
//	command               valid in        what it asks of the Backend
//	CAPA                  both            Offers, of an Exchanger
//	STLS, UTF8            AUTHORIZATION   nothing
//	USER                  AUTHORIZATION   Prepare, of a Preparer
//	PASS                  AUTHORIZATION   Login, then Open under the lock
//	AUTH                  AUTHORIZATION   Prepare, Offers, Login or Exchange, then as PASS
//	STAT LIST NOOP RSET   TRANSACTION     nothing: the snapshot answers
//	UIDL                  TRANSACTION     UniqueIDs
//	DELE                  TRANSACTION     ReadOnly; the mark is in memory
//	RETR                  TRANSACTION     Expect, of an Expecter; Read, and Retrieved when it is sent
//	TOP                   TRANSACTION     Expect, of an Expecter; Top
//	QUIT                  both            in TRANSACTION: Update, and Retains of a Retainer
//
// # Who owns what
//
// One goroutine runs a session and owns its connection, state and maildrop, so
// there is no mutex in a session. An UPDATE that removes messages runs in a second
// goroutine, which the first waits for, as its reply has a time limit. Where the
// lock of a maildrop can be lost, a goroutine watches it from login to UPDATE, and
// ends the session then: its context is cancelled and its connection interrupted.
// The Server knows its sessions in order to wake and to close them.
//
// An Observer is informed by these goroutines, of sessions by the Record that the
// log has of them too.
//
// A reply is collected in a buffer borrowed for it, and written when the client
// has sent nothing more that is complete; so pipelined commands share writes.
// Input is read only when a line is needed. While a reply waits for the client
// to read, further commands stay in a line buffer of 64 KiB at most and in the
// kernel's, so a client may pipeline and memory stays bounded.
//
// # Who gets in
//
// Limits keep connections out, or have the oldest silent ones make room, before
// their session has said a word. Behind a proxy a PROXY protocol header comes
// first; the address in it is the client's from then on, for limits, logs,
// InsecureLoginFrom and the Throttler. The session's goroutine itself waits
// when the Throttler holds a login up.
//
// # Standards
//
// RFC 1939 (POP3), RFC 2449 (CAPA, response codes, pipelining), RFC 2595 (STLS),
// RFC 3206 (SYS and AUTH codes), RFC 5034 (AUTH), RFC 4616 (PLAIN), RFC 7628
// (OAUTHBEARER), RFC 2195 (CRAM-MD5), RFC 5802 and RFC 7677 (SCRAM), RFC 6856
// (UTF8, without LANG) and RFC 8314 (implicit TLS). Where the code departs from
// them:
//
//   - A bare LF ends a command line. RFC 1939 §3 knows CRLF only.
//   - PASS and AUTH lines may have 16384 octets, not 255 (RFC 2449 §4), as
//     tokens are longer than passwords were.
//   - AUTH without argument lists the mechanisms, unless NoAuthList is set, as
//     clients older than RFC 5034 expect.
//   - The lock of the maildrop is freed before QUIT's reply, as in RFC 1725 §6.
//   - LOGIN, which no RFC defines, is offered for clients that know nothing else,
//     and so is XOAUTH2.
//   - OAUTHBEARER needs a name, which RFC 7628 §3.1 leaves to the profile.
package proxy
