//go:build !noasm

#include "funcdata.h"
#include "go_asm.h"
#include "textflag.h"

// Instructions that the assembler lacks, on registers given by number, in its
// order of operands: the second source, the first, the destination.
#define FSUB4S(m, n, d) WORD $(0x4ea0d400 | m<<16 | n<<5 | d)
#define FMAX4S(m, n, d) WORD $(0x4e20f400 | m<<16 | n<<5 | d)
#define FMIN4S(m, n, d) WORD $(0x4ea0f400 | m<<16 | n<<5 | d)
#define FDIV4S(m, n, d) WORD $(0x6e20fc00 | m<<16 | n<<5 | d)
#define CMHS4S(m, n, d) WORD $(0x6ea03c00 | m<<16 | n<<5 | d)
#define SCVTF4S(n, d) WORD $(0x4e21d800 | n<<5 | d)
#define FCVTZS4S(n, d) WORD $(0x4ea1b800 | n<<5 | d)
#define FCVTL2D(n, d) WORD $(0x0e617800 | n<<5 | d)  // lower two float32 to float64
#define FCVTL22D(n, d) WORD $(0x4e617800 | n<<5 | d) // upper two
#define FCVTL4S(n, d) WORD $(0x0e217800 | n<<5 | d)  // lower four float16 to float32
#define FCVTL24S(n, d) WORD $(0x4e217800 | n<<5 | d) // upper four

// SCAN folds the magnitudes of four vectors into minima, those of the
// magnitudes less floor, and maxima.
#define SCANV(t, v, lo, hi) \
	VAND V30.B16, v.B16, v.B16 \
	VUMAX v.t, hi.t, hi.t      \
	VSUB V31.t, v.t, v.t       \
	VUMIN v.t, lo.t, lo.t

#define SCANLOOP(t) \
	VEOR V20.B16, V20.B16, V20.B16 \
	VEOR V21.B16, V21.B16, V21.B16 \
	VEOR V22.B16, V22.B16, V22.B16 \
	VEOR V23.B16, V23.B16, V23.B16 \
	MOVD $-1, R4                   \
	VDUP R4, V16.D2                \
	VDUP R4, V17.D2                \
	VDUP R4, V18.D2                \
	VDUP R4, V19.D2                \
loop:                              \
	VLD1.P 64(R0), [V0.B16, V1.B16, V2.B16, V3.B16] \
	VLD1.P 64(R0), [V4.B16, V5.B16, V6.B16, V7.B16] \
	SCANV(t, V0, V16, V20)         \
	SCANV(t, V1, V17, V21)         \
	SCANV(t, V2, V18, V22)         \
	SCANV(t, V3, V19, V23)         \
	SCANV(t, V4, V16, V20)         \
	SCANV(t, V5, V17, V21)         \
	SCANV(t, V6, V18, V22)         \
	SCANV(t, V7, V19, V23)         \
	SUBS $128, R1, R1              \
	BNE loop                       \
	VST1.P [V16.B16, V17.B16, V18.B16, V19.B16], 64(R3) \
	VST1 [V20.B16, V21.B16, V22.B16, V23.B16], (R3)

// func neonScan32(src *byte, n int, floor uint32) (lanes scanLanes)
TEXT ·neonScan32(SB), NOSPLIT, $0-152
	MOVD src+0(FP), R0
	MOVD n+8(FP), R1
	MOVWU floor+16(FP), R2
	MOVD $lanes+24(FP), R3
	MOVD $0x7fffffff, R4
	VDUP R4, V30.S4
	VDUP R2, V31.S4
	SCANLOOP(S4)
	RET

// func neonScan16(src *byte, n int, floor uint32) (lanes scanLanes)
TEXT ·neonScan16(SB), NOSPLIT, $0-152
	MOVD src+0(FP), R0
	MOVD n+8(FP), R1
	MOVWU floor+16(FP), R2
	MOVD $lanes+24(FP), R3
	MOVD $0x7fff7fff, R4
	VDUP R4, V30.S4
	VDUP R2, V31.H8
	SCANLOOP(H8)
	RET

// Bit i of each eight bytes.
DATA bits<>+0(SB)/8, $0x8040201008040201
DATA bits<>+8(SB)/8, $0x8040201008040201
GLOBL bits<>(SB), RODATA|NOPTR, $16

