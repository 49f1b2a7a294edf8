// Package codec turns floating-point weights into 8-bit codes and back.
//
// A codec is data: an id, a few float32 parameters fitted to a tensor, and a
// monotone map from magnitudes to codes and back. Scan gathers what the
// parameters are fitted to, a Codec makes a Map of them, and an Encoder and a
// Decoder hold that map in the form the kernels want. Kernels work on slices
// of little-endian bytes as files hold them; they do no I/O, start no
// goroutines and allocate nothing.
//
// All of it is deterministic: every kernel gives the same bytes for the same
// input on every machine.
package codec

import "fmt"

// A Type is a floating-point storage type that weights are read from and
// decoded to.
type Type uint8

const (
	F32 Type = iota
	F16
	BF16
	numTypes
)

// Size returns the bytes that one weight takes.
func (t Type) Size() int {
	if t == F32 {
		return 4
	}
	return 2
}

// String returns the type's usual name.
func (t Type) String() string { return [...]string{"F32", "F16", "BF16"}[t] }

// A Codec is one entry of the family of codecs.
type Codec struct {
	// ID names the codec in files.
	ID string
	// Params names the parameters, in the order in which Fit returns them.
	Params []string
	// Fit derives the parameters from what a scan of all weights saw. Where it
	// cannot, it says why.
	Fit func(Scan) ([]float32, error)
	// Map returns the map for parameters that Fit returned or a file holds.
	Map func(params []float32) (Map, error)
}

// codecs lists every codec, the default first.
var codecs = []*Codec{logCodec}

// ByID returns the codec with that id.
func ByID(id string) (*Codec, error) {
	for _, c := range codecs {
		if c.ID == id {
			return c, nil
		}
	}
	return nil, fmt.Errorf("unknown codec %q: expected one of %q", id, IDs())
}

// IDs lists the ids of all codecs, the default first.
func IDs() []string {
	ids := make([]string, len(codecs))
	for i, c := range codecs {
		ids[i] = c.ID
	}
	return ids
}

// A Break is a place where the code changes: magnitudes from this one up to
// the next break get Code.
type Break struct {
	// Bits is the magnitude as the bits of a float32. Bits of positive
	// float32 values are in the order of the values.
	Bits uint32
	Code uint8
}

// A Map is a monotone map from magnitudes to codes and back. Magnitude zero,
// which is below every break, gets code 0.
type Map struct {
	// Breaks are in strictly ascending order.
	Breaks []Break
	// Levels is the magnitude that each code decodes to.
	Levels [256]float32
}

// Code returns the code of a magnitude given by its float32 bits. It is the
// definition that the kernels are tested against.
func (m *Map) Code(bits uint32) uint8 {
	code := uint8(0)
	for _, b := range m.Breaks {
		if bits < b.Bits {
			break
		}
		code = b.Code
	}
	return code
}
