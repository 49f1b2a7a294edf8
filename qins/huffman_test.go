package qins

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/huff0"
	"github.com/klauspost/compress/zstd"

	"github.com/qinsconv/qinsconv/qins/codec"
)

// blocks are of many kinds and lengths.
func blocks() map[string][]byte {
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
	return blocks
}

// TestHuffman writes blocks with every kernel, reads them with the library's
// decoder and compares their sizes with those of the library's encoder.
func TestHuffman(t *testing.T) {
	stock, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer stock.Close()
	var writers []*frameWriter
	for _, k := range codec.Kernels() {
		writers = append(writers, newFrameWriter(k))
	}
	compressed, size, librarySize := 0, 0, 0
	for name, b := range blocks() {
		frame := writers[0].appendFrame(nil, b)
		for i, w := range writers[1:] {
			if !bytes.Equal(w.appendFrame(nil, b), frame) {
				t.Errorf("%s: another frame by %s", name, codec.Kernels()[i+1].Name())
			}
		}
		if got, err := stock.DecodeAll(frame, nil); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s, %d bytes: read another content: %v", name, len(b), err)
		}

		hist := histogramOf(b)
		if hist.single(b) {
			continue
		}
		got, smaller := writers[0].huff.append(nil, b, &hist)
		library, _, err := huff0.Compress4X(b, &huff0.Scratch{Reuse: huff0.ReusePolicyNone})
		if err != nil {
			continue
		}
		if !smaller {
			got = b
		} else {
			compressed++
		}
		size += len(got)
		librarySize += len(library)
		if len(got) > len(library)+len(library)/200+4 {
			t.Errorf("%s: %d bytes become %d, the library makes %d", name, len(b), len(got), len(library))
		}
	}
	if compressed < 1000 || size > librarySize {
		t.Errorf("%d blocks take %d bytes, the library makes %d", compressed, size, librarySize)
	}
	t.Logf("%d blocks take %d bytes, the library makes %d", compressed, size, librarySize)
}
