package proxy

import "testing"

// TestProhibited shows P-UTF8-2: the characters that RFC 4013 §2.3 prohibits are
// refused, at the edges of its tables, and their neighbours are not.
func TestProhibited(t *testing.T) {
	for _, r := range []rune{
		0x00, 0x1F, 0x7F, 0x80, 0x9F, 0xA0, 0x340, 0x341, 0x6DD, 0x70F, 0x1680, 0x180E, 0x2000, 0x200B, 0x200C,
		0x200F, 0x2028, 0x202E, 0x202F, 0x205F, 0x2060, 0x2063, 0x206A, 0x206F, 0x2FF0, 0x2FFB, 0x3000,
		0xE000, 0xF8FF, 0xFDD0, 0xFDEF, 0xFEFF, 0xFFF9, 0xFFFD, 0xFFFE, 0xFFFF, 0x1D173, 0x1D17A,
		0x1FFFE, 0xE0001, 0xE0020, 0xE007F, 0xF0000, 0x10FFFD, 0x10FFFF,
	} {
		if !prohibited(r) {
			t.Errorf("%U is allowed", r)
		}
	}
	for _, r := range []rune{
		' ', '~', 0xA1, 0xAD, 0xE4, 0x33F, 0x342, 0x6DC, 0x710, 0x2010, 0x2027, 0x2064, 0x2070, 0x2FEF, 0x2FFC,
		0x3001, 0xD7FF, 0xF900, 0xFDCF, 0xFDF0, 0xFF00, 0x1D172, 0x1F600, 0xE0000, 0xE0080, 0xEFFFD,
	} {
		if prohibited(r) {
			t.Errorf("%U is prohibited", r)
		}
	}
}

// TestUnescapeName shows which names of RFC 5802 §5.1 are valid (P-SASL-5).
func TestUnescapeName(t *testing.T) {
	for in, want := range map[string]string{"": "", "a": "a", "=2C=3D": ",=", "=3D2C": "=2C", "a=2Cb": "a,b"} {
		if got, ok := unescapeName(in); !ok || got != want {
			t.Errorf("%q: %q, %v", in, got, ok)
		}
	}
	for _, in := range []string{"=", "a=b", "=2c", "=3", "=2D", "==3D"} {
		if got, ok := unescapeName(in); ok {
			t.Errorf("%q: %q", in, got)
		}
	}
}
