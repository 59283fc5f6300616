package uniqueid

import (
	"math"
	"strings"
	"testing"
)

// I-UIDL-2: templates reproduce the unique-ids of other servers.
func TestTemplate(t *testing.T) {
	const v, uid = 1234567890, 0xAB
	for _, tt := range []struct{ template, want string }{
		{"{uidvalidity}.{uid}", "1234567890.171"},
		{"{uid:08x}{uidvalidity:08x}", "000000ab499602d2"}, // Dovecot
		{"{uidvalidity}-{uid}", "1234567890-171"},          // Courier
		{"{uidvalidity:08x}{uid:08x}", "499602d2000000ab"}, // UW
		{"{uid}", "171"},
		{"{uid:X}", "AB"},
		{"{uid:x}", "ab"},
		{"{uid:04X}", "00AB"},
		{"{uid:010}", "0000000171"},
		{"{uid:02}", "171"}, // longer than the width
		{"UID{uid}-{uidvalidity:x}~!", "UID171-499602d2~!"},
		{"{uid}.{uid:x}", "171.ab"},
	} {
		form, err := Parse(tt.template)
		if err != nil {
			t.Errorf("%s: %v", tt.template, err)
			continue
		}
		if got := string(form.Bind(v)([]byte("1 "), uid)); got != "1 "+tt.want {
			t.Errorf("%s: %q, want %q", tt.template, got, tt.want)
		}
		if got := len(form.Bind(math.MaxUint64)(nil, math.MaxUint64)); got != form.longest() {
			t.Errorf("%s: %d characters, longest returns %d", tt.template, got, form.longest())
		}
		if want := strings.Contains(tt.template, "uidvalidity"); form.HasUIDValidity() != want {
			t.Errorf("%s: HasUIDValidity is not %v", tt.template, want)
		}
	}
}

// I-UIDL-2: numbers above 32 bits have more digits than a padded field, and are
// never cut.
func TestTemplateWide(t *testing.T) {
	for template, want := range map[string]string{
		"{uid:08x}{uidvalidity:08x}":  "10000000018bcfe56801",
		"{uid:08X}{uidvalidity:08X}":  "10000000018BCFE56801",
		"{uidvalidity}.{uid}":         "1700000000001.4294967296",
		"{uidvalidity:010}-{uid:010}": "1700000000001-4294967296",
	} {
		form, err := Parse(template)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(form.Bind(1_700_000_000_001)(nil, 1<<32)); got != want {
			t.Errorf("%s: %q, want %q", template, got, want)
		}
	}
}

// I-UIDL-2: a template is refused if it lacks the UID, can exceed 70 characters, or
// contains characters outside 0x21-0x7E.
func TestTemplateRefused(t *testing.T) {
	for _, tt := range []struct{ template, want string }{
		{"", "no {uid}"},
		{"{uidvalidity}", "no {uid}"},
		{"emailid-of-mine", "no {uid}"},
		{"{uid} {uidvalidity}", `' '`},
		{"{uid}\u00fc", `'ü'`},
		{"{uid}\x7f", `'\x7f'`},
		{"{uid", "without a \"}\""},
		{"uid}", "without a \"{\""},
		{"{{uid}}", "{{uid}"},
		{"{guid}", "{guid}"},
		{"{UID}", "{UID}"},
		{"{uid:}", "{uid:}"},
		{"{uid:8x}", "{uid:8x}"},
		{"{uid:0x}", "{uid:0x}"},
		{"{uid:08y}", "{uid:08y}"},
		{"{uid:xx}", "{uid:xx}"},
		{"{uid:071}", "{uid:071}"},
		{"{uid:-08x}", "{uid:-08x}"},
		{"{uid}" + strings.Repeat("a", 51), "71 characters"},
		{"{uid:068}abc", "71 characters"},
		{"{uid:x}{uidvalidity:x}" + strings.Repeat("a", 39), "71 characters"},
		{"{uid}{uidvalidity}" + strings.Repeat("a", 31), "71 characters"},
	} {
		if _, err := Parse(tt.template); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q in it", tt.template, err, tt.want)
		}
	}
	for _, longest := range []string{"{uid}" + strings.Repeat("a", 50), "{uid}{uidvalidity}" + strings.Repeat("a", 30)} {
		if _, err := Parse(longest); err != nil {
			t.Error(err)
		}
	}
}

// I-UIDL-2: an accepted template makes unique-ids that are well formed and
// different for different UIDs.
func FuzzTemplate(f *testing.F) {
	f.Add("{uid:08x}{uidvalidity:08x}", uint64(1), uint64(2), uint64(3))
	f.Add("a{uid:X}{uidvalidity}", uint64(math.MaxUint64), uint64(0), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, template string, uidValidity uint64, a, b uint64) {
		form, err := Parse(template)
		if err != nil {
			return
		}
		id := form.Bind(uidValidity)
		x, y := string(id(nil, a)), string(id(nil, b))
		if !importUniqueID.MatchString(x) || a != b && x == y {
			t.Errorf("%s: unique-ids %q and %q", template, x, y)
		}
	})
}

// A listing of unique-ids allocates nothing per line.
func TestTemplateAllocations(t *testing.T) {
	form, err := Parse("x{uid:08X}{uidvalidity:08x}.{uid}")
	if err != nil {
		t.Fatal(err)
	}
	id, dst := form.Bind(7), make([]byte, 0, MaxLen)
	if n := testing.AllocsPerRun(100, func() { dst = id(dst[:0], math.MaxUint64) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
