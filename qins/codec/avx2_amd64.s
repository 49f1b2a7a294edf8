//go:build !noasm

#include "funcdata.h"
#include "go_asm.h"
#include "textflag.h"

// Constants, one of each lane.
DATA lanes<>+0(SB)/4, $0x7fffffff  // magnitude of a float32
DATA lanes<>+4(SB)/4, $0x80808080  // top bits of bytes
DATA lanes<>+8(SB)/4, $0x3f800000  // 1.0
DATA lanes<>+12(SB)/4, $0x322bcc77 // tiny-1
DATA lanes<>+16(SB)/4, $0x7fff7fff // magnitudes of two 16-bit floats
DATA lanes<>+20(SB)/4, $0x007fffff // mantissa of a float32
DATA lanes<>+24(SB)/4, $127        // its exponent's bias
DATA lanes<>+28(SB)/4, $0x0f0f0f0f // lower nibbles
GLOBL lanes<>(SB), RODATA|NOPTR, $32

#define MAGNITUDE lanes<>+0(SB)
#define SIGNBYTE lanes<>+4(SB)
#define ONE lanes<>+8(SB)
#define BELOWTINY lanes<>+12(SB)
#define MAGNITUDES16 lanes<>+16(SB)
#define MANTISSA lanes<>+20(SB)
#define BIAS lanes<>+24(SB)
#define NIBBLES lanes<>+28(SB)

// SCAN folds the magnitudes at offset off into a minimum, that of the
// magnitudes less floor, and a maximum.
#define SCAN(off, sub, min, max, t, u, lo, hi) \
	VPAND off(SI), Y14, t \
	sub Y15, t, u         \
	max t, hi, hi         \
	min u, lo, lo

#define SCANLOOP(sub, min, max) \
	VPCMPEQD Y0, Y0, Y0 \
	VMOVDQA Y0, Y1      \
	VMOVDQA Y0, Y2      \
	VMOVDQA Y0, Y3      \
	VPXOR Y4, Y4, Y4    \
	VPXOR Y5, Y5, Y5    \
	VPXOR Y6, Y6, Y6    \
	VPXOR Y7, Y7, Y7    \
loop:                   \
	SCAN(0, sub, min, max, Y8, Y9, Y0, Y4)     \
	SCAN(32, sub, min, max, Y10, Y11, Y1, Y5)  \
	SCAN(64, sub, min, max, Y12, Y13, Y2, Y6)  \
	SCAN(96, sub, min, max, Y8, Y9, Y3, Y7)    \
	SCAN(128, sub, min, max, Y10, Y11, Y0, Y4) \
	SCAN(160, sub, min, max, Y12, Y13, Y1, Y5) \
	SCAN(192, sub, min, max, Y8, Y9, Y2, Y6)   \
	SCAN(224, sub, min, max, Y10, Y11, Y3, Y7) \
	ADDQ $256, SI       \
	SUBQ $256, CX       \
	JNZ loop            \
	min Y1, Y0, Y0      \
	min Y3, Y2, Y2      \
	min Y2, Y0, Y0      \
	max Y5, Y4, Y4      \
	max Y7, Y6, Y6      \
	max Y6, Y4, Y4      \
	VMOVDQU Y0, 0(DI)   \
	VMOVDQU Y0, 32(DI)  \
	VMOVDQU Y4, 64(DI)  \
	VMOVDQU Y4, 96(DI)  \
	VZEROUPPER

// The coefficients of approx, a vector of each, are on the stack, as there are
// too few registers for all constants.
#define SPREAD(from, to) \
	VBROADCASTSS (from)(BX), Y0 \
	VMOVUPS Y0, to(SP)

#define ENCODECONSTANTS \
	SPREAD(approx_poly+0, 0)      \
	SPREAD(approx_poly+4, 32)     \
	SPREAD(approx_poly+8, 64)     \
	SPREAD(approx_poly+12, 96)    \
	SPREAD(approx_poly+16, 128)   \
	SPREAD(approx_poly+20, 160)   \
	SPREAD(approx_poly+24, 192)   \
	SPREAD(approx_high, 224)      \
	VBROADCASTSS approx_slope(BX), Y8     \
	VPBROADCASTD approx_near(BX), Y9      \
	VPBROADCASTD BIAS, Y10                \
	VPBROADCASTD MANTISSA, Y11            \
	VPBROADCASTD MAGNITUDE, Y12           \
	VPBROADCASTD ONE, Y13                 \
	VPXOR Y15, Y15, Y15

