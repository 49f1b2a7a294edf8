package codec

import (
	"math"
	"math/rand/v2"
	"testing"
)

// gaussian returns n weights of a usual layer's spread, as bytes of type t.
func gaussian(t Type, n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n*t.Size())
	for i := range n {
		bits := math.Float32bits(float32(r.NormFloat64() * 0.02))
		switch t {
		case F32:
			le.PutUint32(b[4*i:], bits)
		case BF16:
			le.PutUint16(b[2*i:], uint16(bits>>16))
		case F16:
			h := t.ceilHalf(bits & magnitude)
			le.PutUint16(b[2*i:], uint16(bits>>31<<15)|uint16(h))
		}
	}
	return b
}

// benchWeights is beyond the last-level cache as F32.
const benchWeights = 64 << 20

func benchmarkKernels(b *testing.B, run func(k *Kernel, t Type, src, codes, signs []byte) func()) {
	for _, t := range []Type{F32, F16, BF16} {
		src := gaussian(t, benchWeights)
		codes, signs := make([]byte, benchWeights), make([]byte, benchWeights/8)
		for _, k := range Kernels() {
			b.Run(t.String()+"/"+k.Name(), func(b *testing.B) {
				f := run(k, t, src, codes, signs)
				b.SetBytes(int64(len(src)))
				for b.Loop() {
					f()
				}
				b.ReportMetric(benchWeights*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mweights/s")
			})
		}
	}
}

func benchTables(k *Kernel, t Type, src []byte) (*Encoder, *Decoder) {
	s := NewScan()
	k.Scan(t, src, &s)
	params, err := logCodec.Fit(s)
	if err != nil {
		panic(err)
	}
	m, err := logCodec.Map(params)
	if err != nil {
		panic(err)
	}
	e, err := NewEncoder(&m, t)
	if err != nil {
		panic(err)
	}
	d := &Decoder{}
	for c, l := range m.Levels {
		d.f32[c] = math.Float32bits(l)
		d.half[c] = uint16(min(t.ceilHalf(d.f32[c]), 0x7bff))
	}
	return e, d
}

func BenchmarkScan(b *testing.B) {
	benchmarkKernels(b, func(k *Kernel, t Type, src, codes, signs []byte) func() {
		return func() {
			s := NewScan()
			k.Scan(t, src, &s)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	benchmarkKernels(b, func(k *Kernel, t Type, src, codes, signs []byte) func() {
		e, _ := benchTables(k, t, src)
		return func() { k.Encode(codes, signs, src, e) }
	})
}

func BenchmarkDecode(b *testing.B) {
	benchmarkKernels(b, func(k *Kernel, t Type, src, codes, signs []byte) func() {
		e, d := benchTables(k, t, src)
		k.Encode(codes, signs, src, e)
		dst := make([]byte, len(src))
		return func() { k.Decode(t, dst, codes, signs, d) }
	})
}

func BenchmarkMeasure(b *testing.B) {
	benchmarkKernels(b, func(k *Kernel, t Type, src, codes, signs []byte) func() {
		e, d := benchTables(k, t, src)
		k.Encode(codes, signs, src, e)
		dst := make([]byte, len(src))
		k.Decode(t, dst, codes, signs, d)
		return func() {
			var s Sums
			k.Measure(t, src, dst, &s)
		}
	})
}

// BenchmarkCopy is the yardstick for the others: a memory copy of the F32 data.
func BenchmarkCopy(b *testing.B) {
	src := gaussian(F32, benchWeights)
	dst := make([]byte, len(src))
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		copy(dst, src)
	}
}

// BenchmarkTables is what each range costs before its first weight.
func BenchmarkTables(b *testing.B) {
	for _, t := range []Type{F32, F16, BF16} {
		b.Run(t.String(), func(b *testing.B) {
			for b.Loop() {
				m, err := logCodec.Map([]float32{-17, -2})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := NewEncoder(&m, t); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
