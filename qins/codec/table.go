package codec

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"sync"
)

// An Encoder holds a Map in the form in which kernels look codes up. It may be
// used by many goroutines at once.
type Encoder struct {
	typ    Type
	breaks []Break

	// For kernels that can use it; nil where it does not fit the map.
	approx *approx

	// The tables that plain Go looks codes up in are made when they are first
	// needed, as that takes longer than encoding a small tensor.
	fill sync.Once
	// F32: cells of 2^shift magnitudes from low on, each with at most one
	// break. Everything below low falls into cell 0 as well, everything past
	// the table into its last cell.
	low   uint32
	shift uint8
	cells *[cellCount]cell
	// F16 and BF16: the code of every magnitude.
	half *[1 << 15]uint8
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
	e := &Encoder{typ: t, breaks: m.Breaks, approx: newApprox(m, t)}
	if t == F32 {
		return e, e.layCells()
	}
	return e, nil
}

// code returns the code of a magnitude given by its float32 bits, without a
// table.
func (e *Encoder) code(bits uint32) uint8 {
	at, found := slices.BinarySearchFunc(e.breaks, bits, func(b Break, bits uint32) int { return cmp.Compare(b.Bits, bits) })
	if found {
		at++
	}
	if at == 0 {
		return 0
	}
	return e.breaks[at-1].Code
}

// makeCells returns the table for F32, makeHalf that for the other types.
func (e *Encoder) makeCells() *[cellCount]cell {
	e.fill.Do(e.fillCells)
	return e.cells
}

func (e *Encoder) makeHalf() *[1 << 15]uint8 {
	e.fill.Do(e.fillHalf)
	return e.half
}

// fillHalf writes the runs of equal codes.
func (e *Encoder) fillHalf() {
	e.half = new([1 << 15]uint8)
	table := e.half[:]
	for i, b := range e.breaks {
		end := len(table)
		if i+1 < len(e.breaks) {
			end = e.typ.ceilHalf(e.breaks[i+1].Bits)
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

// layCells chooses low and shift.
func (e *Encoder) layCells() error {
	e.low = never // with one break, every magnitude is in cell 0
	if len(e.breaks) == 1 {
		return nil
	}
	gap := uint32(never)
	for i := 2; i < len(e.breaks); i++ {
		gap = min(gap, e.breaks[i].Bits-e.breaks[i-1].Bits)
	}
	first, base, last := e.breaks[0].Bits, e.breaks[1].Bits, e.breaks[len(e.breaks)-1].Bits
	e.shift = uint8(bits.Len32(min(gap, base)) - 1)
	e.low = base - 1<<e.shift
	if e.low < first {
		return fmt.Errorf("the map's first two breaks are too near: %#x and %#x", first, base)
	}
	if (last-e.low)>>e.shift >= cellCount-1 {
		return fmt.Errorf("the map's breaks are too uneven for %d cells", cellCount)
	}
	return nil
}

func (e *Encoder) fillCells() {
	e.cells = new([cellCount]cell)
	next, code := 1, e.breaks[0].Code // the first cell to write, the code before it
	e.cells[0] = newCell(e.breaks[0].Bits, 0, code)
	for _, b := range e.breaks[1:] {
		at := int((b.Bits - e.low) >> e.shift)
		fill(e.cells[next:at], newCell(never, code, code))
		e.cells[at] = newCell(b.Bits, code, b.Code)
		next, code = at+1, b.Code
	}
	fill(e.cells[next:], newCell(never, code, code))
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
