package codec

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/x448/float16"
)

var types = []Type{F32, F16, BF16}

// fence is written around every slice that a kernel gets to write to.
const (
	fence  = 0xa5
	margin = 80
)

// fenced returns a slice of n bytes that starts align bytes past a multiple
// of 64, its capacity cut, and a function that reports whether the bytes
// around it are untouched. The slice's own bytes are garbage.
func fenced(n, align int) ([]byte, func() bool) {
	buf := make([]byte, n+2*margin+128)
	for i := range buf {
		buf[i] = fence
	}
	start := margin
	start += (-int(uintptr(unsafe.Pointer(&buf[0]))) - start&63 + 128 + align) & 63
	whole := buf
	return buf[start : start+n : start+n], func() bool {
		for i, b := range whole {
			if (i < start || i >= start+n) && b != fence {
				return false
			}
		}
		return true
	}
}

// bits32 returns weight i of src as float32 bits.
func bits32(t Type, src []byte, i int) uint32 {
	if t == F32 {
		return le.Uint32(src[4*i:])
	}
	h := le.Uint16(src[2*i:])
	return t.widen(h&halfMagnitude) | uint32(h>>15)<<31
}

// hostileWeights returns n finite weights as bytes of type t: mostly of a
// usual size, some zero, denormal, tiny or huge.
func hostileWeights(r *rand.Rand, t Type, n int) []byte {
	var b []byte
	for range n {
		var w uint32
		switch r.IntN(16) {
		case 0:
			w = 0
		case 1:
			w = r.Uint32N(0x00800000)
		case 2:
			w = tiny - 3 + r.Uint32N(6)
		case 3:
			w = r.Uint32N(infinity)
		default:
			w = 0x38000000 + r.Uint32N(0x06000000)
		}
		w |= r.Uint32() & (1 << 31)
		switch t {
		case F32:
			b = le.AppendUint32(b, w)
		case BF16:
			b = le.AppendUint16(b, uint16(w>>16))
		case F16:
			if r.IntN(4) == 0 {
				w = r.Uint32()
			}
			h := uint16(w >> 13 & halfMagnitude)
			if h >= 0x7c00 {
				h -= 0x7c00
			}
			b = le.AppendUint16(b, h|uint16(w>>31<<15))
		}
	}
	return b
}

// lengths are every number of weights up to some blocks of the widest kernel.
const lengths = 200

func TestEncodeLengths(t *testing.T) {
	runKernels(t, func(t *testing.T, k *Kernel) {
		r := rand.New(rand.NewPCG(3, 1))
		m := mapOf(t, math.Float32bits(-12.5), math.Float32bits(-1.25))
		for _, typ := range types {
			e := encoderOf(t, m, typ)
			weights := hostileWeights(r, typ, lengths)
			var want [lengths]byte
			for i := range want {
				want[i] = m.Code(bits32(typ, weights, i) & magnitude)
			}
			for n := range lengths + 1 {
				for align := range 16 {
					src, srcIntact := fenced(n*typ.Size(), align)
					copy(src, weights)
					codes, codesIntact := fenced(n, align*5%16)
					signs, signsIntact := fenced((n+7)/8, align*11%16)
					k.Encode(codes, signs, src, e)
					if !codesIntact() || !signsIntact() || !srcIntact() || !bytes.Equal(src, weights[:len(src)]) {
						t.Fatalf("%v, %d weights, alignment %d: bytes outside the slices changed", typ, n, align)
					}
					if !bytes.Equal(codes, want[:n]) {
						t.Fatalf("%v, %d weights, alignment %d: codes\n%x, expected\n%x", typ, n, align, codes, want[:n])
					}
					for i, s := range signs {
						var want byte
						for j := 8 * i; j < min(n, 8*i+8); j++ {
							want |= byte(bits32(typ, weights, j)>>31) << (j % 8)
						}
						if s != want {
							t.Fatalf("%v, %d weights, alignment %d: sign byte %d is %#x, expected %#x", typ, n, align, i, s, want)
						}
					}
				}
			}
		}
	})
}

