package codec

import (
	"encoding/binary"
	"math"
)

// generic is the kernel in plain Go.
var generic = Kernel{
	name:      "generic",
	available: func() bool { return true },
	scan:      [numTypes]func([]byte, *Scan){F32: scanF32, F16: scanF16, BF16: scanBF16},
	encode:    [numTypes]func(codes, signs, src []byte, e *Encoder){F32: encodeF32, F16: encodeHalf, BF16: encodeHalf},
	decode:    [numTypes]func(dst, codes, signs []byte, d *Decoder){F32: decodeF32, F16: decodeHalf, BF16: decodeHalf},
	measure:   [numTypes]func(want, got []byte, s *Sums){F32: measureF32, F16: measureF16, BF16: measureBF16},
	split2:    split2,
	split4:    split4,
	join2:     join2,
	join4:     join4,
	prefix:    prefix,
}

var le = binary.LittleEndian

const (
	magnitude     = 0x7fffffff
	halfMagnitude = 0x7fff
)

func scanF32(src []byte, s *Scan) {
	// Magnitudes below tiny wrap round to above every other, NoMin included.
	lo, hi := s.Min-tiny, s.Max
	for len(src) >= 8 {
		w := le.Uint64(src)
		src = src[8:]
		a, b := uint32(w)&magnitude, uint32(w>>32)&magnitude
		hi = max(hi, a, b)
		lo = min(lo, a-tiny, b-tiny)
	}
	if len(src) >= 4 {
		a := le.Uint32(src) & magnitude
		hi = max(hi, a)
		lo = min(lo, a-tiny)
	}
	s.Min, s.Max = lo+tiny, hi
}

func scanF16(src []byte, s *Scan)  { scanHalf(src, s, F16) }
func scanBF16(src []byte, s *Scan) { scanHalf(src, s, BF16) }

func scanHalf(src []byte, s *Scan, t Type) {
	floor := uint32(t.ceilHalf(tiny))
	const none = math.MaxUint32
	lo, hi := none-floor, uint32(0)
	for len(src) >= 8 {
		w := le.Uint64(src)
		src = src[8:]
		a, b := uint32(w)&halfMagnitude, uint32(w>>16)&halfMagnitude
		c, d := uint32(w>>32)&halfMagnitude, uint32(w>>48)&halfMagnitude
		hi = max(hi, max(a, b), max(c, d))
		lo = min(lo, min(a-floor, b-floor), min(c-floor, d-floor))
	}
	for ; len(src) >= 2; src = src[2:] {
		a := uint32(le.Uint16(src)) & halfMagnitude
		hi = max(hi, a)
		lo = min(lo, a-floor)
	}
	part := Scan{Min: NoMin, Max: t.widen(uint16(hi))}
	if lo += floor; lo != none {
		part.Min = t.widen(uint16(lo))
	}
	s.Merge(part)
}

// widen returns the float32 bits of a 16-bit magnitude.
func (t Type) widen(h uint16) uint32 {
	if t == BF16 {
		return uint32(h) << 16
	}
	return widenF16(h)
}

// widenF16 returns the float32 bits of an F16 magnitude. Shifting the fields
// into place leaves an exponent that is too small by the difference of the
// biases, which one exact multiplication mends, subnormals included.
func widenF16(h uint16) uint32 {
	bits := uint32(h) << 13
	if h >= 0x7c00 {
		return bits | infinity
	}
	return math.Float32bits(math.Float32frombits(bits) * 0x1p112)
}

