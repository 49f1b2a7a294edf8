package codec

import (
	"errors"
	"math"
)

// logCodec divides the logarithms of a tensor's magnitudes evenly into codes
// 255 (smallest) to 1 (largest). For a magnitude a > 0
//
//	code(a) = clamp(roundHalfEven(255 − 254·(ln a − min)/(max − min)), 1, 255)
//
// and code c decodes to exp(min + (255 − c)/254·(max − min)), both as if in
// exact arithmetic. It is the code of the QINS seed, whose zero gets a code of
// its own here.
var logCodec = &Codec{
	ID:     "log",
	Params: []string{"log_min", "log_max"},
	Fit:    fitLog,
	Map:    mapLog,
}

const (
	logSteps = 254 // intervals between code 255 and code 1
	logFlat  = 128 // the only code of a tensor with one magnitude
)

// Reasons for which Fit refuses a tensor.
var (
	ErrNotFinite = errors.New("it holds a NaN or an infinity")
	ErrTooSmall  = errors.New("no entry is above 1e-8 although some are not zero")
)

func fitLog(s Scan) ([]float32, error) {
	switch {
	case !s.Finite():
		return nil, ErrNotFinite
	case s.Max == 0:
		return []float32{0, 0}, nil
	case s.Min == NoMin:
		return nil, ErrTooSmall
	}
	return []float32{
		lnFloat32(math.Float32frombits(s.Min)),
		lnFloat32(math.Float32frombits(s.Max)),
	}, nil
}

// lnFloat32 returns the nearest float32 of ln x for a positive x.
func lnFloat32(x float32) float32 {
	// The machine's logarithm may be off in its last bits.
	y := math.Log(float64(x))
	f := float32(y * (1 + relativeError))
	if f != float32(y*(1-relativeError)) {
		f = lnDD(float64(x)).float32()
	}
	return f
}

// maxLog is above the logarithm of every float32 and, negated, below that of
// every positive one.
const maxLog = 104

func mapLog(params []float32) (Map, error) {
	var m Map
	if len(params) != 2 {
		return m, errors.New("the log codec has two parameters")
	}
	lo, hi := float64(params[0]), float64(params[1])
	if !(-maxLog <= lo && lo <= hi && hi <= maxLog) {
		return m, errors.New("log_min and log_max are not a range of logarithms")
	}
	if lo == hi {
		level := clampFloat32(expDD(dd{lo, 0}).float32())
		for c := 1; c < 256; c++ {
			m.Levels[c] = level
		}
		m.Breaks = []Break{{1, logFlat}}
		return m, nil
	}

	// The levels are exp(lo + span·k/254), the boundaries lie halfway between
	// them in the logarithm. Both are geometric progressions.
	span := twoSum(hi, -lo)
	exact := func(halves int) dd { // exp(lo + span·halves/508), with an error below 2^-90
		return expDD(span.scale(float64(halves)).div(2 * logSteps).add(dd{lo, 0}))
	}
	ratio := expDD(span.div(logSteps)).hi
	level := exact(0).hi
	boundary := level * math.Sqrt(ratio)
	m.Breaks = make([]Break, 1, 255)
	m.Breaks[0] = Break{1, 255}
	for k := 0; ; k++ {
		f := float32(level * (1 + relativeError))
		if f != float32(level*(1-relativeError)) {
			f = exact(2 * k).float32()
		}
		m.Levels[255-k] = clampFloat32(f)
		if k == logSteps {
			return m, nil
		}
		// No float32 that is not exactly on a boundary is nearer to it than the
		// error of exact.
		c := 254 - k
		bits := ceilFloat32(dd{boundary * (1 + relativeError), 0})
		if bits != ceilFloat32(dd{boundary * (1 - relativeError), 0}) {
			bits = ceilFloat32(exact(2*k + 1))
		}
		if one := math.Float32bits(1); bits-one <= 1 && onBoundary(lo, span, c) {
			// The boundary is exactly 1. Half-to-even gives 1 itself the even
			// one of codes c and c+1.
			bits = one
			if c%2 == 1 {
				bits++
			}
		}
		// Rounding may have put min so low that some boundaries lie below 1e-8.
		bits = max(bits, tiny)
		if last := &m.Breaks[len(m.Breaks)-1]; last.Bits == bits {
			last.Code = uint8(c)
		} else {
			m.Breaks = append(m.Breaks, Break{bits, uint8(c)})
		}
		level *= ratio
		boundary *= ratio
	}
}

// relativeError is above that of a progression of 254 multiplications by
// a ratio that is rounded itself, and of their first element: below 2^-44.
const relativeError = 0x1p-43

// onBoundary reports whether the boundary below code c has logarithm zero.
// Everywhere else it is transcendental, so that no float32 lies on it.
func onBoundary(lo float64, span dd, c int) bool {
	l := dd{lo, 0}.scale(2 * logSteps).add(span.scale(float64(2*(255-c) - 1)))
	return l.hi == 0
}

// clampFloat32 keeps the top level finite: the logarithm of the largest
// float32, rounded to float32, is a little above it.
func clampFloat32(f float32) float32 { return min(f, math.MaxFloat32) }
