package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// testUsers is the number of accounts in each fleet of the tests.
const testUsers = 4

// testCatalogue is a small standard.
var testCatalogue = catalogue{
	lists:  []box{{"list1k", 30, tiny}},
	mix:    box{"mix2k", 20, mixed},
	small:  box{"small10k", 30, small},
	huge:   box{"huge1", 1, mixed},
	delete: box{"dele5k", 20, tiny},
	slow:   box{"slow80", 8, small},
	idle:   []int{testUsers},
}

// testGenerator is shared by all tests: making its text takes a while under the
// race detector.
var testGenerator = sync.OnceValue(func() *generator { return newGenerator(1) })

// servers are a POP3 server, package proxy's on top of mailboxes in memory, and
// an IMAP server for the same mailboxes.
type servers struct {
	*proxytest.Backend
	pop, imap string // addresses
}

// Login opens NAME's mailbox for NAME@TAG too, as upstream.sh's Dovecot does.
func (s *servers) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	cred.Username, _, _ = strings.Cut(cred.Username, "@")
	return s.Backend.Login(ctx, cred)
}

func startServers(t *testing.T) *servers {
	t.Helper()
	s := &servers{Backend: proxytest.NewBackend()}
	for _, b := range append(testCatalogue.boxes(testUsers), testCatalogue.delete, testCatalogue.slow) {
		s.AddAccount(b.name, password, false)
	}
	imap := proxytest.Loopback(t)
	s.pop = proxytest.Serve(t, proxytest.Loopback(t), proxy.Options{Backend: s}, proxytest.Insecure).Addr()
	s.imap = imap.Addr().String()
	go func() {
		for {
			c, err := imap.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if err := s.serveIMAP(c); err != nil && err != io.EOF {
					fmt.Fprintf(c, "* BYE %v\r\n", err)
				}
			}()
		}
	}()
	return s
}

// serveIMAP answers the commands that imapConn sends.
func (s *servers) serveIMAP(c net.Conn) error {
	r := bufio.NewReader(c)
	user, deleted := "", false
	fmt.Fprint(c, "* OK ready\r\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		tag, command, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		f := strings.Fields(command)
		switch f[0] {
		case "LOGIN":
			user = f[1]
		case "SELECT":
			fmt.Fprintf(c, "* FLAGS ()\r\n* %d EXISTS\r\n", len(s.Messages(user)))
		case "FETCH":
			n, err := strconv.Atoi(f[1])
			if err != nil {
				return err
			}
			body := s.Messages(user)[n-1].Body
			fmt.Fprintf(c, "* %d FETCH (BODY[] {%d}\r\n%s)\r\n", n, len(body), body)
		case "STORE":
			deleted = true
		case "EXPUNGE":
			for _, m := range s.Messages(user) {
				if deleted {
					s.Expunge(user, m.UID)
				}
			}
		case "APPEND":
			if err := s.append(user, command, r); err != nil {
				return err
			}
		case "LOGOUT":
		default:
			return fmt.Errorf("unexpected %q", line)
		}
		fmt.Fprintf(c, "%s OK done\r\n", tag)
	}
}

// append stores the messages of a MULTIAPPEND whose first line is command.
func (s *servers) append(user, command string, r *bufio.Reader) error {
	line := strings.TrimPrefix(command, "APPEND INBOX")
	for line != "" {
		size, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(line, " {"), "+}"))
		if err != nil {
			return fmt.Errorf("no literal: %q", line)
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		s.Add(user, proxytest.Stored{Body: body})
		if line, err = r.ReadString('\n'); err != nil {
			return err
		}
		line = strings.TrimRight(line, "\r\n")
	}
	return nil
}

// testSettings are those of a very short run.
func testSettings(s *servers) settings {
	return settings{
		IMAP: s.imap, CopyFrom: s.imap, Seed: 1, Users: testUsers, Duration: 20 * time.Millisecond,
		Cap: 10 * time.Second, Timeout: 10 * time.Second, Window: 8, Repeat: 2,
	}
}

// seededServers starts servers with the mailboxes of testCatalogue.
func seededServers(t *testing.T, g *generator) *servers {
	t.Helper()
	s := startServers(t)
	if err := seedAll(s.imap, g, testCatalogue.boxes(testUsers), progress{io.Discard}); err != nil {
		t.Fatal(err)
	}
	return s
}
