package qins

import (
	"slices"

	"github.com/qinsconv/qinsconv/qins/codec"
)

// A huffman compresses blocks to the Huffman-coded literals of a zstd block.
type huffman struct {
	kernel *codec.Kernel
	tree   tree
	code   codec.PrefixCode
}

func newHuffman(k *codec.Kernel) *huffman { return &huffman{kernel: k} }

const (
	literalStreams = 4
	maxStream      = 1<<16 - 1 // its size is written with two bytes
)

// streamsSize returns about how many bytes codes of so many bits take: beside
// them stand the sizes of all streams but the last and, at the end of each, a
// one bit and those that fill its byte.
func streamsSize(bits int) int {
	return 2*(literalStreams-1) + (bits+literalStreams*(1+4))/8
}

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

// single reports whether src, of which h is the histogram, is one byte repeated.
func (h *histogram) single(src []byte) bool { return int(h[src[0]]) == len(src) }

// noise reports whether the n bytes of h occur about equally often.
func (h *histogram) noise(n int) bool {
	most := slices.Max(h[:])
	return most == 1 || int(most) < n/128
}

// append appends the tree and the codes of src, of which hist is the histogram
// and which holds at least two different bytes. It reports whether that made
// src smaller; if not, it has appended nothing.
func (h *huffman) append(dst, src []byte, hist *histogram) ([]byte, bool) {
	start := dst
	if hist.noise(len(src)) {
		return start, false
	}
	h.tree.build(hist)
	dst, ok := h.tree.append(dst)
	if !ok {
		return start, false
	}
	h.tree.setCodes(&h.code)
	// The sizes of all streams but the last stand before them.
	sizes := len(dst)
	dst = append(dst, make([]byte, 2*(literalStreams-1))...)
	part := (len(src) + literalStreams - 1) / literalStreams
	for i := range literalStreams {
		at := len(dst)
		dst = h.kernel.AppendPrefixed(dst, src[i*part:min((i+1)*part, len(src))], &h.code)
		size := len(dst) - at
		if size > maxStream {
			return start, false
		}
		if i < literalStreams-1 {
			le.PutUint16(dst[sizes+2*i:], uint16(size))
		}
	}
	if len(dst)-len(start) >= len(src) {
		return start, false
	}
	return dst, true
}
