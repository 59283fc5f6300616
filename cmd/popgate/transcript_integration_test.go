//go:build integration

package main_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"popgate/imapbackend/dovecottest"
)

// O-CHECK-1: the transcript of a session with Dovecot, over TLS and with compression,
// and of one with a wrong password. Nothing is changed.
func TestTranscriptDovecot(t *testing.T) {
	s := dovecottest.Start(t, dovecottest.WithCompression())
	s.Append("joe", []byte("Subject: private\r\n\r\ny\r\n"))
	before := s.Messages("joe")
	file, err := popgateRace()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	writeFile(t, config, tlsConfig(s, "implicit", "starttls", s.CAFile)+"compress = true\n", 0o600)
	check := func(password, name string) (status int, dialogue string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()),
			"check", "--config", config, "--login", "joe", "--transcript", filepath.Join(dir, name))
		cmd.Stdin = strings.NewReader(password + "\n")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("%v\n%s", err, out)
		}
		return cmd.ProcessState.ExitCode(), string(mustRead(t, filepath.Join(dir, name)))
	}
	refused, wrong := check("wrong-password", "refused.txt")
	status, dialogue := check(dovecottest.Password, "dialogue.txt")
	if status != 0 || refused != 1 {
		t.Errorf("exit status %d, with a wrong password %d", status, refused)
	}
	for _, want := range []string{"\nC: ... STARTTLS\n", "Dovecot", " AUTHENTICATE PLAIN ***\n", " COMPRESS DEFLATE\n", " SELECT INBOX\n", "* 1 EXISTS\n", "BODY.PEEK[HEADER]", "[octets left out]\n", " LOGOUT\n"} {
		if want = strings.ReplaceAll(want, "... ", ""); !strings.Contains(dialogue, strings.TrimPrefix(want, "\nC: ")) {
			t.Errorf("%q is missing", want)
		}
	}
	if !strings.Contains(wrong, " NO ") {
		t.Error("the refusal is missing")
	}
	all := dialogue + wrong
	for _, secret := range []string{dovecottest.Password, "wrong", "joe", "private",
		base64.StdEncoding.EncodeToString([]byte("\x00joe\x00" + dovecottest.Password)),
		base64.StdEncoding.EncodeToString([]byte("\x00joe\x00wrong-password"))} {
		if strings.Contains(strings.ToLower(all), strings.ToLower(secret)) {
			t.Errorf("%q is in a transcript", secret)
		}
	}
	if t.Failed() {
		t.Log(all)
	}
	if after := s.Messages("joe"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("changed: %v, was %v", after, before)
	}
}
