package codec

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// planeForms are all forms that SplitPlanes takes.
var planeForms = []struct {
	size   int
	rotate bool
}{{2, false}, {2, true}, {4, false}, {4, true}, {8, false}}

func TestPlanesGolden(t *testing.T) {
	for _, c := range []struct {
		size      int
		rotate    bool
		src, want string
	}{
		{2, false, "0102 0304 0506", "020406 010305"},
		{4, false, "01020304 05060708", "0408 0307 0206 0105"},
		{8, false, "0102030405060708", "0807060504030201"},
		{2, true, "803f 80bf", "7f7f 0001"},                   // BF16 1, -1
		{2, true, "003c 01bc", "7878 0003"},                   // F16 1, -(1+2^-10)
		{4, true, "0000803f 010080bf", "7f7f 0000 0000 0003"}, // F32 1, -(1+2^-23)
		{4, true, "ffff7f7f 00000080", "fe00 ff00 ff00 fe01"}, // F32 largest, -0
		{2, true, "01000200030004000500060007000800feff0000", // past one word
			"00000000000000 00ff00 020406080a0c0e 10fd00"},
	} {
		src, want := fromHex(t, c.src), fromHex(t, c.want)
		got := make([]byte, len(src))
		SplitPlanes(got, src, c.size, c.rotate)
		if !bytes.Equal(got, want) {
			t.Errorf("size %d, rotate %v: split of %x is %x, want %x", c.size, c.rotate, src, got, want)
		}
	}
}

func fromHex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPlanes(t *testing.T) {
	for _, k := range Kernels() {
		t.Run(k.Name(), func(t *testing.T) { testPlanes(t, k) })
	}
}

func testPlanes(t *testing.T, k *Kernel) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, f := range planeForms {
		for n := range 201 {
			src := guarded(n*f.size, n%9)
			for i := range src {
				src[i] = byte(r.Uint32())
			}
			want := make([]byte, len(src))
			for i := range n {
				w := uint64(0)
				for k := range f.size {
					w |= uint64(src[i*f.size+k]) << (8 * k)
				}
				if f.rotate && f.size == 2 {
					w = uint64(bits.RotateLeft16(uint16(w), 1))
				} else if f.rotate {
					w = uint64(bits.RotateLeft32(uint32(w), 1))
				}
				for k := range f.size {
					want[(f.size-1-k)*n+i] = byte(w >> (8 * k))
				}
			}
			got := guarded(len(src), n%7)
			k.SplitPlanes(got, src, f.size, f.rotate)
			if !bytes.Equal(got, want) {
				t.Fatalf("size %d, rotate %v, %d elements: wrong planes", f.size, f.rotate, n)
			}
			back := guarded(len(src), n%5)
			k.JoinPlanes(back, got, f.size, f.rotate)
			if !bytes.Equal(back, src) {
				t.Fatalf("size %d, rotate %v, %d elements: planes do not join to the elements", f.size, f.rotate, n)
			}
			checkGuards(t, got)
			checkGuards(t, back)
		}
	}
}

const guardBytes = 64

// guarded returns n bytes at some offset from alignment, followed by bytes that
// nothing may change.
func guarded(n, offset int) []byte {
	b := make([]byte, offset+n+guardBytes)
	for i := range guardBytes {
		b[offset+n+i] = 0xa5
	}
	return b[offset:][:n]
}

func checkGuards(t *testing.T, b []byte) {
	t.Helper()
	for _, x := range b[len(b):][:guardBytes] {
		if x != 0xa5 {
			t.Fatalf("wrote past the end of %d bytes", len(b))
		}
	}
}

func TestPlanesPanic(t *testing.T) {
	for _, c := range []struct {
		dst, src, size int
		rotate         bool
	}{{4, 4, 1, false}, {6, 6, 3, false}, {8, 8, 8, true}, {4, 6, 2, false}, {6, 6, 4, true}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v: no panic", c)
				}
			}()
			SplitPlanes(make([]byte, c.dst), make([]byte, c.src), c.size, c.rotate)
		}()
	}
}

func BenchmarkPlanes(b *testing.B) {
	src := gaussian(F32, benchWeights)
	dst := make([]byte, len(src))
	for _, f := range planeForms {
		for _, k := range Kernels() {
			name := fmt.Sprintf("%d/rotate=%v/%s", f.size, f.rotate, k.Name())
			b.Run("Split/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(src)))
				for b.Loop() {
					k.SplitPlanes(dst, src, f.size, f.rotate)
				}
			})
			b.Run("Join/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(src)))
				for b.Loop() {
					k.JoinPlanes(dst, src, f.size, f.rotate)
				}
			})
		}
	}
}
