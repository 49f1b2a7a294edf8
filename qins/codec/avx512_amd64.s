//go:build !noasm

#include "funcdata.h"
#include "go_asm.h"
#include "textflag.h"

// Constants, one of each lane.
DATA dwords<>+0(SB)/4, $0x7fffffff  // magnitude of a float32
DATA dwords<>+4(SB)/4, $0x80000000  // sign of a float32
DATA dwords<>+8(SB)/4, $0x3f800000  // 1.0
DATA dwords<>+12(SB)/4, $0x322bcc78 // tiny
DATA dwords<>+16(SB)/4, $0x7fff7fff // magnitudes of two 16-bit floats
DATA dwords<>+20(SB)/4, $0x80008000 // signs of two 16-bit floats
GLOBL dwords<>(SB), RODATA|NOPTR, $24

#define MAGNITUDE dwords<>+0(SB)
#define SIGN dwords<>+4(SB)
#define ONE dwords<>+8(SB)
#define TINY dwords<>+12(SB)
#define MAGNITUDES16 dwords<>+16(SB)
#define SIGNS16 dwords<>+20(SB)

// SCAN folds the magnitudes at offset off into a minimum, that of the
// magnitudes less floor, and a maximum.
#define SCAN(off, and, sub, min, max, t, u, lo, hi) \
	and off(SI), Z30, t \
	sub Z31, t, u       \
	max t, hi, hi       \
	min u, lo, lo

#define SCAN32(off, t, u, lo, hi) SCAN(off, VPANDD, VPSUBD, VPMINUD, VPMAXUD, t, u, lo, hi)
#define SCAN16(off, t, u, lo, hi) SCAN(off, VPANDD, VPSUBW, VPMINUW, VPMAXUW, t, u, lo, hi)

#define SCANLOOP(SCANV, min, max) \
	VPTERNLOGD $0xff, Z0, Z0, Z0  \
	VMOVDQA64 Z0, Z1              \
	VMOVDQA64 Z0, Z2              \
	VMOVDQA64 Z0, Z3              \
	VPXORD Z4, Z4, Z4             \
	VPXORD Z5, Z5, Z5             \
	VPXORD Z6, Z6, Z6             \
	VPXORD Z7, Z7, Z7             \
loop:                             \
	SCANV(0, Z8, Z9, Z0, Z4)      \
	SCANV(64, Z10, Z11, Z1, Z5)   \
	SCANV(128, Z12, Z13, Z2, Z6)  \
	SCANV(192, Z14, Z15, Z3, Z7)  \
	ADDQ $256, SI                 \
	SUBQ $256, CX                 \
	JNZ loop                      \
	min Z1, Z0, Z0                \
	min Z3, Z2, Z2                \
	min Z2, Z0, Z0                \
	max Z5, Z4, Z4                \
	max Z7, Z6, Z6                \
	max Z6, Z4, Z4                \
	VMOVDQU64 Z0, (DI)            \
	VMOVDQU64 Z4, 64(DI)          \
	VZEROUPPER

// func avx512Scan32(src *byte, n int, floor uint32) (lanes scanLanes)
TEXT ·avx512Scan32(SB), NOSPLIT, $0-152
	MOVQ src+0(FP), SI
	MOVQ n+8(FP), CX
	LEAQ lanes+24(FP), DI
	VPBROADCASTD MAGNITUDE, Z30
	MOVL floor+16(FP), AX
	VPBROADCASTD AX, Z31
	SCANLOOP(SCAN32, VPMINUD, VPMAXUD)
	RET

// func avx512Scan16(src *byte, n int, floor uint32) (lanes scanLanes)
TEXT ·avx512Scan16(SB), NOSPLIT, $0-152
	MOVQ src+0(FP), SI
	MOVQ n+8(FP), CX
	LEAQ lanes+24(FP), DI
	VPBROADCASTD MAGNITUDES16, Z30
	MOVL floor+16(FP), AX
	VPBROADCASTW AX, Z31
	SCANLOOP(SCAN16, VPMINUW, VPMAXUW)
	RET

// ENCODE makes 16 codes and sign bits of the float32 in z. The mask near gets
// those that approx says to settle; e, m and y are for its use.
#define ENCODE(z, off, near, e, m, y, x) \
	VPMOVD2M z, K1             \
	VPTESTMD Z28, z, K2        \ // not zero
	KMOVW K1, (off/8)(DX)      \
	VGETEXPPS z, e             \
	VGETMANTPS $4, z, m        \ // 1 ≤ m < 2, without the sign
	VSUBPS Z29, m, m           \
	VMOVAPS Z22, y             \
	VFMADD213PS Z21, m, y      \
	VFMADD213PS Z20, m, y      \
	VFMADD213PS Z19, m, y      \
	VFMADD213PS Z18, m, y      \
	VFMADD213PS Z17, m, y      \
	VFMADD213PS Z16, m, y      \
	VFMADD231PS Z23, e, y      \
	VMAXPS Z24, y, y           \ // a NaN gets low
	VMINPS Z25, y, y           \
	VCVTTPS2DQ y, y            \
	VPTESTNMD Z26, y, near     \
	VPSRLD $16, y, y           \
	VPMOVDB.Z y, K2, x         \
	VMOVDQU x, off(DI)

