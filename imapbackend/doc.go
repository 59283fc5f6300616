// Package imapbackend serves mailboxes of an upstream IMAP server as
// maildrops: it implements proxy.Backend.
//
// A session is one upstream connection. Login verifies TLS and the user, on a
// connection that may have been prepared, and names the maildrop; Open selects
// the mailbox and takes the snapshot: the UIDs and sizes of all messages, or of
// those that are newer than what is remembered. From then on messages are known
// by UID only. Lines that stand together are one flight.
//
//	POP3    upstream
//	USER    the connection, up to its greeting
//	PASS    ID, AUTHENTICATE PLAIN or LOGIN
//
//	        SELECT, UID SEARCH DELETED, UID FETCH n:* (UID RFC822.SIZE)
//	AUTH    the same, with AUTHENTICATE of the client's mechanism
//	RETR    UID FETCH u (UID BODY.PEEK[]), and what the client will want next
//	TOP     UID FETCH u (UID BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.c>)
//	QUIT    UID STORE set +FLAGS.SILENT (\Deleted)
//
//	        UID EXPUNGE set
//
//	        UID SEARCH UID set
//
//	        LOGOUT
//
// After QUIT the connection may be kept (Options.KeepOpen): UNSELECT takes the
// place of LOGOUT, and NOOP and SELECT that of all that PASS asks for.
//
// Bodies stream from the upstream's socket to the client's: nothing here holds
// a message (package wire). No command expunges what the session has not
// marked: CLOSE is never sent, and EXPUNGE only in its UID form (RFC 4315
// §2.1).
//
// Until a lost connection can be replaced it stays lost: reading answers
// [SYS/TEMP], and so does UPDATE, which then sends nothing further.
package imapbackend
