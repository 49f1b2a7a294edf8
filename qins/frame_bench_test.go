package qins

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// gaussianCodes returns the codes of n Gaussian weights.
func gaussianCodes(tb testing.TB, n int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	src := make([]byte, 4*n)
	for i := range n {
		le.PutUint32(src[4*i:], math.Float32bits(float32(r.NormFloat64()*0.02)))
	}
	s := codec.NewScan()
	Scan(format.F32, src, &s)
	c, err := Fit("log", s)
	if err != nil {
		tb.Fatal(err)
	}
	w, err := NewWeights(c, format.F32)
	if err != nil {
		tb.Fatal(err)
	}
	codes, signs := make([]byte, n), make([]byte, (n+7)/8)
	codec.Best().Encode(codes, signs, src, w.encoder)
	return codes
}

// BenchmarkCodePlane is the table of docs/performance.md: a plane of codes as
// frames of a chunk each, by appendFrame and by the levels of the library's
// compressor. MB/s are millions of codes a second on one core.
func BenchmarkCodePlane(b *testing.B) {
	const chunks = 32
	codes := gaussianCodes(b, chunks*ChunkWeights)
	chunk := func(i int) []byte { return codes[i*ChunkWeights:][:ChunkWeights] }
	type method struct {
		name   string
		append func(dst, src []byte) []byte
	}
	w := newFrameWriter(codec.Best())
	methods := []method{{"frame", w.appendFrame}}
	for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression, zstd.SpeedBestCompression} {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(true))
		if err != nil {
			b.Fatal(err)
		}
		methods = append(methods, method{"zstd-" + level.String(), func(dst, src []byte) []byte { return enc.EncodeAll(src, dst) }})
	}
	for _, m := range methods {
		frames := make([][]byte, chunks)
		size := 0
		for i := range frames {
			frames[i] = m.append(nil, chunk(i))
			size += len(frames[i])
		}
		bits := 8 * float64(size) / float64(len(codes))
		b.Run("encode/"+m.name, func(b *testing.B) {
			b.SetBytes(int64(len(codes)))
			buf := make([]byte, 0, 2*ChunkWeights)
			for b.Loop() {
				for i := range chunks {
					buf = m.append(buf[:0], chunk(i))
				}
			}
			b.ReportMetric(bits, "bits/code")
		})
		b.Run("decode/"+m.name, func(b *testing.B) {
			b.SetBytes(int64(len(codes)))
			var r frameReader
			dst := make([]byte, ChunkWeights)
			for b.Loop() {
				for _, f := range frames {
					if err := r.read(dst, f); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(bits, "bits/code")
		})
	}
}
