package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"popgate/proxy/proxytest"
)

// Fragments of a file and the one mistake in each. A line "L" is replaced by a
// good listener of four lines, a line "U" by a good upstream of three.
var mistakeTests = []struct{ name, fragment, want string }{
	// Text that is not TOML.
	{"syntax", "[log]\nlevel = \n", `2: log.level: not TOML: expected value but found '\n' instead; see https://toml.io`},
	{"twice", "L\nU\n[log]\nlevel = \"info\"\nlevel = \"info\"", `10: log.level: not TOML: Key 'log.level' has already been defined; see https://toml.io`},

	// Tables.
	{"no listener", "U", `1: listener: missing; add a [[listener]] with its address`},
	{"no upstream", "L", `1: upstream: missing; add a [[upstream]] with its address`},
	{"no listeners", "listener = []\nU", `1: listener: is empty; add a [[listener]] with its address`},
	{"no upstreams", "upstream = []\nL", `1: upstream: is empty; add a [[upstream]] with its address`},
	{"one upstream", "L\n[upstream]\naddress = \":1\"", `5: upstream: is a table; begin it with [[upstream]]`},
	{"one listener", "[listener]\naddress = \":1\"\nU", `1: listener: is a table; begin it with [[listener]]`},
	{"listener as string", "listener = \":110\"\nU", `1: listener: is a string; begin it with [[listener]]`},
	{"listeners as strings", "listener = [\":110\"]\nU", `1: listener: is an array; begin each with [[listener]]`},
	{"several sessions", "L\nU\n[[session]]\n", `8: session: is an array of tables; begin it with [session]`},
	{"log as string", "log = \"info\"\nL\nU", `1: log: is a string; begin it with [log]`},
	{"two upstreams with one name", "L\nU\nU\n[[route]]\nmatch = \"*\"\nupstream = \"127.0.0.1\"", `8: upstream[1].name: "127.0.0.1" is the name of another upstream; give each upstream a name of its own`},
	{"upstream without route", "L\nU\nU\nname = \"b\"\n[[route]]\nmatch = \"*\"\nupstream = \"127.0.0.1\"", `8: upstream[1]: is one of several, and no [[route]] leads to it; add a [[route]] with upstream = "b", or a [[lookup]]`},
	{"empty route", "L\nU\n[[route]]", `8: route[0]: has neither match nor match_file; add match = "*@example.com", or match_file`},
	{"two matches", "L\nU\n[[route]]\nmatch = \"*\"\nmatch_file = \"x\"", `10: route[0].match_file: has match beside it; make two routes of it`},
	{"records and address", "L\nU\nsrv = \"example.com\"", `8: upstream[0].srv: has no effect with address or server_name; write the domain alone, such as srv = "example.com"`},
	{"records and TLS", "L\n[[upstream]]\nsrv = \"example.com\"\ntls = \"starttls\"", `7: upstream[0].tls: has no effect with srv; remove it; the records say which TLS, and there is always one`},
	{"records of a host", "L\n[[upstream]]\nsrv = \"imap.example.com:993\"", `6: upstream[0].srv: "imap.example.com:993" is not a domain; write the domain alone, such as srv = "example.com"`},
	{"no match file", "L\nU\n[[route]]\nmatch_file = \"/nonexistent/x\"", `9: route[0].match_file: cannot be read: open /nonexistent/x: no such file or directory; write one domain or login name on each line`},
	{"route to nowhere", "L\nU\n[[route]]\nmatch = \"*\"\nupstream = \"127.0.0.2\"", `10: route[0].upstream: is the name of no upstream; did you mean "127.0.0.1"?`},
	{"route to one of several", "L\nU\nU\nname = \"b\"\n[[route]]\nmatch = \"*\"", `12: route[0].upstream: missing; name one of the upstreams: "127.0.0.1" or "b"`},
	{"unknown placeholder", "L\nU\n[[route]]\nmatch = \"*\"\nuser = \"{name}\"", `10: route[0].user: "{name}" has "{name}", which is none of {login}, {local}, {domain}; write a login name such as "{local}" or "{local}@example.com"`},
	{"lookup without all", "L\nU\n[[lookup]]", `8: lookup[0].url: missing; write one such as "https://auth.example.com/lookup"` + "\n" +
		`8: lookup[0].upstreams: missing; write those that answers may name, such as ["backend-*.example.net:993", "10.1.0.0/16:143"]`},
	{"lookup elsewhere", "L\nU\n[[lookup]]\nurl = \"ftp://x/\"\nupstreams = [\"a:1\"]", `9: lookup[0].url: "ftp://x/" is no address of a web server; write one such as "https://auth.example.com/lookup"`},
	{"user in lookup", "L\nU\n[[lookup]]\nurl = \"http://a:b@x/\"\nupstreams = [\"a:1\"]", `9: lookup[0].url: has a user name; give the server a secret in header instead`},
	{"passwords in the clear", "L\nU\n[[lookup]]\nurl = \"http://192.0.2.1/\"\nsend_password = true\nupstreams = [\"a:1\"]", `9: lookup[0].url: would send passwords in the clear; use https, or a server on this machine`},
	{"odd address of lookup", "L\nU\n[[lookup]]\nurl = \"http://127.0.0.1/\"\nupstreams = [\"a:1\", \"10.0.0.1/8:143\"]", `10: lookup[0].upstreams[1]: "10.0.0.1/8:143" is not a network and a port, such as 10.1.0.0/16:143; write those that answers may name, such as ["backend-*.example.net:993", "10.1.0.0/16:143"]`},
	{"own header", "L\nU\n[[lookup]]\nurl = \"http://127.0.0.1/\"\nupstreams = [\"a:1\"]\nheader = { auth-user = \"x\" }", `11: lookup[0].header.auth-user: is what popgate itself sends; choose another name`},
	{"no header", "L\nU\n[[lookup]]\nurl = \"http://127.0.0.1/\"\nupstreams = [\"a:1\"]\nheader = { \"a b\" = \"x\" }", `11: lookup[0].header."a b": is no name of an HTTP header field; write one such as "X-Auth-Key"`},
	{"header of two lines", "L\nU\n[[lookup]]\nurl = \"http://127.0.0.1/\"\nupstreams = [\"a:1\"]\nheader = { A = \"x\\ny\" }", `11: lookup[0].header.A: has characters that HTTP cannot carry; write one line of printable characters`},
	{"number in header", "L\nU\n[[lookup]]\nurl = \"http://127.0.0.1/\"\nupstreams = [\"a:1\"]\nheader = { A = 1 }", `11: lookup[0].header.A: is an integer; write a string`},
	{"string for header", "L\nU\n[[lookup]]\nurl = \"http://127.0.0.1/\"\nupstreams = [\"a:1\"]\nheader = \"A: b\"", `11: lookup[0].header: is a string; write a table such as { X-Auth-Key = "file:/etc/popgate/lookup.key" }`},
	{"relayed with routes", "L\nU\nauth = [\"plain\", \"cram-md5\"]\n[[route]]\nmatch = \"*\"", `8: upstream[0].auth: "CRAM-MD5" cannot be relayed where the login name decides on the upstream; remove it, or all routes, lookups and other upstreams`},
	{"later table", "L\nU\n[cluster]\nredis = \"\"", `8: cluster: not supported in this version; remove it`},
	{"store too small", "L\nU\n[store]\npath = \"x\"\nmax_size = \"1KiB\"", `10: store.max_size: "1KiB" is too small; write "1MiB" or more`},
	{"store without path", "L\nU\n[store]\nmax_size = \"1GiB\"", `9: store.max_size: has no effect without path; set path too, or remove it`},
	{"unknown policy for sizes", "L\nU\nsizes = \"exakt\"", `8: upstream[0].sizes: unknown value "exakt"; did you mean "exact"?`},
	{"table by its whole name", "L\nU\n[\"listener.certificate\"]", `8: "listener.certificate": unknown table; remove it; config.toml.example shows all keys`},
	{"unknown table", "L\nU\n[sesion]\nautologout = \"10m\"", `8: sesion: unknown table; did you mean "session"?`},
	{"key at the top", "autologout = \"10m\"\nL\nU", `1: autologout: unknown key; it belongs in [session]`},
	{"odd key", "\"a b\\n\" = 1\nL\nU", `1: "a b\n": unknown key; remove it; config.toml.example shows all keys`},

	// Keys.
	{"misspelt key", "L\nU\nmailbx = \"INBOX\"", `8: upstream[0].mailbx: unknown key; did you mean "mailbox"?`},
	{"misspelt key that is required", "L\n[[upstream]]\nadress = \"a:993\"", `6: upstream[0].adress: unknown key; did you mean "address"?`},
	{"misspelt key of a pair", "[[listener]]\naddress = \":995\"\ncert_file = \"cert.pem\"\nkeyfile = \"key.pem\"\nU", `4: listener[0].keyfile: unknown key; did you mean "key_file"?`},
	{"misspelt table that is required", "L\n[[upsteam]]\naddress = \"a:993\"", `5: upsteam: unknown table; did you mean "upstream"?`},
	{"hyphen", "L\nU\nserver-name = \"a\"", `8: upstream[0].server-name: unknown key; did you mean "server_name"?`},
	{"misplaced key", "L\nmailbox = \"INBOX\"\nU", `5: listener[0].mailbox: unknown key; it belongs in [[upstream]]`},
	{"foreign key", "L\nU\n[log]\nfile = \"x\"", `9: log.file: unknown key; remove it; config.toml.example shows all keys`},
	{"later key", "L\nU\nmax_connections = 8", `8: upstream[0].max_connections: not supported in this version; remove it`},
	{"unknown profile", "L\nU\nprofile = \"domino\"", `8: upstream[0].profile: unknown value "domino"; write "auto", "careful", "gmail", "outlook.com", "microsoft-365", "icloud", "yahoo", "coremail", "qq", "zimbra", "cyrus", "courier", "dovecot", "stalwart" or "proton-bridge"`},
	{"unknown pipelining", "L\nU\npipelining = \"always\"", `8: upstream[0].pipelining: unknown value "always"; write "auto", "on" or "off"`},
	{"unknown retention", "L\nU\n[session]\nexpire = \"soon\"", `9: session.expire: "soon" is no time that messages are kept; write "never" or a number of days such as "30"`},
	{"parts of seconds", "L\nU\n[session]\nlogin_delay = \"1500ms\"", `9: session.login_delay: 1.5s is no whole number of seconds; write a string such as "5m"`},
	{"implementation of words", "L\nU\n[session]\nimplementation = \"a b\"", `9: session.implementation: "a b" is more than a word of ASCII; write one such as "popgate"`},
	{"dotted key", "session.hostname = \"x\"\nL\nU", `1: session.hostname: not supported in this version; remove it`},

	// Words without quotes.
	{"word", "L\nU\nmailbox = INBOX", `8: mailbox: INBOX is not in quotes; put it in quotes: "INBOX"`},
	{"address", "L\n[[upstream]]\naddress = 127.0.0.1:143 # local", `6: address: 127.0.0.1:143 is not in quotes; put it in quotes: "127.0.0.1:143"`},
	{"port alone", "L\n[[upstream]]\naddress = :143", `6: address: :143 is not in quotes; put it in quotes: ":143"`},
	{"duration", "[session]\nautologout = 10m\nL\nU", `2: autologout: 10m is not in quotes; put it in quotes: "10m"`},
	{"file", "[store]\npath = /var/lib/popgate/store.db\nL\nU", `2: path: /var/lib/popgate/store.db is not in quotes; put it in quotes: "/var/lib/popgate/store.db"`},
	{"in an array", "L\nU\nauth = [\"plain\", login]", `8: auth: login is not in quotes; put it in quotes: "login"`},
	{"in an array of lines", "L\nU\nauth = [\n\"plain\",\nlogin,\n]", `10: upstream.auth: login is not in quotes; put it in quotes: "login"`},
	{"quotes of a word processor", "L\nU\nmailbox = \u201cINBOX\u201d", `8: mailbox: INBOX is not in quotes; put it in quotes: "INBOX"`},
	{"no end of quotes", "L\nU\nmailbox = \"INBOX", `8: upstream.mailbox: not TOML: strings cannot contain newlines; see https://toml.io`},
	{"word with half a quote", "L\nU\nmailbox = INBOX\"", `8: upstream.mailbox: not TOML: expected value but found "INBOX" instead; see https://toml.io`},
	{"no value", "L\nU\nmailbox =", `8: upstream.mailbox: not TOML: expected value but found '\n' instead; see https://toml.io`},

	// Types.
	{"number for string", "[[listener]]\naddress = 110\ntls = \"none\"\ninsecure_login_from = [\"::/0\"]\nU", `2: listener[0].address: is an integer; write a string such as "127.0.0.1:110"`},
	{"float for version", "L\nmin_tls = 1.2\nU", `5: listener[0].min_tls: is a floating-point number; write "1.0", "1.1", "1.2" or "1.3"`},
	{"string for boolean", "L\nU\ninsecure = \"yes\"", `8: upstream[0].insecure: is a string; write true or false`},
	{"string for number", "L\nU\n[session]\nlogin_attempts = \"3\"", `9: session.login_attempts: is a string; write a number from 1 to 100`},
	{"number for duration", "L\nU\n[session]\nautologout = 600", `9: session.autologout: is an integer; write a string such as "10m"`},
	{"string for array", "L\nU\nauth = \"plain\"", `8: upstream[0].auth: is a string; write an array of strings such as ["plain"]`},
	{"number in array", "L\nU\nauth = [\n\"plain\",\n1,\n]", `10: upstream[0].auth[1]: is an integer; write a string such as "plain"`},
	{"table for string", "L\nU\nname = { a = 1 }", `8: upstream[0].name: is a table; write a string such as "mail"`},
	{"date for string", "L\nU\nname = 1979-05-27", `8: upstream[0].name: is a date; write a string such as "mail"`},
	{"boolean for string", "L\nU\nname = true", `8: upstream[0].name: is a boolean; write a string such as "mail"`},

	// Values.
	{"empty", "L\nU\nmailbox = \"\"", `8: upstream[0].mailbox: is empty; write a string such as "INBOX", or remove the key`},
	{"control character", "L\nU\nmailbox = \"a\\nb\"", `8: upstream[0].mailbox: has control characters; remove them`},
	{"no duration", "L\nU\n[session]\nautologout = \"10 minutes\"", `9: session.autologout: "10 minutes" is not a duration; write a string such as "10m"`},
	{"P-SESS-7 autologout", "L\nU\n[session]\nautologout = \"9m59s\"", `9: session.autologout: "9m59s" is too short; write "10m" or more`},
	{"long autologout", "L\nU\n[session]\nautologout = \"25h\"", `9: session.autologout: "25h" is too long; write "24h" or less`},
	{"negative grace", "L\nU\n[session]\nshutdown_grace = \"-1s\"", `9: session.shutdown_grace: "-1s" is too short; write "0s" or more`},
	{"no attempts", "L\nU\n[session]\nlogin_attempts = 0", `9: session.login_attempts: 0 is out of range; write a number from 1 to 100`},
	{"long keep_open", "L\nU\nkeep_open = \"11m\"", `8: upstream[0].keep_open: "11m" is too long; write "10m" or less`},
	{"negative keep_open", "L\nU\nkeep_open = \"-1s\"", `8: upstream[0].keep_open: "-1s" is too short; write "0s" or more`},
	{"number for keep_open", "L\nU\nkeep_open = 60", `8: upstream[0].keep_open: is an integer; write a string such as "60s"`},
	{"string for compress", "L\nU\ncompress = \"yes\"", `8: upstream[0].compress: is a string; write true or false`},
	{"unknown capability", "L\nU\n[session]\ncapabilities_hidden = [\"TOP\", \"UILD\"]", `9: session.capabilities_hidden[1]: unknown value "UILD"; did you mean "UIDL"?`},
	{"capability twice", "L\nU\n[session]\ncapabilities_hidden = [\"TOP\", \"top\"]", `9: session.capabilities_hidden[1]: "top" is listed twice; remove one`},
	{"unknown mechanism", "L\nU\nauth = [\"plain\", \"gssapi\"]", `8: upstream[0].auth[1]: unknown value "gssapi"; write "plain", "login", "xoauth2", "oauthbearer", "cram-md5", "scram-sha-1" or "scram-sha-256"`},
	{"P-SASL-5 mechanism that is not relayed", "L\nU\nauth = [\"scram-sha-256-plus\"]", `8: upstream[0].auth[0]: unknown value "scram-sha-256-plus"; write "plain", "login", "xoauth2", "oauthbearer", "cram-md5", "scram-sha-1" or "scram-sha-256"`},
	{"mechanism misspelt", "L\nU\nauth = [\"xoauth\"]", `8: upstream[0].auth[0]: unknown value "xoauth"; did you mean "xoauth2"?`},
	{"no boolean for utf8", "L\nU\n[session]\nutf8 = \"user\"", `9: session.utf8: is a string; write true or false`},
	{"I-DEL-7 unknown policy", "L\nU\nwithout_uidplus = \"erase\"", `8: upstream[0].without_uidplus: unknown value "erase"; write "flag", "move", "expunge-if-alone" or "refuse"`},
	{"I-DEL-13 unknown policy", "L\nU\ndelete = \"remove\"", `8: upstream[0].delete: unknown value "remove"; write "expunge", "trash", "flag" or "keep"`},
	{"I-DEL-8 trash is served", "L\nU\ndelete = \"trash\"\ntrash = \"Inbox\"", `9: upstream[0].trash: "Inbox" is the mailbox that is served; name another mailbox, or remove the key to use the one marked \Trash`},
	{"I-DEL-8 trash is served by name", "L\nU\ndelete = \"trash\"\ntrash = \"Bin\"\nmailbox = \"Bin\"", `9: upstream[0].trash: "Bin" is the mailbox that is served; name another mailbox, or remove the key to use the one marked \Trash`},
	{"I-DEL-8 trash for nothing", "L\nU\ntrash = \"Bin\"", `8: upstream[0].trash: has no effect with delete = "expunge"; set delete = "trash", or without_uidplus = "move", or remove it`},
	{"I-SNAP-3 show with delete = flag", "L\nU\ndelete = \"flag\"\nwithout_uidplus = \"refuse\"\ndeleted_messages = \"show\"", `10: upstream[0].deleted_messages: "show" would bring back what delete = "flag" has removed; set deleted_messages = "hide", or another delete`},
	{"I-SNAP-3 show with expunge-if-alone", "L\nU\nwithout_uidplus = \"expunge-if-alone\"\ndeleted_messages = \"show\"", `9: upstream[0].deleted_messages: "show" would bring back what without_uidplus = "expunge-if-alone" has removed; set without_uidplus = "refuse", or deleted_messages = "hide"`},
	{"I-SNAP-3 show with keep", "L\nU\ndelete = \"keep\"\ndeleted_messages = \"show\"", ""},
	{"TLS version", "L\nmin_tls = \"1.4\"\nU", `5: listener[0].min_tls: unknown value "1.4"; did you mean "1.0"?`},
	{"negative limit", "L\nU\n[limits]\nconnections = -1", `9: limits.connections: -1 is out of range; write a number from 0 to 1000000`},
	{"throttle upside down", "L\nU\n[throttle]\ndelay = \"20s\"", `8: throttle.max_delay: "15s" is below delay; write "20s" or more`},
	{"throttle as number", "L\nU\n[throttle]\ndelay = 2", `9: throttle.delay: is an integer; write a string such as "2s"`},
	{"policy", "L\nU\nseen = \"always\"", `8: upstream[0].seen: unknown value "always"; write "never", "on-retr" or "on-quit"`},

	// I-UIDL-2: unique-ids.
	{"template without UID", "L\nU\nuidl = \"{uidvalidity}\"", `8: upstream[0].uidl: "{uidvalidity}" has no {uid}: all messages would have the same unique-id; write a template such as "{uidvalidity}.{uid}", or "emailid" or "gmail"`},
	{"template with a field of another server", "L\nU\nuidl = \"{uid:08x}{guid}\"", `8: upstream[0].uidl: "{uid:08x}{guid}" contains {guid}: the fields are {uid} and {uidvalidity}; write a template such as "{uidvalidity}.{uid}", or "emailid" or "gmail"`},
	{"template with a format of no kind", "L\nU\nuidl = \"{uid:8x}\"", `8: upstream[0].uidl: "{uid:8x}" contains {uid:8x}: a colon is followed by 0 and a width, then x or X, as in {uid:08x}; write a template such as "{uidvalidity}.{uid}", or "emailid" or "gmail"`},
	{"template too long", "L\nU\nuidl = \"{uid:066}.....\"", `8: upstream[0].uidl: "{uid:066}....." can become 71 characters long, but a unique-id has at most 70; write a template such as "{uidvalidity}.{uid}", or "emailid" or "gmail"`},
	{"template with a space", "L\nU\nuidl = \"{uid} x\"", `8: upstream[0].uidl: "{uid} x" contains ' ', which is not allowed in a unique-id; write a template such as "{uidvalidity}.{uid}", or "emailid" or "gmail"`},
	{"import without memory", "L\nU\nuidl_import = \"junk.pem\"", `8: upstream[0].uidl_import: has no effect without uidl_memory; set uidl_memory = true`},
	{"I-UIDL-5 memory without a store", "L\nU\nuidl_memory = true", `8: upstream[0].uidl_memory: needs a store on disk; set path in [store], or remove it`},
	{"import of junk", "L\nU\nuidl_memory = true\nuidl_import = \"junk.pem\"\n[store]\npath = \"s\"", `9: upstream[0].uidl_import: junk.pem:1: want IDENTITY<tab>UNIQUE-ID[<tab>USER]; fix that line, or write the file with popgate uidl`},
	{"import of nothing", "L\nU\nuidl_memory = true\nuidl_import = \"none\"\n[store]\npath = \"s\"", `9: upstream[0].uidl_import: cannot be read: open none: no such file or directory; name a file that popgate can read; relative names start at the directory of this file`},
	{"number for uidl", "L\nU\nuidl = 1", `8: upstream[0].uidl: is an integer; write a template such as "{uidvalidity}.{uid}", or "emailid" or "gmail"`},

	// Networks.
	{"no network", lax("office"), `4: listener[0].insecure_login_from[0]: "office" is not a network; write one such as "10.0.0.0/8" or "2001:db8::/32"`},
	{"mask", lax("10.0.0.1/8"), `4: listener[0].insecure_login_from[0]: "10.0.0.1/8" has bits outside its mask; write "10.0.0.0/8"`},
	{"mapped", lax("::ffff:10.0.0.0/104"), `4: listener[0].insecure_login_from[0]: "::ffff:10.0.0.0/104" is an IPv4 network written as IPv6; write it as IPv4, such as "10.0.0.0/8"`},
	{"zone", lax("fe80::1%eth0"), `4: listener[0].insecure_login_from[0]: "fe80::1%eth0" has a zone; write the address without it`},

	// Addresses.
	{"no port", "[[listener]]\naddress = \"127.0.0.1\"\ntls = \"none\"\ninsecure_login_from = [\"::/0\"]\nU", `2: listener[0].address: "127.0.0.1" has no port; write host:port such as "127.0.0.1:110"`},
	{"IPv6 without brackets", "[[listener]]\naddress = \"::1:110\"\ntls = \"none\"\ninsecure_login_from = [\"::/0\"]\nU", `2: listener[0].address: "::1:110" is not host:port; write host:port such as "127.0.0.1:110"`},
	{"port by name", "[[listener]]\naddress = \":pop3\"\ntls = \"none\"\ninsecure_login_from = [\"::/0\"]\nU", `2: listener[0].address: "pop3" is not a port; write a number from 0 to 65535`},
	{"large port", "L\n[[upstream]]\naddress = \"a:65536\"", `6: upstream[0].address: "65536" is not a port; write a number from 1 to 65535`},
	{"upstream port 0", "L\n[[upstream]]\naddress = \"a:0\"", `6: upstream[0].address: "0" is not a port; write a number from 1 to 65535`},
	{"upstream without port", "L\n[[upstream]]\naddress = \"imap.example.com\"", `6: upstream[0].address: "imap.example.com" has no port; write host:port such as "imap.example.com:993"`},
	{"upstream without host", "L\n[[upstream]]\naddress = \":993\"", `6: upstream[0].address: ":993" has no host; write the IMAP server's name before the colon`},
	{"same address", "L\nL\nU", `6: listener[1].address: "127.0.0.1:110" is also the address of listener[0]; write another address or port`},
	{"no listener address", "[[listener]]\ntls = \"none\"\ninsecure_login_from = [\"::/0\"]\nU", `1: listener[0].address: missing; write host:port such as "127.0.0.1:110"`},
	{"no upstream address", "L\n[[upstream]]\nname = \"x\"", `5: upstream[0].address: missing; write host:port such as "imap.example.com:993"`},

	// TLS of a listener.
	{"P-USER-3 nobody may log in", "[[listener]]\naddress = \":110\"\ntls = \"none\"\nU", `3: listener[0].tls: "none" without insecure_login_from lets nobody log in; list the networks that may, such as insecure_login_from = ["127.0.0.0/8"], or use TLS`},
	{"default needs certificate", "[[listener]]\naddress = \":110\"\nU", `1: listener[0].tls: "starttls" needs a certificate; set cert_file and key_file, or tls = "none" with insecure_login_from`},
	{"implicit needs certificate", "[[listener]]\naddress = \":995\"\ntls = \"implicit\"\nU", `3: listener[0].tls: "implicit" needs a certificate; set cert_file and key_file, or tls = "none" with insecure_login_from`},
	{"no key", "[[listener]]\naddress = \":995\"\ncert_file = \"cert.pem\"\nU", `3: listener[0].cert_file: has no key; set key_file too`},
	{"no certificate", "[[listener]]\naddress = \":995\"\nkey_file = \"key.pem\"\nU", `3: listener[0].key_file: has no certificate; set cert_file too`},
	{"pointless certificate", "L\ncert_file = \"cert.pem\"\nU", `5: listener[0].cert_file: has no effect with tls = "none"; remove it or change tls`},
	{"certificate missing", "[[listener]]\naddress = \":995\"\ncert_file = \"none.pem\"\nkey_file = \"key.pem\"\nU", `3: listener[0].cert_file: cannot be read: open none.pem: no such file or directory; name a file that popgate can read; relative names start at the directory of this file`},
	{"no PEM", "[[listener]]\naddress = \":995\"\ncert_file = \"junk.pem\"\nkey_file = \"key.pem\"\nU", `3: listener[0].cert_file: does not form a usable pair with key_file: failed to find any PEM data in certificate input; name PEM files: the certificate first, then its intermediates; the key alone, not encrypted`},
	{"one certificate", "[[listener]]\naddress = \":995\"\ncertificate = \"cert.pem\"\nU", `3: listener[0].certificate: is a string; begin each with [[listener.certificate]]`},
	{"certificate key", "[[listener]]\naddress = \":995\"\n[[listener.certificate]]\ncert = \"cert.pem\"\nU", `4: listener[0].certificate[0].cert: unknown key; remove it; config.toml.example shows all keys`},
	{"certificate type", "[[listener]]\naddress = \":995\"\n[[listener.certificate]]\ncert_file = 1\nU", `4: listener[0].certificate[0].cert_file: is an integer; write a string such as "fullchain.pem"`},
	{"second certificate", "[[listener]]\naddress = \":995\"\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n[[listener.certificate]]\ncert_file = \"cert.pem\"\nU", `6: listener[0].certificate[0].cert_file: has no key; set key_file too`},
	{"empty certificate", "[[listener]]\naddress = \":995\"\n[[listener.certificate]]\nU", `3: listener[0].certificate[0]: has no certificate; set cert_file and key_file`},
	{"certificate junk", "[[listener]]\naddress = \":995\"\n[[listener.certificate]]\ncert_file = \"junk.pem\"\nkey_file = \"key.pem\"\nU", `4: listener[0].certificate[0].cert_file: does not form a usable pair with key_file: failed to find any PEM data in certificate input; name PEM files: the certificate first, then its intermediates; the key alone, not encrypted`},
	{"pointless ciphers", "L\nlegacy_ciphers = true\nU", `5: listener[0].legacy_ciphers: has no effect with tls = "none"; remove it or change tls`},
	{"pointless network", "[[listener]]\naddress = \":995\"\ntls = \"implicit\"\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\ninsecure_login_from = [\"10.0.0.0/8\"]\nU", `6: listener[0].insecure_login_from: has no effect with tls = "implicit"; remove it: every login uses TLS there`},

	// TLS of the upstream.
	{"O-TLS-8 plain upstream", "L\n[[upstream]]\naddress = \"imap.example.com:143\"\ntls = \"none\"", `7: upstream[0].tls: "none" would send passwords to imap.example.com in the clear; set tls = "implicit" or "starttls", or insecure = true if you trust the network in between`},
	{"pointless insecure", "L\n[[upstream]]\naddress = \"imap.example.com:993\"\ninsecure = true", `7: upstream[0].insecure: has no effect with tls = "implicit"; remove it; certificates are always verified, ca_file names a private CA`},
	{"pointless CA", "L\nU\nca_file = \"cert.pem\"", `8: upstream[0].ca_file: has no effect with tls = "none"; remove it or change tls`},
	{"server name with port", "L\n[[upstream]]\naddress = \"a:993\"\nserver_name = \"a:993\"", `7: upstream[0].server_name: "a:993" is not a host name; write the name in the certificate, such as "imap.example.com"`},
	{"CA missing", "L\n[[upstream]]\naddress = \"a:993\"\nca_file = \"none.pem\"", `7: upstream[0].ca_file: cannot be read: open none.pem: no such file or directory; name a file that popgate can read; relative names start at the directory of this file`},
	{"CA without certificate", "L\n[[upstream]]\naddress = \"a:993\"\nca_file = \"junk.pem\"", `7: upstream[0].ca_file: contains no certificate; name a PEM file with the CA's certificate`},
	{"size without unit", "L\nU\nread_ahead = 5", `8: upstream[0].read_ahead: is an integer; write a string such as "1MiB"`},
	{"size of no kind", "L\nU\nread_ahead = \"1MB\"", `8: upstream[0].read_ahead: "1MB" is not a size; write a string such as "1MiB"`},
	{"size too large", "L\nU\nread_ahead = \"2GiB\"", `8: upstream[0].read_ahead: "2GiB" is too large; write "1GiB" or less`},
	{"O-ID-2 kept for another client", "L\nU\nsend_client_id = true\nkeep_open = \"60s\"", `9: upstream[0].keep_open: keeps connections on which another client was reported to the upstream; set keep_open = "0s" or send_client_id = false`},
	{"I-SNAP-3 show with flag", "L\nU\ndeleted_messages = \"show\"", `8: upstream[0].deleted_messages: "show" would bring back what without_uidplus = "flag" has removed; set without_uidplus = "refuse", or deleted_messages = "hide"`},
}

// lax returns a file whose only listener has network in insecure_login_from.
func lax(network string) string {
	return "[[listener]]\naddress = \":110\"\ntls = \"none\"\ninsecure_login_from = [\"" + network + "\"]\nU"
}

// expand returns the text of a fragment.
func expand(fragment string) string {
	const (
		goodListener = "[[listener]]\naddress = \"127.0.0.1:110\"\ntls = \"none\"\ninsecure_login_from = [\"127.0.0.0/8\"]\n"
		goodUpstream = "[[upstream]]\naddress = \"127.0.0.1:1\"\ntls = \"none\"\n"
	)
	return strings.NewReplacer("L\n", goodListener, "U\n", goodUpstream).Replace(fragment + "\n")
}

func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	proxytest.NewCertificate(t, proxytest.CertificateOptions{}).WriteFiles(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "junk.pem"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.toml")
	for _, test := range mistakeTests {
		t.Run(test.name, func(t *testing.T) {
			text := expand(test.fragment)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			got := ""
			if _, err := Load(file); err != nil {
				got = strings.NewReplacer(file+":", "", dir+string(filepath.Separator), "").Replace(err.Error())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("of\n%s\n(-want +got):\n%s", text, diff)
			}
		})
	}
}
