// Package imapmodel is an upstream for tests that knows what is right: an IMAP
// server with mailboxes in memory, on which other clients act while a session
// runs. What is in the mailboxes at the end says what a session has really done.
//
// Where a script (package imapscript) fixes each octet of a dialogue, the model
// answers whatever it is asked, within the capabilities it is told to have: a
// command of an extension that it does not announce is BAD. It does what is
// dangerous as a server would: CLOSE and EXPUNGE remove what others have
// flagged, BODY[] without PEEK sets \Seen.
//
// It speaks on any net.Conn: on those of Dial, which are in memory and work in
// a bubble of testing/synctest, behind a network with a round trip in fake time
// if wanted, and on TCP by Serve.
package imapmodel
