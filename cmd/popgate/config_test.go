package main

import (
	"os"
	"path/filepath"
	"testing"
)

// smallest is the README's configuration: the smallest that is complete.
const smallest = `[[listener]]
address = "127.0.0.1:3110"
tls = "none"
insecure_login_from = ["127.0.0.0/8"]
[[upstream]]
address = "127.0.0.1:1143"
tls = "none"
`

// writeConfig writes text to a new file and returns its name.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	put(t, file, []byte(text))
	return file
}

func put(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
