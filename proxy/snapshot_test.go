package proxy

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestParseDecimal shows P-GRAM-9 and P-TOP-1.
func TestParseDecimal(t *testing.T) {
	for _, tt := range []struct {
		arg  string
		want uint64
		ok   bool
	}{
		{"", 0, false},
		{"0", 0, true},
		{"1", 1, true},
		{strings.Repeat("0", 300) + "17", 17, true},
		{"18446744073709551615", math.MaxUint64, true},
		{"18446744073709551616", math.MaxUint64, true},
		{"18446744073709551617", math.MaxUint64, true},
		{"99999999999999999999", math.MaxUint64, true},
		{"1844674407370955161600000000000000000001", math.MaxUint64, true},
		{"+1", 0, false},
		{"-1", 0, false},
		{"1 ", 0, false},
		{"1e3", 0, false},
		{"99999999999999999999x", 0, false},
		{"\u0661", 0, false}, // ARABIC-INDIC DIGIT ONE
	} {
		if got, ok := parseDecimal(tt.arg); got != tt.want || ok != tt.ok {
			t.Errorf("%q: got %d, %v, want %d, %v", tt.arg, got, ok, tt.want, tt.ok)
		}
	}
}

// TestSnapshot compares marks and totals with a simple model, over random
// sequences of DELE and RSET (P-STAT-1, P-LIST-2, P-DELE-1, P-RSET-1).
func TestSnapshot(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, count := range []int{0, 1, 63, 64, 65, 200} {
		messages := make([]Message, count)
		for i := range messages {
			messages[i] = Message{UID: uint64(10 * (i + 1)), Octets: r.Int64N(1 << 40)}
		}
		s := newSnapshot(messages)
		marked := make(map[int]bool)
		for range 500 {
			if r.IntN(100) == 0 {
				s.reset()
				clear(marked)
			}
			n := r.IntN(count + 2)
			got, err := s.find(strconv.Itoa(n))
			if exists := n >= 1 && n <= count && !marked[n]; !exists {
				if !errors.Is(err, errNoSuchMessage) {
					t.Fatalf("message %d of %d: %d, %v", n, count, got, err)
				}
				continue
			}
			if err != nil || got != n || s.message(n) != messages[n-1] {
				t.Fatalf("message %d of %d: %d, %v", n, count, got, err)
			}
			s.mark(n)
			marked[n] = true
			checkSnapshot(t, &s, marked)
		}
	}
}

func checkSnapshot(t *testing.T, s *snapshot, marked map[int]bool) {
	t.Helper()
	wantCount, wantOctets := 0, int64(0)
	var wantUIDs []uint64
	for i, m := range s.messages {
		if marked[i+1] {
			wantUIDs = append(wantUIDs, m.UID)
		} else {
			wantCount++
			wantOctets += m.Octets
		}
	}
	if count, octets := s.stat(); count != wantCount || octets != wantOctets {
		t.Errorf("stat: %d %d, want %d %d", count, octets, wantCount, wantOctets)
	}
	if uids := s.markedUIDs(); !slices.Equal(uids, wantUIDs) {
		t.Errorf("marked: %v, want %v", uids, wantUIDs)
	}
}

// TestSnapshotLazy shows that a session without DELE allocates no marks.
func TestSnapshotLazy(t *testing.T) {
	s := newSnapshot(make([]Message, 1000))
	if s.isMarked(1000) || s.markedUIDs() != nil || s.marks != nil {
		t.Error("marks allocated without DELE")
	}
	s.mark(1000)
	if len(s.marks) != 16 {
		t.Errorf("%d words for 1000 marks", len(s.marks))
	}
}
