package convert_test

import (
	"path/filepath"
	"slices"
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
