package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/term"
)

// readPassword reads one line of stdin, without echo if it is a terminal.
func readPassword(user string, stdin io.Reader, stderr io.Writer) (string, error) {
	var line string
	var err error
	if f, ok := stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(stderr, "Password of %q: ", user)
		line, err = readHidden(int(f.Fd()))
		fmt.Fprintln(stderr)
	} else {
		line, err = bufio.NewReader(stdin).ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
	}
	if line != "" {
		return line, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = errors.New("it is empty")
	}
	return "", err
}

// readHidden reads a line from the terminal fd without echo. Ctrl-C turns the
// echo on again and ends the program.
func readHidden(fd int) (string, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	done := make(chan struct{})
	go func() {
		select {
		case <-interrupted:
			_ = term.Restore(fd, before)
			os.Exit(exitFailure)
		case <-done:
		}
	}()
	defer close(done)
	defer signal.Stop(interrupted)
	line, err := term.ReadPassword(fd)
	return string(line), err
}
