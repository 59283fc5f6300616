package demo

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// ReadMbox reads a file in the mbox format (RFC 4155, Appendix A, variants mboxo
// and mboxrd) and returns its messages in the form that IMAP gives them.
//
// A line that begins with "From " starts a message if it is the first line or an
// empty line precedes it; both lines are part of the format, not of a message.
// One ">" is removed from lines of the form ">From ", ">>From " and so on. A
// bare LF becomes CRLF, since mbox has the line ends of the machine. Lines may
// have any length. An empty file has no messages. An error names the line.
func ReadMbox(r io.Reader) ([][]byte, error) {
	var (
		in    = bufio.NewReader(r)
		msgs  [][]byte
		msg   []byte
		blank = true  // the previous line was empty, or there was none
		begun = false // a "From " line has been read
	)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("mbox: line %d: %w", n, err)
		}
		switch {
		case len(line) == 0:
		case blank && bytes.HasPrefix(line, []byte("From ")):
			if begun {
				msgs = append(msgs, withoutLastLine(msg))
			}
			msg, begun = nil, true
		case begun:
			msg = appendMboxLine(msg, line)
		case !isBlank(line):
			return nil, fmt.Errorf(`mbox: line %d: not an mbox file: %.40q does not begin with "From "`, n, line)
		}
		blank = isBlank(line)
		if err == io.EOF {
			break
		}
	}
	if !begun {
		return nil, nil
	}
	return append(msgs, withoutLastLine(msg)), nil
}

// appendMboxLine appends line without its quoting and with CRLF as its end.
func appendMboxLine(msg, line []byte) []byte {
	if line[0] == '>' && bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From ")) {
		line = line[1:]
	}
	text, ended := bytes.CutSuffix(line, []byte("\n"))
	if !ended {
		return append(msg, line...)
	}
	text = bytes.TrimSuffix(text, []byte("\r"))
	return append(append(msg, text...), "\r\n"...)
}

// withoutLastLine removes the empty line that ends a message in mbox, except
// where that line also ends the header: a message without text needs it.
func withoutLastLine(msg []byte) []byte {
	if bytes.HasSuffix(msg, []byte("\r\n\r\n")) && textStart(msg) < len(msg) {
		return msg[:len(msg)-2]
	}
	return msg
}
