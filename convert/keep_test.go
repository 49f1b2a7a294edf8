package convert_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/format"
)

// TestNothingLost holds work on folders to leaving alone what it did not make.
// Each case ends with an error, and the output as it was.
func TestNothingLost(t *testing.T) {
	model := map[string][]byte{"model.safetensors": packed(t, nil, weight("a.weight", 1)), "config.json": []byte("{}"), "README.md": []byte("ours")}
	other := map[string][]byte{"other.safetensors": packed(t, nil, weight("a.weight", 2))}
	loose := map[string][]byte{"a.safetensors": packed(t, nil, weight("a.weight", 3))}
	var exists *convert.ExistsError
	for name, c := range map[string]struct {
		prepare func(t *testing.T, out string)
		run     func(ctx context.Context, out string) error
		want    string // in the error
	}{
		"decoding over a folder that version control has": {
			prepare: func(t *testing.T, out string) {
				back(t, model, out)
				put(t, filepath.Join(out, ".git", "objects"), []byte("precious"))
			},
			run: func(ctx context.Context, out string) error {
				return convert.DecodeDir(ctx, convertedDir(t, model), out, convert.Options{Force: true})
			},
			want: "would be lost",
		},
		"decoding over a link": {
			prepare: func(t *testing.T, out string) {
				back(t, model, out)
				if err := os.Symlink("README.md", filepath.Join(out, "link")); err != nil {
					t.Fatal(err)
				}
			},
			run: func(ctx context.Context, out string) error {
				return convert.DecodeDir(ctx, convertedDir(t, model), out, convert.Options{Force: true})
			},
			want: "would be lost",
		},
		"a batch of one model to a folder with other files": {
			prepare: func(t *testing.T, out string) { put(t, filepath.Join(out, "README.md"), []byte("mine")) },
			run: func(ctx context.Context, out string) error {
				r, err := convert.Batch(ctx, writeFiles(t, model), out, convert.Options{})
				if err == nil && r.Failed == 1 {
					err = errors.New(r.Models[0].Error)
				}
				return err
			},
			want: "exists already",
		},
		"a folder with nothing but an empty state and other files": {
			prepare: func(t *testing.T, out string) {
				put(t, filepath.Join(out, ".qinsconv", "lock"), nil)
				put(t, filepath.Join(out, "README.md"), []byte("mine"))
			},
			run: func(ctx context.Context, out string) error {
				_, err := convert.ConvertDir(ctx, writeFiles(t, model), out, convert.Options{})
				if !errors.As(err, &exists) {
					t.Errorf("%v", err)
				}
				return err
			},
			want: "exists already",
		},
		"another model": {
			prepare: func(t *testing.T, out string) { convertTo(t, other, out) },
			run: func(ctx context.Context, out string) error {
				_, err := convert.ConvertDir(ctx, writeFiles(t, model), out, convert.Options{})
				return err
			},
			want: "exists already",
		},
		"a file of another source": {
			prepare: func(t *testing.T, out string) {
				in := filepath.Join(writeFiles(t, other), "other.safetensors")
				put(t, filepath.Join(out, "x"), nil)
				if _, err := convert.Convert(t.Context(), in, filepath.Join(out, "a.qins"), convert.Options{}); err != nil {
					t.Fatal(err)
				}
			},
			run: func(ctx context.Context, out string) error {
				r, err := convert.Batch(ctx, writeFiles(t, loose), out, convert.Options{})
				if err == nil && r.Failed == 1 {
					err = errors.New(r.Models[0].Error)
				}
				return err
			},
			want: "exists already",
		},
		"a folder in the way of a side file": {
			prepare: func(t *testing.T, out string) {
				convertTo(t, model, out)
				if err := os.Remove(filepath.Join(out, "README.md")); err != nil {
					t.Fatal(err)
				}
				if err := os.Mkdir(filepath.Join(out, "README.md"), 0o777); err != nil {
					t.Fatal(err)
				}
			},
			run: func(ctx context.Context, out string) error {
				_, err := convert.ConvertDir(ctx, writeFiles(t, model), out, convert.Options{})
				return err
			},
			want: "is a directory",
		},
		"a lock that is a link": {
			prepare: func(t *testing.T, out string) {
				if err := os.MkdirAll(filepath.Join(out, ".qinsconv"), 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(filepath.Join(out, "victim"), filepath.Join(out, ".qinsconv", "lock")); err != nil {
					t.Fatal(err)
				}
			},
			run: func(ctx context.Context, out string) error {
				_, err := convert.ConvertDir(ctx, writeFiles(t, model), out, convert.Options{})
				return err
			},
			want: "in the way of a lock",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			c.prepare(t, out)
			before := mustTree(t, out)
			err := c.run(t.Context(), out)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, expected %q", err, c.want)
			}
			sameTree(t, "the output", mustTree(t, out), before)
		})
	}
}

// convertedDir converts a model made of these files and returns the folder.
func convertedDir(t *testing.T, files map[string][]byte) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "converted")
	convertTo(t, files, out)
	return out
}

