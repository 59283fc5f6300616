//go:build integration

package servertest

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"popgate/imapbackend/dovecottest"
)

// Each server does what any test of the gateway needs, and ends as a whole.
func TestServers(t *testing.T) {
	for _, name := range All() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var addr string
			var namespace *os.File
			t.Run("run", func(t *testing.T) {
				s := Start(t, name)
				t.Logf("%s %s", s.Name, s.Version)
				addr = s.Addr
				if s.process != nil {
					namespace = pidNamespace(t, s.process.cmd.Process.Pid)
				}
				checkTLS(t, s)
				checkPassword(t, s)
				checkMailbox(t, s)
			})
			if conn, err := net.Dial("tcp", addr); err == nil {
				conn.Close()
				t.Error("the server accepts connections after its end")
			}
			if namespace != nil {
				checkGone(t, namespace)
			}
		})
	}
}

func checkTLS(t *testing.T, s *Server) {
	t.Helper()
	if s.TLSAddr == "" {
		return
	}
	dialer := &net.Dialer{Timeout: startTimeout}
	conn, err := tls.DialWithDialer(dialer, "tcp", s.TLSAddr, &tls.Config{RootCAs: s.RootCAs, ServerName: "localhost"})
	if err != nil {
		t.Errorf("TLS: %v", err)
		return
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		t.Fatal(err)
	}
	greeting := make([]byte, 4)
	if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "* OK" {
		t.Errorf("greeting over TLS: %q, %v", greeting, err)
	}
}

func checkPassword(t *testing.T, s *Server) {
	t.Helper()
	c := dovecottest.Dial(t, s.Addr)
	if _, ok := c.Try("LOGIN %q %q", s.User, s.Password+"x"); ok {
		t.Error("a wrong password is accepted")
	}
	c = dovecottest.Dial(t, s.Addr)
	c.Command("LOGIN %q %q", s.User, s.Password)
	c.Command("NOOP")
	c.Logout()
}

// checkMailbox checks that messages are appended, seen through the server
// itself, and expunged, and that users have mailboxes of their own.
func checkMailbox(t *testing.T, s *Server) {
	t.Helper()
	var messages [][]byte
	for i := range 3 {
		messages = append(messages, fmt.Appendf(nil, "From: a@popgate.test\r\nTo: b@popgate.test\r\nSubject: message %d\r\n"+
			"Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nMessage-ID: <%d@popgate.test>\r\n\r\nThis is message %d.\r\n", i, i, i))
	}
	s.Append(s.User, messages...)
	c := dovecottest.Dial(t, s.Addr)
	c.Command("LOGIN %q %q", s.User, s.Password)
	c.Select("INBOX")
	listed := c.Fetch(true)
	if len(listed) != len(messages) {
		t.Fatalf("%d messages, appended %d", len(listed), len(messages))
	}
	for i, m := range listed {
		if want := fmt.Appendf(nil, "This is message %d.\r\n", i); !bytes.Contains(m.Octets, want) {
			t.Errorf("message with UID %d does not contain %q:\n%s", m.UID, want, m.Octets)
		}
	}
	c.Logout()

	c = s.Login(s.User)
	c.Select("INBOX")
	c.Store(strconv.Itoa(int(listed[1].UID)), `+FLAGS (\Deleted)`)
	c.Expunge()
	c.Logout()
	if left := s.Messages(s.User); len(left) != 2 || left[0].UID != listed[0].UID || left[1].UID != listed[2].UID {
		t.Errorf("after EXPUNGE of UID %d: %v", listed[1].UID, left)
	}
	if other := s.Messages(s.NewUser()); len(other) != 0 {
		t.Errorf("a new user has %d messages", len(other))
	}
}

// pidNamespace returns the PID namespace of a process. Another one gets its
// number only after it has been closed.
func pidNamespace(t *testing.T, pid int) *os.File {
	t.Helper()
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		t.Fatal(err)
	}
	return namespace
}

// checkGone checks that no process is in a PID namespace, and closes it.
func checkGone(t *testing.T, namespace *os.File) {
	t.Helper()
	defer namespace.Close()
	its, err := namespace.Stat()
	if err != nil {
		t.Fatal(err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if info, err := os.Stat(link); err == nil && os.SameFile(info, its) {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "../cmdline"))
			t.Errorf("%s still runs: %s", link, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
}
