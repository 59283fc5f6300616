package proxytest

import (
	"bytes"
	"fmt"
)

// Repair returns the message as RETR must deliver it: with CRLF for each bare LF,
// and with CRLF at the end unless it is empty (RFC 1939 §11). It is written in
// the simplest way, because tests compare faster code with it.
func Repair(message []byte) []byte {
	var out []byte
	for i, c := range message {
		if c == '\n' && (i == 0 || message[i-1] != '\r') {
			out = append(out, '\r')
		}
		out = append(out, c)
	}
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, "\r\n"...)
	}
	return out
}

// topOf returns the header of message, the empty line and the first lines lines
// after it.
func topOf(message []byte, lines uint64) []byte {
	rest, inHeader := message, true
	for inHeader || lines > 0 {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return message
		}
		line := rest[:i+1]
		rest = rest[i+1:]
		if !inHeader {
			lines--
		} else if len(bytes.TrimRight(line, "\r\n")) == 0 {
			inHeader = false
		}
	}
	return message[:len(message)-len(rest)]
}

// Generate returns a message of exactly octets octets with CRLF line ends,
// different for each seed. Below 2 octets it is empty.
func Generate(seed uint32, octets int) []byte {
	if octets < 2 {
		return nil
	}
	head := fmt.Sprintf("Subject: message %d\r\n\r\n", seed)
	if octets < len(head)+4 {
		return append(bytes.Repeat([]byte("x"), octets-2), "\r\n"...)
	}
	out := make([]byte, 0, octets)
	out = append(out, head...)
	for len(out) < octets {
		left := octets - len(out)
		n := min(left, 72)
		if left-n == 1 {
			n-- // what remains must have room for CRLF
		}
		line := fmt.Sprintf("%d line at %d ", seed, len(out))
		for len(line) < n-2 {
			line += "abcdefghijklmnopqrstuvwxyz"
		}
		out = append(out, line[:n-2]...)
		out = append(out, "\r\n"...)
	}
	return out
}
