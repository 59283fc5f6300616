// Package reload reads files again when they change (O-TLS-5, P-PASS-5): those
// of certificates, and those with the names of routes.
package reload
