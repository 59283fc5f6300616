//go:build integration

package dovecottest

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// CorpusSize is the number of messages of the Corpus.
const CorpusSize = 500

// Sample is one message of the Corpus.
type Sample struct {
	Name   string // what is special about it
	Octets []byte
}

// Corpus returns CorpusSize messages, the same each time: first those that break
// gateways, then ordinary ones with sizes distributed as in real mailboxes.
// Together they have about 45 MB. No two are equal.
func Corpus() []Sample {
	c := &collector{}
	c.format()
	c.dots()
	c.long()
	corpus := append(c.samples, borders()...)
	random := rand.New(rand.NewPCG(1939, 3501))
	for len(corpus) < CorpusSize {
		corpus = append(corpus, ordinary(random, len(corpus)))
	}
	return corpus
}

// Stored returns the message that Dovecot 2.3 stores for octets on APPEND.
func Stored(octets []byte) []byte {
	var out []byte
	for line := range bytes.Lines(bytes.ReplaceAll(octets, []byte{0}, []byte{0x80})) {
		text, ended := bytes.CutSuffix(line, []byte("\n"))
		if ended {
			text = bytes.TrimSuffix(text, []byte("\r"))
		}
		out = append(out, bytes.TrimSuffix(text, []byte("\r"))...)
		if ended {
			out = append(out, "\r\n"...)
		}
	}
	return out
}

// Expected returns what a POP3 client must receive of a message that the upstream
// sends as BODY.PEEK[]: with CRLF for bare LF, and with a final CRLF where it is
// missing (requirement P-RETR-3).
func Expected(bodyPeek []byte) []byte {
	out := make([]byte, 0, len(bodyPeek)+len(bodyPeek)/32+2)
	for line := range bytes.Lines(bodyPeek) {
		if text, ok := bytes.CutSuffix(line, []byte("\r\n")); ok {
			line = text
		} else {
			line = bytes.TrimSuffix(line, []byte("\n"))
		}
		out = append(append(out, line...), "\r\n"...)
	}
	return out
}

// collector collects the messages of unusual form.
type collector struct{ samples []Sample }

// add adds a message with an ordinary header, followed by body. body may begin
// with more header fields; the empty line that ends the header is part of it.
func (c *collector) add(name, body string) {
	c.whole(name, header(len(c.samples), name)+body)
}

// whole adds message without another header.
func (c *collector) whole(name, message string) {
	c.samples = append(c.samples, Sample{name, []byte(message)})
}

// format adds messages with unusual parts, line ends and octets.
func (c *collector) format() {
	add, whole := c.add, c.whole
	add("one line", "\r\nHello.\r\n")
	add("empty body", "\r\n")
	add("header only, no empty line", "")
	whole("header only, no final line end", "Subject: header only, no final line end")
	add("body without final line end", "\r\nThe last line is not ended.")
	add("body ends in CR", "\r\nThe last octet is a CR.\r")
	add("one octet of body", "\r\nx")
	add("empty lines at the end", "\r\ntext\r\n\r\n\r\n\r\n")
	add("only empty lines", "\r\n"+strings.Repeat("\r\n", 1000))
	add("8-bit body", "\r\nGr\xfc\xdfe aus K\xf6ln \xff\xfe\x80\r\nUTF-8: Grüße, 日本語\r\n")
	add("8-bit header", "Subject: Gr\xfc\xdfe\r\nX-Name: Jürgen\r\n\r\ntext\r\n")
	add("bare LF", "\r\nline one\nline two\n\nline four\r\n")
	whole("bare LF throughout", "From: a@example.com\nSubject: bare LF throughout\n\n.\n..\ntext\n")
	add("bare CR", "\r\none\rtwo\r\rthree\r\r\nfour\r\r\r\nfive\r\n")
	add("NUL", "\r\none\x00two\r\n\x00\r\n")
	add("all control characters", "\r\n"+controls()+"\r\n")
	add("From_ lines", "\r\nFrom the start of a line\r\n>From another\r\nFrom \r\n")
	add("lines of spaces and tabs", "\r\n \r\n\t\r\n  text \r\n\t\r\n")
}

// dots adds messages for byte-stuffing.
func (c *collector) dots() {
	add, whole := c.add, c.whole
	add("line of one dot", "\r\n.\r\n")
	add("line of two dots", "\r\n..\r\n")
	add("dot and text", "\r\n.a\r\n.. b\r\n...c\r\n. d\r\n")
	add("dot as first octet of the body", "\r\n.first\r\nthen\r\n")
	add("dot as last octet", "\r\ntext\r\n.")
	add("two dots last", "\r\ntext\r\n..")
	add("terminator inside", "\r\nbefore\r\n.\r\nafter\r\n.\r\n.\r\n")
	add("commands inside", "\r\n.\r\nQUIT\r\n+OK\r\n-ERR\r\nA1 OK done\r\n* BYE\r\n)\r\n")
	add("dot after bare LF", "\r\none\n.\n.two\n..\r\n")
	add("dot after bare CR", "\r\none\r.\r\r.two\r\n")
	add("dots only, at every position of a buffer", "\r\n"+strings.Repeat(".\r\n", 70000))
	add("pairs of dots, at every position of a buffer", "\r\n"+strings.Repeat("..\r\n.\r\n", 30000))
	add("one line of dots", "\r\n"+strings.Repeat(".", 100000)+"\r\n")
	whole("dot as first octet of the message", ".Subject: not a header\r\n\r\ntext\r\n")
	whole("message is one dot", ".")
	whole("message is a line of one dot", ".\r\n")
	whole("message is an empty line", "\r\n")
	whole("body first", "\r\nno header at all\r\n")
	whole("text only", "no header and no empty line\r\n")
}

