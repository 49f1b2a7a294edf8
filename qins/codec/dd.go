package codec

import "math"

// A dd is the unevaluated sum of two float64s, which holds about 106 bits
// (Dekker 1971; Shewchuk 1997). It gives results that can be rounded to
// float32 the same way everywhere, which math.Exp and math.Log do not: they
// have assembly versions that differ in the last bit.
//
// Products are converted explicitly, as Go may otherwise fuse x*y + z on some
// machines.
type dd struct{ hi, lo float64 }

func twoSum(a, b float64) dd {
	s := a + b
	t := s - a
	return dd{s, (a - (s - t)) + (b - t)}
}

// quickTwoSum is twoSum for |a| ≥ |b|.
func quickTwoSum(a, b float64) dd {
	s := a + b
	return dd{s, b - (s - a)}
}

func (a dd) add(b dd) dd {
	s := twoSum(a.hi, b.hi)
	t := twoSum(a.lo, b.lo)
	s = quickTwoSum(s.hi, s.lo+t.hi)
	return quickTwoSum(s.hi, s.lo+t.lo)
}

func (a dd) mul(b dd) dd {
	p := float64(a.hi * b.hi)
	e := math.FMA(a.hi, b.hi, -p)
	e = math.FMA(a.hi, b.lo, e)
	e = math.FMA(a.lo, b.hi, e)
	return quickTwoSum(p, e)
}

// scale multiplies by a float64.
func (a dd) scale(f float64) dd {
	p := float64(a.hi * f)
	return quickTwoSum(p, math.FMA(a.lo, f, math.FMA(a.hi, f, -p)))
}

// div divides by a float64.
func (a dd) div(f float64) dd {
	q := a.hi / f
	r := a.add(dd{q, 0}.scale(-f))
	return quickTwoSum(q, r.hi/f)
}

// ln2 is the natural logarithm of 2 to 106 bits.
var ln2 = dd{0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56}

const terms = 11 // of the exponential series

var inverseFactorials = func() (f [terms + 1]dd) {
	f[0] = dd{1, 0}
	for n := 1; n <= terms; n++ {
		f[n] = f[n-1].div(float64(n))
	}
	return f
}()

// expDD returns e^x for |x| ≤ 2·maxLog, with a relative error below 2^-95.
func expDD(x dd) dd {
	k := math.RoundToEven(x.hi / ln2.hi)
	r := x.add(ln2.scale(-k))
	// (e^(r/2^8))^(2^8), with e^x − 1 in place of e^x to keep its low bits.
	const halvings = 8
	r.hi, r.lo = math.Ldexp(r.hi, -halvings), math.Ldexp(r.lo, -halvings)
	p := inverseFactorials[terms]
	for n := terms - 1; n >= 1; n-- {
		p = p.mul(r).add(inverseFactorials[n])
	}
	p = p.mul(r)
	for range halvings {
		p = p.scale(2).add(p.mul(p))
	}
	p = p.add(dd{1, 0})
	return dd{math.Ldexp(p.hi, int(k)), math.Ldexp(p.lo, int(k))}
}

// lnDD returns ln x for a positive float32 x, with an absolute error below
// 2^-90: one step of Newton's method from the float64 logarithm squares its
// error, so the machine's last bit does not show.
func lnDD(x float64) dd {
	y := dd{math.Log(x), 0}
	e := expDD(dd{-y.hi, 0}).scale(x).add(dd{-1, 0})
	return y.add(e)
}

// float32 rounds to the nearest float32, ties to even.
func (a dd) float32() float32 {
	// Rounding to odd first keeps the second rounding from seeing a tie that
	// is none.
	bits := math.Float64bits(a.hi)
	if a.lo != 0 && bits&1 == 0 {
		if (a.lo > 0) == (a.hi > 0) {
			bits++
		} else {
			bits--
		}
	}
	return float32(math.Float64frombits(bits))
}

// ceilFloat32 returns the bits of the smallest float32 that is at least a > 0,
// those of +Inf above the largest.
func ceilFloat32(a dd) uint32 {
	f := float32(a.hi)
	bits := math.Float32bits(f)
	if g := float64(f); g < a.hi || g == a.hi && a.lo > 0 {
		bits++
	}
	return bits
}
