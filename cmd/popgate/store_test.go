//go:build unix

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"popgate/imapbackend/imapmodel"
)

// Section 13, I-SIZE-3, I-SNAP-7: the file named by path in [store], relative to
// the configuration, keeps what sessions have found out across a restart. Only
// one process may use it, and it holds nothing private (O-LOG-1).
func TestServeStore(t *testing.T) {
	m := imapmodel.New()
	body := "Subject: privatesubject\r\n\r\n" + strings.Repeat("privatebody", 7) + "\r\n"
	m.Inbox().AddMessage(imapmodel.Message{Body: body, Size: int64(len(body)) - 3})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()
	t.Cleanup(func() {
		l.Close()
		<-served
	})
	text := strings.Replace(smallestOnFreePort(), "127.0.0.1:1143", l.Addr().String(), 1) + "[store]\npath = \"store.db\"\n"
	file := writeConfig(t, text)
	for _, listed := range []string{"1 103", "1 106"} {
		p := start(t, "serve", "--config", file)
		addr := p.Stderr.Expect(`msg=listening address=(\S+)`)[1]
		c := dial(t, addr)
		c.OK("USER privateuser", "PASS privatepassword")
		if got := c.Do("LIST 1", "+OK"); !strings.HasSuffix(got, listed) {
			t.Errorf("%q, want %q", got, listed)
		}
		if got := c.Do("RETR 1", "+OK"); !strings.Contains(got, "106 octets") {
			t.Errorf("%q", got)
		}
		c.Discard()
		c.OK("QUIT")
		c.Closed()

		second := start(t, "serve", "--config", file)
		second.Stderr.Expect(`another popgate uses it`)
		second.Exit(exitFailure)

		p.Signal(syscall.SIGTERM)
		p.Exit(exitOK)
	}
	content, err := os.ReadFile(filepath.Join(filepath.Dir(file), "store.db"))
	if err != nil || len(content) == 0 {
		t.Fatalf("%d octets, %v", len(content), err)
	}
	if strings.Contains(string(content), "private") {
		t.Error("something private is in the file")
	}
}
