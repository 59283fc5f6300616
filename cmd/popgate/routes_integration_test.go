//go:build integration

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"popgate/imapbackend/dovecottest"
	"popgate/proxy/proxytest"
)

// upstreamTable returns an [[upstream]] without TLS.
func upstreamTable(name, addr string) string {
	return fmt.Sprintf("[[upstream]]\nname = %q\naddress = %q\ntls = \"none\"\n", name, addr)
}

// Two servers and one gateway, and a third that is dead: each login gets the mail
// of its own, by its name there, and the log says whose it is. A file of names is
// picked up, also by rename; a bad one is not. P-PASS-5, O-DISC-1.
func TestRoutesDovecot(t *testing.T) {
	north, south := dovecottest.Start(t), dovecottest.Start(t)
	north.Append("joe", []byte("Subject: north\r\n\r\nx\r\n"))
	south.Append("joe", []byte("Subject: south\r\n\r\nx\r\n"))
	dir := t.TempDir()
	domains := filepath.Join(dir, "domains")
	write := func(text string) {
		t.Helper()
		part := filepath.Join(dir, "part")
		if err := os.WriteFile(part, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(part, domains); err != nil {
			t.Fatal(err)
		}
	}
	write("south.example\n")
	g := startGateway(t, `[[listener]]
address = "127.0.0.1:0"
tls = "none"
insecure_login_from = ["127.0.0.0/8"]
[throttle]
delay = "0s"
`+upstreamTable("north", north.Addr)+upstreamTable("south", south.Addr)+upstreamTable("dead", "127.0.0.1:1")+fmt.Sprintf(`
[[route]]
match = "*@north.example"
upstream = "north"
user = "{local}"
[[route]]
match_file = %q
upstream = "south"
user = "{local}"
[[route]]
match = "*@dead.example"
upstream = "dead"
`, domains))
	mustRead := func(login, subject string) {
		t.Helper()
		c := proxytest.Dial(t, g.addr)
		c.Greeting()
		c.OK("USER "+login, "PASS "+dovecottest.Password)
		if text := c.Fetch("TOP 1 0"); !strings.Contains(text, "Subject: "+subject) {
			t.Errorf("%s reads %q", login, text)
		}
		c.OK("QUIT")
	}
	mustFail := func(login, want string) {
		t.Helper()
		c := proxytest.Dial(t, g.addr)
		c.Greeting()
		c.OK("USER " + login)
		c.Do("PASS "+dovecottest.Password, want)
		c.OK("QUIT")
	}
	mustRead("joe@north.example", "north")
	mustRead("joe@South.Example", "south")
	mustFail("joe@dead.example", "-ERR [SYS/TEMP] ")
	g.Stderr.Expect(`msg="command failed" .*error="[^"]*: upstream dead: dial tcp `)
	mustFail("joe", "-ERR [AUTH] ")
	mustFail("joe@127.0.0.1", "-ERR [AUTH] ")
	g.Stderr.Expect(`msg="login failed" .*user=joe@127.0.0.1 error="\[AUTH\] authentication failed: directory: unknown login name"`)

	write("south.example\neast.example\n")
	g.Stderr.Expect(`msg="names of a route reloaded" match_file=\S+domains names=2`)
	mustRead("joe@east.example", "south")
	write("south example\n")
	g.Stderr.Expect(`level=ERROR msg="names of a route not reloaded, the old ones stay in use"`)
	mustRead("joe@east.example", "south")
}

// check looks at each upstream, and follows a login to its own.
func TestRoutesCheck(t *testing.T) {
	north, south := dovecottest.Start(t), dovecottest.Start(t)
	file, err := popgateRace()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "config.toml")
	text := "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"none\"\ninsecure_login_from = [\"127.0.0.0/8\"]\n" +
		upstreamTable("north", north.Addr) + upstreamTable("south", south.Addr) +
		"[[route]]\nmatch = \"*@north.example\"\nupstream = \"north\"\n" +
		"[[route]]\nmatch = \"*@south.example\"\nupstream = \"south\"\nuser = \"{local}\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		login string
		want  []string
		code  int
	}{
		{"", []string{`upstream "north": good`, `upstream "south": good`}, 0},
		{"joe@south.example", []string{`login joe@south.example: goes to upstream "south" as joe`, `upstream "south": logged in as joe`}, 0},
		{"joe", []string{"error: login joe: directory: unknown login name (clients get -ERR [AUTH])", "hint: look at the [[route]]"}, 1},
	} {
		args := []string{"check", "--config", config}
		if test.login != "" {
			args = append(args, "--login", test.login)
		}
		cmd := exec.CommandContext(t.Context(), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()), args...)
		cmd.Stdin = strings.NewReader(dovecottest.Password + "\n")
		output, _ := cmd.CombinedOutput() // the exit status is looked at
		out, code := string(output), cmd.ProcessState.ExitCode()
		for _, want := range test.want {
			if !strings.Contains(out, want) {
				t.Errorf("check of %q prints\n%s\nwithout %s", test.login, out, want)
			}
		}
		if code != test.code {
			t.Errorf("check of %q ends with %d, want %d", test.login, code, test.code)
		}
	}
}
