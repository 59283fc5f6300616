package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

// v2 returns a header of version 2 with the octets that differ.
func v2(command, family byte, payload ...byte) string {
	h := append([]byte{}, proxyproto.SIGV2...)
	h = append(h, command, family)
	h = binary.BigEndian.AppendUint16(h, uint16(len(payload)))
	return string(append(h, payload...))
}

func tlv(kind byte, value string) []byte {
	return append([]byte{kind, byte(len(value) >> 8), byte(len(value))}, value...)
}

var (
	ipv4Pair = []byte{203, 0, 113, 9, 192, 0, 2, 1, 0x9c, 0x40, 0, 110}
	ipv6Pair = append(append(append([]byte{}, netip.MustParseAddr("2001:db8::9").AsSlice()...),
		netip.MustParseAddr("2001:db8::1").AsSlice()...), 0x9c, 0x40, 0, 110)
	mappedPair = append(append(append([]byte{}, netip.MustParseAddr("::ffff:203.0.113.9").AsSlice()...),
		netip.MustParseAddr("::ffff:192.0.2.1").AsSlice()...), 0x9c, 0x40, 0, 110)
)

const socket, bad = "socket", "bad"

var proxyHeaders = []struct{ header, want string }{
	// O-PP-3.
	{"PROXY TCP4 203.0.113.9 192.0.2.1 40000 110\r\n", "203.0.113.9:40000"},
	{"PROXY TCP6 2001:db8::9 2001:db8::1 40000 110\r\n", "[2001:db8::9]:40000"},
	{"PROXY TCP6 2001:DB8:0:0:0:0:0:9 2001:db8::1 40000 110\r\n", "[2001:db8::9]:40000"},
	{"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:192.0.2.1 0 65535\r\n", "203.0.113.9:0"},
	{"PROXY UNKNOWN\r\n", socket},
	{"PROXY UNKNOWN " + strings.Repeat("f", 91) + "\r\n", socket}, // 107 octets
	{"PROXY UNKNOWN " + strings.Repeat("f", 92) + "\r\n", bad},
	{"PROXY UNKNOWNS\r\n", bad},
	{"PROXY\r\n", bad},
	{"PROXY \r\n", bad},
	{"PROXYX TCP4 203.0.113.9 192.0.2.1 40000 110\r\n", bad},
	{"proxy TCP4 203.0.113.9 192.0.2.1 40000 110\r\n", bad},
	{"PROXY UDP4 203.0.113.9 192.0.2.1 40000 110\r\n", bad},
	{"PROXY TCP4 203.0.113.9 192.0.2.1 40000 110\n", bad},
	{"PROXY TCP4 203.0.113.9 192.0.2.1 40000\r\n", bad},
	{"PROXY TCP4 203.0.113.9 192.0.2.1 40000 110 \r\n", bad},
	{"PROXY TCP4  203.0.113.9 192.0.2.1 40000 110\r\n", bad},
	{"PROXY TCP4 203.0.113.09 192.0.2.1 40000 110\r\n", bad},
	{"PROXY TCP4 203.0.113.9 192.0.2.1 040000 110\r\n", bad},
	{"PROXY TCP4 203.0.113.9 192.0.2.1 +4000 110\r\n", bad},
	{"PROXY TCP4 203.0.113.9 192.0.2.1 65536 110\r\n", bad},
	{"PROXY TCP4 203.0.113.9 192.0.2.1 40000 -1\r\n", bad},
	{"PROXY TCP4 2001:db8::9 2001:db8::1 40000 110\r\n", bad},
	{"PROXY TCP6 203.0.113.9 192.0.2.1 40000 110\r\n", bad},
	{"PROXY TCP6 fe80::1%eth0 2001:db8::1 40000 110\r\n", bad},
	{"PROXY TCP4 pop.example 192.0.2.1 40000 110\r\n", bad},
	{"CAPA\r\n", bad},
	{"\x16\x03\x01\x02\x00\x01", bad},
	// O-PP-4.
	{v2(0x21, 0x11, ipv4Pair...), "203.0.113.9:40000"},
	{v2(0x21, 0x21, ipv6Pair...), "[2001:db8::9]:40000"},
	{v2(0x21, 0x21, mappedPair...), "203.0.113.9:40000"},
	{v2(0x21, 0x11, append(bytes.Clone(ipv4Pair), tlv(0x04, strings.Repeat("x", 300))...)...), "203.0.113.9:40000"},
	{v2(0x20, 0x00), socket},
	{v2(0x20, 0x00, tlv(0x04, "padding")...), socket},
	{v2(0x20, 0x11, ipv4Pair...), socket},
	{v2(0x20, 0xff), socket},
	{v2(0x21, 0x00), socket},
	{v2(0x21, 0x12, ipv4Pair...), socket},
	{v2(0x21, 0x22, ipv6Pair...), socket},
	{v2(0x21, 0x31, make([]byte, 216)...), socket},
	{v2(0x21, 0x32, make([]byte, 216)...), socket},
	{v2(0x20, 0x00, make([]byte, 4080)...), socket}, // 4096 octets
	{v2(0x20, 0x00, make([]byte, 4081)...), bad},
	{v2(0x11, 0x11, ipv4Pair...), bad},
	{v2(0x31, 0x11, ipv4Pair...), bad},
	{v2(0x22, 0x11, ipv4Pair...), bad},
	{v2(0x2f, 0x11, ipv4Pair...), bad},
	{v2(0x21, 0x41, ipv4Pair...), bad},
	{v2(0x21, 0x13, ipv4Pair...), bad},
	{v2(0x21, 0x11, ipv4Pair[:11]...), bad},
	{v2(0x21, 0x21, ipv4Pair...), bad},
	{v2(0x21, 0x11, append(bytes.Clone(ipv4Pair), 0x04, 0xff, 0xff)...), bad},
	{"\r\n\r\n\x00\r\nQUIT\r", bad},
}

