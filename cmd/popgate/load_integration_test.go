//go:build integration

package main_test

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"popgate/imapbackend/dovecottest"
	"popgate/proxy/proxytest"
)

// A thousand sessions at once open, read and close without error, and leave no
// descriptors or goroutines: I-CONN-6, O-LOCK-1, P-SESS-1.
func TestThousandSessions(t *testing.T) {
	const sessions = 1000
	s := dovecottest.Start(t, dovecottest.WithSessionsPerProcess(100))
	user := func(i int) string { return fmt.Sprintf("user%d", i) }
	for i := range sessions {
		s.Append(user(i), []byte(fmt.Sprintf("Subject: %d\r\n\r\n.text\r\n", i)))
	}
	config := plainConfig(s.Addr)
	idle := startGateway(t, config)
	one(t, idle, user(0))
	idleGoroutines := idle.goroutines()

	g := startGateway(t, config)
	one(t, g, user(0))
	idleDescriptors := len(g.descriptors())

	// All log in before any of them continues.
	var open, done sync.WaitGroup
	open.Add(sessions)
	slots := make(chan struct{}, 100) // logins at the same time
	failures := make(chan error, sessions)
	for i := range sessions {
		done.Go(func() {
			failures <- session(g.addr, user(i), i, slots, &open)
		})
	}
	done.Wait()
	for range sessions {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
	g.await("its descriptors to be closed", func() bool { return len(g.descriptors()) <= idleDescriptors })
	// A session logs its record after it has closed its descriptors.
	g.await("the record of each session", func() bool { return g.records() == 1+sessions })
	one(t, g, user(0))
	if after := g.goroutines(); len(idleGoroutines) == 0 || len(after) > len(idleGoroutines) {
		t.Errorf("goroutines after %d sessions were created by %v, after one by %v", sessions, after, idleGoroutines)
	}
}

// one runs one session and waits for its end.
func one(t *testing.T, g *gateway, user string) {
	t.Helper()
	before, records := len(g.descriptors()), g.records()
	loginPOP(t, g.addr, user).OK("STAT", "QUIT")
	g.await("the end of a session", func() bool { return len(g.descriptors()) <= before && g.records() > records })
}

// session logs in, waits until all have logged in, and reads its message.
func session(addr, user string, i int, slots chan struct{}, open *sync.WaitGroup) error {
	opened := sync.OnceFunc(open.Done)
	defer opened()
	slots <- struct{}{}
	c, err := proxytest.DialConversation(addr)
	if err == nil {
		defer c.Conn.Close()
		err = c.Login(user, dovecottest.Password)
	}
	<-slots
	if err != nil {
		return err
	}
	opened()
	open.Wait()
	got, err := c.Fetch("RETR 1")
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("Subject: %d\r\n\r\n.text\r\n", i); string(got) != want {
		return fmt.Errorf("%s got %q, want %q", user, got, want)
	}
	return c.OK("DELE 1", "RSET", "QUIT")
}

// A message of 1 GB passes through RETR in bounded memory: P-RETR-5, P-GRAM-10.
func TestGigabyteInBoundedMemory(t *testing.T) {
	const (
		size  = 1 << 30
		limit = 64 << 20
	)
	s := dovecottest.Start(t)
	sum := crc32.New(castagnoli)
	s.Deliver("joe", size, func(f *os.File) error { return writeMessage(io.MultiWriter(f, sum), size) })
	want := sum.Sum32()

	g := startBinary(t, popgatePlain, plainConfig(s.Addr))
	c := loginPOP(t, g.addr, "joe")
	c.Do("STAT", fmt.Sprintf("+OK 1 %d", size))
	c.OK("RETR 1")
	sum.Reset()
	if _, err := io.CopyN(sum, c.Reader, size); err != nil {
		t.Fatal(err)
	}
	if got := sum.Sum32(); got != want {
		t.Errorf("the octets differ: CRC-32C %08x, want %08x", got, want)
	}
	if end := c.Line(); end != "." {
		t.Errorf("after the message: %q", end)
	}
	if peak := g.peakMemory(); peak >= limit {
		t.Errorf("%d MB resident at the peak, limit %d MB", peak>>20, int64(limit)>>20)
	} else {
		t.Logf("%d MB resident at the peak", peak>>20)
	}
	c.OK("QUIT")
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// writeMessage writes a message of size octets in lines ending in CRLF, none
// of which begins with a dot.
func writeMessage(w io.Writer, size int) error {
	const header, line = "Subject: large\r\n\r\n", "the text of a large message, line after line after line\r\n"
	block := []byte(strings.Repeat(line, 10000))
	if _, err := io.WriteString(w, header); err != nil {
		return err
	}
	for left := size - len(header); left > 0; {
		n := min(left, len(block))
		if left == n {
			// The last block ends in a shorter line.
			copy(block[n-len("\r\n"):], "\r\n")
		}
		written, err := w.Write(block[:n])
		if err != nil {
			return err
		}
		if left -= written; written == 0 {
			return errors.New("nothing written")
		}
	}
	return nil
}
