package proxy

import "bytes"

// dotWriter puts a message into a multi-line reply as RFC 1939 §3 wants it:
// lines end in CRLF and those that begin with a dot get another one in front.
// The octets come as the upstream has them, cut anywhere: a bare LF becomes
// CRLF, everything else passes. Errors of Write are those of the client's
// connection and stay in w.err.
type dotWriter struct {
	w      *replyWriter
	octets int64 // octets of the message so far, stuffed dots not counted
	inLine bool  // the last octet was not a line feed
	cr     bool  // the last octet was a carriage return
}

// Write adds the next octets of the message.
func (d *dotWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if !d.inLine && rest[0] == '.' {
			d.w.writeByte('.')
		}
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			d.pass(rest)
			d.inLine, d.cr = true, rest[len(rest)-1] == '\r'
			break
		}
		if i > 0 && rest[i-1] == '\r' || i == 0 && d.cr {
			d.pass(rest[:i+1])
		} else {
			d.pass(rest[:i])
			d.pass(crlf)
		}
		d.inLine, d.cr = false, false
		rest = rest[i+1:]
		if d.w.err != nil {
			break
		}
	}
	if d.w.err != nil {
		return 0, d.w.err
	}
	return len(p), nil
}

// finish ends the last line of the message if that is open, and the reply.
func (d *dotWriter) finish() {
	if d.inLine {
		d.pass(crlf)
	}
	d.w.end()
}

var crlf = []byte("\r\n")

func (d *dotWriter) pass(p []byte) {
	n, _ := d.w.Write(p) // the error stays in d.w.err
	d.octets += int64(n)
}
