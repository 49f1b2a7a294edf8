package convert_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// TestDirDisturbed changes a model while it is converted. There is an error, no
// manifest, and the next run makes it right.
func TestDirDisturbed(t *testing.T) {
	for name, change := range map[string]func(in string) error{
		"a shard truncated": func(in string) error { return os.Truncate(filepath.Join(in, "model-00003-of-00003.safetensors"), 500) },
		"a shard removed":   func(in string) error { return os.Remove(filepath.Join(in, "model-00002-of-00003.safetensors")) },
		"a shard longer": func(in string) error {
			path := filepath.Join(in, "model-00003-of-00003.safetensors")
			data, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, append(data, 0), 0o666))
		},
		"a side file removed": func(in string) error { return os.Remove(filepath.Join(in, "config.json")) },
	} {
		for _, at := range []moment{{"start", ""}, {"tensor", ""}, {"file", ""}} {
			t.Run(name+" at "+at.kind, func(t *testing.T) {
				t.Parallel()
				in, dir := filepath.Join(t.TempDir(), "in"), t.TempDir()
				if err := fixtures.WriteManyShards(in, 3, 2, 2048); err != nil {
					t.Fatal(err)
				}
				kept := map[string][]byte{}
				for _, file := range fileNames(t, in) {
					kept[file] = mustRead(t, filepath.Join(in, file))
				}
				out, fresh := filepath.Join(dir, "out"), filepath.Join(dir, "fresh")
				err, happened := disturb(at, func() {
					if err := change(in); err != nil {
						t.Error(err)
					}
				}, func(events func(convert.Event)) error {
					_, err := convert.ConvertDir(t.Context(), in, out, convert.Options{Jobs: 1, Events: events})
					return err
				})
				var bad *format.Error
				if !happened || !errors.As(err, &bad) && !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%v (%v)", err, happened)
				}
				if _, err := os.Lstat(filepath.Join(out, convert.DirManifestName)); err == nil {
					t.Error("there is a manifest")
				}
				for file, data := range kept {
					put(t, filepath.Join(in, file), data)
				}
				for _, to := range []string{out, fresh} {
					if _, err := convert.ConvertDir(t.Context(), in, to, convert.Options{}); err != nil {
						t.Fatal(err)
					}
				}
				sameTree(t, "the output", mustTree(t, out), mustTree(t, fresh))
			})
		}
	}
}
