package codec

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// logRanges are ranges of all kinds: usual ones, one that ends at every float,
// narrow ones down to neighbouring floats, one magnitude, and ones at the ends
// of what float32 holds.
func logRanges() [][]float32 {
	ranges := [][]float32{
		{-17, -2}, {-18.420681, 0.5}, {-18.420681, 88.72284}, {-103, 88}, {-9, -9 + 1e-3}, {0, 0}, {-5, -5},
		{-3, -2.9999998}, {-1, 1}, {-0.5, 0.5}, {80, 88.72284}, {-18.420681, -18}, {-88, -87}, {-87.3, -80},
		{-127, 127}, // not a range of logarithms: skipped
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		hi := -5 + 4*r.NormFloat64()
		ranges = append(ranges, []float32{float32(hi - math.Exp(2*r.NormFloat64())), float32(hi)})
	}
	return ranges
}

// logMaps calls f for the maps of these ranges.
func logMaps(t *testing.T, f func(params []float32, m *Map)) {
	for _, params := range logRanges() {
		if m, err := logCodec.Map(params); err == nil {
			f(params, &m)
		}
	}
}

// TestEncodeBoundaries encodes the magnitudes around every break, which are
// those that approximate codes would get wrong, and those of every octave.
func TestEncodeBoundaries(t *testing.T) {
	fast := 0
	logMaps(t, func(params []float32, m *Map) {
		e, err := NewEncoder(m, F32)
		if err != nil {
			return // down to subnormal numbers, which no fit gives
		}
		if e.approx != nil {
			fast++
		}
		var src []byte
		around := func(bits uint32) {
			for d := range uint32(33) {
				x := bits + d - 16
				src = le.AppendUint32(src, x)
				src = le.AppendUint32(src, x^1<<31)
			}
		}
		for _, b := range m.Breaks {
			around(b.Bits)
		}
		for x := uint32(0); x < 1<<31; x += 1 << 23 {
			around(x)
		}
		checkEncode(t, e, m, src)
	})
	if fast < 50 {
		t.Errorf("only %d ranges take the fast way", fast)
	}
}

// TestEncodeHalf encodes every 16-bit pattern.
func TestEncodeHalf(t *testing.T) {
	var src []byte
	for x := range 1 << 16 {
		src = le.AppendUint16(src, uint16(x))
	}
	for _, typ := range []Type{F16, BF16} {
		logMaps(t, func(params []float32, m *Map) {
			e, err := NewEncoder(m, typ)
			if err != nil {
				t.Fatalf("%v: %v", params, err)
			}
			checkEncode(t, e, m, src)
		})
	}
}

// checkEncode compares all kernels with the map itself.
func checkEncode(t *testing.T, e *Encoder, m *Map, src []byte) {
	t.Helper()
	size := e.typ.Size()
	n := len(src) / size
	want, wantSigns := make([]byte, n), make([]byte, (n+7)/8)
	for i := range n {
		var bits uint32
		if e.typ == F32 {
			bits = le.Uint32(src[4*i:])
		} else {
			h := le.Uint16(src[2*i:])
			bits = e.typ.widen(h&halfMagnitude) | uint32(h>>15)<<31
		}
		want[i] = m.Code(bits & magnitude)
		wantSigns[i/8] |= byte(bits >> 31 << (i % 8))
	}
	for _, k := range Kernels() {
		codes, signs := make([]byte, n), make([]byte, (n+7)/8)
		k.Encode(codes, signs, src, e)
		if !bytes.Equal(signs, wantSigns) {
			t.Fatalf("%s, %s: wrong signs", k.name, e.typ)
		}
		if i := difference(codes, want); i >= 0 {
			t.Fatalf("%s, %s: %x gets code %d, want %d", k.name, e.typ, src[i*size:][:size], codes[i], want[i])
		}
	}
}