func convertTo(t *testing.T, files map[string][]byte, out string) {
	t.Helper()
	if _, err := convert.ConvertDir(t.Context(), writeFiles(t, files), out, convert.Options{}); err != nil {
		t.Fatal(err)
	}
}

// back converts a model and decodes it to out.
func back(t *testing.T, files map[string][]byte, out string) {
	t.Helper()
	if err := convert.DecodeDir(t.Context(), convertedDir(t, files), out, convert.Options{}); err != nil {
		t.Fatal(err)
	}
}

// TestDecodeIntoFolder decodes to folders that are there: empty, the working
// folder, and with what an earlier decode made.
func TestDecodeIntoFolder(t *testing.T) {
	files := map[string][]byte{"model.safetensors": packed(t, nil, weight("a.weight", 1)), "extra/notes.txt": []byte("x")}
	in, fresh := convertedDir(t, files), filepath.Join(t.TempDir(), "fresh")
	back(t, files, fresh)
	out := t.TempDir()
	for _, force := range []bool{false, true} {
		if err := convert.DecodeDir(t.Context(), in, out, convert.Options{Force: force}); err != nil {
			t.Fatal(err)
		}
		sameTree(t, "decoded", mustTree(t, out), mustTree(t, fresh))
	}
	t.Chdir(t.TempDir())
	if err := convert.DecodeDir(t.Context(), in, ".", convert.Options{}); err != nil {
		t.Fatal(err)
	}
	sameTree(t, "decoded to .", mustTree(t, "."), mustTree(t, fresh))
}

// TestStoppedInSubfolder takes up a model whose weights are in folders of their
// own, after a run that had not finished any.
func TestStoppedInSubfolder(t *testing.T) {
	in := writeFiles(t, map[string][]byte{"unet/model.safetensors": packed(t, nil, weight("a.weight", 1)), "model_index.json": []byte("{}")})
	out := filepath.Join(t.TempDir(), "out")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := func(e convert.Event) {
		if s, ok := e.(convert.Start); ok && s.Files == 0 {
			cancel()
		}
	}
	var stopped *convert.StoppedError
	if _, err := convert.ConvertDir(ctx, in, out, convert.Options{Events: stop}); !errors.As(err, &stopped) {
		t.Fatalf("%v", err)
	}
	if _, err := convert.ConvertDir(t.Context(), in, out, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	expectVerified(t, out, in)
}

// TestFinishReads ends the parts of a model of which one was damaged.
func TestFinishReads(t *testing.T) {
	in := writeFiles(t, map[string][]byte{"a.safetensors": packed(t, nil, weight("a.weight", 1)), "b.safetensors": packed(t, nil, weight("b.weight", 2))})
	out := filepath.Join(t.TempDir(), "out")
	var damaged string
	for i := range 2 {
		done := func(e convert.Event) {
			if f, ok := e.(convert.FileDone); ok {
				damaged = f.Out
			}
		}
		if i == 1 {
			flip(t, damaged)
			done = nil
		}
		if _, err := convert.ConvertDir(t.Context(), in, out, convert.Options{Part: convert.Part{Index: i + 1, Count: 2}, Events: done}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := convert.ConvertDir(t.Context(), in, out, convert.Options{Finish: true}); err == nil || !strings.Contains(err.Error(), filepath.Base(damaged)) {
		t.Errorf("%v", err)
	}
}

// flip changes a byte of a file and nothing of its times.
func flip(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	data := mustRead(t, path)
	data[len(data)-1] ^= 1
	put(t, path, data)
	if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// TestHubRoot refuses the folder of a cache that holds every file twice.
func TestHubRoot(t *testing.T) {
	in := writeFiles(t, map[string][]byte{"blobs/0": []byte("x"), "snapshots/1/model.safetensors": packed(t, nil, weight("a.weight", 1))})
	var bad *format.Error
	if _, err := convert.ConvertDir(t.Context(), in, filepath.Join(t.TempDir(), "out"), convert.Options{}); !errors.As(err, &bad) || !strings.Contains(bad.Hint, "snapshots") {
		t.Errorf("%v", err)
	}
}

// TestSideManifest carries over a file that has the name of a manifest.
func TestSideManifest(t *testing.T) {
	files := map[string][]byte{"model.safetensors": packed(t, nil, weight("a.weight", 1)), "model.qins.manifest.json": []byte("hi"), "part.st": nil}
	files["part.st"] = packed(t, nil, weight("b.weight", 2))
	files["model.safetensors.index.json"] = []byte(`{"weight_map":{"a.weight":"model.safetensors","b.weight":"part.st"}}`)
	in, out := writeFiles(t, files), filepath.Join(t.TempDir(), "out")
	if _, err := convert.ConvertDir(t.Context(), in, out, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	expectVerified(t, out, in)
	back := filepath.Join(t.TempDir(), "back")
	if err := convert.DecodeDir(t.Context(), out, back, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, filepath.Join(back, "model.qins.manifest.json")); string(got) != "hi" {
		t.Errorf("%q", got)
	}
}
