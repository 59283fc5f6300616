//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly || windows)

package main

import (
	"errors"
	"os"
)

// hideEcho fails: on this system the password is read as any line is.
func hideEcho(*os.File) (restore func(), err error) { return nil, errors.ErrUnsupported }
