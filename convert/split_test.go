package convert_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
	"github.com/qinsconv/qinsconv/qins"
)

// splitModel writes a GGUF model in three files.
func splitModel(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	model := fixtures.LlamaModel{Layers: 2, Hidden: 64, Intermediate: 160, Vocab: 300, KVDim: 32, DType: format.F16}
	if err := fixtures.WriteSplitGGUF(dir, "toy", 3, model); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSplit sends a split GGUF file there and back, as a folder, by its first
// part and in a batch.
func TestSplit(t *testing.T) {
	in := splitModel(t)
	put(t, filepath.Join(in, "README.md"), []byte("beside it"))
	all, err := convert.NewRule(false, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, layout := range qins.Layouts() {
		j := travel(t, in, convert.Options{Layout: layout})
		if j.manifest.Totals.Encoded.Tensors == 0 {
			t.Error("nothing was encoded")
		}
		expectFiles(t, j.out, "README.md", "qins-manifest.json", "toy-00001-of-00003.qins", "toy-00002-of-00003.qins", "toy-00003-of-00003.qins")

		// Where nothing is encoded all comes back.
		j = travel(t, in, convert.Options{Layout: layout, Rules: []convert.Rule{all}})
		sameTree(t, "kept", mustTree(t, j.back), mustTree(t, in))
	}

	// By the first part, without what is beside it, also into a folder there.
	whole := travel(t, in, convert.Options{})
	first := filepath.Join(in, "toy-00001-of-00003.gguf")
	want := mustTree(t, whole.out)
	delete(want, "README.md")
	delete(want, convert.DirManifestName) // where it is listed
	for _, out := range []string{filepath.Join(t.TempDir(), "out"), filepath.Join(in, "out")} {
		if !convert.IsModel(first) {
			t.Fatal("it is not taken for a model")
		}
		if _, err := convert.ConvertDir(t.Context(), first, out, convert.Options{}); err != nil {
			t.Fatal(err)
		}
		got := mustTree(t, out)
		delete(got, convert.DirManifestName)
		sameTree(t, "by the first part", got, want)
		expectVerified(t, out, "")
		back := filepath.Join(t.TempDir(), "back")
		if err := convert.DecodeDir(t.Context(), out, back, convert.Options{}); err != nil {
			t.Fatal(err)
		}
		expectFiles(t, back, "toy-00001-of-00003.gguf", "toy-00002-of-00003.gguf", "toy-00003-of-00003.gguf")
		plans, err := convert.PlanDir(t.Context(), first, convert.Options{})
		if err != nil || len(plans) != 3 {
			t.Errorf("%d plans, %v", len(plans), err)
		}
	}
	if err := os.RemoveAll(filepath.Join(in, "out")); err != nil {
		t.Fatal(err)
	}

	// Loose in a batch.
	dst := filepath.Join(t.TempDir(), "dst")
	r, err := convert.Batch(t.Context(), in, dst, convert.Options{})
	if err != nil || len(r.Models) != 1 || r.Models[0].Files != 3 || r.Models[0].Model != "toy-00001-of-00003.gguf" {
		t.Fatalf("%+v, %v", r, err)
	}
	for i := range 3 {
		name := fmt.Sprintf("toy-%05d-of-00003.qins", i+1)
		if !bytes.Equal(mustRead(t, filepath.Join(dst, name)), mustRead(t, filepath.Join(whole.out, name))) {
			t.Errorf("%s is another in the batch", name)
		}
		expectVerified(t, filepath.Join(dst, name), filepath.Join(in, strings.TrimSuffix(name, ".qins")+".gguf"))
		if _, err := convert.Inspect(filepath.Join(dst, name)); err != nil {
			t.Error(err)
		}
	}
	expectVerified(t, dst, in)
}

// TestSplitTies ties tensors across the files of a split GGUF file.
func TestSplitTies(t *testing.T) {
	const rows = 32
	data := func(seed uint64) []byte {
		file := packed(t, nil, spec{name: "x", dtype: format.F16, shape: format.Shape{rows, rows}, seed: seed})
		return file[len(file)-2*rows*rows:]
	}
	ggufFile := func(path string, no, count int, tensors map[string]uint64) {
		var names []string
		for name := range tensors {
			names = append(names, name)
		}
		slices.Sort(names)
		var list []format.Tensor
		for _, name := range names {
			list = append(list, format.Tensor{Name: name, DType: format.F16, Shape: format.Shape{rows, rows}})
		}
		if err := gguf.Place(list, 32); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w, err := gguf.NewWriter(f, 3, []gguf.KeyValue{{Key: "split.no", Value: gguf.Of(uint16(no))}, {Key: "split.count", Value: gguf.Of(uint16(count))}}, list)
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range names {
			if err := w.WriteAt(data(tensors[name]), i, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	in := writeFiles(t, nil)
	ggufFile(filepath.Join(in, "m-00001-of-00002.gguf"), 0, 2, map[string]uint64{"token_embd.weight": 1, "blk.0.ffn_up.weight": 2})
	ggufFile(filepath.Join(in, "m-00002-of-00002.gguf"), 1, 2, map[string]uint64{"output.weight": 1, "blk.1.ffn_up.weight": 2, "blk.2.ffn_up.weight": 3})
	j := travel(t, in, convert.Options{})
	j.expectTensor(t, "output.weight", "tied by content to token_embd.weight in m-00001-of-00002.qins")
	j.expectTensor(t, "blk.0.ffn_up.weight", "encoded default: 2-D weight")
	j.expectTensor(t, "blk.1.ffn_up.weight", "tied by content to blk.0.ffn_up.weight in m-00001-of-00002.qins")
}

// TestSplitRefused holds that files are refused that are not one split file.
func TestSplitRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(in string) error
		says   string
	}{
		"a part missing": {func(in string) error { return os.Remove(filepath.Join(in, "toy-00002-of-00003.gguf")) }, "toy-00002-of-00003.gguf: a file of the model is missing"},
		"two parts exchanged": {func(in string) error {
			a, b, c := filepath.Join(in, "toy-00002-of-00003.gguf"), filepath.Join(in, "toy-00003-of-00003.gguf"), filepath.Join(in, "x")
			return errors.Join(os.Rename(a, c), os.Rename(b, a), os.Rename(c, b))
		}, "toy-00002-of-00003.gguf: split.no does not agree with the files that are there: found 2, expected 1"},
		"a part of another number": {func(in string) error {
			return errors.Join(os.Rename(filepath.Join(in, "toy-00001-of-00003.gguf"), filepath.Join(in, "toy-00001-of-00002.gguf")),
				os.Rename(filepath.Join(in, "toy-00002-of-00003.gguf"), filepath.Join(in, "toy-00002-of-00002.gguf")), os.Remove(filepath.Join(in, "toy-00003-of-00003.gguf")))
		}, "split.count does not agree with the files that are there: found 3, expected 2"},
		"a part twice": {func(in string) error {
			data, err := os.ReadFile(filepath.Join(in, "toy-00002-of-00003.gguf"))
			return errors.Join(err, os.WriteFile(filepath.Join(in, "toy-00003-of-00003.gguf"), data, 0o666))
		}, "two files hold this tensor"},
		"a part truncated": {func(in string) error { return os.Truncate(filepath.Join(in, "toy-00003-of-00003.gguf"), 300) }, "toy-00003-of-00003.gguf: "},
	} {
		t.Run(name, func(t *testing.T) {
			in := splitModel(t)
			if err := c.change(in); err != nil {
				t.Fatal(err)
			}
			first, err := filepath.Glob(filepath.Join(in, "toy-00001-*"))
			if err != nil || len(first) != 1 {
				t.Fatal(first, err)
			}
			dir := t.TempDir()
			for _, from := range []string{in, first[0]} {
				_, converted := convert.ConvertDir(t.Context(), from, filepath.Join(dir, "out"), convert.Options{})
				_, planned := convert.PlanDir(t.Context(), from, convert.Options{})
				for what, err := range map[string]error{"convert": converted, "plan": planned} {
					var bad *format.Error
					if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.says) {
						t.Errorf("%s: %v, expected %s", what, err, c.says)
					}
				}
			}
			r, err := convert.Batch(t.Context(), in, filepath.Join(dir, "batch"), convert.Options{})
			if err != nil || r.Failed != 1 || !strings.Contains(r.Models[0].Error, c.says) {
				t.Errorf("batch: %+v, %v", r, err)
			}
			for name, about := range mustTree(t, dir) {
				if !strings.HasPrefix(about, "d") {
					t.Errorf("there is %s", name)
				}
			}
		})
	}
	// A part that is not the first one is a file by itself to Convert.
	in := splitModel(t)
	if convert.IsModel(filepath.Join(in, "toy-00002-of-00003.gguf")) {
		t.Error("the second part is taken for a model")
	}
}

// TestSplitDigits converts split files whose names have other numbers of digits.
func TestSplitDigits(t *testing.T) {
	in := filepath.Join(t.TempDir(), "in")
	if err := os.Mkdir(in, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := fixtures.WriteSplitGGUF(in, "toy", 3, fixtures.SmallDir(format.F32).LlamaModel); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := os.Rename(filepath.Join(in, fmt.Sprintf("toy-%05d-of-00003.gguf", i+1)), filepath.Join(in, fmt.Sprintf("toy-%06d-of-000003.gguf", i+1))); err != nil {
			t.Fatal(err)
		}
	}
	first := filepath.Join(in, "toy-000001-of-000003.gguf")
	if !convert.IsModel(first) {
		t.Errorf("%s is no model", first)
	}
	out := filepath.Join(t.TempDir(), "out")
	if _, err := convert.ConvertDir(t.Context(), first, out, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	expectFiles(t, out, "qins-manifest.json", "toy-000001-of-000003.qins", "toy-000002-of-000003.qins", "toy-000003-of-000003.qins")
	r, err := convert.Batch(t.Context(), in, filepath.Join(t.TempDir(), "out"), convert.Options{})
	if err != nil || r.Failed > 0 || len(r.Models) != 1 || r.Models[0].Files != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}
