// Package uniqueid makes the unique-ids of messages (RFC 1939 §7): from a
// template of UID and UIDVALIDITY, from an identity of the message that does not
// depend on them, or from what was shown for the message before.
//
//	template.go  unique-ids from UIDVALIDITY and UID, in a configured form
//	source.go    unique-ids from an identity, and how equal ones are made different
//	identity.go  identities of a message: EMAILID, X-GM-MSGID, a hash of its header
//	memory.go    the unique-id memory: which unique-id was shown for which message
//	import.go    the unique-ids of a former POP3 server, from a file
//
// The package neither talks to an upstream nor stores anything: the caller passes
// identities in, and keeps what is to be remembered in a store.Store.
package uniqueid
