package codec

import "testing"

// TestCeilF16 goes through every F16 magnitude and both neighbours as float32.
func TestCeilF16(t *testing.T) {
	for h := range 1 << 15 {
		bits := widenF16(uint16(h))
		if got := ceilF16(bits); got != h {
			t.Fatalf("ceilF16(%#x) = %#x, want %#x", bits, got, h)
		}
		if got := ceilF16(bits + 1); got != h+1 {
			t.Fatalf("ceilF16(%#x) = %#x, want %#x", bits+1, got, h+1)
		}
		if h > 0 {
			if got := ceilF16(bits - 1); got != h {
				t.Fatalf("ceilF16(%#x) = %#x, want %#x", bits-1, got, h)
			}
		}
	}
}