#define SPREAD(offset, reg) \
	MOVWU (offset)(R4), R6 \
	VDUP R6, reg.S4

#define SPREADCONSTANT(value, reg) \
	MOVD $value, R6 \
	VDUP R6, reg.S4

#define ENCODECONSTANTS \
	SPREAD(approx_poly+0, V16)  \
	SPREAD(approx_poly+4, V17)  \
	SPREAD(approx_poly+8, V18)  \
	SPREAD(approx_poly+12, V19) \
	SPREAD(approx_poly+16, V20) \
	SPREAD(approx_poly+20, V21) \
	SPREAD(approx_poly+24, V22) \
	SPREAD(approx_slope, V23)   \
	SPREAD(approx_low, V24)     \
	SPREAD(approx_high, V25)    \
	SPREAD(approx_near, V26)    \
	SPREADCONSTANT(0x7fffffff, V27) \ // magnitude
	SPREADCONSTANT(0x007fffff, V28) \ // mantissa
	SPREADCONSTANT(0x3f800000, V29) \ // 1.0
	SPREADCONSTANT(127, V30)        \ // bias of the exponent
	MOVD $bits<>(SB), R6            \
	VLD1 (R6), [V31.B16]            \
	ADD $approx_limit, R4, R5

// ENCODE makes 4 codes, in the upper halves, of the float32 in register x. The
// mask far gets those that approx does not say to settle.
#define ENCODE(x, v, far) \
	VAND V27.B16, v.B16, V8.B16   \
	VCMTST V8.S4, V8.S4, V9.S4    \ // not zero
	VAND V28.B16, v.B16, V10.B16  \
	VORR V29.B16, V10.B16, V10.B16 \
	FSUB4S(29, 10, 10)            \
	VUSHR $23, V8.S4, V8.S4       \
	VSUB V30.S4, V8.S4, V8.S4     \
	SCVTF4S(8, 8)                 \
	VMOV V21.B16, V11.B16         \
	VFMLA V22.S4, V10.S4, V11.S4  \
	VMOV V20.B16, v.B16           \
	VFMLA V11.S4, V10.S4, v.S4    \
	VMOV V19.B16, V11.B16         \
	VFMLA v.S4, V10.S4, V11.S4    \
	VMOV V18.B16, v.B16           \
	VFMLA V11.S4, V10.S4, v.S4    \
	VMOV V17.B16, V11.B16         \
	VFMLA v.S4, V10.S4, V11.S4    \
	VMOV V16.B16, v.B16           \
	VFMLA V11.S4, V10.S4, v.S4    \
	VFMLA V23.S4, V8.S4, v.S4     \
	FMAX4S(24, x, x)              \
	FMIN4S(25, x, x)              \
	FCVTZS4S(x, x)                \
	VCMTST V26.S4, v.S4, far.S4   \
	VAND V9.B16, v.B16, v.B16

// ENCODE16 makes 16 codes of V0 to V3 and puts the bits of their signs, each in
// a byte, into signs. R8 and R9 get the bytes of those to settle.
#define ENCODE16(signs) \
	VUZP2 V1.H8, V0.H8, V4.H8     \
	VUZP2 V3.H8, V2.H8, V5.H8     \
	VUZP2 V5.B16, V4.B16, V4.B16  \
	VMOVI $0x80, V5.B16           \
	VCMTST V5.B16, V4.B16, V4.B16 \
	VAND V31.B16, V4.B16, signs.B16 \
	ENCODE(0, V0, V4)             \
	ENCODE(1, V1, V5)             \
	ENCODE(2, V2, V6)             \
	ENCODE(3, V3, V7)             \
	VUZP2 V1.H8, V0.H8, V0.H8     \
	VUZP2 V3.H8, V2.H8, V2.H8     \
	VUZP1 V2.B16, V0.B16, V0.B16  \
	VST1.P [V0.B16], 16(R0)       \
	VUZP1 V5.H8, V4.H8, V4.H8     \
	VUZP1 V7.H8, V6.H8, V6.H8     \
	VUZP1 V6.B16, V4.B16, V4.B16  \
	VMOV V4.D[0], R8              \
	VMOV V4.D[1], R9              \
	MVN R8, R8                    \
	MVN R9, R9

