package codec

import (
	"bytes"
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// TestPrefixed writes codes of random lengths at every length and alignment of
// source and destination, and compares them with those written bit by bit.
func TestPrefixed(t *testing.T) {
	runKernels(t, func(t *testing.T, k *Kernel) {
		r := rand.New(rand.NewPCG(3, 9))
		for shortest := range MaxPrefix { // up to nothing but the longest codes
			var p PrefixCode
			var codes [256]uint16
			var sizes [256]int
			for s := range 256 {
				sizes[s] = shortest + 1 + r.IntN(MaxPrefix-shortest)
				codes[s] = uint16(r.Uint32N(1 << sizes[s]))
				p.Set(byte(s), codes[s], sizes[s])
			}
			for n := range lengths + 1 {
				src, srcIntact := fenced(n, n*7%16)
				for i := range src {
					src[i] = byte(r.Uint32())
				}
				before := bytes.Clone(src)
				dst, dstIntact := fenced(3+2*n+10, n*5%16)
				copy(dst, "abc")
				got := k.AppendPrefixed(dst[:3], src, &p)
				want := []byte("abc")
				at := 0
				put := func(bit uint16) {
					if at%8 == 0 {
						want = append(want, 0)
					}
					want[len(want)-1] |= byte(bit << (at % 8))
					at++
				}
				for i := n - 1; i >= 0; i-- {
					for b := range sizes[src[i]] {
						put(codes[src[i]] >> b & 1)
					}
				}
				put(1)
				if !bytes.Equal(got, want) {
					t.Fatalf("%d symbols: got\n%x, expected\n%x", n, got, want)
				}
				if !srcIntact() || !dstIntact() || !bytes.Equal(src, before) {
					t.Fatalf("%d symbols: bytes outside dst changed", n)
				}
			}
		}
	})
}

func BenchmarkPrefixed(b *testing.B) {
	src, _ := fenced(1<<17, 0)
	r := rand.New(rand.NewPCG(3, 10))
	var p PrefixCode
	var hist [256]int
	for i := range src { // as logarithms of Gaussian weights are distributed
		src[i] = byte(60 - 16*math.Log(math.Abs(r.NormFloat64())))
		hist[src[i]]++
	}
	for s, n := range hist {
		p.Set(byte(s), 0, min(bits.Len(uint(len(src)/max(n, 1))), MaxPrefix))
	}
	for _, k := range Kernels() {
		b.Run(k.Name(), func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			var dst []byte
			for b.Loop() {
				dst = k.AppendPrefixed(dst[:0], src, &p)
			}
			b.ReportMetric(float64(len(src))*float64(b.N)/b.Elapsed().Seconds()/1e6, "Msymbols/s")
		})
	}
}