// Where packing leaves the groups of four in eight registers' lanes.
DATA packedOrder<>+0(SB)/8, $0x0000000400000000
DATA packedOrder<>+8(SB)/8, $0x0000000500000001
DATA packedOrder<>+16(SB)/8, $0x0000000600000002
DATA packedOrder<>+24(SB)/8, $0x0000000700000003
GLOBL packedOrder<>(SB), RODATA|NOPTR, $32

// ENCODE makes 8 codes, not yet brought up to 1, of the float32 in x, and stores
// their sign bits. It leaves the magnitudes in e and zeros in near where approx
// says to settle.
#define ENCODE(x, byte, e, near) \
	VMOVMSKPS x, R8             \
	MOVB R8, byte(DX)           \
	VPAND Y12, x, e             \
	VPAND Y11, x, near          \
	VPOR Y13, near, near        \
	VSUBPS Y13, near, near      \
	VMOVUPS 192(SP), x          \
	VFMADD213PS 160(SP), near, x \
	VFMADD213PS 128(SP), near, x \
	VFMADD213PS 96(SP), near, x \
	VFMADD213PS 64(SP), near, x \
	VFMADD213PS 32(SP), near, x \
	VFMADD213PS 0(SP), near, x  \
	VPSRLD $23, e, near         \
	VPSUBD Y10, near, near      \
	VCVTDQ2PS near, near        \
	VFMADD231PS Y8, near, x     \
	VMINPS 224(SP), x, x        \
	VCVTTPS2DQ x, x             \
	VPAND Y9, x, near           \
	VPSRAD $16, x, x

// PACKPAIR packs what ENCODE left for two vectors, in the order of its arguments.
#define PACKPAIR(x0, e0, near0, x1, e1, near1, x, e, near) \
	VPACKSSDW x1, x0, x         \
	VPACKSSDW e1, e0, e         \
	VPACKUSDW near1, near0, near

// FINISH stores the 32 codes and brings the mask of those to settle into R8.
#define FINISH \
	PACKPAIR(Y1, Y6, Y7, Y2, Y3, Y14, Y1, Y6, Y7) \
	VPACKUSWB Y1, Y0, Y0        \
	VPCMPEQB Y2, Y2, Y2         \
	VPABSB Y2, Y2               \
	VPMAXUB Y2, Y0, Y0          \ // at least 1,
	VPACKSSWB Y6, Y4, Y4        \
	VPCMPEQB Y15, Y4, Y4        \
	VPANDN Y0, Y4, Y0           \ // but for zeros
	VMOVDQU packedOrder<>(SB), Y2 \
	VPERMD Y0, Y2, Y0           \
	VMOVDQU Y0, (DI)            \
	VPCMPEQW Y15, Y5, Y5        \
	VPCMPEQW Y15, Y7, Y7        \
	VPACKSSWB Y7, Y5, Y5        \
	VPERMD Y5, Y2, Y5           \
	VPMOVMSKB Y5, R8            \
	TESTL R8, R8

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

// func avx2Scan32(src *byte, n int, floor uint32) (lanes scanLanes)
TEXT ·avx2Scan32(SB), NOSPLIT, $0-152
	MOVQ src+0(FP), SI
	MOVQ n+8(FP), CX
	MOVL floor+16(FP), AX
	LEAQ lanes+24(FP), DI
	VPBROADCASTD MAGNITUDE, Y14
	VMOVD AX, X15
	VPBROADCASTD X15, Y15
	SCANLOOP(VPSUBD, VPMINUD, VPMAXUD)
	RET

// func avx2Scan16(src *byte, n int, floor uint32) (lanes scanLanes)
TEXT ·avx2Scan16(SB), NOSPLIT, $0-152
	MOVQ src+0(FP), SI
	MOVQ n+8(FP), CX
	MOVL floor+16(FP), AX
	LEAQ lanes+24(FP), DI
	VPBROADCASTD MAGNITUDES16, Y14
	VMOVD AX, X15
	VPBROADCASTW X15, Y15
	SCANLOOP(VPSUBW, VPMINUW, VPMAXUW)
	RET

// func avx2EncodeF32(codes, signs, src *byte, n int, a *approx)
TEXT ·avx2EncodeF32(SB), NOSPLIT, $256-40
	MOVQ codes+0(FP), DI
	MOVQ signs+8(FP), DX
	MOVQ src+16(FP), SI
	MOVQ n+24(FP), CX
	MOVQ a+32(FP), BX
	ENCODECONSTANTS