// SIGNS stores the 32 sign bits that V12 and V13 hold.
#define SIGNS \
	VADDP V13.B16, V12.B16, V12.B16 \
	VADDP V12.B16, V12.B16, V12.B16 \
	VADDP V12.B16, V12.B16, V12.B16 \
	VMOV V12.S[0], R6             \
	MOVW.P R6, 4(R1)

// SETTLE goes through the 8 weights from off on whose bytes are set in mask.
// Each code is less by one if the magnitude has reached the limit. R0 is past
// the codes of 16 weights, and R7 points to those weights.
#define SETTLE(mask, off, mov, shift, all, again, done) \
again:                            \
	CBZ mask, done                \
	RBIT mask, R10                \
	CLZ R10, R10                  \
	MOVD $0xff, R11               \
	LSL R10, R11, R11             \
	BIC R11, mask, mask           \
	LSR $3, R10, R10              \
	ADD $off, R10, R10            \
	mov (R7)(R10<<shift), R11     \
	AND $all, R11, R11            \
	SUB $16, R0, R12              \
	ADD R10, R12, R12             \
	MOVBU (R12), R13              \
	MOVWU (R5)(R13<<2), R14       \
	CMPW R14, R11                 \
	BLO again                     \
	SUB $1, R13, R13              \
	MOVB R13, (R12)               \
	B again                       \
done:

// func neonEncodeF32(codes, signs, src *byte, n int, a *approx)
TEXT ·neonEncodeF32(SB), NOSPLIT, $0-40
	MOVD codes+0(FP), R0
	MOVD signs+8(FP), R1
	MOVD src+16(FP), R2
	MOVD n+24(FP), R3
	MOVD a+32(FP), R4
	ENCODECONSTANTS

loop:
	MOVD R2, R7
	VLD1.P 64(R2), [V0.S4, V1.S4, V2.S4, V3.S4]
	ENCODE16(V12)
	SETTLE(R8, 0, MOVWU, 2, 0x7fffffff, settle0, settled0)
	SETTLE(R9, 8, MOVWU, 2, 0x7fffffff, settle1, settled1)
	MOVD R2, R7
	VLD1.P 64(R2), [V0.S4, V1.S4, V2.S4, V3.S4]
	ENCODE16(V13)
	SETTLE(R8, 0, MOVWU, 2, 0x7fffffff, settle2, settled2)
	SETTLE(R9, 8, MOVWU, 2, 0x7fffffff, settle3, settled3)
	SIGNS
	SUBS $32, R3, R3
	BNE loop
	RET

// func neonEncodeF16(codes, signs, src *byte, n int, a *approx)
TEXT ·neonEncodeF16(SB), NOSPLIT, $0-40
	MOVD codes+0(FP), R0
	MOVD signs+8(FP), R1
	MOVD src+16(FP), R2
	MOVD n+24(FP), R3
	MOVD a+32(FP), R4
	ENCODECONSTANTS

#define WIDEN \
	MOVD R2, R7                   \
	VLD1.P 32(R2), [V4.H8, V5.H8] \
	FCVTL4S(4, 0)                 \
	FCVTL24S(4, 1)                \
	FCVTL4S(5, 2)                 \
	FCVTL24S(5, 3)

loop:
	WIDEN
	ENCODE16(V12)
	SETTLE(R8, 0, MOVHU, 1, 0x7fff, settle0, settled0)
	SETTLE(R9, 8, MOVHU, 1, 0x7fff, settle1, settled1)
	WIDEN
	ENCODE16(V13)
	SETTLE(R8, 0, MOVHU, 1, 0x7fff, settle2, settled2)
	SETTLE(R9, 8, MOVHU, 1, 0x7fff, settle3, settled3)
	SIGNS
	SUBS $32, R3, R3
	BNE loop
	RET

#undef WIDEN

// func neonEncodeBF16(codes, signs, src *byte, n int, a *approx)
TEXT ·neonEncodeBF16(SB), NOSPLIT, $0-40
	MOVD codes+0(FP), R0
	MOVD signs+8(FP), R1
	MOVD src+16(FP), R2
	MOVD n+24(FP), R3
	MOVD a+32(FP), R4
	ENCODECONSTANTS
	VEOR V14.B16, V14.B16, V14.B16

#define WIDEN \
	MOVD R2, R7                   \
	VLD1.P 32(R2), [V4.H8, V5.H8] \
	VZIP1 V4.H8, V14.H8, V0.H8    \
	VZIP2 V4.H8, V14.H8, V1.H8    \
	VZIP1 V5.H8, V14.H8, V2.H8    \
	VZIP2 V5.H8, V14.H8, V3.H8

