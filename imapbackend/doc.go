// Package imapbackend serves mailboxes of an upstream IMAP server as
// maildrops: it implements proxy.Backend.
//
// A session has one upstream connection, replaced when it is lost. Login
// verifies the user, on a connection that may have been prepared, and
// identifies the maildrop; Open selects the mailbox and takes the snapshot:
// the UIDs and sizes of all messages, or of those newer than the remembered
// ones. From then on messages are addressed by UID only. In the table, lines
// without an empty line between them are sent in one flight.
//
//	POP3    upstream
//	USER    the connection, up to its greeting
//	PASS    ID, AUTHENTICATE PLAIN or LOGIN (one flight where the dialect allows it)
//
//	        SELECT, UID SEARCH DELETED, UID FETCH n:* (UID RFC822.SIZE)
//	AUTH    the same, with AUTHENTICATE of the client's mechanism
//	RETR    UID FETCH u (UID BODY.PEEK[]), and the read-ahead
//	TOP     UID FETCH u (UID BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.c>)
//	QUIT    UID STORE set +FLAGS.SILENT (\Deleted)
//
//	        UID EXPUNGE set
//
//	        UID SEARCH UID set, or UID FETCH set (UID)
//
//	        LOGOUT
//
// QUIT is shown for the default policy on an upstream with UIDPLUS; policy.go
// has the others. After QUIT the connection may be kept (Options.KeepOpen):
// UNSELECT replaces LOGOUT, and the next PASS needs the flight of SELECT only.
//
// Bodies stream from the upstream's socket to the client's. The read-ahead
// holds up to Options.ReadAhead octets in memory for a session. CLOSE is never
// sent, and a plain EXPUNGE only by the policy ExpungeIfAlone: no other
// command removes what the session has not marked (RFC 4315 §2.1).
//
// A lost connection is replaced when it is next needed, as long as the mailbox
// is the one of the snapshot. If it cannot be replaced, RETR, TOP and QUIT
// fail with [SYS/TEMP], and UPDATE sends nothing further.
//
// # Files
//
// A Backend and its connections:
//
//	options.go    Options, their defaults and checks, the policies
//	backend.go    Backend and login: who logs in, on which connection
//	predial.go    connections that are made while the client sends its password
//	pool.go       connections that are kept after QUIT for the next login
//	probe.go      what an upstream offers, without a login
//	dialect/      what this upstream is known to take
//	upstream/     one connection: TLS, login, commands, IMAP failures as POP3 response codes
//
// Opening a maildrop:
//
//	opening.go             SELECT, on a new connection or a kept one
//	listing.go             the UIDs and sizes that the upstream lists
//	listing_remembered.go  the listing of the last session, brought up to date
//	snapshot.go            the messages as they were at login
//	sizes.go               the sizes that LIST announces
//
// Unique-ids, of which uniqueid/ has the part that asks no upstream:
//
//	uniqueid_source.go    from EMAILID or X-GM-MSGID
//	uniqueid_memory.go    those that were shown before (the unique-id memory)
//	uniqueid_identity.go  what identifies a message, asked of the upstream
//	uniqueid_hash.go      from the header, where UIDs do not last
//
// A maildrop that is open:
//
//	maildrop.go     maildrop: what its methods have in common, and its end
//	reconnect.go    the use of its connection, keep-alive, the replacement of a lost one
//	fetch.go        one message being read
//	read.go         RETR, also across the loss of a connection
//	readahead.go    the messages that are read ahead of the client
//	top.go          TOP, in pieces
//	topwriter.go    where a top ends
//	utf8.go         headers beyond ASCII, for clients without UTF8 mode
//	placeholder.go  messages that Exchange could not convert
//
// UPDATE:
//
//	update.go  the attempts, and the check of what is still there
//	policy.go  how marked messages are removed, with and without UIDPLUS
//	remove.go  the steps of a removal
//	trash.go   which mailbox is the trash
package imapbackend
