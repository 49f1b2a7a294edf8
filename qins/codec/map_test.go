package codec

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// fitted returns the range of a tensor whose extreme magnitudes have these
// bits.
func fitted(t testing.TB, minBits, maxBits uint32) (lo, hi uint32) {
	t.Helper()
	params, err := logCodec.Fit(Scan{Min: minBits, Max: maxBits})
	if err != nil {
		t.Fatal(err)
	}
	return math.Float32bits(params[0]), math.Float32bits(params[1])
}

// randomRange returns the range of a possible tensor: one of any extremes, a
// usual one, or a narrow one.
func randomRange(t testing.TB, r *rand.Rand) (lo, hi uint32) {
	const most = infinity - 1
	a := tiny + r.Uint32N(infinity-tiny)
	b := tiny + r.Uint32N(infinity-tiny)
	switch r.IntN(4) {
	case 0:
		a, b = 0x33000000+r.Uint32N(0x02000000), 0x3c000000+r.Uint32N(0x04000000)
	case 1:
		b = a + r.Uint32N(1<<r.UintN(24))
	case 2:
		a = tiny + r.Uint32N(64)
		b = a + r.Uint32N(1<<r.UintN(16))
	}
	a, b = min(a, most), min(b, most)
	return fitted(t, min(a, b), max(a, b))
}

// aroundBreaks returns the finite magnitudes near each break of a map.
func aroundBreaks(m *Map) []byte {
	var src []byte
	for _, b := range m.Breaks {
		for d := -2; d <= 2; d++ {
			if w := int64(b.Bits) + int64(d); w >= 0 && w < infinity {
				src = le.AppendUint32(src, uint32(w))
			}
		}
	}
	for _, w := range []uint32{tiny - 1, tiny, infinity - 1} {
		src = le.AppendUint32(src, w)
	}
	return src
}

func checkAroundBreaks(t *testing.T, k *Kernel, lo, hi uint32) {
	t.Helper()
	m := mapOf(t, lo, hi)
	src := aroundBreaks(m)
	n := len(src) / 4
	codes, signs := make([]byte, n), make([]byte, (n+7)/8)
	k.Encode(codes, signs, src, encoderOf(t, m, F32))
	for i := range n {
		w := le.Uint32(src[4*i:])
		if want := m.Code(w); codes[i] != want {
			t.Fatalf("%s: %#x has code %d, expected %d", sprint(lo, hi), w, codes[i], want)
		}
	}
}

func TestEncodeAtBreaks(t *testing.T) {
	runKernels(t, func(t *testing.T, k *Kernel) {
		r := rand.New(rand.NewPCG(4, 1))
		for range 3000 {
			lo, hi := randomRange(t, r)
			checkAroundBreaks(t, k, lo, hi)
		}
	})
}

// TestNarrowRanges takes every narrow range at both ends of what a tensor can
// hold, where breaks fall together or lie past the largest float32.
func TestNarrowRanges(t *testing.T) {
	least, most := fitted(t, tiny, infinity-1)
	runKernels(t, func(t *testing.T, k *Kernel) {
		for n := range uint32(300) {
			checkAroundBreaks(t, k, least, least-n) // negative: fewer bits are more
			checkAroundBreaks(t, k, most-n, most)
		}
	})
}

// TestEncodeHalfTable encodes every finite 16-bit pattern with many ranges.
func TestEncodeHalfTable(t *testing.T) {
	runKernels(t, func(t *testing.T, k *Kernel) {
		r := rand.New(rand.NewPCG(4, 2))
		for _, typ := range []Type{F16, BF16} {
			src := allHalves(typ)
			n := len(src) / 2
			codes, signs := make([]byte, n), make([]byte, (n+7)/8)
			for range 60 {
				lo, hi := randomRange(t, r)
				m := mapOf(t, lo, hi)
				k.Encode(codes, signs, src, encoderOf(t, m, typ))
				for i := range n {
					h := le.Uint16(src[2*i:])
					if want := m.Code(typ.widen(h & halfMagnitude)); codes[i] != want {
						t.Fatalf("%s: %v %#x has code %d, expected %d", sprint(lo, hi), typ, h, codes[i], want)
					}
				}
			}
		}
	})
}

// Reference arithmetic with 240 bits.
const bigPrec = 240