loop:
	WIDEN
	ENCODE16(V12)
	SETTLE(R8, 0, MOVHU, 1, 0x7fff, settle0, settled0)
	SETTLE(R9, 8, MOVHU, 1, 0x7fff, settle1, settled1)
	WIDEN
	ENCODE16(V13)
	SETTLE(R8, 0, MOVHU, 1, 0x7fff, settle2, settled2)
	SETTLE(R9, 8, MOVHU, 1, 0x7fff, settle3, settled3)
	SIGNS
	SUBS $32, R3, R3
	BNE loop
	RET

#undef WIDEN

// Which byte of the signs each of 32 codes needs.
DATA signByte<>+0(SB)/8, $0x0000000000000000
DATA signByte<>+8(SB)/8, $0x0101010101010101
DATA signByte<>+16(SB)/8, $0x0202020202020202
DATA signByte<>+24(SB)/8, $0x0303030303030303
GLOBL signByte<>(SB), RODATA|NOPTR, $32

// QUARTER looks the codes in V8 and V9 up in a quarter of a plane's table, at R6.
// Codes out of its range leave what is there.
#define QUARTER(to0, to1) \
	VLD1.P 64(R6), [V16.B16, V17.B16, V18.B16, V19.B16] \
	VTBX V8.B16, [V16.B16, V17.B16, V18.B16, V19.B16], to0.B16 \
	VTBX V9.B16, [V16.B16, V17.B16, V18.B16, V19.B16], to1.B16

#define NEXTQUARTER \
	VSUB V24.B16, V8.B16, V8.B16 \
	VSUB V24.B16, V9.B16, V9.B16

// SIGNBITS sets the top bits of two vectors of a top plane.
#define SIGNBITS(to0, to1) \
	VLD1R.P 4(R2), [V10.S4]             \
	VTBL V27.B16, [V10.B16], V11.B16    \
	VTBL V28.B16, [V10.B16], V12.B16    \
	VCMTST V26.B16, V11.B16, V11.B16    \
	VCMTST V26.B16, V12.B16, V12.B16    \
	VAND V25.B16, V11.B16, V11.B16      \
	VAND V25.B16, V12.B16, V12.B16      \
	VORR V11.B16, to0.B16, to0.B16      \
	VORR V12.B16, to1.B16, to1.B16

#define DECODECONSTANTS \
	VMOVI $64, V24.B16                  \
	VMOVI $0x80, V25.B16                \
	MOVD $bits<>(SB), R6                \
	VLD1 (R6), [V26.B16]                \
	MOVD $signByte<>(SB), R6            \
	VLD1 (R6), [V27.B16, V28.B16]

// func neonDecodeF32(dst, codes, signs *byte, n int, d *Decoder)
TEXT ·neonDecodeF32(SB), 0, $1024-40
	NO_LOCAL_POINTERS
	MOVD dst+0(FP), R0
	MOVD codes+8(FP), R1
	MOVD signs+16(FP), R2
	MOVD n+24(FP), R3
	MOVD d+32(FP), R4
	ADD $Decoder_f32, R4, R4
	DECODECONSTANTS

	// The planes of the levels' bytes, by quarters.
	MOVD $tables-1024(SP), R5
	MOVD R5, R6
	MOVD $4, R8

quarters:
	MOVD R6, R7
	MOVD $4, R9

split:
	VLD4.P 64(R4), [V0.B16, V1.B16, V2.B16, V3.B16]
	MOVD R7, R10
	VST1 [V0.B16], (R10)
	ADD $64, R10, R10
	VST1 [V1.B16], (R10)
	ADD $64, R10, R10
	VST1 [V2.B16], (R10)
	ADD $64, R10, R10
	VST1 [V3.B16], (R10)
	ADD $16, R7, R7
	SUBS $1, R9, R9
	BNE split
	ADD $256, R6, R6
	SUBS $1, R8, R8
	BNE quarters

