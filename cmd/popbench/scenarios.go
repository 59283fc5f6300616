package main

import (
	"fmt"
	"strings"
)

// scenario is one measurement of one server.
type scenario struct {
	name string
	help string
	run  func(*env) error

	// reference measures the same over IMAP, without any gateway. It may be
	// nil.
	reference func(*env) error
}

// scenarios returns all scenarios, in the order in which they run.
func scenarios(c catalogue) []scenario {
	var all []scenario
	add := func(name, help string, run func(*env) error) {
		all = append(all, scenario{name: name, help: help, run: run})
	}
	for _, n := range []int{1, 8, 64} {
		add(fmt.Sprintf("login.c%d", n), fmt.Sprintf("connect, USER, PASS, STAT, QUIT; %d at a time", n),
			func(e *env) error { return e.sessions(n, userBox, false) })
	}
	add("poll.c16", "the same with UIDL, over a fleet of larger mailboxes; 16 at a time",
		func(e *env) error { return e.sessions(16, pollBox, true) })
	for _, b := range c.lists {
		add("list."+strings.TrimPrefix(b.name, "list"), "from connect to the end of UIDL and LIST; a new account, then again",
			func(e *env) error { return e.list(b) })
	}
	for _, b := range []box{c.mix, c.small} {
		add("retr."+b.name, "RETR of a whole maildrop, one command at a time",
			func(e *env) error { return e.walk(b, retr, 1) })
		add("retr."+b.name+".pipe", "RETR of a whole maildrop, pipelined",
			func(e *env) error { return e.walk(b, retr, e.Window) })
	}
	add("top", "TOP n 0 of a whole maildrop, one command at a time",
		func(e *env) error { return e.walk(c.small, top, 1) })
	add("top.pipe", "TOP n 0 of a whole maildrop, pipelined",
		func(e *env) error { return e.walk(c.small, top, e.Window) })
	all = append(all, scenario{
		name:      "huge",
		help:      "RETR of one message of 100 MiB; copy: the same from a bare IMAP socket",
		run:       func(e *env) error { return e.huge(c.huge) },
		reference: func(e *env) error { return e.copy(c.huge) },
	})
	add("dele", "DELE of a whole maildrop, then QUIT", func(e *env) error { return e.dele(c.delete) })
	add("slow", "RETR and DELE of a quarter of a maildrop, then QUIT; for an upstream on a slow link",
		func(e *env) error { return e.leave(c.slow) })
	for _, n := range c.idle {
		add(fmt.Sprintf("idle.%d", n), fmt.Sprintf("memory of %d idle sessions after login", n),
			func(e *env) error { return e.idle(n) })
	}
	return all
}
