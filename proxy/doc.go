// Package proxy is the POP3 side of popgate: listeners, sessions, commands and
// replies. It knows nothing of IMAP: an upstream is a Backend (backend.go),
// which may implement further interfaces, as may its Maildrops.
//
// # States
//
// A session is in one of the states of RFC 1939 §3. AUTHORIZATION begins with
// the greeting; a login leads to TRANSACTION; only QUIT in TRANSACTION leads to
// UPDATE, which removes the marked messages. A session that ends in any other
// way removes nothing.
//
//	command               valid in        calls to the Backend
//	CAPA                  both            Offers, of an Exchanger
//	STLS, UTF8            AUTHORIZATION   nothing
//	USER                  AUTHORIZATION   Prepare, of a Preparer
//	PASS                  AUTHORIZATION   Login, then Open under the lock
//	AUTH                  AUTHORIZATION   Prepare, Offers, Login or Exchange, then as PASS
//	STAT LIST NOOP RSET   TRANSACTION     nothing: the snapshot answers
//	UIDL                  TRANSACTION     UniqueIDs
//	DELE                  TRANSACTION     ReadOnly; the mark is in memory
//	RETR                  TRANSACTION     Expect, of an Expecter; Read; Retrieved once it is sent
//	TOP                   TRANSACTION     Expect, of an Expecter; Top
//	QUIT                  both            in TRANSACTION: Update, and Retains of a Retainer
//
// # Who owns what
//
// One goroutine runs a session and owns its connection, state and maildrop, so
// a session has no mutex. An UPDATE that removes messages runs in a second
// goroutine, which the first waits for, because the reply has a time limit.
// Where the lock of a maildrop can be lost, a goroutine watches it from login to
// UPDATE. On a loss it cancels the session's context and interrupts its
// connection. The Server keeps a list of sessions so that it can wake and close
// them.
//
// These goroutines call the Observer. It receives the same Record of a session
// that is logged.
//
// A reply is collected in a borrowed buffer and written when no complete line of
// the client is left to answer, so pipelined commands share writes. Input is
// read only when a line is needed. While a reply waits for the client to read
// it, further commands stay in a line buffer of about 64 KiB and in the kernel's
// buffer: clients may pipeline, and memory stays bounded.
//
// # Admission
//
// Limits refuse connections, or close the oldest ones that have not logged in,
// before the greeting is sent. Behind a proxy a PROXY protocol header comes
// first. The address in it is then the client's, for limits, logs,
// InsecureLoginFrom and the Throttler. A login that the Throttler delays waits
// in the session's own goroutine, without a connection made by Prepare. It counts
// under the AccountName of a Namer.
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
//   - The lock of the maildrop is released before the reply to QUIT, as in
//     RFC 1725 §6.
//   - LOGIN and XOAUTH2, which no RFC defines, can be offered for clients that
//     support nothing else.
//   - OAUTHBEARER needs a name, which RFC 7628 §3.1 leaves to the profile.
package proxy
