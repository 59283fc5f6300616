package endpoint

import (
	"errors"
	"testing"
)

// TestSplit shows which addresses are valid, and the errors of the others.
func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		address string
		least   uint16
		host    string
		port    uint16
		err     string
	}{
		{"imap.example.com:993", 1, "imap.example.com", 993, ""},
		{"[2001:db8::1]:143", 1, "2001:db8::1", 143, ""},
		{":110", 0, "", 110, ""},
		{"127.0.0.1:0", 0, "127.0.0.1", 0, ""},
		{"127.0.0.1:0", 1, "", 0, `"0" is not a port`},
		{"h:65535", 1, "h", 65535, ""},
		{"h:65536", 1, "", 0, `"65536" is not a port`},
		{"h:-1", 0, "", 0, `"-1" is not a port`},
		{"h:imaps", 1, "", 0, `"imaps" is not a port`},
		{"h:", 0, "", 0, `"" is not a port`},
		{"h", 1, "", 0, `"h" has no port`},
		{"::1:110", 0, "", 0, `"::1:110" is not host:port`},
		{"", 0, "", 0, `"" has no port`},
	} {
		host, port, err := Split(tt.address, tt.least)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if host != tt.host || port != tt.port || text != tt.err {
			t.Errorf("%q: %q, %d, %v", tt.address, host, port, err)
		}
	}
	_, _, err := Split("h:x", 1)
	if e, ok := errors.AsType[*PortError](err); !ok || e.Port != "x" {
		t.Errorf("%v is not a PortError", err)
	}
}

// TestIsLoopback shows which names and addresses are only this machine's.
func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LocalHost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"localhost.example.net": false, "10.0.0.1": false, "2001:db8::1": false, "": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}