func encodeF32(codes, signs, src []byte, e *Encoder) {
	cells, low, shift := e.makeCells(), e.low, e.shift&31
	// Low end of the cell's word below the break, its second byte from there on.
	code := func(m uint32) uint64 {
		c := uint64(cells[min((max(m, low)-low)>>shift, cellCount-1)])
		below := (m - uint32(c>>32)) >> 31
		return c >> (8 - 8*below) & 0xff
	}
	for len(src) >= 32 && len(codes) >= 8 && len(signs) >= 1 {
		a, b := le.Uint64(src), le.Uint64(src[8:])
		c, d := le.Uint64(src[16:]), le.Uint64(src[24:])
		src = src[32:]
		le.PutUint64(codes, code(uint32(a)&magnitude)|
			code(uint32(a>>32)&magnitude)<<8|
			code(uint32(b)&magnitude)<<16|
			code(uint32(b>>32)&magnitude)<<24|
			code(uint32(c)&magnitude)<<32|
			code(uint32(c>>32)&magnitude)<<40|
			code(uint32(d)&magnitude)<<48|
			code(uint32(d>>32)&magnitude)<<56)
		codes = codes[8:]
		signs[0] = byte(a>>31&1 | a>>63<<1 | b>>31&1<<2 | b>>63<<3 |
			c>>31&1<<4 | c>>63<<5 | d>>31&1<<6 | d>>63<<7)
		signs = signs[1:]
	}
	if len(signs) > 0 {
		signs[0] = 0
	}
	for i := 0; len(src) >= 4; i++ {
		w := le.Uint32(src)
		src = src[4:]
		codes[i] = byte(code(w & magnitude))
		signs[0] |= byte(w >> 31 << i)
	}
}

// Multiplying by these gathers one bit of each 16-bit or 8-bit field at the
// top, the lowest field first.
const (
	gather4 = 1<<48 | 1<<33 | 1<<18 | 1<<3
	gather8 = 0x0102040810204080
)

func encodeHalf(codes, signs, src []byte, e *Encoder) {
	table := e.makeHalf()
	for len(src) >= 16 && len(codes) >= 8 && len(signs) >= 1 {
		a, b := le.Uint64(src), le.Uint64(src[8:])
		src = src[16:]
		le.PutUint64(codes, uint64(table[a&halfMagnitude])|
			uint64(table[a>>16&halfMagnitude])<<8|
			uint64(table[a>>32&halfMagnitude])<<16|
			uint64(table[a>>48&halfMagnitude])<<24|
			uint64(table[b&halfMagnitude])<<32|
			uint64(table[b>>16&halfMagnitude])<<40|
			uint64(table[b>>32&halfMagnitude])<<48|
			uint64(table[b>>48&halfMagnitude])<<56)
		codes = codes[8:]
		const signBits = 0x8000800080008000
		lo := (a & signBits >> 15) * gather4 >> 48 & 0xf
		hi := (b & signBits >> 15) * gather4 >> 48 & 0xf
		signs[0] = byte(lo | hi<<4)
		signs = signs[1:]
	}
	if len(signs) > 0 {
		signs[0] = 0
	}
	for i := 0; len(src) >= 2; i++ {
		w := le.Uint16(src)
		src = src[2:]
		codes[i] = table[w&halfMagnitude]
		signs[0] |= byte(w >> 15 << i)
	}
}

func decodeF32(dst, codes, signs []byte, d *Decoder) {
	table := &d.f32
	for len(dst) >= 32 && len(codes) >= 8 && len(signs) >= 1 {
		c, s := le.Uint64(codes), uint32(signs[0])
		le.PutUint32(dst, table[c&0xff]|s<<31)
		le.PutUint32(dst[4:], table[c>>8&0xff]|s>>1<<31)
		le.PutUint32(dst[8:], table[c>>16&0xff]|s>>2<<31)
		le.PutUint32(dst[12:], table[c>>24&0xff]|s>>3<<31)
		le.PutUint32(dst[16:], table[c>>32&0xff]|s>>4<<31)
		le.PutUint32(dst[20:], table[c>>40&0xff]|s>>5<<31)
		le.PutUint32(dst[24:], table[c>>48&0xff]|s>>6<<31)
		le.PutUint32(dst[28:], table[c>>56]|s>>7<<31)
		dst, codes, signs = dst[32:], codes[8:], signs[1:]
	}
	for i := 0; len(dst) >= 4; i++ {
		le.PutUint32(dst, table[codes[i]]|uint32(signs[0])>>i<<31)
		dst = dst[4:]
	}
}