loop:
	VMOVUPS 0(SI), Y0
	ENCODE(Y0, 0, Y4, Y5)
	VMOVUPS 32(SI), Y1
	ENCODE(Y1, 1, Y6, Y7)
	PACKPAIR(Y0, Y4, Y5, Y1, Y6, Y7, Y0, Y4, Y5)
	VMOVUPS 64(SI), Y1
	ENCODE(Y1, 2, Y6, Y7)
	VMOVUPS 96(SI), Y2
	ENCODE(Y2, 3, Y3, Y14)
	FINISH
	JNZ settle

next:
	ADDQ $128, SI
	ADDQ $32, DI
	ADDQ $4, DX
	SUBQ $32, CX
	JNZ loop
	VZEROUPPER
	RET

settle:
	SETTLE(MOVL, 4, 0x7fffffff)
	JNZ settle
	JMP next

// func avx2EncodeF16(codes, signs, src *byte, n int, a *approx)
TEXT ·avx2EncodeF16(SB), NOSPLIT, $256-40
	MOVQ codes+0(FP), DI
	MOVQ signs+8(FP), DX
	MOVQ src+16(FP), SI
	MOVQ n+24(FP), CX
	MOVQ a+32(FP), BX
	ENCODECONSTANTS

loop:
	VCVTPH2PS 0(SI), Y0
	ENCODE(Y0, 0, Y4, Y5)
	VCVTPH2PS 16(SI), Y1
	ENCODE(Y1, 1, Y6, Y7)
	PACKPAIR(Y0, Y4, Y5, Y1, Y6, Y7, Y0, Y4, Y5)
	VCVTPH2PS 32(SI), Y1
	ENCODE(Y1, 2, Y6, Y7)
	VCVTPH2PS 48(SI), Y2
	ENCODE(Y2, 3, Y3, Y14)
	FINISH
	JNZ settle

next:
	ADDQ $64, SI
	ADDQ $32, DI
	ADDQ $4, DX
	SUBQ $32, CX
	JNZ loop
	VZEROUPPER
	RET

settle:
	SETTLE(MOVWLZX, 2, 0x7fff)
	JNZ settle
	JMP next

// BF16 is encoded without widening it. A word is a sign, eight bits of exponent
// and seven of mantissa, so that with coefficients scaled by powers of 128, which is
// exact, both parts serve as integers: y comes out as from ENCODE, to the last bit.
// Vectors hold every second weight of 16, so that nothing needs to be brought into
// order.
DATA powers128<>+0(SB)/4, $0x3f800000 // 1
DATA powers128<>+4(SB)/4, $0x3c000000 // 2^-7
DATA powers128<>+8(SB)/4, $0x38800000 // 2^-14
DATA powers128<>+12(SB)/4, $0x35000000
DATA powers128<>+16(SB)/4, $0x31800000
DATA powers128<>+20(SB)/4, $0x2e000000
DATA powers128<>+24(SB)/4, $0x2a800000
GLOBL powers128<>(SB), RODATA|NOPTR, $28

DATA words<>+0(SB)/4, $0x7f807f80 // exponents
DATA words<>+4(SB)/4, $0x3f803f80 // their bias
DATA words<>+8(SB)/4, $0x007f007f // mantissas
GLOBL words<>(SB), RODATA|NOPTR, $12

#define SPREADSCALED(from, power, to) \
	VBROADCASTSS (from)(BX), Y0                   \
	VBROADCASTSS powers128<>+(power*4)(SB), Y1    \
	VMULPS Y1, Y0, Y0                             \
	VMOVUPS Y0, to(SP)

// POLYNOMIAL makes y, not yet brought up to low, of 8 exponents in e and mantissas
// in m, both integers.
#define POLYNOMIAL(e, m, y) \
	VCVTDQ2PS e, e              \
	VCVTDQ2PS m, m              \
	VMOVUPS 192(SP), y          \
	VFMADD213PS 160(SP), m, y   \
	VFMADD213PS 128(SP), m, y   \
	VFMADD213PS 96(SP), m, y    \
	VFMADD213PS 64(SP), m, y    \
	VFMADD213PS 32(SP), m, y    \
	VFMADD213PS 0(SP), m, y     \
	VFMADD231PS Y8, e, y        \
	VMINPS 224(SP), y, y        \
	VCVTTPS2DQ y, y

// ENCODE16 makes 16 codes of the weights in x, as words in code that are not yet
// brought up to 1. It leaves words of ones in near where approx says to settle. The
// registers a to d are for its use; c may be x.
#define ENCODE16(x, code, near, a, b, c, d) \
	VPAND Y10, x, a             \
	VPSUBW Y11, a, a            \
	VPAND Y12, x, b             \
	VPSRAD $16, a, c            \
	VPSRLD $16, b, d            \
	VPSLLD $16, a, a            \
	VPSRAD $16, a, a            \
	VPBLENDW $0xaa, Y15, b, b   \
	POLYNOMIAL(a, b, code)      \
	POLYNOMIAL(c, d, near)      \
	VPSRLD $16, code, a         \
	VPSLLD $16, near, b         \
	VPBLENDW $0xaa, b, code, b  \
	VPBLENDW $0xaa, near, a, code \
	VPAND Y9, b, near           \
	VPCMPEQW Y15, near, near

