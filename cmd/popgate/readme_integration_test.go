//go:build integration && unix

package main

import (
	"bytes"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"popgate/imapbackend/demo"
)

// The commands of the README's session work as written, with the demo and with its
// first configuration, except that the ports are free ones.
func TestReadmeSession(t *testing.T) {
	p, addr, lines := startDemo(t)
	imap := regexp.MustCompile(`own configuration:  ([0-9.:]+)`).FindStringSubmatch(lines[3])[1]
	config := writeConfig(t, strings.Replace(smallestOnFreePort(), demoIMAP, imap, 1))
	own := start(t, "serve", "--config", config)
	configured := own.Stderr.Expect(`msg=listening address=(\S+)`)[1]
	if code := run([]string{"check", "--config", config, "--login", "demo"}, strings.NewReader("demo\n"), io.Discard, io.Discard); code != exitOK {
		t.Errorf("check: code %d", code)
	}
	outputs := map[string]string{}
	for _, line := range readmeCommands(t) {
		if !strings.HasPrefix(line, "curl ") {
			continue
		}
		words := strings.Fields(strings.NewReplacer("127.0.0.1:1110", addr, "127.0.0.1:3110", configured).Replace(line))
		out, err := exec.CommandContext(t.Context(), words[0], append([]string{"--silent", "--show-error"}, words[1:]...)...).Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		outputs[line] = string(out)
	}
	samples := demo.Samples()
	for _, port := range []string{"1110", "3110"} {
		if n := strings.Count(outputs["curl -u demo:demo pop3://127.0.0.1:"+port+"/"], "\n"); n != len(samples) {
			t.Errorf("port %s: the listing has %d lines, want %d", port, n, len(samples))
		}
	}
	first := outputs["curl -u demo:demo pop3://127.0.0.1:1110/1"]
	if !bytes.HasPrefix([]byte(first), samples[0]) {
		t.Errorf("the first message is\n%q\nwant\n%q", first, samples[0])
	}
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
}