#define ENCODECONSTANTS \
	VBROADCASTSS (approx_poly+0)(BX), Z16  \
	VBROADCASTSS (approx_poly+4)(BX), Z17  \
	VBROADCASTSS (approx_poly+8)(BX), Z18  \
	VBROADCASTSS (approx_poly+12)(BX), Z19 \
	VBROADCASTSS (approx_poly+16)(BX), Z20 \
	VBROADCASTSS (approx_poly+20)(BX), Z21 \
	VBROADCASTSS (approx_poly+24)(BX), Z22 \
	VBROADCASTSS approx_slope(BX), Z23     \
	VBROADCASTSS approx_low(BX), Z24       \
	VBROADCASTSS approx_high(BX), Z25      \
	VPBROADCASTD approx_near(BX), Z26      \
	VPBROADCASTD MAGNITUDE, Z28            \
	VBROADCASTSS ONE, Z29

// NEARMASK brings the masks of 64 weights into R8.
#define NEARMASK \
	KUNPCKWD K3, K4, K3 \
	KUNPCKWD K5, K6, K5 \
	KUNPCKDQ K3, K5, K3 \
	KMOVQ K3, R8        \
	TESTQ R8, R8

// SETTLE goes through the weights whose bits are set in R8. Each code is less
// by one if the magnitude has reached the limit.
#define SETTLE(mov, scale, mask) \
	TZCNTQ R8, R9                        \
	BLSRQ R8, R8                         \
	mov (SI)(R9*scale), R10              \
	ANDL $mask, R10                      \
	MOVBLZX (DI)(R9*1), R11              \
	CMPL R10, approx_limit(BX)(R11*4)    \
	ADCL $-1, R11                        \
	MOVB R11, (DI)(R9*1)                 \
	TESTQ R8, R8

// func avx512EncodeF32(codes, signs, src *byte, n int, a *approx)
TEXT ·avx512EncodeF32(SB), NOSPLIT, $0-40
	MOVQ codes+0(FP), DI
	MOVQ signs+8(FP), DX
	MOVQ src+16(FP), SI
	MOVQ n+24(FP), CX
	MOVQ a+32(FP), BX
	ENCODECONSTANTS

loop:
	VMOVUPS 0(SI), Z0
	VMOVUPS 64(SI), Z1
	VMOVUPS 128(SI), Z2
	VMOVUPS 192(SI), Z3
	ENCODE(Z0, 0, K3, Z4, Z5, Z6, X6)
	ENCODE(Z1, 16, K4, Z7, Z8, Z9, X9)
	ENCODE(Z2, 32, K5, Z10, Z11, Z12, X12)
	ENCODE(Z3, 48, K6, Z13, Z14, Z15, X15)
	NEARMASK
	JNZ settle

next:
	ADDQ $256, SI
	ADDQ $64, DI
	ADDQ $8, DX
	SUBQ $64, CX
	JNZ loop
	VZEROUPPER
	RET

settle:
	SETTLE(MOVL, 4, 0x7fffffff)
	JNZ settle
	JMP next

// func avx512EncodeBF16(codes, signs, src *byte, n int, a *approx)
TEXT ·avx512EncodeBF16(SB), NOSPLIT, $0-40
	MOVQ codes+0(FP), DI
	MOVQ signs+8(FP), DX
	MOVQ src+16(FP), SI
	MOVQ n+24(FP), CX
	MOVQ a+32(FP), BX
	ENCODECONSTANTS

loop:
	VPMOVZXWD 0(SI), Z0
	VPMOVZXWD 32(SI), Z1
	VPMOVZXWD 64(SI), Z2
	VPMOVZXWD 96(SI), Z3
	VPSLLD $16, Z0, Z0
	VPSLLD $16, Z1, Z1
	VPSLLD $16, Z2, Z2
	VPSLLD $16, Z3, Z3
	ENCODE(Z0, 0, K3, Z4, Z5, Z6, X6)
	ENCODE(Z1, 16, K4, Z7, Z8, Z9, X9)
	ENCODE(Z2, 32, K5, Z10, Z11, Z12, X12)
	ENCODE(Z3, 48, K6, Z13, Z14, Z15, X15)
	NEARMASK
	JNZ settle

next:
	ADDQ $128, SI
	ADDQ $64, DI
	ADDQ $8, DX
	SUBQ $64, CX
	JNZ loop
	VZEROUPPER
	RET

