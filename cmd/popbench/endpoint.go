package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// endpoint is a POP3 server under test.
type endpoint struct {
	Name string `json:"name"`
	Addr string `json:"-"`
	PID  int    `json:"-"` // root of its process tree, 0 if unknown
	TLS  bool   `json:"tls,omitempty"`
}

// parseEndpoint reads NAME=HOST:PORT[,pid=PID][,tls].
func parseEndpoint(s string) (endpoint, error) {
	where, rest, more := strings.Cut(s, ",")
	var ep endpoint
	var ok bool
	if ep.Name, ep.Addr, ok = strings.Cut(where, "="); !ok {
		return ep, usage("endpoint %q is not NAME=HOST:PORT", s)
	}
	for more {
		var part string
		part, rest, more = strings.Cut(rest, ",")
		switch k, v, _ := strings.Cut(part, "="); k {
		case "pid":
			pid, err := strconv.Atoi(v)
			if err != nil || pid < 1 {
				return ep, usage("endpoint %q: %q is not a process id", s, v)
			}
			ep.PID = pid
		case "tls":
			ep.TLS = true
		default:
			return ep, usage("endpoint %q: unknown %q", s, part)
		}
	}
	return ep, nil
}

// await waits until the server greets, for at most timeout.
func (ep endpoint) await(timeout time.Duration) error {
	const interval = 50 * time.Millisecond
	start := time.Now()
	for {
		p, err := dialPOP(ep, timeout, 512)
		if err == nil {
			return p.quit()
		}
		if time.Since(start) > timeout {
			return fmt.Errorf("%s does not answer at %s: %w", ep.Name, ep.Addr, err)
		}
		time.Sleep(interval)
	}
}
