package codec

import "slices"

// MaxPrefix is the length of the longest prefix code, in bits.
const MaxPrefix = 11

// A PrefixCode holds a Huffman code for each symbol that occurs.
type PrefixCode struct {
	// The code as the top bits, its length as the lowest six.
	top [256]uint64
	// For vectors: the code above its length of four bits.
	words [256]uint16
}

// Set gives a symbol its code.
func (p *PrefixCode) Set(symbol byte, code uint16, length int) {
	p.top[symbol] = uint64(code)<<(64-length) | uint64(length)
	p.words[symbol] = code<<4 | uint16(length)
}

// A bitWriter holds the bits that do not fill a byte yet: count of them, less
// than eight.
type bitWriter struct {
	bits, count uint64
}

// AppendPrefixed appends the codes of src, from its last symbol to its first,
// and a one bit that marks the end: a stream of literals as zstd has it. Bits
// fill bytes from the lowest one on.
func (k *Kernel) AppendPrefixed(dst, src []byte, p *PrefixCode) []byte {
	const atOnce = 8 // bytes that are written, though they may hold only a few bits
	at := len(dst)
	dst = slices.Grow(dst, len(src)*MaxPrefix/8+1+atOnce)
	buf := dst[at:cap(dst)]
	n, w := k.prefix(buf, src, p, bitWriter{})
	buf[n] = byte(w.bits | 1<<w.count)
	return dst[:at+n+1]
}

// prefix writes the codes of src to dst after the bits of w, and returns the
// number of bytes that they fill and the bits that are left.
//
// While it runs, the newest bits are the top ones: a new code shifts those
// before it down and takes their place. The lengths in the lowest bits of the
// codes come along as garbage, which stays below the bits that count.
func prefix(dst, src []byte, p *PrefixCode, w bitWriter) (int, bitWriter) {
	at := 0
	bits, count := w.bits<<(64-w.count), w.count
	for ; len(src)%4 != 0; src = src[:len(src)-1] {
		a := p.top[src[len(src)-1]]
		bits = bits>>(a&63) | a
		count += a & 63
		le.PutUint64(dst[at:], bits>>(-count&63))
		at += int(count >> 3)
		count &= 7
	}
	// Four codes at a time are joined as a tree, so that little has to wait
	// for the codes before. There is always room in dst.
	for top := &p.top; len(src) >= 4 && len(dst)-at >= 8; src = src[:len(src)-4] {
		four := le.Uint32(src[len(src)-4:])
		a, b := top[four>>24], top[byte(four>>16)]
		length := a + b
		a = a>>(b&63) | b
		c, d := top[byte(four>>8)], top[byte(four)]
		half := c + d
		length += half
		a = a>>(half&63) | c>>(d&63) | d
		bits = bits>>(length&63) | a
		count += length & 63
		le.PutUint64(dst[at:at+8], bits>>(-count&63))
		at += int(count >> 3)
		count &= 7
	}
	return at, bitWriter{bits >> (64 - count), count}
}
