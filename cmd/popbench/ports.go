package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports are searched for below the range from which systems take the local ports
// of outgoing connections, so that load does not take them before they are bound.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// freePorts returns the first of n consecutive ports that are free on
// 127.0.0.1.
func freePorts(n int) (int, error) {
	if n < 1 || n > highestPort-lowestPort {
		return 0, usage("--count %d is out of range", n)
	}
	for range 100 {
		first := lowestPort + rand.IntN(highestPort-lowestPort-n+1)
		if free(first, n) {
			return first, nil
		}
	}
	return 0, errors.New("no free ports found on 127.0.0.1")
}

// free reports whether n ports from first on can be bound.
func free(first, n int) bool {
	for port := first; port < first+n; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		_ = l.Close() // nothing was accepted
	}
	return true
}
