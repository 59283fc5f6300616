package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"popgate/imapbackend/uniqueid"
)

// I-UIDL-5: unique-ids are read from a dovecot-uidlist: its own where it has some,
// else from the template.
func TestUIDList(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"cur", "new"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	message := func(i string) string { return "Message-ID: <" + i + "@x>\n\ntext\n" }
	put(t, filepath.Join(dir, "cur", "1.a,S=30:2,S"), []byte(message("1")))
	put(t, filepath.Join(dir, "new", "2.b"), []byte(message("2")))
	put(t, filepath.Join(dir, "cur", "3.c:2,"), []byte("Subject: nobody\n\n"))
	put(t, filepath.Join(dir, "cur", "4.d:2,"), []byte(strings.ReplaceAll(message("4"), "\n", "\r\n")))
	list := "3 V1704067200 N9 G00ff\n1 W40 :1.a,S=30\n13 Pid-of-old W40 :2.b:2,RS\n5 :3.c\n6 G00 P :4.d\n8 Pgone :5.e\n"
	put(t, filepath.Join(dir, "dovecot-uidlist"), []byte(list))
	identity := func(i string) string {
		m := strings.ReplaceAll(message(i), "\n", "\r\n")
		return uniqueid.HeaderIdentity([]byte(m), int64(len(m)))
	}
	for args, first := range map[string]string{"": "0000000165920080", "{uid}": "1", "filename": "1.a,S=30"} {
		run := []string{"--maildir", dir, "--for", "alice"}
		if args != "" {
			run = append(run, "--uidl", args)
		}
		code, stdout, stderr := uidlRun("", run...)
		want := "# unique-ids of " + dir + "\n" + identity("1") + "\t" + first + "\talice\n" + identity("2") + "\tid-of-old\talice\n" + identity("4") + "\t4.d\talice\n"
		if code != exitOK || stdout != want {
			t.Errorf("code %d: %s\n%swant\n%s", code, stderr, stdout, want)
		}
		if want := "4 messages; clients will download again: 0 with duplicates, 1 without identity"; !strings.Contains(stderr, want) {
			t.Errorf("summary: %s", stderr)
		}
	}
	for list, want := range map[string]string{
		"1 1704067200 9\n1 1.a\n":         `line 1: "1 1704067200 9" is not the first line of version 3`,
		"":                                `line 1: "" is not the first line`,
		"3 V1 N9\nx :1.a\n":               `line 2: strconv.ParseUint: parsing "x"`,
		"3 V1 N9\n1 W40 :1.a\n2 W40\n":    `line 3: "2 W40" is not a UID and a file`,
		"3 V99999999999999999999999 N9\n": `line 1: strconv.ParseUint`,
	} {
		put(t, filepath.Join(dir, "dovecot-uidlist"), []byte(list))
		if code, stdout, stderr := uidlRun("", "--maildir", dir); code != exitFailure || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: code %d: %s%s", list, code, stdout, stderr)
		}
	}
	for _, args := range [][]string{{"--maildir", t.TempDir()}, {"--maildir", dir, "--uidl", "x"}, {"--maildir", dir, "--server", "a:1"}} {
		if code, stdout, stderr := uidlRun("", args...); code == exitOK || stdout != "" || !strings.Contains(stderr, "error: ") {
			t.Errorf("%q: code %d: %s%s", args, code, stdout, stderr)
		}
	}
}
