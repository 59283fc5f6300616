package proxy

import "bytes"

// dotWriter writes a message as the body of a multi-line reply (RFC 1939 §3): a
// bare LF becomes CRLF, and a line that begins with a dot gets another dot in
// front. All other octets are unchanged. The input may be split anywhere. Errors
// of Write are those of the client's connection and are kept in w.err.
type dotWriter struct {
	w      *replyWriter
	octets int64 // octets of the message so far, stuffed dots not counted
	inLine bool  // the last octet was not a line feed
	cr     bool  // the last octet was a carriage return
}

// Write adds the next octets of the message. It passes on runs of octets, not
// single ones, between the places where something is inserted.
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

// finish ends the last line of the message, if it has no line end, and the reply.
func (d *dotWriter) finish() {
	if d.inLine {
		d.pass(crlf)
	}
	d.w.end()
}

var crlf = []byte("\r\n")

func (d *dotWriter) pass(p []byte) {
	n, _ := d.w.Write(p) // the error is kept in d.w.err
	d.octets += int64(n)
}
