package qins

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/huff0"

	"github.com/qinsconv/qinsconv/qins/codec"
)

// TestHuffmanIsHuff0 compares what huffman makes of blocks of many kinds with
// what the library does, with every kernel.
func TestHuffmanIsHuff0(t *testing.T) {
	blocks := map[string][]byte{}
	for name, b := range contents() {
		if len(b) >= blockMin {
			blocks[name] = b[:min(len(b), blockMax)]
		}
	}
	r := rand.New(rand.NewPCG(8, 9))
	for i := range 2000 {
		n := blockMin + int(math.Exp(r.Float64()*math.Log(blockMax-blockMin)))
		b := make([]byte, n)
		spread := math.Exp(r.Float64() * 7)
		middle := float64(r.IntN(256))
		for j := range b {
			switch i % 4 {
			case 0:
				b[j] = byte(min(255, r.ExpFloat64()*spread/8)) // down to codes as long as they get
			case 1:
				b[j] = byte(middle) + byte(r.IntN(2+int(spread)/5))
			default:
				b[j] = byte(max(0, min(255, middle+spread/8*r.NormFloat64())))
			}
		}
		blocks[fmt.Sprint("random ", i)] = b
	}
	compressed := 0
	for _, k := range codec.Kernels() {
		h := newHuffman(k)
		var s huff0.Scratch
		for name, b := range blocks {
			hist := histogramOf(b)
			if hist.distinct() == 1 {
				continue
			}
			got, smaller, err := h.append([]byte("before"), b, &hist)
			if err != nil {
				t.Fatalf("%s, %s: %v", k.Name(), name, err)
			}
			s.Reuse = huff0.ReusePolicyNone
			want, _, err := huff0.Compress4X(b, &s)
			if smaller != (err == nil) {
				t.Fatalf("%s, %s, %d bytes: smaller is %v, the library says %v", k.Name(), name, len(b), smaller, err)
			}
			if !smaller {
				continue
			}
			compressed++
			if !bytes.Equal(got, append([]byte("before"), want...)) {
				t.Fatalf("%s, %s, %d bytes: not the bytes of the library", k.Name(), name, len(b))
			}
		}
	}
	if compressed < 1000*len(codec.Kernels()) {
		t.Errorf("only %d blocks were made smaller", compressed)
	}
}
