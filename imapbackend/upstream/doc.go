// Package upstream is the connection to one IMAP server: from dialling, TLS
// and login to the single command, and what failures mean to a POP3 client. It
// knows neither maildrops nor what is remembered of them.
//
//	server.go        Server: how a server is reached, and what it announces
//	users.go         how many connections a user has
//	dial.go          Connect: TLS, greeting, STARTTLS, capabilities
//	attempt.go       Attempt: the time and the connections of one login
//	forms.go         which forms of commands are used, and what is learned
//	login.go         Login by a credential, and what follows every login:
//	                 ENABLE, the mailbox-id, COMPRESS
//	exchange.go      Exchange: SASL between client and server, OAuth2 tokens
//	id.go            what ID reports
//	select.go        SELECT, and mailbox names as they go into commands
//	command.go       commands with one answer, searches
//	conn.go          Conn: go-imap's client on a wire.Conn, the log, closing
//	responsecode.go  IMAP failures as POP3 response codes (requirement M-1)
//	secrets.go       what is never logged
//
// A Conn is used by one goroutine at a time, and ends with the context given to
// Watch. It never sends CLOSE, which would expunge.
package upstream
