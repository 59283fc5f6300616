package srv

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
)

// ServerName returns the name to ask a target for (RFC 6066 §3): its own within the
// domain, else the domain, as another name proves nothing.
func (d *Domain) ServerName(t Target) string {
	if d.has(t.Host) {
		return t.Host
	}
	return d.name
}

// has reports whether host is the domain or below it.
func (d *Domain) has(host string) bool {
	host, name := strings.ToLower(host), strings.ToLower(d.name)
	return host == name || strings.HasSuffix(host, "."+name)
}

// Accepts returns nil if a certificate, whose chain has been verified, is that of a
// server of the domain (requirement O-DISC-3): it names the domain, as a DNS-ID or as
// the SRV-ID of the service (RFC 9525 §6.3, RFC 6186 §6), or a target within the
// domain. The records may be forged, so another target's own name proves nothing.
func (d *Domain) Accepts(t Target, cert *x509.Certificate) error {
	err := cert.VerifyHostname(d.name)
	if err == nil || d.has(t.Host) && cert.VerifyHostname(t.Host) == nil {
		return nil
	}
	if id := t.Service + "." + d.name; hasSRVID(cert, id) {
		return nil
	}
	return fmt.Errorf("srv: the certificate of %s does not name %s: %w", t.Host, d.name, err)
}

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidDNSSRV         = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 7} // RFC 4985 §2
)

// hasSRVID reports whether a certificate has the SRVName id (RFC 4985), such as
// "_imaps.example.com".
func hasSRVID(cert *x509.Certificate, id string) bool {
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		names, err := srvNames(e.Value)
		for _, name := range names {
			if err == nil && strings.EqualFold(name, id) {
				return true
			}
		}
	}
	return false
}

// srvNames returns the SRVNames in the value of a subjectAltName extension.
func srvNames(der []byte) (names []string, err error) {
	var sequence asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &sequence); err != nil || len(rest) > 0 || sequence.Tag != asn1.TagSequence {
		return nil, errors.New("srv: bad subjectAltName")
	}
	for rest := sequence.Bytes; len(rest) > 0; {
		var general asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &general); err != nil {
			return nil, err
		}
		if general.Class != asn1.ClassContextSpecific || general.Tag != 0 {
			continue // no otherName
		}
		var kind asn1.ObjectIdentifier
		var value, name asn1.RawValue // [0] EXPLICIT IA5String
		inside, err := asn1.Unmarshal(general.Bytes, &kind)
		if err != nil {
			return nil, err
		}
		if !kind.Equal(oidDNSSRV) {
			continue
		}
		if _, err = asn1.Unmarshal(inside, &value); err == nil {
			_, err = asn1.Unmarshal(value.Bytes, &name)
		}
		if err != nil || name.Tag != asn1.TagIA5String {
			return nil, errors.New("srv: bad SRVName")
		}
		names = append(names, string(name.Bytes))
	}
	return names, nil
}
