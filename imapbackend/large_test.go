package imapbackend

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"popgate/imapbackend/imapmodel"
	"popgate/proxy/proxytest"
)

// largeOctets are more than an upstream may send unasked (I-CONN-8).
const largeOctets = 17 << 20

// I-CONN-8, I-SIZE-4: messages that are read to find out their sizes were asked for,
// wherever the UID is, before and after their bodies.
func TestLargeMeasured(t *testing.T) {
	for _, last := range []bool{false, true} {
		m := newModel()
		m.UIDLast = last
		for range 2 {
			addSized(m, largeOctets, 100)
		}
		got := ask(front(t, m.backend(t, Options{Sizes: SizesExact})), "LIST 2")
		if want := fmt.Sprint("+OK 2 ", largeOctets); got[0] != want {
			t.Errorf("UIDLast %v: %q, want %q", last, got[0], want)
		}
	}
}

// I-CONN-8, I-FETCH-2: a large message whose UID follows its body, with others on their
// way, was asked for: as the current message (first), and ahead of it.
func TestLargeUIDLast(t *testing.T) {
	for name, sizes := range map[string][]int{
		"current":          {500, 500, 500, 500, 500, largeOctets, 500},
		"ahead, announced": {500, 7 << 20, 7 << 20, 7 << 20, 7 << 20, 7 << 20, 7 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				m.UIDLast = true
				for i, octets := range sizes {
					msg := imapmodel.Message{Body: mail(i, octets)}
					if octets == 7<<20 {
						msg = imapmodel.Message{Body: mail(i, 10<<20), Size: int64(octets)}
					}
					m.Inbox().AddMessage(msg)
				}
				d := openMaildrop(t, m.backend(t, Options{}))
				defer d.Close()
				m.remove(0)
				for _, msg := range m.messages() {
					if got := read(t, d, msg.UID); got != msg.Body {
						t.Fatalf("UID %d: %d octets, want %d", msg.UID, len(got), len(msg.Body))
					}
				}
			})
		})
	}
}

// I-CONN-8, I-TOP-3: an upstream that sends the whole text in place of a piece may send
// a large one, more than once.
func TestLargeText(t *testing.T) {
	const lines = 2 * largeOctets / 1000
	body := "A: b\r\n\r\n" + strings.Repeat(strings.Repeat("x", 998)+"\r\n", lines)
	for _, last := range []bool{false, true} {
		for _, top := range []uint64{lines * 3 / 4, 2 * lines} {
			m := newModel()
			m.UIDLast, m.Partial = last, imapmodel.PartialIgnored
			m.add(body)
			d := openMaildrop(t, m.backend(t, Options{}))
			want := body[:min(len(body), 8+int(top)*1000)]
			if got := text(t)(d.Top(t.Context(), 1, top)); got != want {
				t.Errorf("UIDLast %v, TOP 1 %d: %d octets, want %d", last, top, len(got), len(want))
			}
			d.Close()
		}
	}
}

// I-CONN-8: headers of messages that are not in the mailbox were not asked for.
func TestHeadersOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hostileServer{caps: hostileCaps, attacks: map[string]attack{
			"SELECT": {text: "* OK [UIDNOTSTICKY] x\r\n", times: 1},
			"body":   {text: "* 1 FETCH (UID 9# BODY[HEADER] {1000}\r\n" + strings.Repeat("x", 1000) + ")\r\n", times: 50_000},
		}}
		var log proxytest.Log
		if err := h.play(t, &log, Options{}); err == nil || !strings.Contains(err.Error(), "BODY.PEEK[HEADER]): imap: protocol violation") {
			t.Errorf("error %v, want one of too many headers", err)
		}
	})
}
