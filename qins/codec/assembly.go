//go:build !noasm && (amd64 || arm64)

package codec

import "math"

// The functions below make a kernel's functions of loops in assembly that take
// whole blocks of weights only; what is left over goes to plain Go. They are
// given as Go values so that all kernels share the slicing; what a pointer given to
// one of them points to is on the heap, so that they return small results.

// scanLanes is what a scan in assembly leaves: the smallest magnitude, less a
// floor and wrapped round as in scanF32, and the largest, of each lane.
type scanLanes struct {
	min, max [64]byte
}

// scanBlock is the number of bytes that scans in assembly take at a time.
const scanBlock = 256

func scanWith(t Type, loop func(src *byte, n int, floor uint32) scanLanes) func([]byte, *Scan) {
	floor := uint32(tiny)
	if t != F32 {
		floor = uint32(t.ceilHalf(tiny))
	}
	return func(src []byte, s *Scan) {
		if n := len(src) &^ (scanBlock - 1); n > 0 {
			lanes := loop(&src[0], n, floor)
			s.Merge(lanes.scan(t, floor))
			src = src[n:]
		}
		generic.scan[t](src, s)
	}
}

func (l *scanLanes) scan(t Type, floor uint32) Scan {
	lo, hi := uint32(math.MaxUint32), uint32(0)
	limit := uint32(magnitude)
	widen := func(m uint32) uint32 { return m }
	if t == F32 {
		for i := 0; i < len(l.min); i += 4 {
			lo, hi = min(lo, le.Uint32(l.min[i:])), max(hi, le.Uint32(l.max[i:]))
		}
	} else {
		for i := 0; i < len(l.min); i += 2 {
			lo, hi = min(lo, uint32(le.Uint16(l.min[i:]))), max(hi, uint32(le.Uint16(l.max[i:])))
		}
		limit = halfMagnitude
		widen = func(m uint32) uint32 { return t.widen(uint16(m)) }
	}
	s := Scan{Min: NoMin, Max: widen(hi)}
	if lo <= limit-floor {
		s.Min = widen(lo + floor)
	}
	return s
}

func encodeWith(t Type, loop func(codes, signs, src *byte, n int, a *approx), block int) func(codes, signs, src []byte, e *Encoder) {
	return func(codes, signs, src []byte, e *Encoder) {
		if e.approx == nil {
			generic.encode[t](codes, signs, src, e)
			return
		}
		n := len(codes) &^ (block - 1)
		if n > 0 {
			loop(&codes[0], &signs[0], &src[0], n, e.approx)
		}
		encodeFew(codes[n:], signs[n/8:], src[n*t.Size():], e)
	}
}

// encodeFew encodes weights that are not worth a table.
func encodeFew(codes, signs, src []byte, e *Encoder) {
	clear(signs)
	for i := range codes {
		var w uint32
		if e.typ == F32 {
			w = le.Uint32(src[4*i:])
		} else {
			h := le.Uint16(src[2*i:])
			w = e.typ.widen(h&halfMagnitude) | uint32(h>>15)<<31
		}
		codes[i] = e.code(w & magnitude)
		signs[i/8] |= byte(w >> 31 << (i % 8))
	}
}

func decodeWith(t Type, loop func(dst, codes, signs *byte, n int, d *Decoder), block int) func(dst, codes, signs []byte, d *Decoder) {
	return func(dst, codes, signs []byte, d *Decoder) {
		if n := len(codes) &^ (block - 1); n > 0 {
			loop(&dst[0], &codes[0], &signs[0], n, d)
			dst, codes, signs = dst[n*t.Size():], codes[n:], signs[n/8:]
		}
		generic.decode[t](dst, codes, signs, d)
	}
}

func measureWith(t Type, loop func(want, got *byte, n int, s *Sums), block int) func(want, got []byte, s *Sums) {
	return func(want, got []byte, s *Sums) {
		if n := len(want) / t.Size() &^ (block - 1); n > 0 {
			loop(&want[0], &got[0], n, s)
			want, got = want[n*t.Size():], got[n*t.Size():]
		}
		generic.measure[t](want, got, s)
	}
}

// planesWith is for loops that bring n elements to planes that lie stride bytes
// apart or back, and rotate elements by rotate bits, one or none.
func planesWith(size int, loop func(dst, src *byte, n, stride, rotate int), block int, rest func(i int, dst, src []byte, rotate bool)) func(dst, src []byte, rotate bool) {
	return func(dst, src []byte, rotate bool) {
		stride := len(src) / size
		n := stride &^ (block - 1)
		if n > 0 {
			loop(&dst[0], &src[0], n, stride, count(rotate))
		}
		rest(n, dst, src, rotate)
	}
}

// prefixWith is for loops that take symbols from the end of src to its start.
func prefixWith(loop func(dst, src *byte, n int, p *PrefixCode, w bitWriter) (int, bitWriter), block int) func(dst, src []byte, p *PrefixCode, w bitWriter) (int, bitWriter) {
	return func(dst, src []byte, p *PrefixCode, w bitWriter) (int, bitWriter) {
		n := len(src) &^ (block - 1)
		at, w := prefix(dst, src[n:], p, w)
		if n > 0 {
			more, left := loop(&dst[at], &src[0], n, p, w)
			at, w = at+more, left
		}
		return at, w
	}
}

func count(rotate bool) int {
	if rotate {
		return 1
	}
	return 0
}