settle:
	SETTLE(MOVWLZX, 2, 0x7fff)
	JNZ settle
	JMP next

// func avx512EncodeF16(codes, signs, src *byte, n int, a *approx)
TEXT ·avx512EncodeF16(SB), NOSPLIT, $0-40
	MOVQ codes+0(FP), DI
	MOVQ signs+8(FP), DX
	MOVQ src+16(FP), SI
	MOVQ n+24(FP), CX
	MOVQ a+32(FP), BX
	ENCODECONSTANTS

loop:
	VCVTPH2PS 0(SI), Z0
	VCVTPH2PS 32(SI), Z1
	VCVTPH2PS 64(SI), Z2
	VCVTPH2PS 96(SI), Z3
	ENCODE(Z0, 0, K3, Z4, Z5, Z6, X6)
	ENCODE(Z1, 16, K4, Z7, Z8, Z9, X9)
	ENCODE(Z2, 32, K5, Z10, Z11, Z12, X12)
	ENCODE(Z3, 48, K6, Z13, Z14, Z15, X15)
	NEARMASK
	JNZ settle

next:
	ADDQ $128, SI
	ADDQ $64, DI
	ADDQ $8, DX
	SUBQ $64, CX
	JNZ loop
	VZEROUPPER
	RET

settle:
	SETTLE(MOVWLZX, 2, 0x7fff)
	JNZ settle
	JMP next

// Which parts of 64 codes go where, so that interleaving the bytes of their
// levels within 128-bit lanes leaves them in order.
DATA dwordOrder<>+0(SB)/8, $0x0000000400000000
DATA dwordOrder<>+8(SB)/8, $0x0000000c00000008
DATA dwordOrder<>+16(SB)/8, $0x0000000500000001
DATA dwordOrder<>+24(SB)/8, $0x0000000d00000009
DATA dwordOrder<>+32(SB)/8, $0x0000000600000002
DATA dwordOrder<>+40(SB)/8, $0x0000000e0000000a
DATA dwordOrder<>+48(SB)/8, $0x0000000700000003
DATA dwordOrder<>+56(SB)/8, $0x0000000f0000000b
GLOBL dwordOrder<>(SB), RODATA|NOPTR, $64

DATA qwordOrder<>+0(SB)/8, $0
DATA qwordOrder<>+8(SB)/8, $4
DATA qwordOrder<>+16(SB)/8, $1
DATA qwordOrder<>+24(SB)/8, $5
DATA qwordOrder<>+32(SB)/8, $2
DATA qwordOrder<>+40(SB)/8, $6
DATA qwordOrder<>+48(SB)/8, $3
DATA qwordOrder<>+56(SB)/8, $7
GLOBL qwordOrder<>(SB), RODATA|NOPTR, $64

// LOOKUP finds the bytes that a table of 256 in four registers holds for the
// codes in Z0. K7 says which codes are in its upper half.
#define LOOKUP(t0, t1, t2, t3, to, tmp) \
	VMOVDQA64 Z0, to        \
	VMOVDQA64 Z0, tmp       \
	VPERMI2B t1, t0, to     \
	VPERMI2B t3, t2, tmp    \
	VMOVDQU8 tmp, K7, to

#define LOADTABLE(off, t0, t1, t2, t3) \
	VMOVDQU64 (off+0)(SP), t0   \
	VMOVDQU64 (off+64)(SP), t1  \
	VMOVDQU64 (off+128)(SP), t2 \
	VMOVDQU64 (off+192)(SP), t3

// func avx512DecodeF32(dst, codes, signs *byte, n int, d *Decoder)
TEXT ·avx512DecodeF32(SB), 0, $1024-40
	NO_LOCAL_POINTERS
	MOVQ dst+0(FP), DI
	MOVQ codes+8(FP), SI
	MOVQ signs+16(FP), DX
	MOVQ n+24(FP), CX
	MOVQ d+32(FP), BX
	LEAQ Decoder_f32(BX), BX

	// The levels' bytes as four tables.
	XORQ AX, AX

split:
	VMOVDQU64 (BX)(AX*4), Z0
	VPMOVDB Z0, 0(SP)(AX*1)
	VPSRLD $8, Z0, Z1
	VPMOVDB Z1, 256(SP)(AX*1)
	VPSRLD $16, Z0, Z1
	VPMOVDB Z1, 512(SP)(AX*1)
	VPSRLD $24, Z0, Z1
	VPMOVDB Z1, 768(SP)(AX*1)
	ADDQ $16, AX
	CMPQ AX, $256
	JNE split
	LOADTABLE(0, Z16, Z17, Z18, Z19)
	LOADTABLE(256, Z20, Z21, Z22, Z23)
	LOADTABLE(512, Z24, Z25, Z26, Z27)
	LOADTABLE(768, Z28, Z29, Z30, Z31)
	VMOVDQU64 dwordOrder<>(SB), Z15
	VPBROADCASTD SIGN, Z14

