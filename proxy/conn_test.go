package proxy

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// P-SESS-9: an interrupt that comes before a write ends it, although the write
// sets a deadline of its own; only the last octets are still written.
func TestInterruptBeforeWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		c := &clientConn{Conn: near, stall: 5 * time.Minute}
		defer c.Close()
		c.interrupt()
		began := time.Now()
		if n, err := c.Write([]byte("+OK\r\n")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d octets, %v", n, err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("the write takes %v", took)
		}
		c.closing = true
		go func() {
			if n, err := c.Write([]byte("-ERR\r\n")); n != 6 || err != nil {
				t.Errorf("the last octets: %d, %v", n, err)
			}
		}()
		got := make([]byte, 10)
		if n, err := far.Read(got); string(got[:n]) != "-ERR\r\n" {
			t.Errorf("%q, %v", got[:n], err)
		}
		synctest.Wait()
	})
}