func bigFloat(x float64) *big.Float { return new(big.Float).SetPrec(bigPrec).SetFloat64(x) }

// bigAtanh2 returns 2·atanh z = ln((1+z)/(1−z)) for |z| ≤ 1/3.
func bigAtanh2(z *big.Float) *big.Float {
	square := bigFloat(0).Mul(z, z)
	power, sum := bigFloat(0).Set(z), bigFloat(0)
	for n := 1; n < 160; n += 2 {
		sum.Add(sum, bigFloat(0).Quo(power, bigFloat(float64(n))))
		power.Mul(power, square)
	}
	return sum.Mul(sum, bigFloat(2))
}

var bigLn2 = bigAtanh2(bigFloat(0).Quo(bigFloat(1), bigFloat(3)))

// bigLn returns ln x for x > 0.
func bigLn(x float64) *big.Float {
	frac, exp := math.Frexp(x)
	if frac < math.Sqrt2/2 {
		frac, exp = 2*frac, exp-1
	}
	f := bigFloat(frac)
	z := bigFloat(0).Quo(bigFloat(0).Sub(f, bigFloat(1)), bigFloat(0).Add(f, bigFloat(1)))
	return bigFloat(0).Add(bigAtanh2(z), bigFloat(0).Mul(bigLn2, bigFloat(float64(exp))))
}

// bigCode is the definition of the code of a magnitude.
func bigCode(w, lo, hi uint32) uint8 {
	a := float64(math.Float32frombits(w))
	l, h := bigFloat(float64(math.Float32frombits(lo))), bigFloat(float64(math.Float32frombits(hi)))
	switch {
	case a == 0:
		return 0
	case l.Cmp(h) == 0:
		return 128
	case a <= 1e-8:
		return 255
	}
	// 2·(255 − v) in steps of a half code, v being the code before rounding.
	v := bigFloat(0).Mul(bigFloat(0).Sub(bigLn(a), l), bigFloat(508))
	v.Quo(v, bigFloat(0).Sub(h, l))
	v.Sub(bigFloat(510), v)
	// v is twice the unrounded code: round v/2 half to even.
	v.Quo(v, bigFloat(2))
	if v.Cmp(bigFloat(1)) <= 0 {
		return 1
	}
	if v.Cmp(bigFloat(255)) >= 0 {
		return 255
	}
	floor, _ := v.Int64()
	half := bigFloat(0).Sub(v, bigFloat(float64(floor))).Cmp(bigFloat(0.5))
	if half > 0 || half == 0 && floor%2 == 1 {
		floor++
	}
	return uint8(floor)
}

// TestMapReference compares the codes of random weights, and of those on both
// sides of every break, with the definition.
func TestMapReference(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 3))
	for range 30 {
		lo, hi := randomRange(t, r)
		m := mapOf(t, lo, hi)
		var list []uint32
		for _, b := range m.Breaks {
			list = append(list, b.Bits-1, b.Bits)
		}
		for range 200 {
			list = append(list, r.Uint32N(infinity))
		}
		for _, w := range list {
			if w >= infinity {
				continue
			}
			if got, want := m.Code(w), bigCode(w, lo, hi); got != want {
				t.Fatalf("%s: %#x has code %d, expected %d", sprint(lo, hi), w, got, want)
			}
		}
	}
}

// TestLevelsReference checks that each level is the float32 nearest to the
// exact value: its logarithm lies between those of the midpoints on both sides.
func TestLevelsReference(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 30 {
		lo, hi := randomRange(t, r)
		m := mapOf(t, lo, hi)
		l, h := bigFloat(float64(math.Float32frombits(lo))), bigFloat(float64(math.Float32frombits(hi)))
		for c := 1; c < 256; c++ {
			exact := bigFloat(0).Mul(bigFloat(0).Sub(h, l), bigFloat(float64(255-c)))
			exact.Add(exact.Quo(exact, bigFloat(254)), l)
			level := m.Levels[c]
			up, down := math.Nextafter32(level, math.MaxFloat32), math.Nextafter32(level, 0)
			above := (float64(level) + float64(up)) / 2
			below := (float64(level) + float64(down)) / 2
			if level < math.MaxFloat32 && exact.Cmp(bigLn(above)) > 0 || exact.Cmp(bigLn(below)) < 0 {
				t.Fatalf("%s: code %d decodes to %v, which is not the nearest", sprint(lo, hi), c, level)
			}
		}
	}
}