loop:
	VPERMD (SI), Z15, Z0
	KMOVW 0(DX), K1
	KMOVW 2(DX), K2
	KMOVW 4(DX), K3
	KMOVW 6(DX), K4
	VPMOVB2M Z0, K7
	LOOKUP(Z16, Z17, Z18, Z19, Z1, Z5)
	LOOKUP(Z20, Z21, Z22, Z23, Z2, Z6)
	LOOKUP(Z24, Z25, Z26, Z27, Z3, Z7)
	LOOKUP(Z28, Z29, Z30, Z31, Z4, Z8)
	VPUNPCKLBW Z2, Z1, Z5
	VPUNPCKHBW Z2, Z1, Z6
	VPUNPCKLBW Z4, Z3, Z7
	VPUNPCKHBW Z4, Z3, Z8
	VPUNPCKLWD Z7, Z5, Z9
	VPUNPCKHWD Z7, Z5, Z10
	VPUNPCKLWD Z8, Z6, Z11
	VPUNPCKHWD Z8, Z6, Z12
	VPORD Z14, Z9, K1, Z9
	VPORD Z14, Z10, K2, Z10
	VPORD Z14, Z11, K3, Z11
	VPORD Z14, Z12, K4, Z12
	VMOVDQU64 Z9, 0(DI)
	VMOVDQU64 Z10, 64(DI)
	VMOVDQU64 Z11, 128(DI)
	VMOVDQU64 Z12, 192(DI)
	ADDQ $64, SI
	ADDQ $8, DX
	ADDQ $256, DI
	SUBQ $64, CX
	JNZ loop
	VZEROUPPER
	RET

// func avx512DecodeHalf(dst, codes, signs *byte, n int, d *Decoder)
TEXT ·avx512DecodeHalf(SB), 0, $512-40
	NO_LOCAL_POINTERS
	MOVQ dst+0(FP), DI
	MOVQ codes+8(FP), SI
	MOVQ signs+16(FP), DX
	MOVQ n+24(FP), CX
	MOVQ d+32(FP), BX
	LEAQ Decoder_half(BX), BX
	XORQ AX, AX

split:
	VMOVDQU64 (BX)(AX*2), Z0
	VPMOVWB Z0, 0(SP)(AX*1)
	VPSRLW $8, Z0, Z1
	VPMOVWB Z1, 256(SP)(AX*1)
	ADDQ $32, AX
	CMPQ AX, $256
	JNE split
	LOADTABLE(0, Z16, Z17, Z18, Z19)
	LOADTABLE(256, Z20, Z21, Z22, Z23)
	VMOVDQU64 qwordOrder<>(SB), Z15
	VPBROADCASTD SIGNS16, Z14

loop:
	VPERMQ (SI), Z15, Z0
	KMOVD 0(DX), K1
	KMOVD 4(DX), K2
	VPMOVB2M Z0, K7
	LOOKUP(Z16, Z17, Z18, Z19, Z1, Z5)
	LOOKUP(Z20, Z21, Z22, Z23, Z2, Z6)
	VPUNPCKLBW Z2, Z1, Z5
	VPUNPCKHBW Z2, Z1, Z6
	VPADDW Z14, Z5, K1, Z5
	VPADDW Z14, Z6, K2, Z6
	VMOVDQU64 Z5, 0(DI)
	VMOVDQU64 Z6, 64(DI)
	ADDQ $64, SI
	ADDQ $8, DX
	ADDQ $128, DI
	SUBQ $64, CX
	JNZ loop
	VZEROUPPER
	RET

// MEASURE adds the errors of 16 weights: want in Z0, got in Z1. The products
// are exact in float64, so that fusing them with the sums rounds as without.
#define MEASURE \
	VSUBPS Z1, Z0, Z2           \
	VEXTRACTF64X4 $1, Z0, Y3    \
	VEXTRACTF64X4 $1, Z1, Y4    \
	VEXTRACTF64X4 $1, Z2, Y5    \
	VCVTPS2PD Y0, Z6            \
	VCVTPS2PD Y1, Z7            \
	VCVTPS2PD Y2, Z8            \
	VCVTPS2PD Y3, Z9            \
	VCVTPS2PD Y4, Z10           \
	VCVTPS2PD Y5, Z11           \
	VFMADD231PD Z6, Z6, Z16     \
	VFMADD231PD Z8, Z8, Z17     \
	VFMADD231PD Z6, Z7, Z18     \
	VFMADD231PD Z9, Z9, Z16     \
	VFMADD231PD Z11, Z11, Z17   \
	VFMADD231PD Z9, Z10, Z18    \
	VPANDD Z28, Z2, Z2          \
	VPANDD Z28, Z0, Z0          \
	VMAXPS Z2, Z19, Z19         \
	VPCMPUD $5, Z29, Z0, K1     \ // |want| ≥ tiny
	VDIVPS.Z Z0, Z2, K1, Z2     \
	VMAXPS Z2, Z20, Z20

