//go:build integration && unix

package main

import (
	"bytes"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"popgate/imapbackend/demo"
)

// The commands of the README's session work as written, except that the port is
// a free one.
func TestReadmeSession(t *testing.T) {
	p, addr, _ := startDemo(t)
	outputs := map[string]string{}
	for _, line := range readmeCommands(t) {
		if !strings.HasPrefix(line, "curl ") {
			continue
		}
		words := strings.Fields(strings.ReplaceAll(line, "127.0.0.1:1110", addr))
		out, err := exec.CommandContext(t.Context(), words[0], append([]string{"--silent", "--show-error"}, words[1:]...)...).Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		outputs[line] = string(out)
	}
	samples := demo.Samples()
	if n := strings.Count(outputs["curl -u demo:demo pop3://127.0.0.1:1110/"], "\n"); n != len(samples) {
		t.Errorf("the listing has %d lines, want %d", n, len(samples))
	}
	first := outputs["curl -u demo:demo pop3://127.0.0.1:1110/1"]
	if !bytes.HasPrefix([]byte(first), samples[0]) {
		t.Errorf("the first message is\n%q\nwant\n%q", first, samples[0])
	}
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
}
