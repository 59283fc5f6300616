// Package certificates holds the certificates of the listeners: pairs of files
// that may be replaced while they are in use, the choice of one for a client,
// and the reload when the files change (O-TLS-4, O-TLS-5).
package certificates
