// Package imapbackend serves mailboxes of an upstream IMAP server as
// maildrops: it implements proxy.Backend.
//
// A session is one upstream connection. Login dials, verifies TLS and the
// user, and names the maildrop; Open selects the mailbox and takes the
// snapshot: the UIDs and sizes of all messages, in two commands of one flight.
// From then on messages are known by UID only.
//
//	POP3    upstream
//	PASS    ID, AUTHENTICATE PLAIN or LOGIN, ENABLE UTF8=ACCEPT,
//	        STATUS (MAILBOXID), SELECT, UID SEARCH DELETED,
//	        UID FETCH 1:* (UID RFC822.SIZE)
//	AUTH    the same, with AUTHENTICATE of the client's mechanism
//	RETR    UID FETCH u (UID BODY.PEEK[])
//	TOP     UID FETCH u (UID BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.c>)
//	QUIT    UID STORE set +FLAGS.SILENT (\Deleted), UID EXPUNGE set,
//	        UID SEARCH UID set, LOGOUT
//
// Bodies stream from the upstream's socket to the client's: nothing here holds
// a message (package wire). No command expunges what the session has not
// marked: CLOSE is never sent, and EXPUNGE only in its UID form (RFC 4315
// §2.1).
//
// Until a lost connection can be replaced it stays lost: reading answers
// [SYS/TEMP], and so does UPDATE, which then sends nothing further.
package imapbackend
