package codec

import "math"

// An approx computes codes by arithmetic, for kernels whose vectors are faster
// at that than at looking things up. It serves maps that give codes 255 to 1
// to even steps of the logarithm.
//
// For a magnitude 2^e·(1 + t), 0 ≤ t < 1, with e and t taken from the bits of
// the float32,
//
//	y = slope·e + poly(t), brought into low … high and truncated
//
// is the code, plus a little over one half, as a fixed-point number with 16
// fractional bits. Its upper half is the code, except where the magnitude is so
// near to a boundary that the error of y matters: then its fraction is zero
// under the mask near, and the code is that number or the one below. Which of
// them, the exact boundary in limit says.
//
// newApprox proves this for the breaks of the map at hand, so nothing depends
// on the last bit of an approximation.
type approx struct {
	poly  [7]float32 // coefficients of t^0 to t^6
	slope float32
	low   float32 // code 1
	high  float32 // code 255
	near  uint32
	// limit is the first magnitude with a code below the index, in the bits of
	// the type that is encoded.
	limit [256]uint32
}

// log2Poly approximates log2(1+t), 0 ≤ t ≤ 1, with an error below 2.3e-6. Its
// values at both ends are exact, so that octaves join without a step, and it
// rises everywhere.
var log2Poly = [7]float64{
	1: 1.4425449444761245,
	2: -0.7181452650684391,
	3: 0.4575492269187921,
	4: -0.27790539470647885,
	5: 0.1217979499030029,
	6: -0.025841461523001433,
}

const (
	codeOne  = 1 << 16     // one step of the code, in units of y
	codeHalf = codeOne / 2 // y is a code plus this, and then plus the margin
	// The margin is half the width of what counts as near a boundary. A wide
	// one sends more weights the slow way: one in 2^11 at the smallest, one in
	// 32 at the largest.
	minMargin = codeOne >> 12
	maxMargin = codeOne >> 6
)

// newApprox returns nil for maps that are not of this kind, or too steep.
func newApprox(m *Map, t Type) *approx {
	const smallest = 1 << 23 // with a full mantissa
	if len(m.Breaks) != 255 || m.Breaks[0].Bits != 1 || m.Breaks[1].Bits < smallest || m.Breaks[254].Bits >= infinity {
		return nil
	}
	for i, b := range m.Breaks {
		if int(b.Code) != 255-i {
			return nil
		}
	}
	// The line through the outermost boundaries, which lie between codes 255
	// and 254 and between 2 and 1.
	log2 := func(bits uint32) float64 { return math.Log2(float64(math.Float32frombits(bits))) }
	x1, x2 := log2(m.Breaks[1].Bits), log2(m.Breaks[254].Bits)
	a := &approx{low: codeOne + codeHalf, high: 255*codeOne + codeHalf}
	a.slope = float32(-253 * codeOne / (x2 - x1))
	slope := float64(a.slope)
	offset := 254.5*codeOne - slope*x1
	// The coefficients as rounded to float32, but for the offset.
	poly := [len(a.poly)]float64{offset}
	for i := 1; i < len(poly); i++ {
		a.poly[i] = float32(slope * log2Poly[i])
		poly[i] = float64(a.poly[i])
	}

	// How far y is off at the breaks, when computed exactly with these.
	off := 0.0
	for i, b := range m.Breaks[1:] {
		e := float64(int(b.Bits>>23) - 127)
		t := float64(b.Bits&(1<<23-1)) / (1 << 23)
		y := poly[6]
		for i := 5; i >= 0; i-- {
			y = y*t + poly[i]
		}
		off = max(off, math.Abs(slope*e+y-(254.5-float64(i))*codeOne))
	}
	// From there on it decreases, but for a step between octaves.
	step := -slope
	for _, c := range poly[1:] {
		step += c
	}
	off += math.Abs(step)
	// Rounding the offset, each step of the evaluation and y, to 24 bits each.
	// Powers of t are at most 1, and a y beyond 2^24 only has to stay beyond.
	noise, partial := math.Abs(offset)+1<<24, 0.0
	for i := len(poly) - 1; i >= 0; i-- {
		partial += math.Abs(poly[i])
		noise += partial
	}
	off += noise / (1 << 24)
	off++ // truncation

	margin := float64(minMargin)
	for margin < off {
		if margin *= 2; margin > maxMargin {
			return nil
		}
	}
	a.poly[0] = float32(offset + codeHalf + margin)
	a.near = codeOne - 2*uint32(margin)

	a.limit[0], a.limit[1] = never, never
	for _, b := range m.Breaks[1:] {
		a.limit[b.Code+1] = b.Bits
		if t != F32 {
			a.limit[b.Code+1] = uint32(t.ceilHalf(b.Bits))
		}
	}
	return a
}
