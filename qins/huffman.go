package qins

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/klauspost/compress/fse"
	"github.com/klauspost/compress/huff0"

	"github.com/qinsconv/qinsconv/qins/codec"
)

// A huffman compresses blocks to the Huffman-coded literals of a zstd block. It
// gives the bytes of huff0.Compress4X in half the time: the library makes the
// tree and writes it, a kernel writes the codes.
type huffman struct {
	kernel *codec.Kernel
	tree   huff0.Scratch
	fse    fse.Scratch
	code   codec.PrefixCode
}

func newHuffman(k *codec.Kernel) *huffman {
	h := &huffman{kernel: k}
	h.tree.Out = make([]byte, 0, 256) // for writing trees, which else make room each time
	return h
}

const (
	literalStreams = 4
	maxStream      = 1<<16 - 1 // its size is written with two bytes
)

// A histogram counts bytes.
type histogram [256]uint32

// histogramOf counts in four tables: where a byte repeats, a count would wait
// for the one before it to be stored.
func histogramOf(src []byte) (h histogram) {
	var t [4]histogram
	for ; len(src) >= 8; src = src[8:] {
		v := le.Uint64(src)
		t[0][byte(v)]++
		t[1][byte(v>>8)]++
		t[2][byte(v>>16)]++
		t[3][byte(v>>24)]++
		t[0][byte(v>>32)]++
		t[1][byte(v>>40)]++
		t[2][byte(v>>48)]++
		t[3][byte(v>>56)]++
	}
	for _, b := range src {
		t[0][b]++
	}
	for i := range h {
		h[i] = t[0][i] + t[1][i] + t[2][i] + t[3][i]
	}
	return h
}

// distinct returns the number of different bytes.
func (h *histogram) distinct() int {
	n := 0
	for _, c := range h {
		if c > 0 {
			n++
		}
	}
	return n
}

// append appends the tree and the codes of src, of which hist is the histogram
// and which holds at least two different bytes. It reports whether that made
// src smaller; if not, it has appended nothing.
func (h *huffman) append(dst, src []byte, hist *histogram) ([]byte, bool, error) {
	start := dst
	// Bytes that occur about equally often are noise.
	if most := slices.Max(hist[:]); most == 1 || int(most) < len(src)/128 {
		return start, false, nil
	}
	if err := h.tree.BuildCTable((*[256]uint32)(hist)); err != nil {
		return nil, false, err
	}
	dst, err := h.tree.AppendTable(dst)
	if errors.Is(err, huff0.ErrIncompressible) {
		return start, false, nil
	}
	if err == nil {
		err = h.readTree(dst[len(start):])
	}
	if err != nil {
		return nil, false, err
	}
	// The sizes of all streams but the last stand before them.
	sizes := len(dst)
	dst = append(dst, make([]byte, 2*(literalStreams-1))...)
	part := (len(src) + literalStreams - 1) / literalStreams
	for i := range literalStreams {
		at := len(dst)
		dst = h.kernel.AppendPrefixed(dst, src[i*part:min((i+1)*part, len(src))], &h.code)
		size := len(dst) - at
		if size > maxStream {
			return start, false, nil
		}
		if i < literalStreams-1 {
			le.PutUint16(dst[sizes+2*i:], uint16(size))
		}
	}
	if len(dst)-len(start) >= len(src) {
		return start, false, nil
	}
	return dst, true, nil
}

// readTree sets the codes to those of a tree as RFC 8878 describes it: a weight
// for each symbol but the last, from which follow the lengths of the codes, and
// from those the codes.
func (h *huffman) readTree(tree []byte) error {
	var weights []byte
	if n := int(tree[0]); n < 128 {
		var err error
		if weights, err = fse.Decompress(tree[1:1+n], &h.fse); err != nil {
			return fmt.Errorf("reading a Huffman tree: %w", err)
		}
	} else {
		weights = h.fse.Out[:0]
		for i := range n - 127 {
			b := tree[1+i/2]
			if i%2 == 0 {
				b >>= 4
			}
			weights = append(weights, b&0xf)
		}
	}
	// A weight of w stands for 2^(w-1) parts of a whole that is a power of two.
	// The last symbol has what remains.
	parts := 0
	for _, w := range weights {
		parts += 1 << w >> 1
	}
	longest := bits.Len(uint(parts))
	weights = append(weights, byte(bits.Len(uint(1<<longest-parts))))
	h.fse.Out = weights

	// Codes of one length follow each other in the order of the symbols, after
	// those that are longer.
	var next [codec.MaxPrefix + 2]uint16
	for _, w := range weights {
		if w > 0 {
			next[w]++
		}
	}
	code := uint16(0)
	for w := 1; w <= longest; w++ {
		next[w], code = code, (code+next[w])>>1
	}
	for symbol, w := range weights {
		if w > 0 {
			h.code.Set(byte(symbol), next[w], longest+1-int(w))
			next[w]++
		}
	}
	return nil
}
