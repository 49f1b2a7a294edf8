//go:build !noasm

package codec

import "golang.org/x/sys/cpu"

var assembly = []*Kernel{&neon}

// neon needs the vector instructions that every ARMv8-A processor of note has.
// It was tested in an emulator, where measuring its speed means nothing.
var neon = Kernel{
	name:      "neon",
	available: func() bool { return cpu.ARM64.HasASIMD },
	scan: [numTypes]func([]byte, *Scan){
		F32:  scanWith(F32, neonScan32),
		F16:  scanWith(F16, neonScan16),
		BF16: scanWith(BF16, neonScan16),
	},
	encode: [numTypes]func(codes, signs, src []byte, e *Encoder){
		F32:  encodeWith(F32, neonEncodeF32, 32),
		F16:  encodeWith(F16, neonEncodeF16, 32),
		BF16: encodeWith(BF16, neonEncodeBF16, 32),
	},
	decode: [numTypes]func(dst, codes, signs []byte, d *Decoder){
		F32:  decodeWith(F32, neonDecodeF32, 32),
		F16:  decodeWith(F16, neonDecodeHalf, 32),
		BF16: decodeWith(BF16, neonDecodeHalf, 32),
	},
	measure: [numTypes]func(want, got []byte, s *Sums){
		F32:  measureWith(F32, neonMeasureF32, 8),
		F16:  measureWith(F16, neonMeasureF16, 8),
		BF16: measureWith(BF16, neonMeasureBF16, 8),
	},
	split2: planesWith(2, neonSplit2, 16, split2From),
	split4: planesWith(4, neonSplit4, 16, split4From),
	join2:  planesWith(2, neonJoin2, 16, join2From),
	join4:  planesWith(4, neonJoin4, 16, join4From),
	prefix: prefix,
}

//go:noescape
func neonScan32(src *byte, n int, floor uint32) (lanes scanLanes)

//go:noescape
func neonScan16(src *byte, n int, floor uint32) (lanes scanLanes)

//go:noescape
func neonEncodeF32(codes, signs, src *byte, n int, a *approx)

//go:noescape
func neonEncodeF16(codes, signs, src *byte, n int, a *approx)

//go:noescape
func neonEncodeBF16(codes, signs, src *byte, n int, a *approx)

//go:noescape
func neonDecodeF32(dst, codes, signs *byte, n int, d *Decoder)

//go:noescape
func neonDecodeHalf(dst, codes, signs *byte, n int, d *Decoder)

//go:noescape
func neonMeasureF32(want, got *byte, n int, s *Sums)

//go:noescape
func neonMeasureF16(want, got *byte, n int, s *Sums)

//go:noescape
func neonMeasureBF16(want, got *byte, n int, s *Sums)

//go:noescape
func neonSplit2(dst, src *byte, n, stride, rotate int)

//go:noescape
func neonSplit4(dst, src *byte, n, stride, rotate int)

//go:noescape
func neonJoin2(dst, src *byte, n, stride, rotate int)

//go:noescape
func neonJoin4(dst, src *byte, n, stride, rotate int)