func decodeHalf(dst, codes, signs []byte, d *Decoder) {
	table := &d.half
	for len(dst) >= 16 && len(codes) >= 8 && len(signs) >= 1 {
		c, s := le.Uint64(codes), uint64(signs[0])
		le.PutUint64(dst, uint64(table[c&0xff])|uint64(table[c>>8&0xff])<<16|
			uint64(table[c>>16&0xff])<<32|uint64(table[c>>24&0xff])<<48|
			s&1<<15|s>>1&1<<31|s>>2&1<<47|s>>3&1<<63)
		le.PutUint64(dst[8:], uint64(table[c>>32&0xff])|uint64(table[c>>40&0xff])<<16|
			uint64(table[c>>48&0xff])<<32|uint64(table[c>>56])<<48|
			s>>4&1<<15|s>>5&1<<31|s>>6&1<<47|s>>7<<63)
		dst, codes, signs = dst[16:], codes[8:], signs[1:]
	}
	for i := 0; len(dst) >= 2; i++ {
		le.PutUint16(dst, table[codes[i]]|uint16(signs[0])>>i<<15)
		dst = dst[2:]
	}
}

func measureF32(want, got []byte, s *Sums) {
	for len(want) >= 4*Lanes && len(got) >= 4*Lanes {
		for i := 0; i < Lanes; i += 2 {
			w, g := le.Uint64(want[4*i:]), le.Uint64(got[4*i:])
			s.add(i, uint32(w), uint32(g))
			s.add(i+1, uint32(w>>32), uint32(g>>32))
		}
		want, got = want[4*Lanes:], got[4*Lanes:]
	}
	for i := 0; len(want) >= 4; i++ {
		s.add(i, le.Uint32(want), le.Uint32(got))
		want, got = want[4:], got[4:]
	}
}

func measureBF16(want, got []byte, s *Sums) {
	for len(want) >= 2*Lanes && len(got) >= 2*Lanes {
		for i := 0; i < Lanes; i += 4 {
			w, g := le.Uint64(want[2*i:]), le.Uint64(got[2*i:])
			s.add(i, uint32(w)<<16, uint32(g)<<16)
			s.add(i+1, uint32(w)&^0xffff, uint32(g)&^0xffff)
			s.add(i+2, uint32(w>>16)&^0xffff, uint32(g>>16)&^0xffff)
			s.add(i+3, uint32(w>>32)&^0xffff, uint32(g>>32)&^0xffff)
		}
		want, got = want[2*Lanes:], got[2*Lanes:]
	}
	for i := 0; len(want) >= 2; i++ {
		s.add(i, uint32(le.Uint16(want))<<16, uint32(le.Uint16(got))<<16)
		want, got = want[2:], got[2:]
	}
}

func measureF16(want, got []byte, s *Sums) {
	// As in widenF16, with the sign moved along; all weights are finite.
	widen := func(h uint16) uint32 {
		bits := uint32(int32(int16(h))<<16>>3) & (1<<31 | 0xfffe000)
		return math.Float32bits(math.Float32frombits(bits) * 0x1p112)
	}
	for len(want) >= 2*Lanes && len(got) >= 2*Lanes {
		for i := range Lanes {
			s.add(i, widen(le.Uint16(want[2*i:])), widen(le.Uint16(got[2*i:])))
		}
		want, got = want[2*Lanes:], got[2*Lanes:]
	}
	for i := 0; len(want) >= 2; i++ {
		s.add(i, widen(le.Uint16(want)), widen(le.Uint16(got)))
		want, got = want[2:], got[2:]
	}
}

// add adds one weight, given by float32 bits. The products of two float32
// values are exact in float64, so fusing them with the sum changes nothing.
func (s *Sums) add(lane int, want, got uint32) {
	w, g := math.Float32frombits(want), math.Float32frombits(got)
	e := w - g
	s.Signal[lane] += float64(w) * float64(w)
	s.Noise[lane] += float64(e) * float64(e)
	s.Dot[lane] += float64(w) * float64(g)
	abs := math.Float32frombits(math.Float32bits(e) & magnitude)
	if abs > s.MaxAbs {
		s.MaxAbs = abs
	}
	// Where the quotient is above MaxRel, the product is at most abs, as
	// rounding keeps order. That soon is rare, and saves most divisions.
	m := want & magnitude
	if b := math.Float32frombits(m); abs >= b*s.MaxRel && m >= tiny {
		if rel := abs / b; rel > s.MaxRel {
			s.MaxRel = rel
		}
	}
}
