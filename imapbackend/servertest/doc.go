// Package servertest runs IMAP servers of other makers, and proxies in front of
// Dovecot, as the upstreams of a test. Package dovecottest does the same for
// Dovecot alone, with many more settings.
//
// Start runs one server until the end of its test, on free ports of 127.0.0.1
// and with a directory of its own. All its processes share a PID namespace,
// which ends with the first of them; nothing of the system's services is used.
// Programs of Debian packages run in a root directory into which the packages
// have been unpacked, since several of them exclude each other.
//
// How a server is set up is in the directory of its name below servers: run.sh,
// which sh runs with -e in the instance's directory and which ends in the
// foreground with the server itself, and files that are copied there. Words
// such as @PORT@ are replaced in all of them; see words.
//
// What is slow to get is prepared once by prepare.sh, which "make servers" runs.
// Command serve runs a server for a developer.
// The tests need root and Debian 12.
//
// The package is built under the tag "integration" only.
package servertest
