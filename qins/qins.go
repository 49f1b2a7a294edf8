// Package qins reads, writes and checks .qins files.
//
// A .qins file is a safetensors file in which some weights are stored as 8-bit
// codes with their signs apart, and in which tied tensors are stored once. The
// entry "qins" of its metadata says how to get the source's tensors back; a
// file needs nothing else to be decoded and checked. docs/format.md in the
// repository describes it byte by byte.
//
// Opening a file checks its header as format/safetensors does and that the
// description agrees with the tensors that are there. Tensor data is checked
// against its CRC-32C by [File.Check] and by a [ChunkReader] whose sums the
// caller compares; in the compact layout each chunk is also checked whenever it
// is read.
package qins

import (
	"fmt"
	"slices"
)

// Version is the version of the file format that this package writes.
const Version = 1

// MetadataKey is the entry of the safetensors metadata that holds the
// description.
const MetadataKey = "qins"

// ChunkWeights is the number of weights that are encoded together. A chunk is
// the unit of parallel work, of the compact layout's frames and of the fixed
// order in which errors are summed.
const ChunkWeights = 1 << 17

// A Layout says how codes, signs and kept tensors are stored.
type Layout string

const (
	// Plain stores a byte for each code and an int8 ±1 for each sign, as the
	// QINS seed does.
	Plain Layout = "plain"
	// Packed stores a byte for each code and a bit for each sign.
	Packed Layout = "packed"
	// Compact stores codes as Huffman-coded zstd frames, a bit for each sign,
	// and kept tensors as zstd frames of their byte planes.
	Compact Layout = "compact"
)

// DefaultLayout is what a conversion uses where none is named.
const DefaultLayout = Compact

// Layouts lists every layout.
func Layouts() []Layout { return []Layout{Plain, Packed, Compact} }

// ParseLayout returns the layout with that name.
func ParseLayout(name string) (Layout, error) {
	if l := Layout(name); slices.Contains(Layouts(), l) {
		return l, nil
	}
	return "", fmt.Errorf("unknown layout %q: expected one of %q", name, Layouts())
}

// signEncoding is how the layout stores signs.
func (l Layout) signEncoding() Encoding {
	if l == Plain {
		return Int8
	}
	return Bits
}

// codeEncoding is how the layout stores codes.
func (l Layout) codeEncoding() Encoding {
	if l == Compact {
		return Zstd
	}
	return Raw
}