// TestLevelsNearTies compares levels with exponentials of their own, for so many
// ranges that some levels are too near to a tie for the progression.
func TestLevelsNearTies(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 6))
	near := 0
	for range 10000 {
		lo, hi := randomRange(t, r)
		if lo == hi {
			continue
		}
		m := mapOf(t, lo, hi)
		l, h := float64(math.Float32frombits(lo)), float64(math.Float32frombits(hi))
		span := twoSum(h, -l)
		for k := 0; k <= logSteps; k++ {
			exact := expDD(span.scale(float64(k)).div(logSteps).add(dd{l, 0}))
			if want := clampFloat32(exact.float32()); m.Levels[255-k] != want {
				t.Fatalf("%s: code %d decodes to %v, expected %v", sprint(lo, hi), 255-k, m.Levels[255-k], want)
			}
			if float32(exact.hi*(1+relativeError)) != float32(exact.hi*(1-relativeError)) {
				near++
			}
		}
	}
	if near == 0 {
		t.Error("no level was near a tie")
	}
}

// TestFitReference checks that the range is the float32 nearest to the exact
// logarithms.
func TestFitReference(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 5))
	for range 2000 {
		w := tiny + r.Uint32N(infinity-tiny)
		lo, hi := fitted(t, w, w)
		if lo != hi {
			t.Fatalf("one magnitude %#x has the range %#x %#x", w, lo, hi)
		}
		exact := bigLn(float64(math.Float32frombits(w)))
		if got, _ := exact.Float32(); math.Float32bits(got) != lo {
			t.Fatalf("ln %#x is %#x, expected %#x", w, lo, math.Float32bits(got))
		}
	}
}

// FuzzEncode encodes any bytes with any range and compares every kernel with
// the map.
func FuzzEncode(f *testing.F) {
	f.Add([]byte{}, uint32(0), uint32(0), uint8(0))
	f.Add([]byte("\x00\x00\x80\x3f\x00\x00\x00\x80\x77\xcc\x2b\x32\xff\xff\x7f\x7f"), math.Float32bits(-1), math.Float32bits(3), uint8(0))
	f.Add([]byte("\x00\x3c\x00\x80\x01\x00\xff\x7b\xff\xfb"), math.Float32bits(-16), math.Float32bits(2), uint8(1))
	f.Add([]byte("\x80\x3f\x00\x80\x01\x00\x7f\x7f\x2b\x32"), math.Float32bits(-17), math.Float32bits(-2), uint8(2))
	f.Fuzz(func(t *testing.T, src []byte, lo, hi uint32, kind uint8) {
		typ := types[kind%3]
		n := len(src) / typ.Size()
		src = src[:n*typ.Size()]
		m, err := logCodec.Map([]float32{math.Float32frombits(lo), math.Float32frombits(hi)})
		if err != nil {
			return
		}
		e, err := NewEncoder(&m, typ)
		if err != nil {
			least, most := fitted(t, tiny, infinity-1)
			if math.Float32frombits(lo) >= math.Float32frombits(least) && math.Float32frombits(hi) <= math.Float32frombits(most) {
				t.Fatalf("%s: %v", sprint(lo, hi), err)
			}
			return
		}
		for _, k := range Kernels() {
			s := NewScan()
			k.Scan(typ, src, &s)
			if want := naiveScan(typ, src); s.Finite() != (want.Max < infinity) || want.Max < infinity && s != want {
				t.Fatalf("%s: scanned %#x, expected %#x", k.Name(), s, want)
			}
			if !s.Finite() {
				return
			}
			codes, signs := make([]byte, n), make([]byte, (n+7)/8)
			k.Encode(codes, signs, src, e)
			for i := range n {
				w := bits32(typ, src, i)
				if want := m.Code(w & magnitude); codes[i] != want {
					t.Fatalf("%s, %s: %v weight %#x has code %d, expected %d", k.Name(), sprint(lo, hi), typ, w, codes[i], want)
				}
				if signs[i/8]>>(i%8)&1 != byte(w>>31) {
					t.Fatalf("%s: %v weight %#x has the wrong sign", k.Name(), typ, w)
				}
			}
		}
	})
}
