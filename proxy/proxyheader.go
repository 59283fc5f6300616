package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

const (
	// proxyHeaderTimeout is how long a proxy may take to send its header.
	proxyHeaderTimeout = 5 * time.Second

	proxyV1Limit = 107  // octets, CRLF included (PROXY protocol §2.1)
	proxyV2Limit = 4096 // octets; the format allows 64 KiB
	proxyV2Start = 16   // octets before addresses and TLVs (§2.2)
)

// proxyHeader is what a PROXY header says about the client.
type proxyHeader struct {
	client netip.AddrPort // the zero AddrPort: use the socket's remote address
	tls    *ProxyTLS      // nil if the client did not use TLS
}

// proxyV1Start begins version 1. The library does not check the SP.
var proxyV1Start = append(slices.Clone(proxyproto.SIGV1), ' ')

var (
	errProxyHeader = errors.New("no PROXY protocol header")
	errProxyLong   = errors.New("PROXY protocol header too long")
)

// readProxyHeader reads the header that a trusted proxy sends first. Octets after
// it are kept for the next read.
func (s *session) readProxyHeader() (proxyHeader, error) {
	if err := s.setReadTimeout(proxyHeaderTimeout); err != nil {
		return proxyHeader{}, err
	}
	buf := make([]byte, 0, 512)
	for {
		n, err := proxyHeaderLen(buf)
		if err != nil {
			return proxyHeader{}, err
		}
		if n > 0 && len(buf) >= n {
			s.raw.unread = bytes.Clone(buf[n:])
			return parseProxyHeader(buf[:n])
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, proxyV2Limit), buf...)
		}
		got, err := s.raw.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+got]
		if err != nil && got == 0 {
			return proxyHeader{}, err
		}
	}
}

// proxyHeaderLen returns the length of the header at the start of buf, which may
// be more than buf has so far; 0 if it is not known yet.
func proxyHeaderLen(buf []byte) (int, error) {
	switch {
	case hasStart(buf, proxyV1Start):
		if i := bytes.IndexByte(buf, '\n'); i >= 0 && i < proxyV1Limit {
			return i + 1, nil
		}
		if len(buf) >= proxyV1Limit {
			return 0, errProxyLong
		}
		return 0, nil
	case hasStart(buf, proxyproto.SIGV2):
		if len(buf) < proxyV2Start {
			return 0, nil
		}
		n := proxyV2Start + int(binary.BigEndian.Uint16(buf[14:]))
		if n > proxyV2Limit {
			return 0, errProxyLong
		}
		return n, nil
	}
	return 0, errProxyHeader
}

// hasStart reports whether buf begins with start, as far as buf goes.
func hasStart(buf, start []byte) bool {
	n := min(len(buf), len(start))
	return bytes.Equal(buf[:n], start[:n])
}

// parseProxyHeader parses a whole header.
func parseProxyHeader(header []byte) (proxyHeader, error) {
	if header[0] == proxyproto.SIGV1[0] {
		return parseProxyV1(header)
	}
	return parseProxyV2(header)
}

// parseProxyV1 parses a line of version 1: PROXY protocol §2.1. The library
// accepts forms that the protocol does not allow; these are refused first.
func parseProxyV1(header []byte) (proxyHeader, error) {
	line, ok := strings.CutSuffix(string(header), "\r\n")
	if !ok {
		return proxyHeader{}, errProxyHeader
	}
	words := strings.Split(line, " ")
	if words[1] == "UNKNOWN" {
		return proxyHeader{}, nil
	}
	if len(words) != 6 {
		return proxyHeader{}, errProxyHeader
	}
	for _, addr := range words[2:4] {
		a, err := netip.ParseAddr(addr)
		if err != nil || a.Zone() != "" || a.Is4() != (words[1] == "TCP4") {
			return proxyHeader{}, errProxyHeader
		}
	}
	for _, port := range words[4:] {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
			return proxyHeader{}, errProxyHeader
		}
	}
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(header)))
	if err != nil {
		return proxyHeader{}, fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	return proxyHeader{client: clientAddr(h.SourceAddr)}, nil
}

// parseProxyV2 parses a header of version 2: PROXY protocol §2.2. For LOCAL and
// for families other than TCP the socket's address is used, which the library
// does not do for all of them.
func parseProxyV2(header []byte) (proxyHeader, error) {
	switch proxyproto.ProtocolVersionAndCommand(header[12]) {
	case proxyproto.LOCAL:
		return proxyHeader{}, nil
	case proxyproto.PROXY:
	default:
		return proxyHeader{}, fmt.Errorf("%w: unknown version or command %#x", errProxyHeader, header[12])
	}
	switch proxyproto.AddressFamilyAndProtocol(header[13]) {
	case proxyproto.TCPv4, proxyproto.TCPv6:
	case proxyproto.UNSPEC, proxyproto.UDPv4, proxyproto.UDPv6, proxyproto.UnixStream, proxyproto.UnixDatagram:
		return proxyHeader{}, nil
	default:
		return proxyHeader{}, fmt.Errorf("%w: unknown family %#x", errProxyHeader, header[13])
	}
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(header)))
	if err != nil {
		return proxyHeader{}, fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	tlvs, err := h.TLVs()
	if err != nil {
		return proxyHeader{}, fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	return proxyHeader{client: clientAddr(h.SourceAddr), tls: tlsOf(tlvs)}, nil
}

// tlsOf returns the TLS that PP2_TYPE_SSL describes (§2.2.6), or nil. Its client
// field, not its presence, says whether the client used TLS.
func tlsOf(tlvs []proxyproto.TLV) *ProxyTLS {
	ssl, ok := tlvparse.FindSSL(tlvs)
	if !ok || !ssl.ClientSSL() {
		return nil
	}
	t := new(ProxyTLS)
	t.Version, _ = ssl.SSLVersion()
	t.Suite, _ = ssl.SSLCipher()
	for _, tlv := range tlvs {
		if tlv.Type == proxyproto.PP2_TYPE_AUTHORITY {
			t.SNI = string(tlv.Value)
		}
	}
	return t
}

// clientAddr converts addr. An IPv4 address mapped into IPv6 becomes IPv4; what
// is no IP address becomes the zero AddrPort.
func clientAddr(addr net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
