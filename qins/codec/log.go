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
		lnDD(float64(math.Float32frombits(s.Min))).float32(),
		lnDD(float64(math.Float32frombits(s.Max))).float32(),
	}, nil
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

	// Levels and the boundaries between them are geometric progressions, so
	// two exponentials and a multiplication each make the whole table. Its
	// error stays below 2^-90 and no float32 that is not exactly on a boundary
	// is so near to one.
	span := twoSum(hi, -lo)
	ratio := expDD(span.div(logSteps))
	level := expDD(dd{lo, 0})
	m.Levels[255] = clampFloat32(level.float32())
	m.Breaks = make([]Break, 1, 255)
	m.Breaks[0] = Break{1, 255}
	boundary := expDD(span.div(2 * logSteps).add(dd{lo, 0}))
	for c := 254; c >= 1; c-- {
		level = level.mul(ratio)
		m.Levels[c] = clampFloat32(level.float32())
		// Rounding may have put min so low that some boundaries lie below 1e-8.
		b := Break{max(ceilFloat32(boundary), tiny), uint8(c)}
		if one := math.Float32bits(1); b.Bits-one <= 1 && onBoundary(lo, span, c) {
			// The boundary is exactly 1. Half-to-even gives 1 itself the even
			// one of codes c and c+1.
			b.Bits = one
			if c%2 == 1 {
				b.Bits++
			}
		}
		if last := &m.Breaks[len(m.Breaks)-1]; last.Bits == b.Bits {
			last.Code = b.Code
		} else {
			m.Breaks = append(m.Breaks, b)
		}
		boundary = boundary.mul(ratio)
	}
	return m, nil
}

// onBoundary reports whether the boundary below code c has logarithm zero.
// Everywhere else it is transcendental, so that no float32 lies on it.
func onBoundary(lo float64, span dd, c int) bool {
	l := dd{lo, 0}.scale(2 * logSteps).add(span.scale(float64(2*(255-c) - 1)))
	return l.hi == 0
}

// clampFloat32 keeps the top level finite: the logarithm of the largest
// float32, rounded to float32, is a little above it.
func clampFloat32(f float32) float32 { return min(f, math.MaxFloat32) }
