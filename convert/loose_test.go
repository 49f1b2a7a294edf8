package convert_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// Files without a folder of their own have no manifest over them; that they are
// missing is found all the same.
func TestFinishFindsMissingLooseFiles(t *testing.T) {
	src, dst := t.TempDir(), filepath.Join(t.TempDir(), "out")
	for _, name := range []string{"a.safetensors", "b.safetensors"} {
		if err := fixtures.WriteTensors(filepath.Join(src, name), nil, fixtures.One(format.F32, 2048)); err != nil {
			t.Fatal(err)
		}
	}
	if err := fixtures.WriteSplitGGUF(src, "split", 3, fixtures.SmallDir(format.F16).LlamaModel); err != nil {
		t.Fatal(err)
	}
	batch := func(opts convert.Options) []convert.ModelStatus {
		t.Helper()
		r, err := convert.Batch(t.Context(), src, dst, opts)
		if err != nil {
			t.Fatal(err)
		}
		var status []convert.ModelStatus
		for _, m := range r.Models {
			status = append(status, m.Status)
		}
		return status
	}
	const converted, unchanged, partial, failed = convert.ModelConverted, convert.ModelUnchanged, convert.ModelPartial, convert.ModelFailed
	for _, step := range []struct {
		part int // 0 finishes
		want []convert.ModelStatus
	}{
		{0, []convert.ModelStatus{failed, failed, failed}},
		{3, []convert.ModelStatus{converted, converted, partial}}, // the smallest files
		{0, []convert.ModelStatus{unchanged, unchanged, failed}},
		{1, []convert.ModelStatus{partial}},
		{2, []convert.ModelStatus{converted}},
		{0, []convert.ModelStatus{unchanged, unchanged, unchanged}},
	} {
		opts := convert.Options{Finish: step.part == 0}
		if step.part > 0 {
			opts.Part = convert.Part{Index: step.part, Count: 3}
		}
		if got := batch(opts); !slices.Equal(got, step.want) {
			t.Errorf("part %d: found %v, expected %v", step.part, got, step.want)
		}
	}
}

// A batch of which nothing comes makes no folder; one that was there stays.
func TestBatchLeavesNoFolder(t *testing.T) {
	bad, dir := writeFiles(t, map[string][]byte{"bad.safetensors": []byte("no weights")}), t.TempDir()
	good := writeFiles(t, map[string][]byte{"sub/x.safetensors": packed(t, nil, weight("x.weight", 1)), "y.safetensors": packed(t, nil, weight("y.weight", 1))})
	there := filepath.Join(dir, "there")
	if err := os.Mkdir(there, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, src string
		finish    bool
		stop      bool // at the first event
		says      string
	}{
		{"all fail", bad, false, false, "bad.safetensors: the header is too long"},
		{"nothing to finish", good, true, false, "y.qins is missing"},
		{"stopped", good, false, true, "interrupted"},
	} {
		for _, out := range []string{"out", "deep/er/out", "there/deeper", "there"} {
			ctx, cancel := context.WithCancel(t.Context())
			opts := convert.Options{Finish: c.finish, Events: func(convert.Event) {
				if c.stop {
					cancel()
				}
			}}
			r, err := convert.Batch(ctx, c.src, filepath.Join(dir, filepath.FromSlash(out)), opts)
			cancel()
			if err == nil {
				if r.Failed != len(r.Models) {
					t.Errorf("%s: %+v", c.name, r.Models)
				}
				err = errors.New(r.Models[0].Error)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, expected %s", c.name, err, c.says)
			}
			expectFiles(t, dir, "there")
			expectFiles(t, there)
		}
	}
}