#define MEASURESTART \
	VMOVUPD Sums_Signal(BX), Z16 \
	VMOVUPD Sums_Noise(BX), Z17  \
	VMOVUPD Sums_Dot(BX), Z18    \
	VBROADCASTSS Sums_MaxAbs(BX), Z19 \
	VBROADCASTSS Sums_MaxRel(BX), Z20 \
	VPBROADCASTD MAGNITUDE, Z28 \
	VPBROADCASTD TINY, Z29

#define LARGEST(z, y, x, y1, x1, to) \
	VEXTRACTF64X4 $1, z, y1     \
	VMAXPS y1, y, y             \
	VEXTRACTF32X4 $1, y, x1     \
	VMAXPS x1, x, x             \
	VPSHUFD $0x4e, x, x1        \
	VMAXPS x1, x, x             \
	VPSHUFD $0xb1, x, x1        \
	VMAXPS x1, x, x             \
	VMOVSS x, to

#define MEASUREEND \
	VMOVUPD Z16, Sums_Signal(BX) \
	VMOVUPD Z17, Sums_Noise(BX)  \
	VMOVUPD Z18, Sums_Dot(BX)    \
	VMOVAPS Z19, Z0              \
	VMOVAPS Z20, Z1              \
	LARGEST(Z0, Y0, X0, Y2, X2, Sums_MaxAbs(BX)) \
	LARGEST(Z1, Y1, X1, Y2, X2, Sums_MaxRel(BX)) \
	VZEROUPPER

// func avx512MeasureF32(want, got *byte, n int, s *Sums)
TEXT ·avx512MeasureF32(SB), NOSPLIT, $0-32
	MOVQ want+0(FP), SI
	MOVQ got+8(FP), DI
	MOVQ n+16(FP), CX
	MOVQ s+24(FP), BX
	MEASURESTART

loop:
	VMOVUPS (SI), Z0
	VMOVUPS (DI), Z1
	MEASURE
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $16, CX
	JNZ loop
	MEASUREEND
	RET

// func avx512MeasureF16(want, got *byte, n int, s *Sums)
TEXT ·avx512MeasureF16(SB), NOSPLIT, $0-32
	MOVQ want+0(FP), SI
	MOVQ got+8(FP), DI
	MOVQ n+16(FP), CX
	MOVQ s+24(FP), BX
	MEASURESTART

loop:
	VCVTPH2PS (SI), Z0
	VCVTPH2PS (DI), Z1
	MEASURE
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $16, CX
	JNZ loop
	MEASUREEND
	RET

// func avx512MeasureBF16(want, got *byte, n int, s *Sums)
TEXT ·avx512MeasureBF16(SB), NOSPLIT, $0-32
	MOVQ want+0(FP), SI
	MOVQ got+8(FP), DI
	MOVQ n+16(FP), CX
	MOVQ s+24(FP), BX
	MEASURESTART

loop:
	VPMOVZXWD (SI), Z0
	VPMOVZXWD (DI), Z1
	VPSLLD $16, Z0, Z0
	VPSLLD $16, Z1, Z1
	MEASURE
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $16, CX
	JNZ loop
	MEASUREEND
	RET

// Where the bytes of planes are in two vectors of elements: every second one;
// the first of every four and then the second; and back, those of two vectors
// of planes in turn, and the words of two vectors in turn.
DATA everySecond<>+0(SB)/8, $0x0e0c0a0806040200
DATA everySecond<>+8(SB)/8, $0x1e1c1a1816141210
DATA everySecond<>+16(SB)/8, $0x2e2c2a2826242220
DATA everySecond<>+24(SB)/8, $0x3e3c3a3836343230
DATA everySecond<>+32(SB)/8, $0x4e4c4a4846444240
DATA everySecond<>+40(SB)/8, $0x5e5c5a5856545250
DATA everySecond<>+48(SB)/8, $0x6e6c6a6866646260
DATA everySecond<>+56(SB)/8, $0x7e7c7a7876747270
GLOBL everySecond<>(SB), RODATA|NOPTR, $64

DATA everyFourth<>+0(SB)/8, $0x1c1814100c080400
DATA everyFourth<>+8(SB)/8, $0x3c3834302c282420
DATA everyFourth<>+16(SB)/8, $0x5c5854504c484440
DATA everyFourth<>+24(SB)/8, $0x7c7874706c686460
DATA everyFourth<>+32(SB)/8, $0x1d1915110d090501
DATA everyFourth<>+40(SB)/8, $0x3d3935312d292521
DATA everyFourth<>+48(SB)/8, $0x5d5955514d494541
DATA everyFourth<>+56(SB)/8, $0x7d7975716d696561
GLOBL everyFourth<>(SB), RODATA|NOPTR, $64