func TestDecodeLengths(t *testing.T) {
	runKernels(t, func(t *testing.T, k *Kernel) {
		r := rand.New(rand.NewPCG(3, 2))
		var levels32 [256]uint32
		var levels16 [256]uint16
		for c := range levels32 {
			levels32[c], levels16[c] = r.Uint32N(1<<31), uint16(r.Uint32N(1<<15))
		}
		var allCodes [lengths]byte
		var allSigns [lengths / 8]byte
		for i := range allCodes {
			allCodes[i] = byte(r.Uint32())
		}
		for i := range allSigns {
			allSigns[i] = byte(r.Uint32())
		}
		for _, typ := range types {
			d := NewDecoder16(&levels16)
			if typ == F32 {
				d = NewDecoder32(&levels32)
			}
			for n := range lengths + 1 {
				var want []byte
				for i := range n {
					c, s := allCodes[i], uint32(allSigns[i/8]>>(i%8)&1)
					if typ == F32 {
						want = le.AppendUint32(want, levels32[c]|s<<31)
					} else {
						want = le.AppendUint16(want, levels16[c]|uint16(s<<15))
					}
				}
				for align := range 16 {
					codes, _ := fenced(n, align)
					signs, _ := fenced((n+7)/8, align*7%16)
					copy(codes, allCodes[:])
					copy(signs, allSigns[:]) // with bits set past the last weight
					dst, intact := fenced(n*typ.Size(), align*3%16)
					k.Decode(typ, dst, codes, signs, d)
					if !intact() {
						t.Fatalf("%v, %d weights, alignment %d: bytes outside dst changed", typ, n, align)
					}
					if !bytes.Equal(dst, want) {
						t.Fatalf("%v, %d weights, alignment %d: decoded\n%x, expected\n%x", typ, n, align, dst, want)
					}
				}
			}
		}
	})
}

// naiveScan looks at one weight at a time, as numbers.
func naiveScan(t Type, src []byte) Scan {
	s := NewScan()
	for i := range len(src) / t.Size() {
		b := bits32(t, src, i) & magnitude
		if b > s.Max {
			s.Max = b
		}
		if float64(math.Float32frombits(b)) > 1e-8 && b < s.Min {
			s.Min = b
		}
	}
	return s
}

func TestScanLengths(t *testing.T) {
	runKernels(t, func(t *testing.T, k *Kernel) {
		r := rand.New(rand.NewPCG(3, 3))
		for _, typ := range types {
			for n := range lengths + 1 {
				for align := range 16 {
					src, _ := fenced(n*typ.Size(), align)
					copy(src, hostileWeights(r, typ, n))
					s := NewScan()
					k.Scan(typ, src, &s)
					if want := naiveScan(typ, src); s != want {
						t.Fatalf("%v, %d weights, alignment %d: %#x, expected %#x", typ, n, align, s, want)
					}
					// In parts, into a scan that saw something before.
					cut := r.IntN(n+1) * typ.Size()
					parts := NewScan()
					k.Scan(typ, src[:cut], &parts)
					k.Scan(typ, src[cut:], &parts)
					if parts != s {
						t.Fatalf("%v, %d weights cut at byte %d: %#x, expected %#x", typ, n, cut, parts, s)
					}
				}
			}
		}
	})
}

// TestScanExtremes puts one odd weight at every place among usual ones.
func TestScanExtremes(t *testing.T) {
	runKernels(t, func(t *testing.T, k *Kernel) {
		for _, typ := range types {
			odd := []uint32{0, 1, tiny - 1, tiny, tiny + 1, 0x7f7fffff, infinity, 0x7fc00000, 0x7fffffff, 0x7f800001}
			usual := uint32(0x3c23d70a)
			if typ != F32 {
				usual = 0x211f // of either 16-bit type
				odd = nil
				for _, h := range []uint16{0, 1, 2, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0x7c01, 0x7f7f, 0x7f80, 0x7f81, 0x7fff} {
					odd = append(odd, uint32(h))
				}
				for h := -2; h <= 2; h++ {
					odd = append(odd, uint32(typ.ceilHalf(tiny)+h)&halfMagnitude)
				}
			}
			const n = 70
			for _, w := range odd {
				for at := range n {
					for sign := range uint32(2) {
						var src []byte
						for i := range n {
							v := usual
							if i == at {
								v = w | sign<<(8*typ.Size()-1)
							}
							if typ == F32 {
								src = le.AppendUint32(src, v)
							} else {
								src = le.AppendUint16(src, uint16(v))
							}
						}
						s := NewScan()
						k.Scan(typ, src, &s)
						want := naiveScan(typ, src)
						if s.Finite() != (want.Max < infinity) || want.Max < infinity && s != want {
							t.Fatalf("%v, weight %#x at %d: %#x, expected %#x", typ, w, at, s, want)
						}
					}
				}
			}
		}
	})
}

