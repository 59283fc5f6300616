package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A password typed at a terminal is not shown, and the echo is on again after it.
func TestPasswordAtTerminal(t *testing.T) {
	master, terminal := openPTY(t)
	var prompt strings.Builder
	typed := make(chan bool, 1)
	go func() {
		// The prompt is written before the echo is off: type once it is off.
		for echoes(t, terminal) {
			runtime.Gosched()
		}
		typed <- true
		fmt.Fprint(master, "secret\n")
	}()
	password, err := readPassword("alice", terminal, &prompt)
	if err != nil || password != "secret" || !<-typed {
		t.Errorf("password %q, %v", password, err)
	}
	if prompt.String() != "Password of \"alice\": \n" {
		t.Errorf("prompt %q", prompt.String())
	}
	if !echoes(t, terminal) {
		t.Error("the echo is still off")
	}
}

func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Error(err)
		return false
	}
	return mode.Lflag&unix.ECHO != 0
}

// openPTY returns the two ends of a pseudo-terminal.
func openPTY(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}
