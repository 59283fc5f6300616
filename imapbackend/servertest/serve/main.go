//go:build integration

// Command serve runs one of the servers of package servertest until it is
// interrupted, for a developer: "make server NAME=cyrus".
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"popgate/imapbackend/servertest"
)

func main() {
	flag.Usage = usage
	flag.Parse()
	name := flag.Arg(0)
	if flag.NArg() != 1 || !slices.Contains(servertest.All(), name) {
		usage()
		os.Exit(2)
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	// The server ends with the thread that has started it.
	runtime.LockOSThread()
	run := &console{}
	defer run.cleanup()
	s := servertest.Start(run, name)
	fmt.Printf("%s %s\n", s.Name, s.Version)
	fmt.Printf("IMAP:      %s (login without TLS is allowed)\n", s.Addr)
	if s.TLSAddr != "" {
		fmt.Printf("IMAPS:     %s\n", s.TLSAddr)
	}
	fmt.Printf("users:     %s\n", strings.Join(s.Users(), " "))
	fmt.Printf("password:  %s\n", s.Password)
	fmt.Println("Ctrl-C ends it and removes its mail.")
	<-interrupted
}

func usage() {
	fmt.Fprintf(os.Stderr, "usage: make server NAME=SERVER\nservers: %s\n", strings.Join(servertest.All(), " "))
}

// console is the test that Start wants. A failure ends the program.
type console struct {
	testing.TB // for methods that are not called
	cleanups   []func()
	failed     bool
}

func (c *console) Helper()          {}
func (c *console) Failed() bool     { return c.failed }
func (c *console) Cleanup(f func()) { c.cleanups = append(c.cleanups, f) }

func (c *console) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (c *console) Errorf(format string, args ...any) {
	c.failed = true
	c.Logf(format, args...)
}

func (c *console) Fatalf(format string, args ...any) {
	c.Errorf(format, args...)
	c.cleanup()
	os.Exit(1)
}

func (c *console) Fatal(args ...any) { c.Fatalf("%s", fmt.Sprint(args...)) }

func (c *console) cleanup() {
	for _, f := range slices.Backward(c.cleanups) {
		f()
	}
	c.cleanups = nil
}
