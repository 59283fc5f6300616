// Package directory decides which upstream a login goes to, and under which name.
// A Directory is a proxy.Backend over several upstreams. It asks its Resolvers, in
// their order, until one knows the login name (requirement P-PASS-5). What a client
// sends only selects among configured upstreams; it never becomes a host name
// (requirement O-DISC-1).
package directory
