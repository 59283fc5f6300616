package wire

// Tap sees what a connection carries, after TLS and compression are removed: octets,
// cut anywhere. What it gets contains credentials, and is valid until it returns. Sent
// and Received are called from different goroutines, each before the octets go on.
type Tap interface {
	Sent(p []byte)
	Received(p []byte)
}

// SetTap lets t see the connection from now on.
func (c *Conn) SetTap(t Tap) { c.reader.tap = t }