// long adds messages with long lines, long headers or much text.
func (c *collector) long() {
	const long = 1000000
	add := c.add
	add("1 MB in one line", "\r\n"+letters(long)+"\r\n")
	add("1 MB in one line without end", "\r\n"+letters(long))
	for _, n := range []int{997, 998, 999, 1000, 1022, 1023, 1024, 2047, 2048, 4095, 4096, 8190, 8191, 8192, 16384, 65535, 65536} {
		add(fmt.Sprintf("line of %d octets", n), "\r\n"+letters(n)+"\r\nnext\r\n")
	}
	add("long header line", "X-Long: "+letters(60000)+"\r\n\r\ntext\r\n")
	add("long folded header", "References:"+strings.Repeat("\r\n <0123456789@example.com>", 2000)+"\r\n\r\ntext\r\n")
	add("many headers", strings.Repeat("Received: from a.example.com by b.example.com\r\n", 3000)+"\r\ntext\r\n")
	add("malformed header lines", "no colon here\r\n: no name\r\nEmpty:\r\n folded\r\n\r\ntext\r\n")
	add("attachment", attachment("report.pdf", 300000))
	add("nested message", "Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\n.inner\r\n")
	add("30 MB", attachment("film.mp4", 22<<20))
}

// borders returns messages with a dot, a line end or half of a line end at the
// border of a buffer of usual size, counted from the first octet of the message.
func borders() []Sample {
	around := []struct{ name, text string }{ // text starts at border-3
		{"dot before the border", "\r\n.x"},
		{"dot on the border", "x\r\n.x"},
		{"dot after the border", "xx\r\n.x"},
		{"line of one dot across the border", "\r\n.\r\n."},
		{"CR and LF across the border", "xx\r\n\r\n.\r\n"},
		{"bare LF across the border", "xx\n.\n"},
	}
	var samples []Sample
	for _, border := range []int{4096, 8192, 16384, 32768, 65536} {
		for _, a := range around {
			name := fmt.Sprintf("%s at %d", a.name, border)
			message := header(border, name) + "\r\n"
			message += fill(border - 3 - len(message))
			message += a.text + "rest of the line\r\n.\r\nend\r\n"
			samples = append(samples, Sample{name, []byte(message)})
		}
	}
	return samples
}

// ordinary returns a message with a size from a lognormal distribution: half of
// them have less than 4 KB.
func ordinary(random *rand.Rand, n int) Sample {
	name := fmt.Sprintf("ordinary %d", n)
	size := min(int(4000*math.Exp(1.4*random.NormFloat64())), 500000)
	var b strings.Builder
	b.WriteString(header(n, name))
	b.WriteString("\r\n")
	for b.Len() < size {
		if random.IntN(20) == 0 {
			b.WriteByte('.')
		}
		for range random.IntN(75) {
			b.WriteByte(byte(' ' + random.IntN(95)))
		}
		b.WriteString("\r\n")
	}
	return Sample{name, []byte(b.String())}
}

// header returns the first lines of most messages, without an empty line; n makes
// them unique.
func header(n int, subject string) string {
	return fmt.Sprintf("Return-Path: <sender@example.com>\r\n"+
		"From: Sender <sender@example.com>\r\nTo: joe@example.com\r\nSubject: %s\r\n"+
		"Date: Thu, 30 May 1996 12:00:00 +0000\r\nMessage-ID: <%d@example.com>\r\n", subject, n)
}

// letters returns n octets without a line end.
func letters(n int) string {
	return strings.Repeat("abcdefghijklmnopqrstuvwxyz0123456789", n/36+1)[:n]
}

// fill returns n octets of text; its last line has no line end.
func fill(n int) string {
	const line = "The quick brown fox jumps over the lazy dog.\r\n"
	return strings.Repeat(line, n/len(line)) + letters(n%len(line))
}

// controls returns the control characters except NUL, CR and LF.
func controls() string {
	var b strings.Builder
	for c := byte(1); c < 0x20; c++ {
		if c != '\r' && c != '\n' {
			b.WriteByte(c)
		}
	}
	return b.String() + "\x7f"
}

// attachment returns the end of a header and a body with an attachment of about
// size octets in base64.
func attachment(name string, size int) string {
	const line = "UE9QMyBnYXRld2F5IHRlc3QgZGF0YSwgYXMgZ29vZCBhcyBhbnkgb3RoZXIgZGF0YSBidXQgbG9u\r\n"
	return "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_b\"\r\n\r\n" +
		"--=_b\r\nContent-Type: text/plain\r\n\r\nSee attachment.\r\n" +
		"--=_b\r\nContent-Type: application/octet-stream; name=\"" + name + "\"\r\n" +
		"Content-Transfer-Encoding: base64\r\n\r\n" + strings.Repeat(line, size/57+1) + "--=_b--\r\n"
}