// difference returns where two slices first differ, or -1.
func difference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// TestApproxRefuses goes through maps that are not even in the logarithm.
func TestApproxRefuses(t *testing.T) {
	even := func() *Map {
		m, err := logCodec.Map([]float32{-17, -2})
		if err != nil {
			t.Fatal(err)
		}
		return &m
	}
	if newApprox(even(), F32) == nil {
		t.Fatal("the usual range does not take the fast way")
	}
	for name, change := range map[string]func(m *Map){
		"a break moved up":          func(m *Map) { m.Breaks[100].Bits += 1 << 19 },
		"a break moved down":        func(m *Map) { m.Breaks[100].Bits -= 1 << 19 },
		"a code left out":           func(m *Map) { m.Breaks = append(m.Breaks[:10:10], m.Breaks[11:]...) },
		"codes in another order":    func(m *Map) { m.Breaks[5].Code, m.Breaks[6].Code = m.Breaks[6].Code, m.Breaks[5].Code },
		"a smallest magnitude of 0": func(m *Map) { m.Breaks[0].Bits = 2 },
		"an infinite break":         func(m *Map) { m.Breaks[254].Bits = infinity },
	} {
		m := even()
		change(m)
		if newApprox(m, F32) != nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}

// TestExhaustive encodes every float32 with every kernel. It takes minutes and
// runs with QINSCONV_EXHAUSTIVE=1 only.
func TestExhaustive(t *testing.T) {
	if os.Getenv("QINSCONV_EXHAUSTIVE") == "" {
		t.Skip("QINSCONV_EXHAUSTIVE is not set")
	}
	for _, params := range [][]float32{{-18.420681, 0.5}, {-17, -2}, {-1, 1}} {
		start := time.Now()
		m, err := logCodec.Map(params)
		if err != nil {
			t.Fatal(err)
		}
		e, err := NewEncoder(&m, F32)
		if err != nil {
			t.Fatal(err)
		}
		if e.approx == nil {
			t.Fatalf("%v: not the fast way", params)
		}
		const n = 1 << 20
		src, want, codes, signs := make([]byte, 4*n), make([]byte, n), make([]byte, n), make([]byte, n/8)
		next := 0 // break
		for base := uint64(0); base < 1<<32; base += n {
			if base == 1<<31 {
				next = 0
			}
			for i := range uint32(n) {
				bits := uint32(base) + i
				binary.LittleEndian.PutUint32(src[4*i:], bits)
				for next < len(m.Breaks) && m.Breaks[next].Bits <= bits&magnitude {
					next++
				}
				want[i] = 0
				if next > 0 {
					want[i] = m.Breaks[next-1].Code
				}
			}
			sign := byte(0)
			if base >= 1<<31 {
				sign = 0xff
			}
			for _, k := range Kernels() {
				k.Encode(codes, signs, src, e)
				if i := difference(codes, want); i >= 0 {
					t.Fatalf("%v, %s: %#x gets code %d, want %d", params, k.name, uint32(base)+uint32(i), codes[i], want[i])
				}
				for i, s := range signs {
					if s != sign {
						t.Fatalf("%v, %s: wrong signs %#x from %#x", params, k.name, s, uint32(base)+uint32(8*i))
					}
				}
			}
		}
		t.Logf("%v: every float32 in %v", params, time.Since(start).Round(time.Second))
	}
}

// TestKernelsAgree compares scans, decoding and measuring with plain Go, on
// weights of every kind.
func TestKernelsAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, typ := range []Type{F32, F16, BF16} {
		size := typ.Size()
		for round := range 300 {
			n := r.IntN(700)
			if round%10 == 0 {
				n = 64 * r.IntN(10)
			}
			src := guarded(n*size, r.IntN(64))
			for i := range src {
				src[i] = byte(r.Uint32())
			}
			if round%3 > 0 { // the usual kind
				copy(src, gaussian(typ, n))
			}
			if round%3 == 2 { // and zeros
				for i := range n {
					if r.IntN(4) == 0 {
						clear(src[i*size:][:size-1])
						src[i*size+size-1] &= 0x80
					}
				}
			}
			codes, signs := guarded(n, r.IntN(64)), guarded((n+7)/8, r.IntN(64))
			for i := range codes {
				codes[i] = byte(r.Uint32())
			}
			for i := range signs {
				signs[i] = byte(r.Uint32())
			}
			var d Decoder
			for c := range d.f32 {
				d.f32[c], d.half[c] = r.Uint32()&magnitude, uint16(r.Uint32())&halfMagnitude
			}
			got := bytes.Clone(src)
			for i := range n { // finite, for Measure
				if round%2 == 0 {
					got[i*size] ^= byte(r.Uint32())
				}
				got[i*size+size-1] &^= 0x40
			}
			finite := bytes.Clone(src)
			for i := range n {
				finite[i*size+size-1] &^= 0x40
			}

			var scan Scan
			var sums Sums
			var weights []byte
			for i, k := range append([]*Kernel{&generic}, Kernels()...) {
				s := NewScan()
				k.Scan(typ, src, &s)
				var m Sums
				half := n / 2 &^ (Lanes - 1) * size
				k.Measure(typ, finite[:half], got[:half], &m)
				k.Measure(typ, finite[half:], got[half:], &m)
				dst := guarded(len(src), r.IntN(64))
				k.Decode(typ, dst, codes, signs, &d)
				checkGuards(t, dst)
				if i == 0 {
					scan, sums, weights = s, m, dst
					continue
				}
				if s != scan {
					t.Fatalf("%s, %s, %d weights: scan %x, want %x", k.name, typ, n, s, scan)
				}
				if m != sums {
					t.Fatalf("%s, %s, %d weights: sums\n%+v, want\n%+v", k.name, typ, n, m, sums)
				}
				if !bytes.Equal(dst, weights) {
					t.Fatalf("%s, %s, %d weights: decoded to other bytes", k.name, typ, n)
				}
			}
		}
	}
}

func TestChoose(t *testing.T) {
	list := Kernels()
	for _, k := range list {
		if got := choose(k.name); got != k {
			t.Errorf("%q chooses %q", k.name, got.name)
		}
	}
	for _, name := range []string{"", "AVX512", "no such kernel"} {
		if got := choose(name); got != list[0] {
			t.Errorf("%q chooses %q, want %q", name, got.name, list[0].name)
		}
	}
	last := list[len(list)-1]
	before := Use(last)
	if Best() != last {
		t.Errorf("Best is %q after Use of %q", Best().name, last.name)
	}
	if Use(before) != last || Best() != before {
		t.Error("Use does not bring the kernel before back")
	}
}