func TestTiny(t *testing.T) {
	if math.Float32frombits(tiny) <= 1e-8 || math.Float32frombits(tiny-1) > 1e-8 {
		t.Errorf("%#x is not the smallest float32 above 1e-8", tiny)
	}
	if float64(math.Float32frombits(tiny-1)) > 1e-8 {
		t.Errorf("%#x is above 1e-8", tiny-1)
	}
}

// naiveMeasure sums lane by lane in the documented order.
func naiveMeasure(t Type, want, got []byte, s *Sums) {
	for i := range len(want) / t.Size() {
		w, g := math.Float32frombits(bits32(t, want, i)), math.Float32frombits(bits32(t, got, i))
		e := float32(w - g)
		lane := i % Lanes
		s.Signal[lane] = float64(s.Signal[lane] + float64(float64(w)*float64(w)))
		s.Noise[lane] = float64(s.Noise[lane] + float64(float64(e)*float64(e)))
		s.Dot[lane] = float64(s.Dot[lane] + float64(float64(w)*float64(g)))
		abs := float32(math.Abs(float64(e)))
		s.MaxAbs = max(s.MaxAbs, abs)
		if a := math.Abs(float64(w)); a > 1e-8 {
			s.MaxRel = max(s.MaxRel, float32(abs/float32(a)))
		}
	}
}

// bitsOfSums makes sums comparable bit for bit.
func bitsOfSums(s *Sums) (b [3*Lanes + 2]uint64) {
	for i := range Lanes {
		b[i] = math.Float64bits(s.Signal[i])
		b[Lanes+i] = math.Float64bits(s.Noise[i])
		b[2*Lanes+i] = math.Float64bits(s.Dot[i])
	}
	b[3*Lanes], b[3*Lanes+1] = uint64(math.Float32bits(s.MaxAbs)), uint64(math.Float32bits(s.MaxRel))
	return b
}

func TestMeasureLengths(t *testing.T) {
	runKernels(t, func(t *testing.T, k *Kernel) {
		r := rand.New(rand.NewPCG(3, 4))
		m := mapOf(t, math.Float32bits(-18.25), math.Float32bits(5))
		for _, typ := range types {
			for n := range lengths + 1 {
				for align := range 16 {
					want, _ := fenced(n*typ.Size(), align)
					got, _ := fenced(n*typ.Size(), align*3%16)
					copy(want, hostileWeights(r, typ, n))
					for i := range n {
						// Now a decoded weight, now something unrelated.
						w := bits32(typ, want, i)
						g := math.Float32bits(m.Levels[m.Code(w&magnitude)]) | w&^magnitude
						if r.IntN(8) == 0 {
							g = r.Uint32() & 0xbfffffff
						}
						switch typ {
						case F32:
							le.PutUint32(got[4*i:], g)
						case BF16:
							le.PutUint16(got[2*i:], uint16(g>>16))
						case F16:
							le.PutUint16(got[2*i:], uint16(g>>31<<15)|uint16(min(typ.ceilHalf(g&magnitude), 0x7bff)))
						}
					}
					// Two parts, the first a multiple of the lanes, into sums
					// that are not zero.
					cut := r.IntN(n/Lanes+1) * Lanes * typ.Size()
					var s, naive Sums
					s.Signal[3], naive.Signal[3] = 0.1, 0.1
					k.Measure(typ, want[:cut], got[:cut], &s)
					k.Measure(typ, want[cut:], got[cut:], &s)
					naiveMeasure(typ, want[:cut], got[:cut], &naive)
					naiveMeasure(typ, want[cut:], got[cut:], &naive)
					if bitsOfSums(&s) != bitsOfSums(&naive) {
						t.Fatalf("%v, %d weights, alignment %d: %+v, expected %+v", typ, n, align, s, naive)
					}
				}
			}
		}
	})
}

