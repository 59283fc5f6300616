package proxytest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/rogpeppe/go-internal/txtar"
)

// RunTranscripts plays every .txtar file of dir, each as a subtest, against a
// proxy.Server over the Backend of this package, in memory and in fake time. With
// update, expected lines that differ are rewritten in the files instead.
//
// A file begins with a comment that names the requirement, and has sections:
//
//	maildrop    the messages of alice, password "secret", one per line:
//	            uid=N, then octets=N for a generated message or body="..."
//	            (Go syntax), then listed=N or announced=N if LIST or RETR
//	            are to announce another size
//	config      key = value: see config.go
//	faults      key = value: see config.go
//	transcript  the conversation; "transcript, after login" begins after the
//	            login of alice, "transcript, after greeting" after the greeting
//	removed     the UIDs of the messages removed
//	logins      how many logins reached the Backend
//	retrieved   the UIDs that Retrieved was called for, in order
//
// A conversation has these lines; "#" begins a comment:
//
//	C: text     is sent with CRLF; consecutive lines are sent in one write.
//	            C: "..." is sent unchanged. {x*300} means 300 times x
//	S: text     must have been received. In a status line "..." matches any
//	            text without response code; S: "..." must match exactly
//	T: 10m      advances the clock
//	X:          the gateway has closed, with close_notify under TLS
//	H:          the client disconnects; H: write closes its sending side only
//	TLS: ok     the client does a TLS handshake; TLS: fail: it must fail
//	U: 101      another client expunges the message with this UID
//	D:          the server begins to shut down
//
// A digit after the letter (C2:, S2:) names another connection, which is opened
// when it is first used.
func RunTranscripts(t *testing.T, dir string, update bool) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts in %s: %v", dir, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var rewritten []byte
			synctest.Test(t, func(t *testing.T) {
				rewritten = runTranscript(t, data, update)
			})
			if update && !t.Failed() && !bytes.Equal(rewritten, data) {
				if err := os.WriteFile(file, rewritten, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// runTranscript plays one file and returns it with what the gateway has sent.
func runTranscript(t *testing.T, data []byte, update bool) []byte {
	ar := txtar.Parse(data)
	sc, err := parseScenario(ar)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPlayer(t, sc, update)
	if err != nil {
		t.Fatal(err)
	}
	script := sc.script
	if sc.prelude != "" {
		p.play(sc.prelude)
	}
	played := p.play(script.data)
	p.finish()
	sc.check(t, p)
	if t.Failed() {
		t.Logf("conversation:\n%s", p.log.String())
	}
	for i := range ar.Files {
		if ar.Files[i].Name == script.name {
			ar.Files[i].Data = []byte(played)
		}
	}
	return txtar.Format(ar)
}

// check compares the Backend with the file's sections.
func (sc *scenario) check(t *testing.T, p *player) {
	t.Helper()
	if got := join(sc.backend.Removed("alice")); sc.removed != nil && got != *sc.removed {
		t.Errorf("removed %q, want %q", got, *sc.removed)
	}
	if sc.removed == nil && len(sc.backend.Removed("alice")) > 0 {
		t.Errorf("removed %v, but there is no such section", sc.backend.Removed("alice"))
	}
	if got := fmt.Sprint(sc.backend.Counts().Logins); sc.logins != nil && got != *sc.logins {
		t.Errorf("%s logins reached the Backend, want %s", got, *sc.logins)
	}
	if got := join(p.retrieved); sc.retrieved != nil && got != *sc.retrieved {
		t.Errorf("retrieved %q, want %q", got, *sc.retrieved)
	}
	if n := sc.backend.Open(); n != 0 {
		t.Errorf("%d logins or maildrops are still open", n)
	}
}

func join(uids []uint64) string {
	words := make([]string, len(uids))
	for i, uid := range uids {
		words[i] = fmt.Sprint(uid)
	}
	return strings.Join(words, " ")
}
