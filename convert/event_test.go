package convert_test

import (
	"path/filepath"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// TestPhases holds that each phase of a conversion goes from little to all.
func TestPhases(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.safetensors")
	model := fixtures.LlamaModel{Layers: 1, Hidden: 512, Intermediate: 1024, Vocab: 1000, KVDim: 256, DType: format.BF16}
	if err := fixtures.WriteLlama(in, model); err != nil {
		t.Fatal(err)
	}
	for _, jobs := range []int{1, 2} {
		var order []string
		last := map[string]convert.Progress{}
		_, err := convert.Convert(t.Context(), in, filepath.Join(dir, "out.qins"), convert.Options{Jobs: jobs, Force: true, Events: func(e convert.Event) {
			p, ok := e.(convert.Progress)
			if !ok {
				return
			}
			before, seen := last[p.Phase]
			if !seen {
				order = append(order, p.Phase)
			} else if p.Total != before.Total {
				t.Errorf("%s: the total was %d and is %d", p.Phase, before.Total, p.Total)
			}
			if p.Done < before.Done || p.Done > p.Total {
				t.Errorf("%s: %d of %d after %d", p.Phase, p.Done, p.Total, before.Done)
			}
			last[p.Phase] = p
		}})
		if err != nil {
			t.Fatal(err)
		}
		if len(order) != 3 || order[0] != "survey" || order[1] != "convert" || order[2] != "hash" {
			t.Errorf("the phases are %q", order)
		}
		for phase, p := range last {
			if p.Done != p.Total || p.Total == 0 {
				t.Errorf("%s: ends with %d of %d", phase, p.Done, p.Total)
			}
		}
	}
}