DATA bytesInTurn<>+0(SB)/8, $0x4303420241014000
DATA bytesInTurn<>+8(SB)/8, $0x4707460645054404
DATA bytesInTurn<>+16(SB)/8, $0x4b0b4a0a49094808
DATA bytesInTurn<>+24(SB)/8, $0x4f0f4e0e4d0d4c0c
DATA bytesInTurn<>+32(SB)/8, $0x5313521251115010
DATA bytesInTurn<>+40(SB)/8, $0x5717561655155414
DATA bytesInTurn<>+48(SB)/8, $0x5b1b5a1a59195818
DATA bytesInTurn<>+56(SB)/8, $0x5f1f5e1e5d1d5c1c
GLOBL bytesInTurn<>(SB), RODATA|NOPTR, $64

DATA wordsInTurn<>+0(SB)/8, $0x0021000100200000
DATA wordsInTurn<>+8(SB)/8, $0x0023000300220002
DATA wordsInTurn<>+16(SB)/8, $0x0025000500240004
DATA wordsInTurn<>+24(SB)/8, $0x0027000700260006
DATA wordsInTurn<>+32(SB)/8, $0x0029000900280008
DATA wordsInTurn<>+40(SB)/8, $0x002b000b002a000a
DATA wordsInTurn<>+48(SB)/8, $0x002d000d002c000c
DATA wordsInTurn<>+56(SB)/8, $0x002f000f002e000e
GLOBL wordsInTurn<>(SB), RODATA|NOPTR, $64


#define ADDBYTES(n, from, to) \
	MOVL $(0x01010101*n), AX \
	VPBROADCASTD AX, to      \
	VPADDB to, from, to

// ROTATE16 rotates words left by one bit or not at all: X30 and X31 are the
// counts of the shifts.
#define ROTATE16(left, right, x, t) \
	left X30, x, t  \
	right X31, x, x \
	VPORD t, x, x

// ROTATION16 is for the number of bits in AX.
#define ROTATION16 \
	VMOVQ AX, X30 \
	NEGQ AX       \
	ADDQ $16, AX  \
	VMOVQ AX, X31

// PICK takes bytes or words of two vectors.
#define PICK(perm, index, a, b, to) \
	VMOVDQA64 index, to \
	perm b, a, to

