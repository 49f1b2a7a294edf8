package codec

import (
	"bytes"
	"errors"
	"math"
	"math/big"
	"testing"

	"github.com/qinsconv/qinsconv/fixtures/golden"
)

func goldenRanges(t testing.TB) []golden.Range {
	t.Helper()
	ranges, err := golden.Ranges()
	if err != nil {
		t.Fatal(err)
	}
	return ranges
}

func mapOf(t testing.TB, logMin, logMax uint32) *Map {
	t.Helper()
	m, err := logCodec.Map([]float32{math.Float32frombits(logMin), math.Float32frombits(logMax)})
	if err != nil {
		t.Fatal(err)
	}
	return &m
}

func encoderOf(t testing.TB, m *Map, typ Type) *Encoder {
	t.Helper()
	e, err := NewEncoder(m, typ)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// runKernels runs f for each kernel this machine has. Plain Go is always one
// of them.
func runKernels(t *testing.T, f func(t *testing.T, k *Kernel)) {
	list := Kernels()
	if list[len(list)-1] != &generic {
		t.Fatal("the last kernel is not the generic one")
	}
	for _, k := range list {
		t.Run(k.Name(), func(t *testing.T) { f(t, k) })
	}
}

func TestGoldenLevels(t *testing.T) {
	for _, r := range goldenRanges(t) {
		m := mapOf(t, r.LogMin, r.LogMax)
		for c, level := range m.Levels {
			if got := math.Float32bits(level); got != r.Levels[c] {
				t.Errorf("range %s: code %d decodes to %#x, expected %#x", r.Name, c, got, r.Levels[c])
			}
		}
	}
}

func TestGoldenBreaks(t *testing.T) {
	for _, r := range goldenRanges(t) {
		m := mapOf(t, r.LogMin, r.LogMax)
		if m.Code(0) != 0 {
			t.Errorf("range %s: zero has code %d", r.Name, m.Code(0))
		}
		for i, b := range r.Breaks {
			if got := m.Code(b.Bits); got != b.Code {
				t.Errorf("range %s: %#x has code %d, expected %d", r.Name, b.Bits, got, b.Code)
			}
			if i == 0 {
				continue
			}
			if got := m.Code(b.Bits - 1); got != r.Breaks[i-1].Code {
				t.Errorf("range %s: %#x has code %d, expected %d", r.Name, b.Bits-1, got, r.Breaks[i-1].Code)
			}
		}
	}
}

// goldenWeights returns weights around every break and level of a range, and
// odd ones, as float32 bits.
func goldenWeights(r *golden.Range) []uint32 {
	list := []uint32{0, 1, 2, 0x7fffff, 0x800000, tiny - 2, tiny - 1, tiny, tiny + 1, 0x3f800000, 0x7f7fffff}
	for _, b := range r.Breaks {
		list = append(list, b.Bits-1, b.Bits, b.Bits+1)
	}
	for _, l := range r.Levels {
		list = append(list, l)
	}
	n := len(list)
	for _, w := range list[:n] {
		list = append(list, w|1<<31)
	}
	return list
}

func TestGoldenEncodeF32(t *testing.T) {
	runKernels(t, func(t *testing.T, k *Kernel) {
		for _, r := range goldenRanges(t) {
			weights := goldenWeights(&r)
			// Breaks end before infinity, so that the weight after one may
			// be infinite; no kernel is given those.
			list := weights[:0:0]
			for _, w := range weights {
				if w&magnitude < infinity {
					list = append(list, w)
				}
			}
			src := make([]byte, 0, 4*len(list))
			for _, w := range list {
				src = le.AppendUint32(src, w)
			}
			codes, signs := make([]byte, len(list)), make([]byte, (len(list)+7)/8)
			k.Encode(codes, signs, src, encoderOf(t, mapOf(t, r.LogMin, r.LogMax), F32))
			for i, w := range list {
				if want := r.Code(w & magnitude); codes[i] != want {
					t.Errorf("range %s: weight %#x has code %d, expected %d", r.Name, w, codes[i], want)
				}
				if signs[i/8]>>(i%8)&1 != byte(w>>31) {
					t.Errorf("range %s: weight %#x has the wrong sign", r.Name, w)
				}
			}
		}
	})
}

// TestGoldenEncodeHalf encodes every finite F16 and BF16 pattern.
func TestGoldenEncodeHalf(t *testing.T) {
	runKernels(t, func(t *testing.T, k *Kernel) {
		for _, typ := range []Type{F16, BF16} {
			src := allHalves(typ)
			n := len(src) / 2
			codes, signs := make([]byte, n), make([]byte, (n+7)/8)
			for _, r := range goldenRanges(t) {
				k.Encode(codes, signs, src, encoderOf(t, mapOf(t, r.LogMin, r.LogMax), typ))
				for i := range n {
					h := le.Uint16(src[2*i:])
					if want := r.Code(typ.widen(h & halfMagnitude)); codes[i] != want {
						t.Fatalf("range %s: %v weight %#x has code %d, expected %d", r.Name, typ, h, codes[i], want)
					}
					if signs[i/8]>>(i%8)&1 != byte(h>>15) {
						t.Fatalf("range %s: %v weight %#x has the wrong sign", r.Name, typ, h)
					}
				}
			}
		}
	})
}

// allHalves returns every finite pattern of a 16-bit type.
func allHalves(typ Type) []byte {
	var b []byte
	for h := range 1 << 16 {
		if typ.widen(uint16(h)&halfMagnitude) < infinity {
			b = le.AppendUint16(b, uint16(h))
		}
	}
	return b
}

// TestGoldenDecode decodes every code with both signs.
func TestGoldenDecode(t *testing.T) {
	const n = 512
	codes, signs := make([]byte, n), make([]byte, n/8)
	for i := range n {
		codes[i] = byte(i)
	}
	for i := n / 16; i < n/8; i++ {
		signs[i] = 0xff
	}
	runKernels(t, func(t *testing.T, k *Kernel) {
		for _, r := range goldenRanges(t) {
			dst := make([]byte, 4*n)
			k.Decode(F32, dst, codes, signs, NewDecoder32(&r.Levels))
			for i := range n {
				if got, want := le.Uint32(dst[4*i:]), r.Levels[i%256]|uint32(i/256)<<31; got != want {
					t.Errorf("range %s: code %d decodes to %#x, expected %#x", r.Name, i%256, got, want)
				}
			}
			for typ, levels := range map[Type][]uint16{F16: r.F16, BF16: r.BF16} {
				if levels == nil {
					continue
				}
				dst := make([]byte, 2*n)
				k.Decode(typ, dst, codes, signs, NewDecoder16((*[256]uint16)(levels)))
				for i := range n {
					if got, want := le.Uint16(dst[2*i:]), levels[i%256]|uint16(i/256)<<15; got != want {
						t.Errorf("range %s: code %d decodes to %v %#x, expected %#x", r.Name, i%256, typ, got, want)
					}
				}
			}
		}
	})
}

// TestGoldenTensors takes whole tensors from weights to codes and back.
func TestGoldenTensors(t *testing.T) {
	tensors, err := golden.Tensors()
	if err != nil {
		t.Fatal(err)
	}
	refusals := map[string]error{"not finite": ErrNotFinite, "too small": ErrTooSmall}
	runKernels(t, func(t *testing.T, k *Kernel) {
		for _, c := range tensors {
			var src []byte
			for _, w := range c.Weights {
				src = le.AppendUint32(src, w)
			}
			s := NewScan()
			k.Scan(F32, src, &s)
			params, err := logCodec.Fit(s)
			if c.Refused != "" {
				if !errors.Is(err, refusals[c.Refused]) {
					t.Errorf("%s: fitted with error %v, expected %v", c.Name, err, refusals[c.Refused])
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", c.Name, err)
				continue
			}
			lo, hi := math.Float32bits(params[0]), math.Float32bits(params[1])
			if lo != c.LogMin || hi != c.LogMax {
				t.Errorf("%s: the range is %#x %#x, expected %#x %#x", c.Name, lo, hi, c.LogMin, c.LogMax)
				continue
			}
			m := mapOf(t, lo, hi)
			codes, signs := make([]byte, len(c.Weights)), make([]byte, (len(c.Weights)+7)/8)
			k.Encode(codes, signs, src, encoderOf(t, m, F32))
			if !bytes.Equal(codes, c.Codes) {
				t.Errorf("%s: codes are\n%x, expected\n%x", c.Name, codes, c.Codes)
			}
			if !bytes.Equal(signs, c.Signs) {
				t.Errorf("%s: signs are %x, expected %x", c.Name, signs, c.Signs)
			}
		}
	})
}

// TestDoubleDouble compares exp and ln with 50 digits.
func TestDoubleDouble(t *testing.T) {
	exp, ln, err := golden.Functions()
	if err != nil {
		t.Fatal(err)
	}
	// check takes the bound on the error as a power of two, relative to one
	// for ln and to the value for exp.
	check := func(name string, x float64, got dd, digits string, relative bool, bound int) {
		want, _, err := big.ParseFloat(digits, 10, 200, big.ToNearestEven)
		if err != nil {
			t.Fatal(err)
		}
		diff := new(big.Float).SetPrec(200).SetFloat64(got.hi)
		diff.Add(diff, new(big.Float).SetFloat64(got.lo))
		diff.Sub(diff, want)
		if relative {
			diff.Quo(diff, want)
		}
		if diff.Sign() != 0 && diff.MantExp(nil) > bound {
			t.Errorf("%s(%v) is %v + %v, off by %.3g, expected %s", name, x, got.hi, got.lo, diff, digits)
		}
	}
	for _, v := range exp {
		x := math.Float64frombits(v.Arg)
		check("exp", x, expDD(dd{x, 0}), v.Digits, true, -95)
	}
	for _, v := range ln {
		x := float64(math.Float32frombits(uint32(v.Arg)))
		check("ln", x, lnDD(x), v.Digits, false, -90)
	}
}