// TestErrors checks the figures made of the sums against plain arithmetic.
func TestErrors(t *testing.T) {
	want := []float32{1, -2, 3, 0, 0.5, 4, 1e-9, 8, -1, 16}
	got := []float32{1, -2.25, 3, 0, 0.5, 4.5, 0, 7, -1, 16}
	var w, g []byte
	for i := range want {
		w, g = le.AppendUint32(w, math.Float32bits(want[i])), le.AppendUint32(g, math.Float32bits(got[i]))
	}
	var s Sums
	generic.Measure(F32, w, g, &s)
	var e Errors
	e.Add(&s)
	e.Add(&Sums{MaxAbs: 0.5})
	// 1+4+9+0.25+16+64+1+256 and 0.0625+0.25+1; what 1e-9 adds lies below a
	// float64's last bit.
	if e.Signal != 351.25 || e.Noise != 1.3125 || e.MaxAbs != 1 || e.MaxRel != 0.125 {
		t.Errorf("sums are %+v", e)
	}
	if db := e.SNR(); math.Abs(db-10*math.Log10(351.25/1.3125)) > 1e-9 {
		t.Errorf("SNR is %v dB", db)
	}
	dot := 1 + 4.5 + 9 + 0.25 + 18 + 56 + 1 + 256.0
	decoded := 1 + 5.0625 + 9 + 0.25 + 20.25 + 49 + 1 + 256
	if c := e.Cosine(); math.Abs(c-dot/math.Sqrt(351.25*decoded)) > 1e-12 {
		t.Errorf("the cosine is %v", c)
	}
	var none Errors
	if !math.IsInf(none.SNR(), 1) || none.Cosine() != 1 {
		t.Errorf("without weights the SNR is %v and the cosine %v", none.SNR(), none.Cosine())
	}
}

func TestSignBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	for n := range lengths + 1 {
		for align := range 16 {
			signs, _ := fenced((n+7)/8, align)
			for i := range signs {
				signs[i] = byte(r.Uint32())
			}
			wide, wideIntact := fenced(n, align*3%16)
			ExpandSigns(wide, signs)
			if !wideIntact() {
				t.Fatalf("%d weights, alignment %d: ExpandSigns changed bytes outside dst", n, align)
			}
			for i, b := range wide {
				if want := 1 - 2*int8(signs[i/8]>>(i%8)&1); int8(b) != want {
					t.Fatalf("%d weights: sign %d is %d, expected %d", n, i, int8(b), want)
				}
			}
			back, backIntact := fenced((n+7)/8, align*5%16)
			if !PackSigns(back, wide) || !backIntact() {
				t.Fatalf("%d weights, alignment %d: PackSigns refused its input or wrote outside dst", n, align)
			}
			if n%8 != 0 {
				signs[n/8] &= 1<<(n%8) - 1 // bits past the last weight come back as zero
			}
			if !bytes.Equal(back, signs) {
				t.Fatalf("%d weights: signs %x, expected %x", n, back, signs)
			}
		}
	}
}

// TestPackSignsRefuses puts each byte that is no sign at each place.
func TestPackSignsRefuses(t *testing.T) {
	const n = 21
	for at := range n {
		for b := range 256 {
			src := bytes.Repeat([]byte{1, 0xff}, n)[:n]
			src[at] = byte(b)
			if got, want := PackSigns(make([]byte, (n+7)/8), src), b == 1 || b == 0xff; got != want {
				t.Fatalf("byte %#x at %d: %v, expected %v", b, at, got, want)
			}
		}
	}
}

func TestWidenF16(t *testing.T) {
	for h := range uint16(1 << 15) {
		got, want := math.Float32frombits(widenF16(h)), float16.Frombits(h).Float32()
		if math.IsNaN(float64(want)) {
			if !math.IsNaN(float64(got)) {
				t.Errorf("%#x widens to %v, expected a NaN", h, got)
			}
			continue
		}
		if math.Float32bits(got) != math.Float32bits(want) {
			t.Errorf("%#x widens to %v, expected %v", h, got, want)
		}
	}
}