// PACK packs two vectors of words to one of bytes, in order.
#define PACK(pack, x1, x0, x) \
	pack x1, x0, x              \
	VPERMQ $0xd8, x, x

// func avx2EncodeBF16(codes, signs, src *byte, n int, a *approx)
TEXT ·avx2EncodeBF16(SB), NOSPLIT, $256-40
	MOVQ codes+0(FP), DI
	MOVQ signs+8(FP), DX
	MOVQ src+16(FP), SI
	MOVQ n+24(FP), CX
	MOVQ a+32(FP), BX
	SPREADSCALED(approx_poly+0, 0, 0)
	SPREADSCALED(approx_poly+4, 1, 32)
	SPREADSCALED(approx_poly+8, 2, 64)
	SPREADSCALED(approx_poly+12, 3, 96)
	SPREADSCALED(approx_poly+16, 4, 128)
	SPREADSCALED(approx_poly+20, 5, 160)
	SPREADSCALED(approx_poly+24, 6, 192)
	SPREAD(approx_high, 224)
	VBROADCASTSS approx_slope(BX), Y8
	VBROADCASTSS powers128<>+4(SB), Y9
	VMULPS Y9, Y8, Y8
	VPBROADCASTW approx_near(BX), Y9
	VPBROADCASTD words<>+0(SB), Y10
	VPBROADCASTD words<>+4(SB), Y11
	VPBROADCASTD words<>+8(SB), Y12
	VPCMPEQB Y13, Y13, Y13
	VPABSB Y13, Y13
	VPXOR Y15, Y15, Y15

loop:
	VMOVDQU 0(SI), Y0
	VMOVDQU 32(SI), Y7
	PACK(VPACKSSWB, Y7, Y0, Y1)
	VPMOVMSKB Y1, R8
	MOVL R8, (DX)
	VPADDW Y0, Y0, Y1 // without the sign
	VPADDW Y7, Y7, Y2
	VPCMPEQW Y15, Y1, Y1
	VPCMPEQW Y15, Y2, Y2
	VPACKSSWB Y2, Y1, Y3
	ENCODE16(Y0, Y1, Y2, Y4, Y5, Y0, Y6)
	ENCODE16(Y7, Y4, Y5, Y0, Y14, Y7, Y6)
	VPACKUSWB Y4, Y1, Y0
	VPMAXUB Y13, Y0, Y0 // at least 1,
	VPANDN Y0, Y3, Y0   // but for zeros
	VPERMQ $0xd8, Y0, Y0
	VMOVDQU Y0, (DI)
	PACK(VPACKSSWB, Y5, Y2, Y2)
	VPMOVMSKB Y2, R8
	TESTL R8, R8
	JNZ settle

next:
	ADDQ $64, SI
	ADDQ $32, DI
	ADDQ $4, DX
	SUBQ $32, CX
	JNZ loop
	VZEROUPPER
	RET

settle:
	SETTLE(MOVWLZX, 2, 0x7fff)
	JNZ settle
	JMP next

// MEASURE adds the errors of 8 weights: want in Y0, got in Y1. The products
// are exact in float64, so that fusing them with the sums rounds as without.
#define MEASURE \
	VSUBPS Y1, Y0, Y2         \
	VEXTRACTF128 $1, Y0, X3   \
	VEXTRACTF128 $1, Y1, X4   \
	VEXTRACTF128 $1, Y2, X5   \
	VCVTPS2PD X0, Y6          \
	VCVTPS2PD X3, Y3          \
	VCVTPS2PD X1, Y1          \
	VCVTPS2PD X4, Y4          \
	VFMADD231PD Y6, Y6, Y8    \
	VFMADD231PD Y3, Y3, Y9    \
	VFMADD231PD Y6, Y1, Y12   \
	VFMADD231PD Y3, Y4, Y13   \
	VCVTPS2PD X2, Y1          \
	VCVTPS2PD X5, Y5          \
	VFMADD231PD Y1, Y1, Y10   \
	VFMADD231PD Y5, Y5, Y11   \
	VPBROADCASTD MAGNITUDE, Y7 \
	VPAND Y7, Y2, Y2          \
	VPAND Y7, Y0, Y0          \
	VMAXPS Y2, Y14, Y14       \
	VDIVPS Y0, Y2, Y2         \
	VPBROADCASTD BELOWTINY, Y7 \
	VPCMPGTD Y7, Y0, Y0       \
	VPAND Y0, Y2, Y2          \
	VMAXPS Y2, Y15, Y15