loop:
	VLD1.P 32(R1), [V8.B16, V9.B16]
	MOVD R5, R6
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V1.B16, V1.B16, V1.B16
	VEOR V2.B16, V2.B16, V2.B16
	VEOR V3.B16, V3.B16, V3.B16
	VEOR V4.B16, V4.B16, V4.B16
	VEOR V5.B16, V5.B16, V5.B16
	VEOR V6.B16, V6.B16, V6.B16
	VEOR V7.B16, V7.B16, V7.B16
	QUARTER(V0, V4)
	QUARTER(V1, V5)
	QUARTER(V2, V6)
	QUARTER(V3, V7)
	NEXTQUARTER
	QUARTER(V0, V4)
	QUARTER(V1, V5)
	QUARTER(V2, V6)
	QUARTER(V3, V7)
	NEXTQUARTER
	QUARTER(V0, V4)
	QUARTER(V1, V5)
	QUARTER(V2, V6)
	QUARTER(V3, V7)
	NEXTQUARTER
	QUARTER(V0, V4)
	QUARTER(V1, V5)
	QUARTER(V2, V6)
	QUARTER(V3, V7)
	SIGNBITS(V3, V7)
	VST4.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R0)
	VST4.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R0)
	SUBS $32, R3, R3
	BNE loop
	RET

// func neonDecodeHalf(dst, codes, signs *byte, n int, d *Decoder)
TEXT ·neonDecodeHalf(SB), 0, $512-40
	NO_LOCAL_POINTERS
	MOVD dst+0(FP), R0
	MOVD codes+8(FP), R1
	MOVD signs+16(FP), R2
	MOVD n+24(FP), R3
	MOVD d+32(FP), R4
	ADD $Decoder_half, R4, R4
	DECODECONSTANTS
	MOVD $tables-512(SP), R5
	MOVD R5, R6
	MOVD $4, R8

quarters:
	MOVD R6, R7
	MOVD $4, R9

split:
	VLD2.P 32(R4), [V0.B16, V1.B16]
	MOVD R7, R10
	VST1 [V0.B16], (R10)
	ADD $64, R10, R10
	VST1 [V1.B16], (R10)
	ADD $16, R7, R7
	SUBS $1, R9, R9
	BNE split
	ADD $128, R6, R6
	SUBS $1, R8, R8
	BNE quarters

loop:
	VLD1.P 32(R1), [V8.B16, V9.B16]
	MOVD R5, R6
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V1.B16, V1.B16, V1.B16
	VEOR V2.B16, V2.B16, V2.B16
	VEOR V3.B16, V3.B16, V3.B16
	QUARTER(V0, V2)
	QUARTER(V1, V3)
	NEXTQUARTER
	QUARTER(V0, V2)
	QUARTER(V1, V3)
	NEXTQUARTER
	QUARTER(V0, V2)
	QUARTER(V1, V3)
	NEXTQUARTER
	QUARTER(V0, V2)
	QUARTER(V1, V3)
	SIGNBITS(V1, V3)
	VST2.P [V0.B16, V1.B16], 32(R0)
	VST2.P [V2.B16, V3.B16], 32(R0)
	SUBS $32, R3, R3
	BNE loop
	RET

// MEASURE adds the errors of 4 weights: want in register w, got in register g.
// The products are exact in float64, so that fusing them with the sums rounds
// as without.
#define MEASURE(w, wv, g, signal0, signal1, noise0, noise1, dot0, dot1) \
	FSUB4S(g, w, 4)                  \
	FCVTL2D(w, 5)                    \
	FCVTL22D(w, 6)                   \
	FCVTL2D(g, 7)                    \
	FCVTL22D(g, 8)                   \
	FCVTL2D(4, 9)                    \
	FCVTL22D(4, 10)                  \
	VFMLA V5.D2, V5.D2, signal0.D2   \
	VFMLA V6.D2, V6.D2, signal1.D2   \
	VFMLA V9.D2, V9.D2, noise0.D2    \
	VFMLA V10.D2, V10.D2, noise1.D2  \
	VFMLA V5.D2, V7.D2, dot0.D2      \
	VFMLA V6.D2, V8.D2, dot1.D2      \
	VAND V30.B16, V4.B16, V4.B16     \
	VAND V30.B16, wv.B16, wv.B16     \
	VUMAX V4.S4, V28.S4, V28.S4      \ // positive floats are in the order of their bits
	FDIV4S(w, 4, 4)                  \
	CMHS4S(31, w, 5)                 \ // |want| ≥ tiny
	VAND V5.B16, V4.B16, V4.B16      \
	VUMAX V4.S4, V29.S4, V29.S4