// TestWrongLengths checks that slices which do not fit are refused before
// anything is written.
func TestWrongLengths(t *testing.T) {
	m := mapOf(t, math.Float32bits(-8), math.Float32bits(-1))
	buf := func(n int) []byte { return make([]byte, n) }
	runKernels(t, func(t *testing.T, k *Kernel) {
		e, d := encoderOf(t, m, F32), NewDecoder32(new([256]uint32))
		calls := map[string]func(){
			"part of a weight":   func() { k.Encode(buf(1), buf(1), buf(5), e) },
			"codes too short":    func() { k.Encode(buf(8), buf(2), buf(36), e) },
			"codes too long":     func() { k.Encode(buf(10), buf(2), buf(36), e) },
			"signs too short":    func() { k.Encode(buf(9), buf(1), buf(36), e) },
			"signs too long":     func() { k.Encode(buf(8), buf(2), buf(32), e) },
			"scan of a part":     func() { k.Scan(F16, buf(3), &Scan{}) },
			"decode, part":       func() { k.Decode(F32, buf(6), buf(1), buf(1), d) },
			"decode, few codes":  func() { k.Decode(F32, buf(36), buf(8), buf(2), d) },
			"decode, few signs":  func() { k.Decode(F32, buf(36), buf(9), buf(1), d) },
			"measure, unlike":    func() { k.Measure(F32, buf(8), buf(12), &Sums{}) },
			"measure, part":      func() { k.Measure(BF16, buf(3), buf(3), &Sums{}) },
			"expand, few signs":  func() { ExpandSigns(buf(9), buf(1)) },
			"pack, signs to few": func() { PackSigns(buf(1), buf(9)) },
		}
		for name, call := range calls {
			if !panics(call) {
				t.Errorf("%s: accepted", name)
			}
		}
	})
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestByID(t *testing.T) {
	for _, id := range IDs() {
		c, err := ByID(id)
		if err != nil || c.ID != id {
			t.Errorf("%s: %v, %v", id, c, err)
		}
	}
	if c, err := ByID("none"); err == nil {
		t.Errorf("found %v", c)
	}
}

// TestMapRefuses gives the map parameters that a damaged file might hold.
func TestMapRefuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, params := range [][]float32{
		nil, {1}, {1, 2, 3}, {2, 1}, {nan, 1}, {1, nan}, {nan, nan}, {-inf, 1}, {1, inf}, {-105, 0}, {0, 105}, {inf, inf},
	} {
		if m, err := logCodec.Map(params); err == nil {
			t.Errorf("%v: a map with %d breaks", params, len(m.Breaks))
		}
	}
	for _, params := range [][]float32{{-104, 104}, {104, 104}, {-104, -104}, {0, 104}} {
		m, err := logCodec.Map(params)
		if err != nil {
			t.Errorf("%v: %v", params, err)
		}
		for c, l := range m.Levels {
			if l < 0 || l > math.MaxFloat32 || l != l || c == 0 && l != 0 {
				t.Errorf("%v: code %d decodes to %v", params, c, l)
			}
		}
	}
}

// sprint names a range in messages.
func sprint(lo, hi uint32) string {
	return fmt.Sprintf("range %v %v", math.Float32frombits(lo), math.Float32frombits(hi))
}

// TestKernelsAllocateNothing runs every loop on its own.
func TestKernelsAllocateNothing(t *testing.T) {
	runKernels(t, func(t *testing.T, k *Kernel) {
		const n = 8191
		var p PrefixCode
		for s := range 256 {
			p.Set(byte(s), uint16(s), 8)
		}
		for _, typ := range types {
			src := gaussian(typ, n)
			codes, signs, dst, stream := make([]byte, n), make([]byte, (n+7)/8), make([]byte, len(src)), make([]byte, 0, 2*n+100)
			e, d := benchTables(k, typ, src)
			s := NewScan()
			var sums Sums
			for name, f := range map[string]func(){
				"scan":    func() { k.Scan(typ, src, &s) },
				"encode":  func() { k.Encode(codes, signs, src, e) },
				"decode":  func() { k.Decode(typ, dst, codes, signs, d) },
				"measure": func() { k.Measure(typ, src, dst, &sums) },
				"prefix":  func() { k.AppendPrefixed(stream, codes, &p) },
				"planes":  func() { k.SplitPlanes(dst, src, typ.Size(), true); k.JoinPlanes(dst, src, typ.Size(), true) },
			} {
				if allocs := testing.AllocsPerRun(20, f); allocs > 0 {
					t.Errorf("%s, %v: %g allocations", name, typ, allocs)
				}
			}
		}
	})
}
