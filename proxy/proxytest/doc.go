// Package proxytest has the tools with which all packages test POP3: Serve runs
// a gateway, in memory or on loopback; Client and Conversation talk to it; Pipe,
// Log and NewCertificate make what both need. For what is on either side of the
// boundary of package proxy there are an in-memory Backend with fault knobs, a
// transcript runner for the POP3 engine, and TestBackend, the suite that every
// Backend must pass.
package proxytest
