package format

import (
	"math/bits"
	"strconv"
)

// A Shape lists a tensor's dimensions, outermost first. A scalar has none.
type Shape []uint64

// Elements multiplies the dimensions one by one, in order. It reports false
// where a product on the way passes 2^64, even if a later dimension is zero.
func (s Shape) Elements() (n uint64, ok bool) {
	n = 1
	for _, d := range s {
		hi, lo := bits.Mul64(n, d)
		if hi != 0 {
			return 0, false
		}
		n = lo
	}
	return n, true
}

// Bytes returns the size of a tensor of this shape. It reports false where the
// count overflows or the elements do not fill whole bytes.
func (s Shape) Bytes(d DType) (size uint64, ok bool) {
	n, ok := s.Elements()
	if !ok {
		return 0, false
	}
	elements, bytes := d.Block()
	if n%elements != 0 {
		return 0, false
	}
	hi, size := bits.Mul64(n/elements, bytes)
	return size, hi == 0
}

// String writes the shape as JSON does: [768,256].
func (s Shape) String() string {
	var buf [32]byte // for most
	b := append(buf[:0], '[')
	for i, d := range s {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, d, 10)
	}
	return string(append(b, ']'))
}
