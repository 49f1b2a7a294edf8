package convert_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// TestParts converts a model in parts, one after another in several orders, and
// at once.
func TestParts(t *testing.T) {
	const shards, parts = 16, 4
	in := filepath.Join(t.TempDir(), "model")
	if err := fixtures.WriteManyShards(in, shards, 2, 2048); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	if _, err := convert.ConvertDir(t.Context(), in, whole, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	want := mustTree(t, whole)
	finish := func(out string) error {
		_, err := convert.ConvertDir(t.Context(), in, out, convert.Options{Finish: true})
		return err
	}
	expectMissing := func(out, says string) {
		t.Helper()
		err := finish(out)
		var unfinished *convert.UnfinishedError
		if !errors.As(err, &unfinished) || !strings.Contains(err.Error(), says) {
			t.Errorf("finish: %v, expected %s", err, says)
		}
	}

	random := rand.New(rand.NewPCG(3, 4))
	for round := range 3 {
		out := filepath.Join(dir, fmt.Sprint("order", round))
		expectMissing(out, fmt.Sprintf("%d files are missing or not up to date, the first model-00001-of-00016.qins: run the parts that convert them", shards))
		for k, i := range random.Perm(parts) {
			r, err := convert.ConvertDir(t.Context(), in, out, convert.Options{Part: convert.Part{Index: i + 1, Count: parts}})
			if err != nil {
				t.Fatal(err)
			}
			left := shards - (k+1)*shards/parts
			if r.Converted != shards/parts || r.Unchanged != 0 || len(r.Missing) != left || (r.Manifest != nil) != (left == 0) {
				t.Errorf("part %d: %d converted, %d unchanged, %d missing, manifest %v", i+1, r.Converted, r.Unchanged, len(r.Missing), r.Manifest != nil)
			}
			if left > 0 {
				expectMissing(out, fmt.Sprintf("%d files are missing", left))
				if _, err := os.Lstat(filepath.Join(out, convert.DirManifestName)); err == nil {
					t.Error("there is a manifest already")
				}
				if err := convert.DecodeDir(t.Context(), out, filepath.Join(dir, "back"), convert.Options{}); err == nil || !strings.Contains(err.Error(), "is not finished") {
					t.Errorf("decode: %v", err)
				}
			}
		}
		sameTree(t, "in parts", mustTree(t, out), want)
		for range 2 {
			if err := finish(out); err != nil {
				t.Error(err)
			}
			sameTree(t, "finished again", mustTree(t, out), want)
		}
		// A part once more changes nothing, and another number of parts neither.
		for _, p := range []convert.Part{{Index: 2, Count: parts}, {Index: 3, Count: 3}, {Index: 20, Count: 20}} {
			if r, err := convert.ConvertDir(t.Context(), in, out, convert.Options{Part: p}); err != nil || r.Converted > 0 {
				t.Errorf("again: %+v, %v", r, err)
			}
		}
		sameTree(t, "again", mustTree(t, out), want)
	}

	// Most of it by parts, the last of which never ran, the rest at once.
	out := filepath.Join(dir, "mixed")
	for i := range parts - 1 {
		if _, err := convert.ConvertDir(t.Context(), in, out, convert.Options{Part: convert.Part{Index: i + 1, Count: parts}}); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := convert.ConvertDir(t.Context(), in, out, convert.Options{}); err != nil || r.Converted != shards/parts || r.Unchanged != shards-shards/parts {
		t.Errorf("%+v, %v", r, err)
	}
	sameTree(t, "mixed", mustTree(t, out), want)

	// A file of another part is damaged before the whole is finished.
	out = filepath.Join(dir, "damaged")
	for i := range parts - 1 {
		if _, err := convert.ConvertDir(t.Context(), in, out, convert.Options{Part: convert.Part{Index: i + 1, Count: parts}}); err != nil {
			t.Fatal(err)
		}
	}
	var victim string
	for _, name := range fileNames(t, out) {
		if strings.HasSuffix(name, ".qins") {
			victim = name
		}
	}
	if err := os.Truncate(filepath.Join(out, victim), 100); err != nil {
		t.Fatal(err)
	}
	r, err := convert.ConvertDir(t.Context(), in, out, convert.Options{Part: convert.Part{Index: parts, Count: parts}})
	if err != nil || len(r.Missing) != 1 || r.Missing[0] != victim {
		t.Errorf("%+v, %v", r, err)
	}

	// At once.
	for round := range 3 {
		out := filepath.Join(dir, fmt.Sprint("at once", round))
		var group sync.WaitGroup
		results := make([]*convert.DirResult, parts)
		for i := range parts {
			group.Go(func() {
				var err error
				if results[i], err = convert.ConvertDir(t.Context(), in, out, convert.Options{Jobs: 1, Part: convert.Part{Index: i + 1, Count: parts}}); err != nil {
					t.Errorf("part %d: %v", i+1, err)
				}
			})
		}
		group.Wait()
		ended := 0
		for _, r := range results {
			if r != nil && r.Manifest != nil {
				ended++
			}
		}
		if ended == 0 {
			t.Error("no part was the last one")
		}
		sameTree(t, "at once", mustTree(t, out), want)
	}
}

// severalModels writes folders as a batch finds them: two model directories, a
// snapshot, a split GGUF file and loose files.
func severalModels(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "models")
	small := fixtures.LlamaModel{Layers: 1, Hidden: 64, Intermediate: 96, Vocab: 300, KVDim: 32, DType: format.BF16}
	if err := fixtures.WriteModelDir(filepath.Join(dir, "org", "one"), fixtures.ModelDir{LlamaModel: small, Shards: 3, Tied: true}); err != nil {
		t.Fatal(err)
	}
	if err := fixtures.WriteModelDir(filepath.Join(dir, "two"), fixtures.ModelDir{LlamaModel: small}); err != nil {
		t.Fatal(err)
	}
	if _, err := fixtures.WriteHubCache(filepath.Join(dir, "hub"), "acme", "toy", fixtures.ModelDir{LlamaModel: small, Shards: 2}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "loose", "deeper"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := fixtures.WriteSplitGGUF(filepath.Join(dir, "loose"), "split", 3, small); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "loose", "x.safetensors"), packed(t, nil, weight("x.weight", 1)))
	put(t, filepath.Join(dir, "loose", "deeper", "x.safetensors"), packed(t, nil, weight("x.weight", 2)))
	put(t, filepath.Join(dir, "loose", "deeper", "model.gguf"), ggufOf(t))
	put(t, filepath.Join(dir, "notes.txt"), []byte("not carried over: it belongs to no model"))
	return dir
}