#define MEASURE8 \
	MEASURE(0, V0, 2, V16, V17, V20, V21, V24, V25) \
	MEASURE(1, V1, 3, V18, V19, V22, V23, V26, V27)

#define MEASURESTART \
	ADD $Sums_Signal, R3, R4         \
	VLD1 (R4), [V16.D2, V17.D2, V18.D2, V19.D2] \
	ADD $Sums_Noise, R3, R5          \
	VLD1 (R5), [V20.D2, V21.D2, V22.D2, V23.D2] \
	ADD $Sums_Dot, R3, R6            \
	VLD1 (R6), [V24.D2, V25.D2, V26.D2, V27.D2] \
	MOVWU Sums_MaxAbs(R3), R7        \
	VDUP R7, V28.S4                  \
	MOVWU Sums_MaxRel(R3), R7        \
	VDUP R7, V29.S4                  \
	MOVD $0x7fffffff, R7             \
	VDUP R7, V30.S4                  \
	MOVD $0x322bcc78, R7             \ // tiny
	VDUP R7, V31.S4

#define LARGEST(v, to) \
	VEXT $8, v.B16, v.B16, V0.B16    \
	VUMAX V0.S4, v.S4, v.S4          \
	VEXT $4, v.B16, v.B16, V0.B16    \
	VUMAX V0.S4, v.S4, v.S4          \
	VMOV v.S[0], R7                  \
	MOVW R7, to(R3)

#define MEASUREEND \
	VST1 [V16.D2, V17.D2, V18.D2, V19.D2], (R4) \
	VST1 [V20.D2, V21.D2, V22.D2, V23.D2], (R5) \
	VST1 [V24.D2, V25.D2, V26.D2, V27.D2], (R6) \
	LARGEST(V28, Sums_MaxAbs)        \
	LARGEST(V29, Sums_MaxRel)

// func neonMeasureF32(want, got *byte, n int, s *Sums)
TEXT ·neonMeasureF32(SB), NOSPLIT, $0-32
	MOVD want+0(FP), R0
	MOVD got+8(FP), R1
	MOVD n+16(FP), R2
	MOVD s+24(FP), R3
	MEASURESTART

loop:
	VLD1.P 32(R0), [V0.S4, V1.S4]
	VLD1.P 32(R1), [V2.S4, V3.S4]
	MEASURE8
	SUBS $8, R2, R2
	BNE loop
	MEASUREEND
	RET

// func neonMeasureF16(want, got *byte, n int, s *Sums)
TEXT ·neonMeasureF16(SB), NOSPLIT, $0-32
	MOVD want+0(FP), R0
	MOVD got+8(FP), R1
	MOVD n+16(FP), R2
	MOVD s+24(FP), R3
	MEASURESTART

loop:
	VLD1.P 16(R0), [V4.H8]
	VLD1.P 16(R1), [V5.H8]
	FCVTL4S(4, 0)
	FCVTL24S(4, 1)
	FCVTL4S(5, 2)
	FCVTL24S(5, 3)
	MEASURE8
	SUBS $8, R2, R2
	BNE loop
	MEASUREEND
	RET

// func neonMeasureBF16(want, got *byte, n int, s *Sums)
TEXT ·neonMeasureBF16(SB), NOSPLIT, $0-32
	MOVD want+0(FP), R0
	MOVD got+8(FP), R1
	MOVD n+16(FP), R2
	MOVD s+24(FP), R3
	MEASURESTART
	VEOR V11.B16, V11.B16, V11.B16

loop:
	VLD1.P 16(R0), [V4.H8]
	VLD1.P 16(R1), [V5.H8]
	VZIP1 V4.H8, V11.H8, V0.H8
	VZIP2 V4.H8, V11.H8, V1.H8
	VZIP1 V5.H8, V11.H8, V2.H8
	VZIP2 V5.H8, V11.H8, V3.H8
	MEASURE8
	SUBS $8, R2, R2
	BNE loop
	MEASUREEND
	RET

// LEFT and RIGHT rotate elements whose bytes are in several vectors: each byte
// gets a bit of its neighbour, which ends up in to.
#define LEFT(byte, lower, to) \
	VUSHR $7, lower.B16, to.B16 \
	VSLI $1, byte.B16, to.B16

#define RIGHT(byte, upper, to) \
	VSHL $7, upper.B16, to.B16 \
	VSRI $1, byte.B16, to.B16

