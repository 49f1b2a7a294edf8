package qins

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/qinsconv/qinsconv/qins/codec"
)

// contents are of every kind that frames treat differently.
func contents() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 2*blockMax+77)
	bell := make([]byte, len(random))
	for i := range random {
		random[i] = byte(r.Uint32())
		bell[i] = byte(128 + 12*r.NormFloat64())
	}
	repeats := bytes.Repeat([]byte("all of this again and again. "), 9000)
	mixed := bytes.Clone(bell)
	clear(mixed[:blockMax])
	copy(mixed[2*blockMax:], random)
	two := make([]byte, blockMax+1)
	two[17] = 1
	return map[string][]byte{
		"one byte": {7}, "15 bytes": bell[:15], "16 bytes": bell[:16], "17 bytes": bell[:17], "one symbol": make([]byte, 1000),
		"short bell": bell[:1000], "a block": bell[:blockMax], "a block and a byte": bell[:blockMax+1], "bell": bell,
		"random": random, "repeats": repeats, "mixed": mixed, "two symbols": two, "rising": rising(),
	}
}

func rising() []byte {
	b := make([]byte, 300)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// TestFrames reads frames with this package's reader and with the library's.
func TestFrames(t *testing.T) {
	stock, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stock.Close()
	w := newFrameWriter(codec.Best())
	huffman := func(dst, src []byte) ([]byte, error) { return w.appendFrame(dst, src), nil }
	var r frameReader
	for name, src := range contents() {
		for kind, write := range map[string]func(dst, src []byte) ([]byte, error){"huffman": huffman, "smallest": w.appendSmallest} {
			before := []byte("before")
			b, err := write(before, src)
			if err != nil || !bytes.HasPrefix(b, before) {
				t.Fatalf("%s, %s: %v", name, kind, err)
			}
			frame := b[len(before):]
			if len(frame) > frameBound(len(src)) {
				t.Errorf("%s, %s: %d bytes, above the bound of %d", name, kind, len(frame), frameBound(len(src)))
			}
			got := make([]byte, len(src))
			if err := r.read(got, frame); err != nil || !bytes.Equal(got, src) {
				t.Errorf("%s, %s: read another content (%v)", name, kind, err)
			}
			if got, err := stock.DecodeAll(frame, nil); err != nil || !bytes.Equal(got, src) {
				t.Errorf("%s, %s: the library reads another content (%v)", name, kind, err)
			}
			for _, n := range []int{len(src) - 1, len(src) + 1} {
				if n >= 0 && r.read(make([]byte, n), frame) == nil {
					t.Errorf("%s, %s: read as %d bytes", name, kind, n)
				}
			}
			for _, end := range []int{0, 4, 8, len(frame) / 2, len(frame) - 1} {
				if r.read(make([]byte, len(src)), frame[:end]) == nil {
					t.Errorf("%s, %s: read though cut to %d bytes", name, kind, end)
				}
			}
			if r.read(got, append(bytes.Clone(frame), 0)) == nil {
				t.Errorf("%s, %s: read with a byte behind it", name, kind)
			}
		}
	}
}

// TestEstimate holds the prediction of a frame's size to what the ends of streams
// may differ by.
func TestEstimate(t *testing.T) {
	w := newFrameWriter(codec.Best())
	for name, src := range contents() {
		frame := w.appendFrame(nil, src)
		blocks := (len(src) + blockMax - 1) / blockMax
		if got, want := w.estimate(src), int64(len(frame)); max(got-want, want-got) > int64(2*blocks) {
			t.Errorf("%s: predicted %d bytes, it has %d", name, got, want)
		}
	}
}

// TestSums joins checksums of parts.
func TestSums(t *testing.T) {
	data := contents()["random"][:10_000]
	want := sumOf(data)
	for _, at := range []int{0, 1, 2, 7, 4096, 9999, 10_000} {
		if got := sumOf(data[:at]).join(sumOf(data[at:])); got != want {
			t.Errorf("parted at %d: found %x, expected %x", at, got, want)
		}
	}
	if got := sumOf([]byte("123456789")).crc; got != 0xe3069283 { // RFC 3720
		t.Errorf("found %x", got)
	}
}

// FuzzFrame writes and reads bytes as a frame, and reads them as if they were
// one.
func FuzzFrame(f *testing.F) {
	w := newFrameWriter(codec.Best())
	for _, src := range contents() {
		src = src[:min(len(src), 2000)]
		frame := w.appendFrame(nil, src)
		f.Add(src, uint16(len(src)))
		f.Add(frame, uint16(len(src)))
	}
	f.Fuzz(func(t *testing.T, data []byte, n uint16) {
		w := newFrameWriter(codec.Best())
		var r frameReader
		if len(data) == 0 {
			return // no chunk is empty
		}
		huffman := func(dst, src []byte) ([]byte, error) { return w.appendFrame(dst, src), nil }
		for _, write := range []func(dst, src []byte) ([]byte, error){huffman, w.appendSmallest} {
			frame, err := write(nil, data)
			if err != nil || len(frame) > frameBound(len(data)) {
				t.Fatalf("%d bytes for %d: %v", len(frame), len(data), err)
			}
			got := make([]byte, len(data))
			if err := r.read(got, frame); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("another content came back: %v", err)
			}
		}

		dst := make([]byte, int(n)+8)
		copy(dst[n:], "guarding")
		if r.read(dst[:n], data) == nil && n > 0 {
			stock, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			defer stock.Close()
			if got, err := stock.DecodeAll(data, nil); err != nil || !bytes.Equal(got, dst[:n]) {
				t.Errorf("the library reads another content: %v", err)
			}
		}
		if string(dst[n:]) != "guarding" {
			t.Error("written past the end")
		}
	})
}

