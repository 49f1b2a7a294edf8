//go:build !noasm

package codec

import "golang.org/x/sys/cpu"

// docs/performance.md has their speeds.
var assembly = []*Kernel{&avx512, &avx2}

// avx512 needs, beside the foundation: VL for its ymm and xmm forms, BW for
// words and bytes, DQ for signs to masks and parts of vectors, VBMI for tables of
// bytes, BMI1 to go through masks, BMI2 for shifts by any register. The cpu
// package reports AVX-512 only where the operating system saves its registers.
var avx512 = Kernel{
	name: "avx512",
	available: func() bool {
		x := &cpu.X86
		return x.HasAVX && x.HasAVX512F && x.HasAVX512VL && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VBMI && x.HasBMI1 && x.HasBMI2
	},
	scan: [numTypes]func([]byte, *Scan){
		F32:  scanWith(F32, avx512Scan32),
		F16:  scanWith(F16, avx512Scan16),
		BF16: scanWith(BF16, avx512Scan16),
	},
	encode: [numTypes]func(codes, signs, src []byte, e *Encoder){
		F32:  encodeWith(F32, avx512EncodeF32, 64),
		F16:  encodeWith(F16, avx512EncodeF16, 64),
		BF16: encodeWith(BF16, avx512EncodeBF16, 64),
	},
	decode: [numTypes]func(dst, codes, signs []byte, d *Decoder){
		F32:  decodeWith(F32, avx512DecodeF32, 64),
		F16:  decodeWith(F16, avx512DecodeHalf, 64),
		BF16: decodeWith(BF16, avx512DecodeHalf, 64),
	},
	measure: [numTypes]func(want, got []byte, s *Sums){
		F32:  measureWith(F32, avx512MeasureF32, 16),
		F16:  measureWith(F16, avx512MeasureF16, 16),
		BF16: measureWith(BF16, avx512MeasureBF16, 16),
	},
	split2: planesWith(2, avx512Split2, 64, split2From),
	split4: planesWith(4, avx512Split4, 64, split4From),
	join2:  planesWith(2, avx512Join2, 64, join2From),
	join4:  planesWith(4, avx512Join4, 64, join4From),
	prefix: prefixWith(avx512Prefix, 64),
}

// avx2 needs F16C to widen F16, BMI1 to go through masks and BMI2 for shifts by any
// register, too. The cpu package reports AVX only where the operating system saves
// its registers.
var avx2 = Kernel{
	name: "avx2",
	available: func() bool {
		x := &cpu.X86
		return x.HasAVX && x.HasAVX2 && x.HasFMA && x.HasF16C && x.HasBMI1 && x.HasBMI2
	},
	scan: [numTypes]func([]byte, *Scan){
		F32:  scanWith(F32, avx2Scan32),
		F16:  scanWith(F16, avx2Scan16),
		BF16: scanWith(BF16, avx2Scan16),
	},
	encode: [numTypes]func(codes, signs, src []byte, e *Encoder){
		F32:  encodeWith(F32, avx2EncodeF32, 32),
		F16:  encodeWith(F16, avx2EncodeF16, 32),
		BF16: encodeWith(BF16, avx2EncodeBF16, 32),
	},
	decode: [numTypes]func(dst, codes, signs []byte, d *Decoder){
		F32:  decodeWith(F32, avx2DecodeF32, 32),
		F16:  decodeWith(F16, avx2DecodeHalf, 32),
		BF16: decodeWith(BF16, avx2DecodeHalf, 32),
	},
	measure: [numTypes]func(want, got []byte, s *Sums){
		F32:  measureWith(F32, avx2MeasureF32, 8),
		F16:  measureWith(F16, avx2MeasureF16, 8),
		BF16: measureWith(BF16, avx2MeasureBF16, 8),
	},
	split2: planesWith(2, avx2Split2, 32, split2From),
	split4: planesWith(4, avx2Split4, 32, split4From),
	join2:  planesWith(2, avx2Join2, 32, join2From),
	join4:  planesWith(4, avx2Join4, 32, join4From),
	prefix: prefixWith(avx2Prefix, 4),
}

//go:noescape
func avx512Scan32(src *byte, n int, floor uint32) (lanes scanLanes)

//go:noescape
func avx512Scan16(src *byte, n int, floor uint32) (lanes scanLanes)

//go:noescape
func avx512EncodeF32(codes, signs, src *byte, n int, a *approx)

//go:noescape
func avx512EncodeF16(codes, signs, src *byte, n int, a *approx)

//go:noescape
func avx512EncodeBF16(codes, signs, src *byte, n int, a *approx)

//go:noescape
func avx512DecodeF32(dst, codes, signs *byte, n int, d *Decoder)

//go:noescape
func avx512DecodeHalf(dst, codes, signs *byte, n int, d *Decoder)

//go:noescape
func avx512MeasureF32(want, got *byte, n int, s *Sums)

//go:noescape
func avx512MeasureF16(want, got *byte, n int, s *Sums)

//go:noescape
func avx512MeasureBF16(want, got *byte, n int, s *Sums)

//go:noescape
func avx512Split2(dst, src *byte, n, stride, rotate int)

//go:noescape
func avx512Split4(dst, src *byte, n, stride, rotate int)

//go:noescape
func avx512Join2(dst, src *byte, n, stride, rotate int)

//go:noescape
func avx512Join4(dst, src *byte, n, stride, rotate int)

//go:noescape
func avx512Prefix(dst, src *byte, n int, p *PrefixCode, w bitWriter) (at int, left bitWriter)

//go:noescape
func avx2Scan32(src *byte, n int, floor uint32) (lanes scanLanes)

//go:noescape
func avx2Scan16(src *byte, n int, floor uint32) (lanes scanLanes)

//go:noescape
func avx2EncodeF32(codes, signs, src *byte, n int, a *approx)

//go:noescape
func avx2EncodeF16(codes, signs, src *byte, n int, a *approx)

//go:noescape
func avx2EncodeBF16(codes, signs, src *byte, n int, a *approx)

//go:noescape
func avx2DecodeF32(dst, codes, signs *byte, n int, d *Decoder)

//go:noescape
func avx2DecodeHalf(dst, codes, signs *byte, n int, d *Decoder)

//go:noescape
func avx2MeasureF32(want, got *byte, n int, s *Sums)

//go:noescape
func avx2MeasureF16(want, got *byte, n int, s *Sums)

//go:noescape
func avx2MeasureBF16(want, got *byte, n int, s *Sums)

//go:noescape
func avx2Split2(dst, src *byte, n, stride, rotate int)

//go:noescape
func avx2Split4(dst, src *byte, n, stride, rotate int)

//go:noescape
func avx2Join2(dst, src *byte, n, stride, rotate int)

//go:noescape
func avx2Join4(dst, src *byte, n, stride, rotate int)

//go:noescape
func avx2Prefix(dst, src *byte, n int, p *PrefixCode, w bitWriter) (at int, left bitWriter)
