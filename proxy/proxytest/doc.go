// Package proxytest tests what stands on either side of package proxy's
// boundary: an in-memory Backend with fault knobs and a transcript runner for
// the POP3 engine, and the conformance suite that every Backend must pass.
package proxytest
