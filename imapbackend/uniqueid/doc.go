// Package uniqueid makes the unique-ids of messages (RFC 1939 §7): from a
// template of UID and UIDVALIDITY, from an identity of the message that outlives
// both, or from what was shown for the message before.
//
//	template.go  unique-ids of UIDVALIDITY and UID, in a configured form
//	source.go    unique-ids of an identity, and how equal ones are told apart
//	identity.go  what identifies a message: EMAILID, X-GM-MSGID, a hash of its header
//	memory.go    the unique-id memory: which of those shown before belong to which message
//	import.go    the unique-ids of a former POP3 server, from a file
//
// The package asks no upstream anything and keeps nothing itself: identities
// come from the caller, and what is remembered is in a store.Store.
package uniqueid