// func neonSplit2(dst, src *byte, n, stride, rotate int)
TEXT ·neonSplit2(SB), NOSPLIT, $0-40
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	MOVD n+16(FP), R2
	MOVD stride+24(FP), R3
	MOVD rotate+32(FP), R4
	ADD R3, R0, R5
	CBZ R4, plain

loop:
	VLD2.P 32(R1), [V0.B16, V1.B16]
	LEFT(V0, V1, V2)
	LEFT(V1, V0, V3)
	VST1.P [V3.B16], 16(R0)
	VST1.P [V2.B16], 16(R5)
	SUBS $16, R2, R2
	BNE loop
	RET

plain:
	VLD2.P 32(R1), [V0.B16, V1.B16]
	VST1.P [V1.B16], 16(R0)
	VST1.P [V0.B16], 16(R5)
	SUBS $16, R2, R2
	BNE plain
	RET

// func neonJoin2(dst, src *byte, n, stride, rotate int)
TEXT ·neonJoin2(SB), NOSPLIT, $0-40
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	MOVD n+16(FP), R2
	MOVD stride+24(FP), R3
	MOVD rotate+32(FP), R4
	ADD R3, R1, R5
	CBZ R4, plain

loop:
	VLD1.P 16(R1), [V1.B16]
	VLD1.P 16(R5), [V0.B16]
	RIGHT(V0, V1, V2)
	RIGHT(V1, V0, V3)
	VST2.P [V2.B16, V3.B16], 32(R0)
	SUBS $16, R2, R2
	BNE loop
	RET

plain:
	VLD1.P 16(R1), [V1.B16]
	VLD1.P 16(R5), [V0.B16]
	VST2.P [V0.B16, V1.B16], 32(R0)
	SUBS $16, R2, R2
	BNE plain
	RET

// func neonSplit4(dst, src *byte, n, stride, rotate int)
TEXT ·neonSplit4(SB), NOSPLIT, $0-40
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	MOVD n+16(FP), R2
	MOVD stride+24(FP), R3
	MOVD rotate+32(FP), R4
	ADD R3, R0, R5
	ADD R3, R5, R6
	ADD R3, R6, R7
	CBZ R4, plain

loop:
	VLD4.P 64(R1), [V0.B16, V1.B16, V2.B16, V3.B16]
	LEFT(V0, V3, V4)
	LEFT(V1, V0, V5)
	LEFT(V2, V1, V6)
	LEFT(V3, V2, V7)
	VST1.P [V7.B16], 16(R0)
	VST1.P [V6.B16], 16(R5)
	VST1.P [V5.B16], 16(R6)
	VST1.P [V4.B16], 16(R7)
	SUBS $16, R2, R2
	BNE loop
	RET

plain:
	VLD4.P 64(R1), [V0.B16, V1.B16, V2.B16, V3.B16]
	VST1.P [V3.B16], 16(R0)
	VST1.P [V2.B16], 16(R5)
	VST1.P [V1.B16], 16(R6)
	VST1.P [V0.B16], 16(R7)
	SUBS $16, R2, R2
	BNE plain
	RET

// func neonJoin4(dst, src *byte, n, stride, rotate int)
TEXT ·neonJoin4(SB), NOSPLIT, $0-40
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	MOVD n+16(FP), R2
	MOVD stride+24(FP), R3
	MOVD rotate+32(FP), R4
	ADD R3, R1, R5
	ADD R3, R5, R6
	ADD R3, R6, R7
	CBZ R4, plain

loop:
	VLD1.P 16(R1), [V3.B16]
	VLD1.P 16(R5), [V2.B16]
	VLD1.P 16(R6), [V1.B16]
	VLD1.P 16(R7), [V0.B16]
	RIGHT(V0, V1, V4)
	RIGHT(V1, V2, V5)
	RIGHT(V2, V3, V6)
	RIGHT(V3, V0, V7)
	VST4.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R0)
	SUBS $16, R2, R2
	BNE loop
	RET

plain:
	VLD1.P 16(R1), [V3.B16]
	VLD1.P 16(R5), [V2.B16]
	VLD1.P 16(R6), [V1.B16]
	VLD1.P 16(R7), [V0.B16]
	VST4.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R0)
	SUBS $16, R2, R2
	BNE plain
	RET
