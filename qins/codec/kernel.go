package codec

import (
	"math"
	"os"
	"sync/atomic"
)

// A Kernel is one implementation of the inner loops. All kernels give the same
// bytes; they differ in speed and in the CPU features they need.
//
// The methods panic where slices do not fit together, as that is a mistake of
// the program and not of its input.
type Kernel struct {
	name string
	// available reports whether this machine has every feature the kernel
	// needs.
	available func() bool

	scan    [numTypes]func(src []byte, s *Scan)
	encode  [numTypes]func(codes, signs, src []byte, e *Encoder)
	decode  [numTypes]func(dst, codes, signs []byte, d *Decoder)
	measure [numTypes]func(want, got []byte, s *Sums)

	split2, split4, join2, join4 func(dst, src []byte, rotate bool)

	prefix func(dst, src []byte, p *PrefixCode, w bitWriter) (int, bitWriter)
}

// kernels lists all of them, fastest first; the last one, plain Go, runs
// everywhere.
var kernels = append(assembly[:len(assembly):len(assembly)], &generic)

// Kernels lists the kernels that this machine can run, fastest first.
func Kernels() []*Kernel {
	var list []*Kernel
	for _, k := range kernels {
		if k.available() {
			list = append(list, k)
		}
	}
	return list
}

// Best returns the kernel to use: the fastest that this machine can run, or the
// one that the environment variable QINSCONV_KERNEL names. A name that this
// machine has no kernel for changes nothing.
func Best() *Kernel { return best.Load() }

// Use makes Best return another kernel and returns the one before. It is for
// tests that compare kernels.
func Use(k *Kernel) *Kernel { return best.Swap(k) }

var best atomic.Pointer[Kernel]

func init() { best.Store(choose(os.Getenv("QINSCONV_KERNEL"))) }

func choose(name string) *Kernel {
	list := Kernels()
	for _, k := range list {
		if k.name == name {
			return k
		}
	}
	return list[0]
}

// Name returns the kernel's name, such as "generic".
func (k *Kernel) Name() string { return k.name }

// A Scan is what one pass over a tensor's weights tells. Start with [NewScan].
// Scans of parts are combined with Merge, in any order.
type Scan struct {
	// Min is the smallest magnitude above 1e-8, as float32 bits, or NoMin.
	Min uint32
	// Max is the largest magnitude, as float32 bits. Infinities and NaNs have
	// larger bits than every number.
	Max uint32
}

// Finite reports whether the scan saw neither a NaN nor an infinity.
func (s Scan) Finite() bool { return s.Max < infinity }

// NoMin is the Min of a scan that saw no magnitude above 1e-8.
const NoMin = math.MaxUint32

// tiny is the bits of the smallest float32 above 1e-8. The float32 nearest to
// 1e-8 is a little below it.
const tiny = 0x322bcc78

// infinity is the bits of +Inf.
const infinity = 0x7f800000

// NewScan returns the scan of no weights.
func NewScan() Scan { return Scan{Min: NoMin} }

// Merge adds what another scan saw.
func (s *Scan) Merge(t Scan) {
	s.Min = min(s.Min, t.Min)
	s.Max = max(s.Max, t.Max)
}

// Lanes is the number of partial sums that Measure keeps.
const Lanes = 8

// Sums gathers the errors of decoded weights. The sums of weight i of a chunk
// go to lane i mod Lanes, in order; this fixes every rounding, so that each
// kernel arrives at the same bits.
type Sums struct {
	Signal [Lanes]float64 // of want²
	Noise  [Lanes]float64 // of (want − got)², the difference rounded to float32
	Dot    [Lanes]float64 // of want·got
	MaxAbs float32        // largest |want − got|
	MaxRel float32        // largest |want − got|/|want| over |want| > 1e-8
}

// Scan reads weights of type t into s.
func (k *Kernel) Scan(t Type, src []byte, s *Scan) {
	weights(t, src)
	k.scan[t](src, s)
}

// Encode writes a code for each weight and its sign bits, eight to a byte,
// least significant first. codes holds a byte for each weight and signs one
// for each eight, the last one's unused bits zero.
func (k *Kernel) Encode(codes, signs, src []byte, e *Encoder) {
	checkLengths(weights(e.typ, src), codes, signs)
	k.encode[e.typ](codes, signs, src, e)
}

// Decode writes the weights of type t for codes and signs laid out as Encode
// does.
func (k *Kernel) Decode(t Type, dst, codes, signs []byte, d *Decoder) {
	checkLengths(weights(t, dst), codes, signs)
	k.decode[t](dst, codes, signs, d)
}

// Measure adds the errors of got against want, both of type t and finite. All
// parts of a chunk but the last hold a multiple of [Lanes] weights.
func (k *Kernel) Measure(t Type, want, got []byte, s *Sums) {
	if weights(t, want) != weights(t, got) {
		panic("codec: want and got differ in length")
	}
	k.measure[t](want, got, s)
}

func weights(t Type, b []byte) int {
	if len(b)%t.Size() != 0 {
		panic("codec: a part of a weight")
	}
	return len(b) / t.Size()
}

func checkLengths(n int, codes, signs []byte) {
	if len(codes) != n || len(signs) != (n+7)/8 {
		panic("codec: codes or signs do not fit the weights")
	}
}
