package convert_test

import (
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
)

// TestDiskUse measures the output at every event of a conversion, a batch and a
// repetition. It never has more than what is finished and one file.
func TestDiskUse(t *testing.T) {
	in := filepath.Join(t.TempDir(), "model")
	if err := fixtures.WriteManyShards(in, 6, 3, 100_000); err != nil {
		t.Fatal(err)
	}
	out, dst := filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "dst")
	var finished, largest, most int64
	watch := func(folder string) func(convert.Event) {
		finished, largest, most = 0, 0, 0
		return func(e convert.Event) {
			size := int64(0)
			err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() || filepath.Ext(path) == ".json" {
					return err
				}
				info, err := e.Info()
				if err == nil {
					size += info.Size()
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
			if f, ok := e.(convert.FileDone); ok {
				finished += f.OutputBytes
				largest = max(largest, f.OutputBytes)
			}
			most = max(most, size-finished)
		}
	}
	for name, job := range map[string]func() error{
		"convert": func() error {
			_, err := convert.ConvertDir(t.Context(), in, out, convert.Options{Events: watch(out)})
			return err
		},
		"batch": func() error {
			_, err := convert.Batch(t.Context(), in, dst, convert.Options{Events: watch(dst)})
			return err
		},
	} {
		if err := job(); err != nil {
			t.Fatal(err)
		}
		// The file itself is measured before its event, and what a header reserves
		// while it is written.
		if most > largest+largest/10 || most < largest/2 {
			t.Errorf("%s: up to %d bytes beside finished files, the largest of which has %d", name, most, largest)
		}
	}
}
