package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// absolute returns the file that name refers to.
func (l *loader) absolute(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(l.dir, name)
}

// read reads the file that the key at path names.
func (l *loader) read(path, name string) ([]byte, bool) {
	name = l.absolute(name)
	b, err := os.ReadFile(name)
	if err == nil {
		return b, true
	}
	remedy := "name a file that popgate can read; relative names start at the directory of this file"
	switch {
	case errors.Is(err, fs.ErrPermission):
		remedy = "make it readable for the user that popgate runs as"
	case errors.Is(err, syscall.EISDIR):
		remedy = "this is a directory: name a file in it"
	}
	l.fail(path, fmt.Sprintf("cannot be read: %v", err), remedy)
	return nil, false
}

// certPool reads the PEM file that the key at path names; nil after a mistake.
func (l *loader) certPool(path, name string) *x509.CertPool {
	pem, ok := l.read(path, name)
	if !ok {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		l.fail(path, "contains no certificate", "name a PEM file with the CA's certificate")
	}
	return pool
}