#define MEASURESTART \
	VMOVUPD (Sums_Signal+0)(BX), Y8       \
	VMOVUPD (Sums_Signal+32)(BX), Y9      \
	VMOVUPD (Sums_Noise+0)(BX), Y10       \
	VMOVUPD (Sums_Noise+32)(BX), Y11      \
	VMOVUPD (Sums_Dot+0)(BX), Y12         \
	VMOVUPD (Sums_Dot+32)(BX), Y13        \
	VBROADCASTSS Sums_MaxAbs(BX), Y14     \
	VBROADCASTSS Sums_MaxRel(BX), Y15

#define LARGEST(y, x, to) \
	VEXTRACTF128 $1, y, X0    \
	VMAXPS X0, x, x           \
	VPSHUFD $0x4e, x, X0      \
	VMAXPS X0, x, x           \
	VPSHUFD $0xb1, x, X0      \
	VMAXPS X0, x, x           \
	VMOVSS x, to

#define MEASUREEND \
	VMOVUPD Y8, (Sums_Signal+0)(BX)       \
	VMOVUPD Y9, (Sums_Signal+32)(BX)      \
	VMOVUPD Y10, (Sums_Noise+0)(BX)       \
	VMOVUPD Y11, (Sums_Noise+32)(BX)      \
	VMOVUPD Y12, (Sums_Dot+0)(BX)         \
	VMOVUPD Y13, (Sums_Dot+32)(BX)        \
	LARGEST(Y14, X14, Sums_MaxAbs(BX))    \
	LARGEST(Y15, X15, Sums_MaxRel(BX))    \
	VZEROUPPER

// func avx2MeasureF32(want, got *byte, n int, s *Sums)
TEXT ·avx2MeasureF32(SB), NOSPLIT, $0-32
	MOVQ want+0(FP), SI
	MOVQ got+8(FP), DI
	MOVQ n+16(FP), CX
	MOVQ s+24(FP), BX
	MEASURESTART

loop:
	VMOVUPS (SI), Y0
	VMOVUPS (DI), Y1
	MEASURE
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ loop
	MEASUREEND
	RET

// func avx2MeasureF16(want, got *byte, n int, s *Sums)
TEXT ·avx2MeasureF16(SB), NOSPLIT, $0-32
	MOVQ want+0(FP), SI
	MOVQ got+8(FP), DI
	MOVQ n+16(FP), CX
	MOVQ s+24(FP), BX
	MEASURESTART

loop:
	VCVTPH2PS (SI), Y0
	VCVTPH2PS (DI), Y1
	MEASURE
	ADDQ $16, SI
	ADDQ $16, DI
	SUBQ $8, CX
	JNZ loop
	MEASUREEND
	RET

// func avx2MeasureBF16(want, got *byte, n int, s *Sums)
TEXT ·avx2MeasureBF16(SB), NOSPLIT, $0-32
	MOVQ want+0(FP), SI
	MOVQ got+8(FP), DI
	MOVQ n+16(FP), CX
	MOVQ s+24(FP), BX
	MEASURESTART

loop:
	VPMOVZXWD (SI), Y0
	VPMOVZXWD (DI), Y1
	VPSLLD $16, Y0, Y0
	VPSLLD $16, Y1, Y1
	MEASURE
	ADDQ $16, SI
	ADDQ $16, DI
	SUBQ $8, CX
	JNZ loop
	MEASUREEND
	RET

// The order that lets interleaving within 128-bit lanes leave 32 weights in order.
DATA evenOdd<>+0(SB)/8, $0x0000000200000000
DATA evenOdd<>+8(SB)/8, $0x0000000600000004
DATA evenOdd<>+16(SB)/8, $0x0000000300000001
DATA evenOdd<>+24(SB)/8, $0x0000000700000005
GLOBL evenOdd<>(SB), RODATA|NOPTR, $32

// The bytes of 4 dwords brought together by significance.
DATA groupDwords<>+0(SB)/8, $0x0d0905010c080400
DATA groupDwords<>+8(SB)/8, $0x0f0b07030e0a0602
GLOBL groupDwords<>(SB), RODATA|NOPTR, $16

// The bit of the signs of 8 weights that each of them needs, and of 16.
DATA signBits32<>+0(SB)/8, $0x0000000200000001
DATA signBits32<>+8(SB)/8, $0x0000000800000004
DATA signBits32<>+16(SB)/8, $0x0000002000000010
DATA signBits32<>+24(SB)/8, $0x0000008000000040
GLOBL signBits32<>(SB), RODATA|NOPTR, $32

