package convert_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// A tenth of the model that make bench converts.
func benchModel(b *testing.B, d format.DType) (path string, size int64) {
	m := fixtures.Llama1B(d)
	m.Layers = 2
	path = filepath.Join(b.TempDir(), "model.safetensors")
	if err := fixtures.WriteLlama(path, m); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	return path, info.Size()
}

// BenchmarkConvert converts with everything that goes with it: error figures,
// hashes, manifest.
func BenchmarkConvert(b *testing.B) { benchmark(b, false) }

// BenchmarkDecode decodes what BenchmarkConvert makes.
func BenchmarkDecode(b *testing.B) { benchmark(b, true) }

func benchmark(b *testing.B, decode bool) {
	for _, layout := range []qins.Layout{qins.Packed, qins.Compact} {
		for _, d := range []format.DType{format.BF16, format.F32} {
			b.Run(string(layout)+"/"+d.String(), func(b *testing.B) {
				ctx, opts := context.Background(), convert.Options{Layout: layout, Force: true}
				in, size := benchModel(b, d)
				out, back := in+".qins", in+".back"
				if _, err := convert.Convert(ctx, in, out, opts); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					var err error
					if decode {
						err = convert.Decode(ctx, out, back, opts)
					} else {
						_, err = convert.Convert(ctx, in, out, opts)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
