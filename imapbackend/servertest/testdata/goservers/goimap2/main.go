// Command goimap2 serves go-imap v2's imapserver and its imapmemserver.
package main

import (
	"log"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"

	"popgate/servertest/goservers/internal/flags"
)

func main() {
	f := flags.Parse()
	memory := imapmemserver.New()
	for _, name := range f.Users {
		u := imapmemserver.NewUser(name, f.Password)
		for _, mailbox := range []string{"INBOX", "Trash"} {
			if err := u.Create(mailbox, nil); err != nil {
				log.Fatal(err)
			}
		}
		memory.AddUser(u)
	}
	f.Serve(imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return memory.NewSession(), nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}},
		TLSConfig:    f.TLS,
		InsecureAuth: true,
	}).Serve)
}
