//go:build !race

// The race detector has pools forget things at random.

package convert_test

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// TestAllocations converts a tensor and one of more than twice the size, encoded and kept,
// to two layouts and back. The chunks that the second one has more must not show
// in the number of allocations, nor in their size, but for the index.
func TestAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 1 GB")
	}
	const few, many = 260, 600 // chunks
	dir := t.TempDir()
	write := func(name, tensor string, chunks uint64) string {
		path := filepath.Join(dir, name)
		tensors := []format.Tensor{{Name: tensor, DType: format.BF16, Shape: format.Shape{chunks, qins.ChunkWeights}}}
		if err := fixtures.WriteTensors(path, nil, tensors); err != nil {
			t.Fatal(err)
		}
		return path
	}
	out, back := filepath.Join(dir, "out.qins"), filepath.Join(dir, "back.safetensors")
	for _, tensor := range []string{"a.weight", "embed.weight"} {
		small, large := write("small", tensor, few), write("large", tensor, many)
		for _, layout := range []qins.Layout{qins.Packed, qins.Compact} {
			opts := convert.Options{Layout: layout, Force: true, Jobs: 2}
			steps := map[string]func(in string) error{
				"convert": func(in string) error {
					_, err := convert.Convert(t.Context(), in, out, opts)
					return err
				},
				"decode": func(string) error { return convert.Decode(t.Context(), out, back, opts) },
			}
			for _, step := range []string{"convert", "decode"} {
				count := func(in string) (mallocs, size uint64) {
					if step == "decode" {
						if err := steps["convert"](in); err != nil {
							t.Fatal(err)
						}
					}
					// Pools are empty at first, and forget nothing on the way.
					runtime.GC()
					runtime.GC()
					defer debug.SetGCPercent(debug.SetGCPercent(-1))
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					if err := steps[step](in); err != nil {
						t.Fatal(err)
					}
					runtime.ReadMemStats(&after)
					return after.Mallocs - before.Mallocs, after.TotalAlloc - before.TotalAlloc
				}
				mallocs, size := count(small)
				more, larger := count(large)
				// The runtime allocates something from time to time, a pool may not
				// find what another processor put there, and the number of progress
				// events is not quite the same.
				if more > mallocs+(many-few) || larger > size+(many-few)<<12 {
					t.Errorf("%s, %s, %s: %d allocations of %d KiB for %d chunks, but %d of %d KiB for %d", tensor, layout, step,
						mallocs, size>>10, few, more, larger>>10, many)
				}
			}
		}
		os.Remove(small)
		os.Remove(large)
	}
}
