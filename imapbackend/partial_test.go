package imapbackend

import (
	"fmt"
	"strings"
	"testing"
)

// I-TOP-5: an upstream that answers BAD where a piece of text is asked for is asked
// for whole messages, in the same TOP and from then on, if it can send these.
func TestPartialFetchRefused(t *testing.T) {
	const (
		header = "A: b\r\n\r\n"
		text   = "one\r\ntwo\r\n"
		warned = "upstream does not take commands as they were sent"
	)
	pieces := topCommand("r", "BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.1024>")
	taken := pieces + "S: * 1 FETCH (UID 7 BODY[HEADER] " + lit(header) + "\nS:  BODY[TEXT]<0> " + lit(text) + "\nS: )\nS: <r> OK x\n"
	refused := pieces + "S: <r> BAD zebra\n"
	whole := topCommand("w", "BODY.PEEK[]") + "S: * 1 FETCH (UID 7 BODY[] " + lit(header+text) + "\nS: )\nS: <w> OK x\n"
	headerOnly := topCommand("h", "BODY.PEEK[HEADER]") + "S: * 1 FETCH (UID 7 BODY[HEADER] " + lit(header) + "\nS: )\nS: <h> OK x\n"
	size := openedSize(len(header + text))
	play(t, "remembered", size+refused+whole+whole+headerOnly+bye+another+strings.Replace(size, "1:*", "8:*", 1)+whole+bye, Options{}, func(s *session) {
		d := s.open()
		for _, lines := range []uint64{1, 2, 0} {
			want := header + strings.Join(strings.SplitAfter(text, "\r\n")[:lines], "")
			if got := s.text(d.Top(s.ctx, 7, lines)); got != want {
				s.Errorf("TOP %d: %q", lines, got)
			}
		}
		d.Close()
		if got := s.text(s.open().Top(s.ctx, 7, 1)); got != header+"one\r\n" {
			s.Errorf("%q", got)
		}
		if n := strings.Count(s.log.String(), warned); n != 1 {
			s.Errorf("logged %d times: %s", n, s.log.String())
		}
	})
	play(t, "whole messages are refused too", size+refused+topCommand("w", "BODY.PEEK[]")+"S: <w> BAD zebra\n"+taken+bye, Options{}, func(s *session) {
		d := s.open()
		_, err := d.Top(s.ctx, 7, 1)
		s.fails(err, perm)
		if got := s.text(d.Top(s.ctx, 7, 1)); got != header+"one\r\n" {
			s.Errorf("%q", got)
		}
	})
	play(t, "pieces have been sent before", size+taken+refused+whole+taken+bye, Options{}, func(s *session) {
		d := s.open()
		for range 3 {
			if got := s.text(d.Top(s.ctx, 7, 1)); got != header+"one\r\n" {
				s.Errorf("%q", got)
			}
		}
		if strings.Contains(s.log.String(), warned) {
			s.Errorf("log: %s", s.log.String())
		}
	})
	line := strings.Repeat("x", 1022) + "\r\n"
	next := openedSize(5000) + pieces + "S: * 1 FETCH (UID 7 BODY[HEADER] " + lit(header) + "\nS:  BODY[TEXT]<0> " + lit(line) + "\nS: )\nS: <r> OK x\n" +
		topCommand("p", "BODY.PEEK[TEXT]<1024.2048>") + "S: <p> BAD zebra\n" +
		topCommand("w", "BODY.PEEK[]") + "S: * 1 FETCH (UID 7 BODY[] " + lit(header+line+text) + "\nS: )\nS: <w> OK x\n"
	play(t, "the next piece", next+bye, Options{}, func(s *session) {
		if got := s.text(s.open().Top(s.ctx, 7, 2)); got != header+line+"one\r\n" {
			s.Errorf("%q", got)
		}
	})
	walk := mailbox("", "", "7", "8", "9") + refused + whole
	for uid := 8; uid <= 9; uid++ {
		walk += strings.NewReplacer("FETCH 7 ", fmt.Sprintf("FETCH %d ", uid), "* 1 FETCH (UID 7", fmt.Sprintf("* %d FETCH (UID %d", uid-6, uid)).Replace(whole)
	}
	play(t, "nothing is read ahead", walk+bye, Options{}, func(s *session) {
		d := s.open()
		for uid := uint64(7); uid <= 9; uid++ {
			if got := s.text(d.Top(s.ctx, uid, 1)); got != header+"one\r\n" {
				s.Errorf("%q", got)
			}
		}
	})
}

// I-FETCH-7: on an upstream that does not send parts of messages a message resumes
// by reading all of it again, if what has been sent is the same.
func TestResumeWhole(t *testing.T) {
	const content = "0123456789abcdefgh\r\n"
	learn := topCommand("t", "BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.1024>") + "S: <t> BAD zebra\n" + topCommand("w", "BODY.PEEK[]") +
		"S: * 1 FETCH (UID 7 BODY[] \"A: b\")\nS: <w> OK x\n"
	begun := retr + "S: * 1 FETCH (UID 7 BODY[] {20}\nS+: 0123456789\nX:\n" + another + reselected + announce
	again := func(body string) string {
		return retr + "S: * 1 FETCH (UID 7 BODY[] " + lit(body) + "\nS: )\nS: <r> OK x\n"
	}
	part := "C: <p> UID FETCH 7 (UID BODY.PEEK[]<0.20>)\nS: <p> BAD zebra\n"
	third := "-- connection 3 --\n" + reselected + announce
	for _, tt := range []struct {
		name, script string
		learnt, ok   bool
	}{
		{"learnt before", begun + again(content) + bye, true, true},
		{"learnt now", begun + part + again(content) + bye, false, true},
		{"other content, learnt before", begun + again("012345678Xabcdefgh\r\n") + bye, true, false},
		{"other content", begun + part + again("012345678Xabcdefgh\r\n") + bye, false, false},
		{"shorter", begun + again("0123456789abcdefg\r\n") + bye, true, false},
		{"longer", begun + part + again("0123456789abcdefghi\r\n") + bye, false, false},
		{"refused", begun + part + retr + "S: <r> BAD zebra\n" + bye, false, false},
	} {
		script := opened
		if tt.learnt {
			script += learn
		}
		play(t, tt.name, script+tt.script, Options{}, func(s *session) {
			d := s.open()
			if tt.learnt {
				s.text(d.Top(s.ctx, 7, 1))
			}
			body, err := d.Read(s.ctx, 7)
			if err != nil {
				s.Fatal(err)
			}
			defer body.Close()
			var got strings.Builder
			_, err = body.WriteTo(&got)
			if tt.ok != (err == nil) || tt.ok && got.String() != content || !strings.HasPrefix(content, got.String()) {
				s.Errorf("%q, %v", got.String(), err)
			}
		})
	}
	large := strings.Repeat("0123456789abcdef", 12_500) // a connection that has brought 64 KiB may be replaced again
	often := opened + learn + fmt.Sprintf("%sS: * 1 FETCH (UID 7 BODY[] {%d}\nS*: 70000 %q\nX:\n", retr, len(large), large[:16]) +
		another + reselected + announce + fmt.Sprintf("%sS: * 1 FETCH (UID 7 BODY[] {%d}\nS*: 140000 %q\nX:\n", retr, len(large), large[:16]) + third + again(large) + bye
	play(t, "twice", often, Options{}, func(s *session) {
		d := s.open()
		s.text(d.Top(s.ctx, 7, 1))
		body, err := d.Read(s.ctx, 7)
		if got := s.text(body, err); got != large {
			s.Errorf("%d octets", len(got))
		}
	})
}