// FuzzIndex holds the reader of an index to offsets that rise within the stream,
// and to accepting only what is written again as it was.
func FuzzIndex(f *testing.F) {
	size := func(i int) int { return 100 + i%3 }
	for chunks := range 4 {
		var compressed, decompressed []int
		signs := []uint32{}
		stream := 0
		for i := range chunks {
			compressed, decompressed = append(compressed, 50+i), append(decompressed, size(i))
			signs = append(signs, uint32(i))
			stream += 50 + i
		}
		tail := appendTail(nil, compressed, decompressed, nil)
		f.Add(tail, int64(stream+len(tail)), uint8(chunks), false)
		tail = appendTail(nil, compressed, decompressed, signs)
		f.Add(tail, int64(stream+len(tail)), uint8(chunks), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, stream int64, chunks uint8, signs bool) {
		n := tailSize(int(chunks), signs)
		if stream < n { // no file that can be opened has such a plane
			return
		}
		tail := make([]byte, n) // as long as the caller makes it
		copy(tail, data)
		x, err := parseTail(tail, stream, int(chunks), size, signs)
		if err != nil {
			return
		}
		var compressed, decompressed []int
		for i := range int(chunks) {
			compressed = append(compressed, int(x.offsets[i+1]-x.offsets[i]))
			decompressed = append(decompressed, size(i))
			if compressed[i] < 0 || compressed[i] > frameBound(size(i)) {
				t.Fatalf("chunk %d has %d bytes", i, compressed[i])
			}
		}
		if x.offsets[0] != 0 || x.offsets[chunks] != stream-n {
			t.Fatalf("offsets %v in a stream of %d", x.offsets, stream)
		}
		sums := x.signs
		if signs && sums == nil {
			sums = []uint32{}
		}
		if again := appendTail(nil, compressed, decompressed, sums); !bytes.Equal(again, tail) {
			t.Errorf("%x is written again as %x", tail, again)
		}
	})
}

// TestSmallWindow compares frames with those of the windows that the library's
// levels have by themselves.
func TestSmallWindow(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	words := make([]string, 5000)
	for i := range words {
		words[i] = fmt.Sprintf("%x", r.Uint32()>>r.IntN(30))
	}
	var text []byte
	for len(text) < 9<<20 {
		text = append(append(text, words[int(float64(len(words))*math.Pow(r.Float64(), 3))]...), ' ')
	}
	for _, level := range []zstd.EncoderLevel{zstd.SpeedDefault, zstd.SpeedBetterCompression} {
		want, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
			zstd.WithSingleSegment(true), zstd.WithEncoderCRC(true), zstd.WithZeroFrames(true))
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 1, 255, 256, 1000, blockMax - 1, blockMax, blockMax + 1, 3 * blockMax, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5 << 20, len(text)} {
			got, err := newEncoder(level, size)
			if err != nil {
				t.Fatal(err)
			}
			for n := range 2 { // also where the encoder was used before
				src := text[:size-n*size/10]
				if !bytes.Equal(got.EncodeAll(src, nil), want.EncodeAll(src, nil)) {
					t.Errorf("%v, %d bytes: another frame", level, size)
				}
			}
		}
	}
}
