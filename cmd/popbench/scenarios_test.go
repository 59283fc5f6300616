package main

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// scenarioFigures are the figures of each scenario where no pid is known.
var scenarioFigures = map[string][]string{
	"login.c1":           {figSessions, figPass, figSession, "session p99 ms"},
	"login.c8":           {figSessions, figPass, figSession, "session p99 ms"},
	"login.c64":          {figSessions, figPass, figSession, "session p99 ms"},
	"poll.c16":           {figSessions, figPass, figSession, "session p99 ms"},
	"list.1k":            {figFirst, figRepeat},
	"retr.mix2k":         {figMessages, figBytes},
	"retr.mix2k.pipe":    {figMessages, figBytes},
	"retr.small10k":      {figMessages, figBytes},
	"retr.small10k.pipe": {figMessages, figBytes},
	"top":                {figMessages},
	"top.pipe":           {figMessages},
	"huge":               {figBytes, figFirstOctet},
	"dele":               {"dele s", figQuit, figDeleQuit},
	"slow":               {figBytes, figQuit},
}

// inSequence reports whether a scenario has one session at a time for each
// account. With as few accounts as in tests, the maildrop lock would refuse
// sessions of the others.
func inSequence(s scenario) bool {
	return s.name != "login.c8" && s.name != "login.c64" && s.name != "poll.c16"
}

// TestScenarios runs each scenario against a correct POP3 server.
func TestScenarios(t *testing.T) {
	g := testGenerator()
	s := seededServers(t, g)
	for _, sc := range scenarios(testCatalogue) {
		if strings.HasPrefix(sc.name, "idle.") || !inSequence(sc) {
			continue
		}
		e := &env{settings: testSettings(s), ep: endpoint{Name: "test", Addr: s.pop}, gen: g, tag: "new", log: progress{io.Discard}}
		if err := sc.run(e); err != nil || e.failed > 0 {
			t.Errorf("%s: %v, %d wrong answers: %v", sc.name, err, e.failed, e.errs)
		}
		var names []string
		for _, m := range e.metrics {
			if m.Value <= 0 {
				t.Errorf("%s: %s is %v", sc.name, m.Name, m.Value)
			}
			names = append(names, m.Name)
		}
		if !slices.Equal(names, scenarioFigures[sc.name]) {
			t.Errorf("%s: figures %q, want %q", sc.name, names, scenarioFigures[sc.name])
		}
	}
	if left := len(s.Messages("dele5k")); left != 0 {
		t.Errorf("dele left %d messages", left)
	}
	if left := len(s.Messages("slow80")); left != 6 {
		t.Errorf("slow left %d messages", left)
	}
}

// TestConcurrentSessions checks that sessions are counted, and that a maildrop in
// use counts as a wrong answer.
func TestConcurrentSessions(t *testing.T) {
	g := testGenerator()
	s := seededServers(t, g)
	e := &env{settings: testSettings(s), ep: endpoint{Name: "test", Addr: s.pop}, gen: g, log: progress{io.Discard}}
	if err := e.sessions(testUsers/2, pollBox, true); err != nil {
		t.Fatal(err)
	}
	if e.metrics[0].Name != figSessions || e.metrics[0].Value <= 0 {
		t.Errorf("first figure: %v", e.metrics[0])
	}
}

// TestReference copies the message of huge from the upstream.
func TestReference(t *testing.T) {
	g := testGenerator()
	s := seededServers(t, g)
	e := &env{settings: testSettings(s), ep: endpoint{Name: copied}, gen: g, log: progress{io.Discard}}
	if err := e.copy(testCatalogue.huge); err != nil {
		t.Fatal(err)
	}
	if len(e.metrics) != 2 || e.metrics[0].Name != figBytes || e.metrics[1].Name != figFirstOctet {
		t.Errorf("figures: %v", e.metrics)
	}
	if err := e.copy(box{"u0000", 1, mixed}); err == nil {
		t.Error("a message of the wrong size is accepted")
	}
}

// TestFaults checks that faults of a server are noticed.
func TestFaults(t *testing.T) {
	g := testGenerator()
	byName := map[string]scenario{}
	for _, sc := range scenarios(testCatalogue) {
		byName[sc.name] = sc
	}
	for _, tt := range []struct {
		scenario string
		faults   proxytest.Faults
		spoil    func(*servers)
		want     string // in an error
	}{
		{scenario: "login.c1", faults: proxytest.Faults{Login: proxy.ErrAuth}, want: "no session succeeded"},
		{scenario: "list.1k", spoil: func(s *servers) { s.Expunge("list1k", 3) }, want: "29 lines"},
		{scenario: "retr.small10k", spoil: func(s *servers) { s.Expunge("small10k", 3) }, want: "want 30 messages"},
		{scenario: "retr.mix2k", faults: proxytest.Faults{Cut: map[uint64]int{2: 500}}, want: "message 2"},
		{scenario: "retr.mix2k.pipe", spoil: func(s *servers) { s.Messages("mix2k")[4].Body[400] ^= 1 }, want: "message 5"},
		{scenario: "huge", spoil: func(s *servers) { s.Messages("huge1")[0].Body[400] ^= 1 }, want: "CRC"},
		{scenario: "dele", faults: proxytest.Faults{Update: errors.New("no")}, want: "QUIT"},
		{scenario: "slow", faults: proxytest.Faults{Update: errors.New("no")}, want: "QUIT"},
	} {
		t.Run(tt.scenario, func(t *testing.T) {
			s := seededServers(t, g)
			s.SetFaults(tt.faults)
			if tt.spoil != nil {
				tt.spoil(s)
			}
			e := &env{settings: testSettings(s), ep: endpoint{Name: "test", Addr: s.pop}, gen: g, tag: "new", log: progress{io.Discard}}
			err := byName[tt.scenario].run(e)
			text := strings.Join(e.errs, "; ")
			if err != nil {
				text += err.Error()
			}
			if !strings.Contains(text, tt.want) {
				t.Errorf("%q does not contain %q", text, tt.want)
			}
		})
	}
}

// TestSeedAgain checks that a mailbox is written once, and again after it has
// changed.
func TestSeedAgain(t *testing.T) {
	g := testGenerator()
	s := startServers(t)
	b := testCatalogue.small
	seed := func(what string, want bool) {
		t.Helper()
		written, err := seedBox(s.imap, g, b)
		if err != nil || written != want {
			t.Fatalf("%s: written %v, %v", what, written, err)
		}
		if n, err := countMessages(s.imap, b.name); n != b.n || err != nil {
			t.Fatalf("%s: %d messages, %v", what, n, err)
		}
		for i, m := range s.Messages(b.name) {
			if !bytes.Equal(m.Body, g.message(b, i, nil)) {
				t.Fatalf("%s: message %d differs", what, i+1)
			}
		}
	}
	seed("first", true)
	seed("again", false)
	s.Expunge(b.name, 7)
	seed("one less", true)
}
