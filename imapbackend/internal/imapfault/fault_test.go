package imapfault

import (
	"io"
	"net"
	"testing"
	"time"

	"popgate/proxy/proxytest"
)

const stream = "* OK ready\r\n* 1 FETCH (UID 7 RFC822.SIZE 9 BODY[] {9}\r\na\r\nOK b\r\n)\r\n* 3 EXISTS\r\n* SEARCH 1 5\r\na1 OK done\r\n"

// TestKinds reads the stream with one fault in it.
func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		fault Fault
		want  string
	}{
		{Fault{}, stream},
		{Fault{Kind: CutBefore, Response: 2}, "* OK ready\r\n"},
		{Fault{Kind: CutMiddle, Response: 1}, "* OK r"},
		{Fault{Kind: CutAfter, Response: 1}, "* OK ready\r\n"},
		{Fault{Kind: Reset, Response: 1, Octet: 3}, "* O"},
		{Fault{Kind: Bye, Response: 1}, "* BYE zebra is going\r\n"},
		{Fault{Kind: Drop, Response: 2}, "* OK ready\r\n* 3 EXISTS\r\n* SEARCH 1 5\r\na1 OK done\r\n"},
		{Fault{Kind: Swap, Response: 4}, stream[:len(stream)-len("* SEARCH 1 5\r\na1 OK done\r\n")] + "a1 OK done\r\n* SEARCH 1 5\r\n"},
		{Fault{Kind: Swap, Response: 5}, stream},
		{Fault{Kind: Octets, Response: 2}, stream},
		{Fault{Kind: No, Response: 2}, stream},
		{Fault{Kind: CutAfter, Response: 3}, "* OK ready\r\n* 1 FETCH (UID 7 RFC822.SIZE 9 BODY[] {9}\r\na\r\nOK b\r\n)\r\n* 3 EXISTS\r\n"},
	} {
		near, far := proxytest.Pipe(&net.TCPAddr{}, &net.TCPAddr{})
		go func() {
			io.WriteString(far, stream)
			far.Close()
		}()
		if err := near.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(New(tt.fault).Wrap(near)) // the error depends on the fault
		if string(got) != tt.want {
			t.Errorf("%v: %q, want %q", tt.fault, got, tt.want)
		}
		near.Close()
	}
}

func TestChanged(t *testing.T) {
	fetch := "* 1 FETCH (UID 7 RFC822.SIZE 9 BODY[] {9}\r\na\r\nUID 8\r\n)\r\n"
	for _, tt := range []struct {
		kind     Kind
		in, want string
	}{
		{No, "a1 OK done\r\n", "a1 NO done\r\n"},
		{Bad, "a1 OK done\r\n", "a1 BAD done\r\n"},
		{OtherUID, fetch, "* 1 FETCH (UID 8 RFC822.SIZE 9 BODY[] {9}\r\na\r\nUID 8\r\n)\r\n"},
		{Longer, fetch, "* 1 FETCH (UID 7 RFC822.SIZE 9 BODY[] {16}\r\na\r\nUID 8\r\n)\r\n"},
		{Shorter, fetch, "* 1 FETCH (UID 7 RFC822.SIZE 9 BODY[] {2}\r\na\r\nUID 8\r\n)\r\n"},
		{OtherSize, fetch, "* 1 FETCH (UID 7 RFC822.SIZE 5009 BODY[] {9}\r\na\r\nUID 8\r\n)\r\n"},
		{More, "* 3 EXISTS\r\n", "* 4 EXISTS\r\n"},
		{Fewer, "* 3 EXISTS\r\n", "* 2 EXISTS\r\n"},
		{More, "* SEARCH 4 5\r\n", "* SEARCH 4 5 1\r\n"},
		{Fewer, "* ESEARCH (TAG \"a\") UID ALL 4,5\r\n", "* ESEARCH (TAG \"a\") UID ALL 4\r\n"},
		{Garble, "* 3 EXISTS\r\n", "* 3 EX\x00{TS\r\n"},
		{Join, "* 3 EXISTS\r\n", "* 3 EXISTS"},
		{Expunge, "* 3 EXISTS\r\n", "* 1 EXPUNGE\r\n* 3 EXISTS\r\n"},
	} {
		if !tt.kind.Applies([]byte(tt.in)) {
			t.Errorf("%v does not apply to %q", tt.kind, tt.in)
		}
		if got := string(tt.kind.changed([]byte(tt.in))); got != tt.want {
			t.Errorf("%v of %q: %q, want %q", tt.kind, tt.in, got, tt.want)
		}
	}
	for _, kind := range []Kind{No, OtherUID, Longer, More} {
		if kind.Applies([]byte("* OK ready\r\n")) {
			t.Errorf("%v applies to a greeting", kind)
		}
	}
}