// TestBatchParts converts several models in parts.
func TestBatchParts(t *testing.T) {
	const parts = 3
	in, dir := severalModels(t), t.TempDir()
	before := mustTree(t, in)
	whole := filepath.Join(dir, "whole")
	r, err := convert.Batch(t.Context(), in, whole, convert.Options{})
	if err != nil || r.Failed > 0 || len(r.Models) != 7 {
		t.Fatalf("%+v, %v", r, err)
	}
	want := mustTree(t, whole)
	expectVerified(t, whole, "")
	expectVerified(t, whole, in)
	finish := func(out string) *convert.BatchResult {
		r, err := convert.Batch(t.Context(), in, out, convert.Options{Finish: true})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, order := range [][]int{{1, 2, 3}, {3, 1, 2}} {
		out := filepath.Join(dir, fmt.Sprint(order))
		files := map[string]int{}
		for k, i := range order {
			if r := finish(out); r.Failed == 0 {
				t.Errorf("finished after %d of %d parts", k, parts)
			}
			_, err := convert.Batch(t.Context(), in, out, convert.Options{Part: convert.Part{Index: i, Count: parts}, Events: func(e convert.Event) {
				if f, ok := e.(convert.FileDone); ok {
					if files[f.In]++; f.Status != convert.Converted || files[f.In] > 1 {
						t.Errorf("%s was %s", f.In, f.Status)
					}
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		if len(files) != 12 {
			t.Errorf("%d files were converted: %v", len(files), files)
		}
		sameTree(t, "in parts", mustTree(t, out), want)
		for range 2 {
			r := finish(out)
			if r.Failed > 0 {
				t.Errorf("finish: %+v", r.Models)
			}
			for _, m := range r.Models {
				if m.Status != convert.ModelUnchanged || m.SourceSize == 0 || m.OutputSize == 0 {
					t.Errorf("finish: %+v", m)
				}
			}
			sameTree(t, "finished", mustTree(t, out), want)
		}
	}
	sameTree(t, "the source", mustTree(t, in), before)
}

// TestBatchAgain converts several models twice, with changes in between.
func TestBatchAgain(t *testing.T) {
	in, out := severalModels(t), filepath.Join(t.TempDir(), "out")
	run := func() (*convert.BatchResult, map[string]convert.FileStatus) {
		files := map[string]convert.FileStatus{}
		r, err := convert.Batch(t.Context(), in, out, convert.Options{Events: func(e convert.Event) {
			if f, ok := e.(convert.FileDone); ok {
				rel, err := filepath.Rel(in, f.In)
				if err != nil {
					t.Fatal(err)
				}
				files[filepath.ToSlash(rel)] = f.Status
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		return r, files
	}
	run()
	whole := mustTree(t, out)
	r, files := run()
	for name, status := range files {
		if status != convert.Unchanged {
			t.Errorf("%s was %s", name, status)
		}
	}
	for _, m := range r.Models {
		if m.Status != convert.ModelUnchanged || m.Ratio == 0 {
			t.Errorf("%+v", m)
		}
	}
	sameTree(t, "again", mustTree(t, out), whole)

	// Something in each kind of model.
	for _, name := range []string{"org/one/model-00002-of-00003.qins", "loose/split-00003-of-00003.qins", "loose/x.qins"} {
		if err := os.Remove(filepath.Join(out, filepath.FromSlash(name))); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(out, "loose", "deeper", "x.qins"), []byte("thesis"))
	put(t, filepath.Join(in, "two", "model.safetensors"), []byte("no longer weights"))
	r, files = run()
	redone := 0
	for _, status := range files {
		if status == convert.Converted {
			redone++
		}
	}
	if r.Failed != 2 || redone != 3 {
		t.Errorf("%d failed, %d files redone: %v %+v", r.Failed, redone, files, r.Models)
	}
	if text := mustRead(t, filepath.Join(out, "loose", "deeper", "x.qins")); string(text) != "thesis" {
		t.Errorf("a file that is none of ours became %q", text)
	}
}