// readHeader makes a session read the header that write sends, and returns it
// with the octets after it.
func readHeader(t *testing.T, write func(net.Conn)) (proxyHeader, []byte, error) {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		write(client)
		_ = client.Close()
	}()
	s := &session{srv: new(Server), raw: &clientConn{Conn: server}}
	h, err := s.readProxyHeader()
	var rest []byte
	if err == nil {
		rest, _ = io.ReadAll(s.raw)
	}
	_ = server.Close()
	<-done
	return h, rest, err
}

// TestProxyHeader shows O-PP-3 and O-PP-4, with the header in one piece with more
// octets, and octet by octet.
func TestProxyHeader(t *testing.T) {
	for _, tt := range proxyHeaders {
		const more = "CAPA\r\n"
		for _, whole := range []bool{true, false} {
			h, rest, err := readHeader(t, func(conn net.Conn) {
				if whole {
					_, _ = conn.Write([]byte(tt.header + more))
					return
				}
				for i := range len(tt.header) {
					if _, err := conn.Write([]byte(tt.header[i : i+1])); err != nil {
						return
					}
				}
			})
			got := socket
			switch {
			case err != nil:
				got = bad
			case h.client.IsValid():
				got = h.client.String()
			}
			if got != tt.want {
				t.Errorf("%.60q (whole: %v): %s (%v), want %s", tt.header, whole, got, err, tt.want)
			}
			if whole && err == nil && string(rest) != more {
				t.Errorf("%.60q: %q is left, want %q", tt.header, rest, more)
			}
		}
	}
}

// TestProxyTLS shows O-PP-6: a client counts as using TLS only if a well-formed
// PP2_TYPE_SSL says so.
func TestProxyTLS(t *testing.T) {
	ssl := func(client byte, more ...byte) []byte {
		return tlv(0x20, string(append([]byte{client, 0, 0, 0, 0}, more...)))
	}
	version, suite := tlv(0x21, "TLSv1.3"), tlv(0x23, "TLS_AES_128_GCM_SHA256")
	for _, tt := range []struct {
		name string
		tlvs []byte
		want *ProxyTLS
	}{
		{"none", nil, nil},
		{"TLS", ssl(1, version...), &ProxyTLS{Version: "TLSv1.3"}},
		{"TLS in full", append(tlv(0x02, "pop.example"), ssl(7, append(bytes.Clone(version), suite...)...)...),
			&ProxyTLS{"TLSv1.3", "TLS_AES_128_GCM_SHA256", "pop.example"}},
		{"no TLS", ssl(0), nil},
		{"a certificate without TLS", ssl(6, version...), nil},
		{"short", tlv(0x20, "\x01\x00"), nil},
		{"without version", ssl(1), nil},
		{"only a name", tlv(0x02, "pop.example"), nil},
	} {
		header := []byte(v2(0x21, 0x11, append(bytes.Clone(ipv4Pair), tt.tlvs...)...))
		h, err := parseProxyHeader(header)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if (h.tls == nil) != (tt.want == nil) || h.tls != nil && *h.tls != *tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, h.tls, tt.want)
		}
	}
}

// FuzzProxyHeader shows that the reader stops at the limit, and that a client's
// address is never mapped into IPv6 and has no zone.
func FuzzProxyHeader(f *testing.F) {
	for _, tt := range proxyHeaders {
		f.Add([]byte(tt.header))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		n, err := proxyHeaderLen(input)
		if err != nil || n == 0 {
			if len(input) > proxyV2Limit && err == nil {
				t.Error("neither a header nor an error")
			}
			return
		}
		if n > proxyV2Limit {
			t.Errorf("length %d", n)
		}
		if n > len(input) {
			return
		}
		h, err := parseProxyHeader(input[:n])
		if err != nil && !errors.Is(err, errProxyHeader) {
			t.Errorf("%v", err)
		}
		if a := h.client.Addr(); a.Is4In6() || a.Zone() != "" || err != nil && (a.IsValid() || h.tls != nil) {
			t.Errorf("client %v, %v", h.client, err)
		}
	})
}
