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

// Write adds the next octets of the message, in runs between the places where
// something has to be put in.
func (d *dotWriter) Write(p []byte) (int, error) {
	run := 0 // p[run:] has not been passed on
	for at := 0; at < len(p) && d.w.err == nil; {
		if !d.inLine && p[at] == '.' {
			d.pass(p[run:at])
			d.w.writeByte('.')
			run = at
		}
		i := bytes.IndexByte(p[at:], '\n')
		if i < 0 {
			d.inLine, d.cr = true, p[len(p)-1] == '\r'
			break
		}
		if bare := i == 0 && !d.cr || i > 0 && p[at+i-1] != '\r'; bare {
			d.pass(p[run : at+i])
			d.pass(crlf)
			run = at + i + 1
		}
		d.inLine, d.cr = false, false
		at += i + 1
	}
	d.pass(p[run:])
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
