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

// extend returns the sum of the bytes of s followed by p, which is short.
func (s sum) extend(p []byte) sum {
	return sum{crc32.Update(s.crc, castagnoli, p), s.n + int64(len(p))}
}

// join returns the sum of the bytes of s followed by those of t. Appending n
// bytes multiplies the polynomial of what stands before by x^8n.
func (s sum) join(t sum) sum {
	if s.n == 0 {
		return t
	}
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

// squares[i] is x^(8·2^i).
var squares = func() (list [63]uint32) {
	square := uint32(1 << 23) // x^8
	for i := range list {
		list[i] = square
		square = mulmod(square, square)
	}
	return list
}()

// xpow8 returns x^8n.
func xpow8(n int64) uint32 {
	p := uint32(1 << 31) // x^0
	for i := 0; n > 0; i, n = i+1, n>>1 {
		if n&1 != 0 {
			p = mulmod(squares[i], p)
		}
	}
	return p
}