DATA signBits16<>+0(SB)/8, $0x0008000400020001
DATA signBits16<>+8(SB)/8, $0x0080004000200010
DATA signBits16<>+16(SB)/8, $0x0800040002000100
DATA signBits16<>+24(SB)/8, $0x8000400020001000
GLOBL signBits16<>(SB), RODATA|NOPTR, $32

// Decoding looks levels up one by one, straight from the table into vectors. That
// is faster than gathering them or finding their bytes with shuffles: two loads and
// an insertion a weight.

// FOUR brings the levels of the 4 codes at off to x.
#define FOUR(off, x) \
	MOVBLZX (off+0)(SI), R8             \
	MOVBLZX (off+1)(SI), R9             \
	MOVBLZX (off+2)(SI), R10            \
	MOVBLZX (off+3)(SI), R11            \
	VMOVD (BX)(R8*4), x                 \
	VPINSRD $1, (BX)(R9*4), x, x        \
	VPINSRD $2, (BX)(R10*4), x, x       \
	VPINSRD $3, (BX)(R11*4), x, x

// EIGHT brings the levels of the 8 codes at off to x, by way of t. AH can go to the
// older registers only.
#define EIGHT(off, x, t) \
	MOVL (off+0)(SI), AX                \
	MOVBLZX AX, R8                      \
	MOVBLZX AH, CX                      \
	SHRL $16, AX                        \
	MOVBLZX AX, R10                     \
	MOVBLZX AH, DX                      \
	MOVWLZX (BX)(R8*2), R8              \
	MOVWLZX (BX)(R10*2), R10            \
	VMOVD R8, x                         \
	VMOVD R10, t                        \
	VPINSRW $1, (BX)(CX*2), x, x        \
	VPINSRW $1, (BX)(DX*2), t, t       \
	VPUNPCKLDQ t, x, x                  \
	MOVL (off+4)(SI), AX                \
	MOVBLZX AX, R8                      \
	MOVBLZX AH, CX                      \
	SHRL $16, AX                        \
	MOVBLZX AX, R10                     \
	MOVBLZX AH, DX                      \
	VPINSRW $4, (BX)(R8*2), x, x        \
	VPINSRW $5, (BX)(CX*2), x, x        \
	VPINSRW $6, (BX)(R10*2), x, x       \
	VPINSRW $7, (BX)(DX*2), x, x

// JOINSIGNED joins two halves, sets the signs, which spread brings from (off)(DX)
// to all lanes, and stores the vector.
#define JOINSIGNED(spread, off, bits, equal, shift, top, x0, y0, x1, t, to) \
	VINSERTI128 $1, x1, y0, y0          \
	spread off(R12), t                  \
	VPAND bits, t, t                    \
	equal bits, t, t                    \
	shift $top, t, t                    \
	VPOR t, y0, y0                      \
	VMOVDQU y0, to(DI)

#define JOINSIGNED32(off, x0, y0, x1, t) \
	JOINSIGNED(VPBROADCASTB, off, Y15, VPCMPEQD, VPSLLD, 31, x0, y0, x1, t, (off*32))

#define JOINSIGNED16(off, x0, y0, x1, t) \
	JOINSIGNED(VPBROADCASTW, off, Y15, VPCMPEQW, VPSLLW, 15, x0, y0, x1, t, (off*16))

