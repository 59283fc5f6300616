// Package certificates holds the certificates of the listeners: it reads pairs
// of files, chooses one for each client (O-TLS-4), and reads the files again
// when they change (O-TLS-5).
package certificates
