// Package imapmodel is an upstream for tests: an IMAP server with mailboxes in
// memory, which other clients can change while a session runs. The mailboxes at
// the end show what a session has really done.
//
// A script (package imapscript) fixes each octet of a dialogue; the model answers
// any command, within its configured capabilities: a command of an extension that
// it does not announce is BAD. It does the dangerous things that a server does:
// CLOSE and EXPUNGE remove what others have flagged, BODY[] without PEEK sets
// \Seen.
//
// It serves any net.Conn: those of Dial, which are in memory, work in a bubble of
// testing/synctest and can have a round trip in fake time, and TCP with Serve.
package imapmodel