// func avx512Split2(dst, src *byte, n, stride, rotate int)
TEXT ·avx512Split2(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ stride+24(FP), DX
	MOVQ rotate+32(FP), AX
	ROTATION16
	VMOVDQU64 everySecond<>(SB), Z28
	ADDBYTES(1, Z28, Z29)

loop:
	VMOVDQU64 0(SI), Z0
	VMOVDQU64 64(SI), Z1
	ROTATE16(VPSLLW, VPSRLW, Z0, Z2)
	ROTATE16(VPSLLW, VPSRLW, Z1, Z3)
	PICK(VPERMI2B, Z29, Z0, Z1, Z4)
	PICK(VPERMI2B, Z28, Z0, Z1, Z5)
	VMOVDQU64 Z4, (DI)
	VMOVDQU64 Z5, (DI)(DX*1)
	ADDQ $128, SI
	ADDQ $64, DI
	SUBQ $64, CX
	JNZ loop
	VZEROUPPER
	RET

// func avx512Join2(dst, src *byte, n, stride, rotate int)
TEXT ·avx512Join2(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ stride+24(FP), DX
	MOVQ rotate+32(FP), AX
	ROTATION16
	VMOVDQU64 bytesInTurn<>(SB), Z28
	ADDBYTES(32, Z28, Z29)

loop:
	VMOVDQU64 (SI), Z1
	VMOVDQU64 (SI)(DX*1), Z0
	PICK(VPERMI2B, Z28, Z0, Z1, Z2)
	PICK(VPERMI2B, Z29, Z0, Z1, Z3)
	ROTATE16(VPSRLW, VPSLLW, Z2, Z4)
	ROTATE16(VPSRLW, VPSLLW, Z3, Z5)
	VMOVDQU64 Z2, 0(DI)
	VMOVDQU64 Z3, 64(DI)
	ADDQ $64, SI
	ADDQ $128, DI
	SUBQ $64, CX
	JNZ loop
	VZEROUPPER
	RET

// func avx512Split4(dst, src *byte, n, stride, rotate int)
TEXT ·avx512Split4(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ stride+24(FP), DX
	MOVQ rotate+32(FP), AX
	VPBROADCASTD AX, Z31
	LEAQ (DX)(DX*2), R8
	VMOVDQU64 everyFourth<>(SB), Z28
	ADDBYTES(2, Z28, Z29)

loop:
	VMOVDQU64 0(SI), Z0
	VMOVDQU64 64(SI), Z1
	VMOVDQU64 128(SI), Z2
	VMOVDQU64 192(SI), Z3
	VPROLVD Z31, Z0, Z0
	VPROLVD Z31, Z1, Z1
	VPROLVD Z31, Z2, Z2
	VPROLVD Z31, Z3, Z3
	PICK(VPERMI2B, Z28, Z0, Z1, Z4)
	PICK(VPERMI2B, Z28, Z2, Z3, Z5)
	PICK(VPERMI2B, Z29, Z0, Z1, Z6)
	PICK(VPERMI2B, Z29, Z2, Z3, Z7)
	VSHUFI64X2 $0x44, Z5, Z4, Z0
	VSHUFI64X2 $0xee, Z5, Z4, Z1
	VSHUFI64X2 $0x44, Z7, Z6, Z2
	VSHUFI64X2 $0xee, Z7, Z6, Z3
	VMOVDQU64 Z3, (DI)
	VMOVDQU64 Z2, (DI)(DX*1)
	VMOVDQU64 Z1, (DI)(DX*2)
	VMOVDQU64 Z0, (DI)(R8*1)
	ADDQ $256, SI
	ADDQ $64, DI
	SUBQ $64, CX
	JNZ loop
	VZEROUPPER
	RET

// func avx512Join4(dst, src *byte, n, stride, rotate int)
TEXT ·avx512Join4(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ stride+24(FP), DX
	MOVQ rotate+32(FP), AX
	VPBROADCASTD AX, Z31
	LEAQ (DX)(DX*2), R8
	VMOVDQU64 bytesInTurn<>(SB), Z28
	ADDBYTES(32, Z28, Z29)
	VMOVDQU64 wordsInTurn<>(SB), Z26
	MOVL $0x00100010, AX
	VPBROADCASTD AX, Z27
	VPADDW Z27, Z26, Z27

loop:
	VMOVDQU64 (SI), Z3
	VMOVDQU64 (SI)(DX*1), Z2
	VMOVDQU64 (SI)(DX*2), Z1
	VMOVDQU64 (SI)(R8*1), Z0
	PICK(VPERMI2B, Z28, Z0, Z1, Z4)
	PICK(VPERMI2B, Z29, Z0, Z1, Z5)
	PICK(VPERMI2B, Z28, Z2, Z3, Z6)
	PICK(VPERMI2B, Z29, Z2, Z3, Z7)
	PICK(VPERMI2W, Z26, Z4, Z6, Z0)
	PICK(VPERMI2W, Z27, Z4, Z6, Z1)
	PICK(VPERMI2W, Z26, Z5, Z7, Z2)
	PICK(VPERMI2W, Z27, Z5, Z7, Z3)
	VPRORVD Z31, Z0, Z0
	VPRORVD Z31, Z1, Z1
	VPRORVD Z31, Z2, Z2
	VPRORVD Z31, Z3, Z3
	VMOVDQU64 Z0, 0(DI)
	VMOVDQU64 Z1, 64(DI)
	VMOVDQU64 Z2, 128(DI)
	VMOVDQU64 Z3, 192(DI)
	ADDQ $64, SI
	ADDQ $256, DI
	SUBQ $64, CX
	JNZ loop
	VZEROUPPER
	RET

// JOIN brings the entries of 32 symbols in z, as words, to their codes joined by
// fours, the last symbol's lowest, and the bits that they take in the lower half
// of n.
#define JOIN(z, n, t, u) \
	VPANDD Z14, z, n       \
	VPSRLW $4, z, z        \
	VPSRLD $16, n, t       \
	VPANDD Z13, z, u       \
	VPSRLD $16, z, z       \
	VPSLLVD t, u, u        \
	VPORD u, z, z          \
	VPMADDWD Z12, n, n     \
	VPSRLQ $32, n, t       \
	VPANDQ Z11, z, u       \
	VPSRLQ $32, z, z       \
	VPSLLVQ t, u, u        \
	VPORQ u, z, z          \
	VPADDD t, n, n

// JOINPAIRS joins fours of JOIN to eights, in the lower halves of 128-bit lanes. The
// mask k gets those that are too long to be put at once.
#define JOINPAIRS(z, n, to, sum, t, k) \
	VPANDQ Z11, n, n       \
	VPSHUFD $0x4e, n, t    \
	VPADDQ t, n, sum       \
	VPSLLVQ t, z, to       \
	VPSHUFD $0x4e, z, t    \
	VPORQ t, to, to        \
	VPCMPUQ $6, Z10, sum, k

// PUT adds four joined codes to the R9 bits in R8, which it brings below eight.
#define PUT(i) \
	SHLXQ R9, (i*8)(R12), R10 \
	ORQ R10, R8               \
	ADDQ (128+i*8)(R12), R9   \
	MOVQ R8, (DI)             \
	SHRXQ BX, R9, R10         \
	ANDNQ R9, DX, R11         \
	ADDQ R10, DI              \
	SHRXQ R11, R8, R8         \
	ANDQ $7, R9

// PUTEIGHT does so with eight, which are at least eight bits: what remains is of
// them alone, so that they may have up to 63.
#define PUTEIGHT(i) \
	MOVQ (i*8)(R12), R10     \
	MOVQ (128+i*8)(R12), R11 \
	SHLXQ R9, R10, AX        \
	ORQ AX, R8               \
	ADDQ R9, R11             \
	MOVQ R8, (DI)            \
	ANDNQ R11, DX, R8        \
	SUBQ R9, R8              \
	SHRXQ BX, R11, AX        \
	SHRXQ R8, R10, R8        \
	MOVQ R11, R9             \
	ADDQ AX, DI              \
	ANDQ $7, R9

DATA prefixLanes<>+0(SB)/8, $0x000f000f0000ffff // lengths in words, lower halves of dwords
DATA prefixLanes<>+8(SB)/8, $0x00000000ffffffff // and of qwords
DATA prefixLanes<>+16(SB)/8, $63 // bits that can be put at once
DATA prefixLanes<>+24(SB)/4, $0x00010001
GLOBL prefixLanes<>(SB), RODATA|NOPTR, $28

// func avx512Prefix(dst, src *byte, n int, p *PrefixCode, w bitWriter) (at int, left bitWriter)
TEXT ·avx512Prefix(SB), 0, $576-72
	NO_LOCAL_POINTERS
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ p+24(FP), BX
	LEAQ PrefixCode_words(BX), BX
	XORQ AX, AX

split:
	VMOVDQU64 (BX)(AX*2), Z0
	VPMOVWB Z0, 0(SP)(AX*1)
	VPSRLW $8, Z0, Z1
	VPMOVWB Z1, 256(SP)(AX*1)
	ADDQ $32, AX
	CMPQ AX, $256
	JNE split
	LOADTABLE(0, Z16, Z17, Z18, Z19)
	LOADTABLE(256, Z20, Z21, Z22, Z23)
	VMOVDQU64 qwordOrder<>(SB), Z15
	VPBROADCASTD prefixLanes<>+4(SB), Z14
	VPBROADCASTD prefixLanes<>+0(SB), Z13
	VPBROADCASTD prefixLanes<>+24(SB), Z12
	VPBROADCASTQ prefixLanes<>+8(SB), Z11
	VPBROADCASTQ prefixLanes<>+16(SB), Z10
	MOVQ w_bits+32(FP), R8
	MOVQ w_count+40(FP), R9
	ADDQ CX, SI
	// What is stored is loaded again at once, which has to wait for the cache
	// where a store lies in two lines of it.
	LEAQ 63(SP), R12
	ANDQ $~63, R12
	MOVQ $3, BX
	MOVQ $7, DX

loop:
	SUBQ $64, SI
	VPERMQ (SI), Z15, Z0
	VPMOVB2M Z0, K7
	LOOKUP(Z16, Z17, Z18, Z19, Z1, Z5)
	LOOKUP(Z20, Z21, Z22, Z23, Z2, Z6)
	VPUNPCKLBW Z2, Z1, Z5
	VPUNPCKHBW Z2, Z1, Z6
	JOIN(Z5, Z1, Z2, Z3)
	JOIN(Z6, Z7, Z8, Z9)
	JOINPAIRS(Z5, Z1, Z0, Z2, Z3, K1)
	JOINPAIRS(Z6, Z7, Z4, Z8, Z9, K2)
	KORTESTB K1, K2
	JNZ long
	VMOVDQA64 Z0, 0(R12)
	VMOVDQA64 Z4, 64(R12)
	VMOVDQA64 Z2, 128(R12)
	VMOVDQA64 Z8, 192(R12)
	PUTEIGHT(14)
	PUTEIGHT(12)
	PUTEIGHT(10)
	PUTEIGHT(8)
	PUTEIGHT(6)
	PUTEIGHT(4)
	PUTEIGHT(2)
	PUTEIGHT(0)

next:
	SUBQ $64, CX
	JNZ loop
	MOVQ R8, left_bits+56(FP)
	MOVQ R9, left_count+64(FP)
	SUBQ dst+0(FP), DI
	MOVQ DI, at+48(FP)
	VZEROUPPER
	RET

long:
	VMOVDQA64 Z5, 0(R12)
	VMOVDQA64 Z6, 64(R12)
	VMOVDQA64 Z1, 128(R12)
	VMOVDQA64 Z7, 192(R12)
	PUT(15)
	PUT(14)
	PUT(13)
	PUT(12)
	PUT(11)
	PUT(10)
	PUT(9)
	PUT(8)
	PUT(7)
	PUT(6)
	PUT(5)
	PUT(4)
	PUT(3)
	PUT(2)
	PUT(1)
	PUT(0)
	JMP next
