package proxytest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// talk returns a Conversation whose server has said text, and the other end.
func talk(t *testing.T, text string) (*Conversation, *Conn) {
	t.Helper()
	near, far := Pipe(new(net.TCPAddr), new(net.TCPAddr))
	t.Cleanup(func() {
		_ = near.Close()
		_ = far.Close()
	})
	if _, err := io.WriteString(far, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	return NewConversation(near), far
}

// TestConversationBody shows that a multi-line reply ends at a line with one dot,
// and that byte-stuffing is removed at the beginning of lines only (P-RESP-2,
// P-RESP-4).
func TestConversationBody(t *testing.T) {
	long := strings.Repeat("x", 4095) // one less than the buffer
	for _, tt := range []struct{ sent, want string }{
		{".\n", ""},
		{"\n.\n", "\r\n"},
		{"a.\n..\n...b\n.\n", "a.\r\n.\r\n..b\r\n"},
		{".c\n.\n", "c\r\n"},
		{long + ".\n.\n", long + ".\r\n"},
		{long + "y.\n.\n", long + "y.\r\n"},
		{".." + long + "\n.\n", "." + long + "\r\n"},
	} {
		c, _ := talk(t, tt.sent+"+OK next\n"+tt.sent+"+OK last\n")
		if got, err := c.Body(); err != nil || string(got) != tt.want {
			t.Errorf("%.20q: body %.20q of %d octets, %v", tt.sent, got, len(got), err)
		}
		if got, err := c.Reply("X"); err != nil || got != "+OK next" {
			t.Errorf("%.20q: then %q, %v", tt.sent, got, err)
		}
		if err := c.Discard(); err != nil {
			t.Errorf("%.20q: Discard: %v", tt.sent, err)
		}
		if got, err := c.Reply("X"); err != nil || got != "+OK last" {
			t.Errorf("%.20q: last %q, %v", tt.sent, got, err)
		}
	}
}

// TestConversationReplies shows which replies are errors, and what is recorded.
func TestConversationReplies(t *testing.T) {
	c, far := talk(t, "+OK\n-ERR [AUTH] no\n+OKAY\n")
	if err := c.Greeting(); err != nil {
		t.Error(err)
	}
	if _, err := c.Do("PASS x"); !errors.Is(err, ErrRefused) || err.Error() != "PASS x: -ERR [AUTH] no: refused" {
		t.Errorf("-ERR: %v", err)
	}
	if err := c.OK("NOOP", "NOOP"); !errors.Is(err, ErrRefused) {
		t.Errorf("no +OK: %v", err)
	}
	if _, err := io.WriteString(far, "+OK\nrest"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Line(); err == nil || got != "+OK\n" {
		t.Errorf("without CR: %q, %v", got, err)
	}
	_ = far.Close()
	if got, err := c.Line(); err != io.EOF || got != "rest" {
		t.Errorf("at the end: %q, %v", got, err)
	}
	want := "S: +OK\nC: PASS x\nS: -ERR [AUTH] no\nC: NOOP\nS: +OKAY\n" +
		"S: \"+OK\\n\"\n   (line without CRLF: \"+OK\\n\")\nS: rest\n   (EOF)\n"
	if got := c.String(); got != want {
		t.Errorf("conversation:\n%swant\n%s", got, want)
	}
}

// TestConversationTimeout shows that reads and writes time out, also in fake time
// and in the middle of a line.
func TestConversationTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := talk(t, "+OK\n+O")
		if err := c.Greeting(); err != nil {
			t.Error(err)
		}
		<-time.After(time.Hour)
		began := time.Now()
		if got, err := c.Line(); !errors.Is(err, os.ErrDeadlineExceeded) || got != "+O" || time.Since(began) != Patience {
			t.Errorf("Line: %q, %v after %v", got, err, time.Since(began))
		}
		c.Timeout = time.Second
		began = time.Now()
		if err := c.Write(strings.Repeat("x", pipeBuffer+1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("Write: %v after %v", err, time.Since(began))
		}
	})
}

// TestConversationLong shows that only the end of a long conversation is kept.
func TestConversationLong(t *testing.T) {
	c, _ := talk(t, "")
	for range 1000 {
		c.note("S: ", bytes.Repeat([]byte("x"), 1000))
	}
	c.note("C: ", []byte("QUIT"))
	got := c.String()
	if len(got) > saidTotal+2*saidLine || !strings.HasPrefix(got, "...\nS: x") || !strings.HasSuffix(got, "x... (1000 octets)\nC: QUIT\n") {
		t.Errorf("%d octets: %.50q to %q", len(got), got, got[len(got)-50:])
	}
}
