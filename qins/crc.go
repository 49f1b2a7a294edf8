package qins

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A sum is the CRC-32C of a run of bytes and their number, so that sums of
// neighbouring runs can be joined.
type sum struct {
	crc uint32
	n   int64
}

func sumOf(p []byte) sum { return sum{crc32.Checksum(p, castagnoli), int64(len(p))} }

// join returns the sum of the bytes of s followed by those of t. Appending n
// bytes multiplies the polynomial of what stands before by x^8n.
func (s sum) join(t sum) sum {
	return sum{mulmod(s.crc, xpow8(t.n)) ^ t.crc, s.n + t.n}
}

// mulmod multiplies two polynomials over GF(2) modulo the Castagnoli
// polynomial. Bit 31 is the coefficient of x^0, as in the CRC itself.
func mulmod(a, b uint32) uint32 {
	var p uint32
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			p ^= b
		}
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return p
}

// xpow8 returns x^8n.
func xpow8(n int64) uint32 {
	p, square := uint32(1<<31), uint32(1<<23) // x^0, x^8
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			p = mulmod(p, square)
		}
		square = mulmod(square, square)
	}
	return p
}
