// Package flags has what the servers of this module have in common: a command
// line and two listeners.
package flags

import (
	"crypto/tls"
	"flag"
	"log"
	"net"
)

// Flags is the command line of a server. All users have the same password.
type Flags struct {
	Dir      string
	Password string
	Users    []string
	TLS      *tls.Config

	listen, listenTLS string
}

// Parse reads the command line and ends the program if it is wrong.
func Parse() Flags {
	var f Flags
	var cert, key string
	flag.StringVar(&f.listen, "listen", "", "host:port of IMAP")
	flag.StringVar(&f.listenTLS, "listen-tls", "", "host:port of IMAP over TLS")
	flag.StringVar(&cert, "cert", "", "certificate, a PEM file")
	flag.StringVar(&key, "key", "", "its key, a PEM file")
	flag.StringVar(&f.Dir, "dir", "", "directory for data")
	flag.StringVar(&f.Password, "password", "", "password of each user")
	flag.Parse()
	f.Users = flag.Args()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		log.Fatal(err)
	}
	f.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	return f
}

// Serve has serve accept from both listeners, and ends the program when one of
// them fails.
func (f Flags) Serve(serve func(net.Listener) error) {
	secure, err := tls.Listen("tcp", f.listenTLS, f.TLS)
	if err != nil {
		log.Fatal(err)
	}
	plain, err := net.Listen("tcp", f.listen)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(serve(secure)) }()
	log.Fatal(serve(plain))
}
