package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
)

// seedWorkers is the number of mailboxes filled at a time.
const seedWorkers = 4

func seedCommand() *cobra.Command {
	var addr, names string
	var users int
	var seed uint64
	cmd := &cobra.Command{
		Use:   "seed --imap ADDR",
		Short: "Fill the mailboxes of the scenarios, except those that are filled already",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			boxes := slices.DeleteFunc(standard.boxes(users), func(b box) bool { return !selected(names, b.name) })
			return seedAll(addr, newGenerator(seed), boxes, progress{cmd.ErrOrStderr()})
		},
	}
	cmd.Flags().StringVar(&addr, "imap", "", "upstream IMAP `ADDR`ess, without TLS")
	cmd.Flags().StringVar(&names, "boxes", "all", "`LIST` of mailboxes: names, or beginnings with a star such as list*,u*")
	cmd.Flags().IntVar(&users, "users", defaultUsers, "accounts in each fleet")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "seed of the content")
	_ = cmd.MarkFlagRequired("imap") // fails for unknown flags only
	return cmd
}

// selected reports whether name is in list. The elements of list are separated
// by commas; an element matches itself, names that continue it with a dot and,
// if it ends in a star, names that begin with what precedes the star.
func selected(list, name string) bool {
	for want := range strings.SplitSeq(list, ",") {
		beginning, star := strings.CutSuffix(want, "*")
		if want == "all" || name == want || star && strings.HasPrefix(name, beginning) || strings.HasPrefix(name, want+".") {
			return true
		}
	}
	return false
}

// empty expunges all messages of INBOX.
func (c *imapConn) empty() error {
	n, err := c.selectInbox()
	if err != nil || n == 0 {
		return err
	}
	if _, err := c.cmd(`STORE 1:* +FLAGS.SILENT (\Deleted)`); err != nil {
		return err
	}
	_, err = c.cmd("EXPUNGE")
	return err
}

// fill appends the messages of b, by MULTIAPPEND (RFC 3502) and LITERAL+
// (RFC 7888).
func (c *imapConn) fill(g *generator, b box) error {
	const batch = 16 << 20 // octets in one command
	var buf []byte
	for i := 0; i < b.n; {
		tag := c.begin("APPEND INBOX")
		for sent := 0; i < b.n && sent < batch; i++ {
			buf = g.message(b, i, buf)
			sent += len(buf)
			fmt.Fprintf(c.w, " {%d+}\r\n", len(buf))
			if _, err := c.w.Write(buf); err != nil {
				return err
			}
		}
		if _, err := c.end(tag); err != nil {
			return err
		}
	}
	return nil
}

// matches reports whether INBOX agrees with b in the number of messages and in
// the first and the last one.
func (c *imapConn) matches(g *generator, b box) (bool, error) {
	n, err := c.selectInbox()
	if err != nil || n != b.n {
		return false, err
	}
	for _, i := range []int{0, b.n - 1} {
		lines, err := c.cmd("FETCH %d (BODY.PEEK[])", i+1)
		if err != nil {
			return false, err
		}
		if len(lines) == 0 || !strings.Contains(lines[0], string(g.message(b, i, nil))) {
			return false, nil
		}
	}
	return true, nil
}

// seedBox makes sure that the upstream's mailbox has the content of b, and
// reports whether it had to be written.
func seedBox(addr string, g *generator, b box) (written bool, err error) {
	c, err := loginIMAP(addr, b.name)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, c.logout()) }()
	if ok, err := c.matches(g, b); ok || err != nil {
		return false, err
	}
	if err := c.empty(); err != nil {
		return false, fmt.Errorf("%s: emptying: %w", b.name, err)
	}
	if err := c.fill(g, b); err != nil {
		return false, fmt.Errorf("%s: appending: %w", b.name, err)
	}
	ok, err := c.matches(g, b)
	if err == nil && !ok {
		err = fmt.Errorf("%s: the content differs after seeding", b.name)
	}
	return true, err
}

// seedAll seeds boxes, several at a time, until the first error.
func seedAll(addr string, g *generator, boxes []box, log progress) error {
	var next, written atomic.Int64
	var mu sync.Mutex
	var failed error
	start := time.Now()
	parallel(seedWorkers, func(int) {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(boxes) {
				return
			}
			wrote, err := seedBox(addr, g, boxes[i])
			if err != nil {
				next.Store(int64(len(boxes)))
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
				return
			}
			if wrote {
				written.Add(1)
			}
			if boxes[i].n >= 1000 || (i+1)%100 == 0 || i+1 == len(boxes) {
				log.printf("seed %d/%d %s, %d messages, %.1f s", i+1, len(boxes), boxes[i].name, boxes[i].n, time.Since(start).Seconds())
			}
		}
	})
	if failed != nil {
		return failed
	}
	log.printf("seeded %d mailboxes, %d were filled already", written.Load(), int64(len(boxes))-written.Load())
	return nil
}

// parallel runs n workers and waits for them.
func parallel(n int, work func(worker int)) {
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() { work(w) })
	}
	wg.Wait()
}
