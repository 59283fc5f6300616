package imapscript

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestPipeDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipe()
		defer a.Close()
		defer b.Close()
		begin := time.Now()
		a.SetDeadline(begin.Add(time.Minute))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		if d := time.Since(begin); d != time.Minute {
			t.Errorf("Read took %v", d)
		}
		a.SetDeadline(time.Now().Add(time.Minute))
		n, err := a.Write(make([]byte, pipeBuffer+1))
		if n != pipeBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %d, %v", n, err)
		}
		// A deadline taken away, or moved while a call waits, counts.
		a.SetDeadline(time.Time{})
		go func() {
			time.Sleep(time.Hour)
			a.SetReadDeadline(time.Now())
		}()
		begin = time.Now()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Hour {
			t.Errorf("Read: %v after %v", err, time.Since(begin))
		}
	})
}

func TestPipeClose(t *testing.T) {
	one := make([]byte, 1)
	a, b := pipe()
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	a.Close()
	a.Close()
	if _, err := b.Read(one); err != nil || one[0] != 'x' {
		t.Errorf("Read of what was sent before Close: %q, %v", one, err)
	}
	if _, err := b.Read(one); err != io.EOF {
		t.Errorf("Read: %v", err)
	}
	if _, err := b.Write(one); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write: %v", err)
	}
	if _, err := a.Read(one); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after own Close: %v", err)
	}
	if _, err := a.Write(one); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after own Close: %v", err)
	}

	a, b = pipe()
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	reset(a)
	if _, err := b.Read(one); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read after reset: %v", err)
	}
	b.Close()
}

func TestPipeCloseWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipe()
		errs := make(chan error, 2)
		go func() {
			_, err := a.Read(make([]byte, 1))
			errs <- err
		}()
		go func() {
			_, err := a.Write(make([]byte, pipeBuffer+1))
			errs <- err
		}()
		synctest.Wait()
		b.Close()
		for range 2 {
			if err := <-errs; err != io.EOF && !errors.Is(err, syscall.EPIPE) {
				t.Error(err)
			}
		}
		a.Close()
	})
}
