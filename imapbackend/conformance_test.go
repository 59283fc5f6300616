package imapbackend

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"popgate/imapbackend/demo"
	"popgate/proxy/proxytest"
)

// I-DEL-7: the suite that every Backend must pass, with the embedded server.
// Without UIDPLUS, UPDATE flags and hides messages instead of removing them.
func TestConformance(t *testing.T) {
	for _, tt := range []struct {
		name      string
		noUIDPLUS bool
		opts      Options
	}{
		{"UIDPLUS=true", false, Options{}},
		{"UIDPLUS=false", true, Options{}},
		{"keep_open", false, Options{KeepOpen: MaxKeepOpen}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxytest.TestBackend(t, func(t *testing.T) proxytest.Mailbox {
				up := demo.New()
				up.NoUIDPLUS = tt.noUIDPLUS
				b := serveDemo(t, up, tt.opts)
				left := func() []demo.Message {
					return slices.DeleteFunc(up.Messages("joe"), func(m demo.Message) bool {
						return slices.Contains(m.Flags, `\Deleted`)
					})
				}
				return proxytest.Mailbox{
					Backend:    b,
					Credential: joe,
					Seed: func(t *testing.T, messages ...[]byte) {
						for _, m := range messages {
							if _, err := up.Append("joe", m); err != nil {
								t.Fatal(err)
							}
						}
					},
					Left: func(*testing.T) (octets [][]byte) {
						for _, m := range left() {
							octets = append(octets, m.Octets)
						}
						return octets
					},
					Expunge: func(t *testing.T, i int) {
						uid := left()[i].UID
						otherClient(t, b.opts.Address, "LOGIN joe secret", "SELECT INBOX",
							fmt.Sprintf(`UID STORE %d +FLAGS (\Deleted)`, uid), "EXPUNGE")
					},
				}
			})
		})
	}
}

// otherClient sends commands to the upstream as another client. All must
// succeed.
func otherClient(t *testing.T, address string, commands ...string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for i, cmd := range commands {
		tag := fmt.Sprintf("A%d ", i)
		fmt.Fprintf(conn, "%s%s\r\n", tag, cmd)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v", cmd, err)
			}
			if status, ok := strings.CutPrefix(line, tag); ok {
				if !strings.HasPrefix(status, "OK") {
					t.Fatalf("%s: %s", cmd, status)
				}
				break
			}
		}
	}
}

// P-QUIT-4: the steps of a session cost as many round trips as the table of the
// package comment has flights, and QUIT without marks costs none.
func TestFlights(t *testing.T) {
	one := "S: * 1 FETCH (UID 7 BODY[] \"a\")\nS: <r> OK x\n"
	script := opened + retr + one + retr + one +
		topCommand("r", "BODY.PEEK[HEADER]") + "S: * 1 FETCH (UID 7 BODY[HEADER] \"a\")\nS: <r> OK x\n" +
		topCommand("r", "BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.1024>") + "S: * 1 FETCH (UID 7 BODY[HEADER] \"a\" BODY[TEXT]<0> {3}\nS: b\nS: )\nS: <r> OK x\n"
	step := 0
	costs := func(s *session, what string, want int) {
		s.Helper()
		if got := s.up.Flights() - step; got != want {
			s.Errorf("%s: %d round trips, want %d", what, got, want)
		}
		step = s.up.Flights()
	}
	play(t, "session", script+removing("7")+bye, Options{}, func(s *session) {
		step = 0
		l := s.login()
		costs(s, "login", 1)
		d, err := l.Open(s.ctx)
		if err != nil {
			s.Fatal(err)
		}
		costs(s, "open", 1)
		d.Messages()
		if _, err := d.UniqueIDs(); err != nil {
			s.Error(err)
		}
		costs(s, "listing", 0)
		s.text(d.Read(s.ctx, 7))
		costs(s, "RETR", 1)
		s.text(d.Read(s.ctx, 7))
		costs(s, "RETR again", 1)
		s.text(d.Top(s.ctx, 7, 0))
		costs(s, "TOP 0", 1)
		s.text(d.Top(s.ctx, 7, 1))
		costs(s, "TOP 1", 1)
		if err := d.Update(s.ctx, []uint64{7}); err != nil {
			s.Error(err)
		}
		costs(s, "UPDATE of one", 3)
		d.Close()
		costs(s, "LOGOUT", 1)
	})
	play(t, "P-QUIT-4 nothing marked", opened+bye, Options{}, func(s *session) {
		d := s.open()
		step = s.up.Flights()
		if err := d.Update(s.ctx, nil); err != nil {
			s.Error(err)
		}
		costs(s, "UPDATE of none", 0)
	})
	bare := "S: * OK x\nC: <c> CAPABILITY\nS: * CAPABILITY IMAP4rev1 AUTH=PLAIN\nS: <c> OK x\n" +
		"C: <l> AUTHENTICATE PLAIN\nS: + \nC: " + ir + "\nS: <l> OK x\nC: <d> CAPABILITY\nS: * CAPABILITY IMAP4rev1 AUTH=PLAIN\nS: <d> OK x\n"
	play(t, "a server without SASL-IR that announces no capabilities unasked", bare+strings.TrimPrefix(opened, loggedIn)+bye, Options{}, func(s *session) {
		step = 0
		s.open()
		costs(s, "login and open", 5)
	})
}
