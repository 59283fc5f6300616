// Package certificates holds the certificates of the listeners: it reads pairs
// of files, chooses one for each client (O-TLS-4), and reads them again when
// package reload says so (O-TLS-5).
package certificates