// func avx2DecodeF32(dst, codes, signs *byte, n int, d *Decoder)
TEXT ·avx2DecodeF32(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ codes+8(FP), SI
	MOVQ signs+16(FP), R12
	MOVQ n+24(FP), R13
	MOVQ d+32(FP), BX
	LEAQ Decoder_f32(BX), BX
	VMOVDQU signBits32<>(SB), Y15

loop:
	FOUR(0, X0)
	FOUR(4, X1)
	JOINSIGNED32(0, X0, Y0, X1, Y2)
	FOUR(8, X3)
	FOUR(12, X4)
	JOINSIGNED32(1, X3, Y3, X4, Y5)
	FOUR(16, X0)
	FOUR(20, X1)
	JOINSIGNED32(2, X0, Y0, X1, Y2)
	FOUR(24, X3)
	FOUR(28, X4)
	JOINSIGNED32(3, X3, Y3, X4, Y5)
	ADDQ $32, SI
	ADDQ $4, R12
	ADDQ $128, DI
	SUBQ $32, R13
	JNZ loop
	VZEROUPPER
	RET

// func avx2DecodeHalf(dst, codes, signs *byte, n int, d *Decoder)
TEXT ·avx2DecodeHalf(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ codes+8(FP), SI
	MOVQ signs+16(FP), R12
	MOVQ n+24(FP), R13
	MOVQ d+32(FP), BX
	LEAQ Decoder_half(BX), BX
	VMOVDQU signBits16<>(SB), Y15

loop:
	EIGHT(0, X0, X2)
	EIGHT(8, X1, X3)
	JOINSIGNED16(0, X0, Y0, X1, Y2)
	EIGHT(16, X4, X2)
	EIGHT(24, X5, X3)
	JOINSIGNED16(2, X4, Y4, X5, Y2)
	ADDQ $32, SI
	ADDQ $4, R12
	ADDQ $64, DI
	SUBQ $32, R13
	JNZ loop
	VZEROUPPER
	RET

// ROTATE rotates words or dwords left by one bit or not at all: X14 and X15 are
// the counts of the shifts.
#define ROTATE(left, right, x, t) \
	left X14, x, t  \
	right X15, x, x \
	VPOR t, x, x

// ROTATION is for the number of bits in AX.
#define ROTATION(width) \
	VMOVQ AX, X14    \
	NEGQ AX          \
	ADDQ $width, AX  \
	VMOVQ AX, X15

// TRANSPOSE transposes the dwords of Y0 to Y3 within 128-bit lanes.
#define TRANSPOSE \
	VPUNPCKLDQ Y1, Y0, Y4  \
	VPUNPCKHDQ Y1, Y0, Y5  \
	VPUNPCKLDQ Y3, Y2, Y6  \
	VPUNPCKHDQ Y3, Y2, Y7  \
	VPUNPCKLQDQ Y6, Y4, Y0 \
	VPUNPCKHQDQ Y6, Y4, Y1 \
	VPUNPCKLQDQ Y7, Y5, Y2 \
	VPUNPCKHQDQ Y7, Y5, Y3

// func avx2Split2(dst, src *byte, n, stride, rotate int)
TEXT ·avx2Split2(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ stride+24(FP), DX
	MOVQ rotate+32(FP), AX
	ROTATION(16)
	VPCMPEQW Y13, Y13, Y13
	VPSRLW $8, Y13, Y13

loop:
	VMOVDQU 0(SI), Y0
	VMOVDQU 32(SI), Y1
	ROTATE(VPSLLW, VPSRLW, Y0, Y2)
	ROTATE(VPSLLW, VPSRLW, Y1, Y3)
	VPAND Y13, Y0, Y2
	VPAND Y13, Y1, Y3
	VPSRLW $8, Y0, Y0
	VPSRLW $8, Y1, Y1
	VPACKUSWB Y1, Y0, Y0
	VPACKUSWB Y3, Y2, Y2
	VPERMQ $0xd8, Y0, Y0
	VPERMQ $0xd8, Y2, Y2
	VMOVDQU Y0, (DI)
	VMOVDQU Y2, (DI)(DX*1)
	ADDQ $64, SI
	ADDQ $32, DI
	SUBQ $32, CX
	JNZ loop
	VZEROUPPER
	RET

// func avx2Join2(dst, src *byte, n, stride, rotate int)
TEXT ·avx2Join2(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ stride+24(FP), DX
	MOVQ rotate+32(FP), AX
	ROTATION(16)

loop:
	VPERMQ $0xd8, (SI), Y1
	VPERMQ $0xd8, (SI)(DX*1), Y0
	VPUNPCKLBW Y1, Y0, Y2
	VPUNPCKHBW Y1, Y0, Y3
	ROTATE(VPSRLW, VPSLLW, Y2, Y4)
	ROTATE(VPSRLW, VPSLLW, Y3, Y5)
	VMOVDQU Y2, 0(DI)
	VMOVDQU Y3, 32(DI)
	ADDQ $32, SI
	ADDQ $64, DI
	SUBQ $32, CX
	JNZ loop
	VZEROUPPER
	RET

// func avx2Split4(dst, src *byte, n, stride, rotate int)
TEXT ·avx2Split4(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ stride+24(FP), DX
	MOVQ rotate+32(FP), AX
	ROTATION(32)
	LEAQ (DX)(DX*2), R8
	VBROADCASTI128 groupDwords<>(SB), Y13
	VMOVDQU packedOrder<>(SB), Y12

loop:
	VMOVDQU 0(SI), Y0
	VMOVDQU 32(SI), Y1
	VMOVDQU 64(SI), Y2
	VMOVDQU 96(SI), Y3
	ROTATE(VPSLLD, VPSRLD, Y0, Y4)
	ROTATE(VPSLLD, VPSRLD, Y1, Y5)
	ROTATE(VPSLLD, VPSRLD, Y2, Y6)
	ROTATE(VPSLLD, VPSRLD, Y3, Y7)
	VPSHUFB Y13, Y0, Y0
	VPSHUFB Y13, Y1, Y1
	VPSHUFB Y13, Y2, Y2
	VPSHUFB Y13, Y3, Y3
	TRANSPOSE
	VPERMD Y0, Y12, Y0
	VPERMD Y1, Y12, Y1
	VPERMD Y2, Y12, Y2
	VPERMD Y3, Y12, Y3
	VMOVDQU Y3, (DI)
	VMOVDQU Y2, (DI)(DX*1)
	VMOVDQU Y1, (DI)(DX*2)
	VMOVDQU Y0, (DI)(R8*1)
	ADDQ $128, SI
	ADDQ $32, DI
	SUBQ $32, CX
	JNZ loop
	VZEROUPPER
	RET

// func avx2Join4(dst, src *byte, n, stride, rotate int)
TEXT ·avx2Join4(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ stride+24(FP), DX
	MOVQ rotate+32(FP), AX
	ROTATION(32)
	LEAQ (DX)(DX*2), R8
	VBROADCASTI128 groupDwords<>(SB), Y13
	VMOVDQU evenOdd<>(SB), Y12

loop:
	VPERMD (SI), Y12, Y3
	VPERMD (SI)(DX*1), Y12, Y2
	VPERMD (SI)(DX*2), Y12, Y1
	VPERMD (SI)(R8*1), Y12, Y0
	TRANSPOSE
	VPSHUFB Y13, Y0, Y0
	VPSHUFB Y13, Y1, Y1
	VPSHUFB Y13, Y2, Y2
	VPSHUFB Y13, Y3, Y3
	ROTATE(VPSRLD, VPSLLD, Y0, Y4)
	ROTATE(VPSRLD, VPSLLD, Y1, Y5)
	ROTATE(VPSRLD, VPSLLD, Y2, Y6)
	ROTATE(VPSRLD, VPSLLD, Y3, Y7)
	VMOVDQU Y0, 0(DI)
	VMOVDQU Y1, 32(DI)
	VMOVDQU Y2, 64(DI)
	VMOVDQU Y3, 96(DI)
	ADDQ $32, SI
	ADDQ $128, DI
	SUBQ $32, CX
	JNZ loop
	VZEROUPPER
	RET

// func avx2Prefix(dst, src *byte, n int, p *PrefixCode, w bitWriter) (at int, left bitWriter)
//
// It is the loop of prefix. There are no vectors in it: what it needs are shifts
// that take a count from any register, of which only the lowest six bits matter.
TEXT ·avx2Prefix(SB), NOSPLIT, $0-72
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ p+24(FP), BX
	LEAQ PrefixCode_top(BX), BX
	MOVQ w_bits+32(FP), AX
	MOVQ w_count+40(FP), R13
	MOVQ R13, R14
	NEGQ R14
	SHLXQ R14, AX, AX

loop:
	MOVL -4(SI)(CX*1), R8
	MOVBLZX R8, R11
	MOVL R8, R10
	SHRL $8, R10
	MOVBLZX R10, R10
	MOVL R8, R9
	SHRL $16, R9
	MOVBLZX R9, R9
	SHRL $24, R8
	MOVQ (BX)(R8*8), R8
	MOVQ (BX)(R9*8), R9
	MOVQ (BX)(R10*8), R10
	MOVQ (BX)(R11*8), R11
	LEAQ (R10)(R11*1), R12    // the length of the last two
	LEAQ (R8)(R9*1), R14
	ADDQ R12, R14             // of all four
	SHRXQ R9, R8, R8
	ORQ R9, R8
	SHRXQ R11, R10, R10
	ORQ R11, R10
	SHRXQ R12, R8, R8
	ORQ R10, R8
	SHRXQ R14, AX, AX
	ORQ R8, AX
	ANDL $63, R14
	ADDQ R14, R13
	MOVQ R13, R14
	NEGQ R14
	SHRXQ R14, AX, R14
	MOVQ R14, (DI)
	MOVQ R13, R14
	SHRQ $3, R14
	ADDQ R14, DI
	ANDL $7, R13
	SUBQ $4, CX
	JNZ loop
	MOVQ R13, R14
	NEGQ R14
	SHRXQ R14, AX, AX
	BZHIQ R13, AX, AX
	MOVQ AX, left_bits+56(FP)
	MOVQ R13, left_count+64(FP)
	SUBQ dst+0(FP), DI
	MOVQ DI, at+48(FP)
	RET
