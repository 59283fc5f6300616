// Command gluon serves gluon, the IMAP server of Proton Mail Bridge, with its
// connector for tests in place of Proton Mail.
package main

import (
	"context"
	"errors"
	"log"
	"net"
	"time"

	"github.com/ProtonMail/gluon"
	"github.com/ProtonMail/gluon/connector"
	"github.com/ProtonMail/gluon/imap"

	"popgate/servertest/goservers/internal/flags"
)

// echoes is when the connector repeats to the server what its clients have done.
// The server takes a message for a new one if that comes before it is done itself.
const echoes = 24 * time.Hour

func main() {
	f := flags.Parse()
	ctx := context.Background()
	s, err := gluon.New(gluon.WithTLS(f.TLS), gluon.WithDataDir(f.Dir), gluon.WithDatabaseDir(f.Dir))
	if err != nil {
		log.Fatal(err)
	}
	anyFlag := imap.NewFlagSet(`\Answered`, `\Seen`, `\Flagged`, `\Deleted`)
	for _, name := range f.Users {
		c := connector.NewDummy([]string{name}, []byte(f.Password), echoes, anyFlag, anyFlag, imap.NewFlagSet())
		if _, err := s.AddUser(ctx, c, []byte(f.Password)); err != nil {
			log.Fatal(err)
		}
		if err := c.Sync(ctx); err != nil {
			log.Fatal(err)
		}
	}
	f.Serve(func(ln net.Listener) error {
		if err := s.Serve(ctx, ln); err != nil { // which does not block
			return err
		}
		for err := range s.GetErrorCh() { // of single sessions too
			log.Print(err)
		}
		return errors.New("the server has ended")
	})
}
