package codec

import (
	"fmt"
	"math/bits"
)

// An Encoder holds a Map in the form in which kernels look codes up. It may be
// used by many goroutines at once.
type Encoder struct {
	typ Type

	// F32: cells of 2^shift magnitudes from low on, each with at most one
	// break. Everything below low falls into cell 0 as well, everything past
	// the table into its last cell.
	low   uint32
	shift uint8
	cells *[cellCount]cell

	// F16 and BF16: the code of every magnitude.
	half *[1 << 15]uint8

	// For kernels that can use it; nil where it does not fit the map.
	approx *approx
}

// cellCount is enough for every range of the log codec: the smallest distance
// between breaks is at least an eighth of the largest (mantissa, rounding to
// float32, rounding to a power of two), and there are 254.
const cellCount = 2048

// A cell packs a break and the codes below it and from it on:
// bits<<32 | from<<8 | below.
type cell uint64

func newCell(bits uint32, below, from uint8) cell {
	return cell(bits)<<32 | cell(from)<<8 | cell(below)
}

// never is a break that no magnitude reaches.
const never = 1 << 31

// NewEncoder prepares a map for encoding weights of one type.
func NewEncoder(m *Map, t Type) (*Encoder, error) {
	e := &Encoder{typ: t, approx: newApprox(m, t)}
	if t != F32 {
		e.half = new([1 << 15]uint8)
		e.fillHalf(m)
		return e, nil
	}
	return e, e.fillCells(m)
}

// fillHalf writes the runs of equal codes.
func (e *Encoder) fillHalf(m *Map) {
	table := e.half[:]
	for i, b := range m.Breaks {
		end := len(table)
		if i+1 < len(m.Breaks) {
			end = e.typ.ceilHalf(m.Breaks[i+1].Bits)
		}
		fill(table[e.typ.ceilHalf(b.Bits):end], b.Code)
	}
}

// fill sets every element, with copies that double in length.
func fill[T any](s []T, v T) {
	if len(s) == 0 {
		return
	}
	s[0] = v
	for n := 1; n < len(s); n *= 2 {
		copy(s[n:], s[:n])
	}
}

// ceilHalf returns the smallest 16-bit magnitude, 1<<15 at most, whose value
// is at least that of the float32 with the given bits.
func (t Type) ceilHalf(f uint32) int {
	if t == BF16 {
		return int((f + 0xffff) >> 16)
	}
	return ceilF16(f)
}

// ceilF16 is ceilHalf for F16.
func ceilF16(f uint32) int {
	const (
		bias   = 112 << 23       // between the exponents' biases
		normal = bias + 1<<23    // the smallest normal F16
		over   = bias + 0x1f<<23 // past every F16
	)
	switch {
	case f >= infinity:
		return min(0x7c00+int((f-infinity+1<<13-1)>>13), 1<<15)
	case f >= over:
		return 0x7c00
	case f >= normal:
		return int((f - bias + 1<<13 - 1) >> 13)
	case f < 1<<23:
		return int(min(f, 1)) // far below the smallest subnormal
	}
	// 1.m·2^(e−127) in units of 2^-24.
	mantissa, shift := uint64(f&(1<<23-1)|1<<23), 126-f>>23
	if shift > 25 {
		return 1
	}
	return int((mantissa + 1<<shift - 1) >> shift)
}

func (e *Encoder) fillCells(m *Map) error {
	e.cells = new([cellCount]cell)
	next, code := 1, m.Breaks[0].Code // the first cell to write, the code before it
	e.cells[0] = newCell(m.Breaks[0].Bits, 0, code)
	e.low = never // with one break, every magnitude is in cell 0
	if len(m.Breaks) > 1 {
		gap := uint32(never)
		for i := 2; i < len(m.Breaks); i++ {
			gap = min(gap, m.Breaks[i].Bits-m.Breaks[i-1].Bits)
		}
		base := m.Breaks[1].Bits
		e.shift = uint8(bits.Len32(min(gap, base)) - 1)
		e.low = base - 1<<e.shift
		if e.low < m.Breaks[0].Bits {
			return fmt.Errorf("the map's first two breaks are too near: %#x and %#x", m.Breaks[0].Bits, base)
		}
	}
	for _, b := range m.Breaks[1:] {
		at := int((b.Bits - e.low) >> e.shift)
		if at >= cellCount-1 {
			return fmt.Errorf("the map's breaks are too uneven for %d cells", cellCount)
		}
		fill(e.cells[next:at], newCell(never, code, code))
		e.cells[at] = newCell(b.Bits, code, b.Code)
		next, code = at+1, b.Code
	}
	fill(e.cells[next:], newCell(never, code, code))
	return nil
}

// A Decoder holds the value of every code, as the bits of the type decoded to.
// Use it with kernels of that type only.
type Decoder struct {
	f32  [256]uint32
	half [256]uint16
}

// NewDecoder32 prepares a map for decoding to F32.
func NewDecoder32(levels *[256]uint32) *Decoder { return &Decoder{f32: *levels} }

// NewDecoder16 prepares a map for decoding to F16 or BF16, given the levels
// rounded to that type.
func NewDecoder16(levels *[256]uint16) *Decoder { return &Decoder{half: *levels} }
