package convert_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// TestDirRefused holds that folders are refused which are not whole, or not
// clear, by whatever reads them, and that nothing is written.
func TestDirRefused(t *testing.T) {
	a, b := packed(t, nil, weight("a.weight", 1)), packed(t, nil, weight("b.weight", 2))
	index := func(entries ...string) []byte {
		return fmt.Appendf(nil, `{"metadata": {"total_size": 1}, "weight_map": {%s}}`, strings.Join(entries, ", "))
	}
	const name = "model.safetensors.index.json"
	for _, c := range []struct {
		name    string
		files   map[string][]byte
		weights []string
		file    string // that the error names
		tensor  string
		says    string
	}{
		{"nothing", nil, nil, "", "", "there are no weights: expected a folder with .safetensors or .gguf files"},
		{"no weights", map[string][]byte{"config.json": []byte("{}"), "pytorch_model.bin": a}, nil, "", "", "there are no weights"},
		{"a shard missing by the index", map[string][]byte{"x.safetensors": a, name: index(`"a.weight": "x.safetensors"`, `"b.weight": "y.safetensors"`)}, nil,
			name, "", "a file that the index names is missing: found no y.safetensors, expected 2 files (is the download complete?)"},
		{"a shard missing by its number", map[string][]byte{"m-00001-of-00003.safetensors": a, "m-00003-of-00003.safetensors": b}, nil,
			"m-00002-of-00003.safetensors", "", "a file of the model is missing: found 2 of 3 (is the download complete?)"},
		{"the first shard missing", map[string][]byte{"sub/m-00002-of-00002.safetensors": a}, nil,
			"sub/m-00001-of-00002.safetensors", "", "a file of the model is missing: found 1 of 2"},
		{"a number past the end", map[string][]byte{"m-00001-of-00002.safetensors": a, "m-00003-of-00002.safetensors": b}, nil,
			"m-00002-of-00002.safetensors", "", "a file of the model is missing"},
		{"number zero", map[string][]byte{"m-00000-of-00001.safetensors": a}, nil, "m-00001-of-00001.safetensors", "", "a file of the model is missing"},
		{"a number too many", map[string][]byte{"m-00000-of-00001.safetensors": a, "m-00001-of-00001.safetensors": b}, nil,
			"m-00000-of-00001.safetensors", "", "the file's number is not one of its set: found 0, expected 1 to 1"},
		{"a number of other digits", map[string][]byte{"m-00001-of-000002.safetensors": a}, nil,
			"m-00002-of-000002.safetensors", "", "a file of the model is missing: found 1 of 2"},
		{"a count that nobody has", map[string][]byte{"m-00001-of-9223372036854775807.safetensors": a, "m-00002-of-9223372036854775807.safetensors": b}, nil,
			"m-00003-of-9223372036854775807.safetensors", "", "a file of the model is missing: found 2 of 9223372036854775807"},
		{"a number twice", map[string][]byte{"m-00001-of-00001.safetensors": a, "m-000001-of-00001.safetensors": b}, nil,
			"m-00001-of-00001.safetensors", "", `another file has the same number: found "m-000001-of-00001.safetensors"`},
		{"a tensor listed that is absent", map[string][]byte{"x.safetensors": a, name: index(`"a.weight": "x.safetensors"`, `"c.weight": "x.safetensors"`)}, nil,
			name, "c.weight", `the index lists a tensor that no file holds: expected in "x.safetensors"`},
		{"a tensor in another file", map[string][]byte{"x.safetensors": a, "y.safetensors": b, name: index(`"a.weight": "y.safetensors"`, `"b.weight": "x.safetensors"`)}, nil,
			name, "a.weight", `the tensor is not in the file that the index names: found in "x.safetensors", expected in "y.safetensors"`},
		{"a tensor twice", map[string][]byte{"x.safetensors": a, "y.safetensors": a}, nil,
			"y.safetensors", "a.weight", "two files hold this tensor: found "},
		{"a tensor twice, and an index", map[string][]byte{"x.safetensors": a, "y.safetensors": a, name: index(`"a.weight": "x.safetensors"`)}, nil,
			"y.safetensors", "a.weight", "(choose the files that belong together with --weights 'x.safetensors' or --weights 'y.safetensors')"},
		{"a variant beside it", map[string][]byte{"vae/m.fp16.safetensors": a, "vae/m.safetensors": a}, nil,
			"vae/m.safetensors", "a.weight", "(choose the files that belong together with --weights '*.fp16.safetensors' or --weights 'm.safetensors')"},
		{"a variant of several files", map[string][]byte{"m.fp16-00001-of-00001.safetensors": a, "m-00001-of-00001.safetensors": a}, nil,
			"m.fp16-00001-of-00001.safetensors", "a.weight", "--weights 'm-*.safetensors' or --weights '*.fp16-*-of-*.safetensors')"},
		{"a tensor twice, and names that tell nothing", map[string][]byte{"m-00001-of-00001.safetensors": a, "m-00001-of-00002.safetensors": a, "m-00002-of-00002.safetensors": b}, nil,
			"m-00001-of-00002.safetensors", "a.weight", "(choose the files that belong together with --weights GLOB)"},
		{"consolidated beside shards", map[string][]byte{"consolidated.safetensors": a, "model-00001-of-00001.safetensors": a}, nil,
			"", "", "the folder holds the same model twice, it seems: found consolidated.safetensors beside model-00001-of-00001.safetensors (choose with --weights 'consolidated*' or --weights 'model-*.safetensors')"},
		{"consolidated shards beside a file", map[string][]byte{"consolidated-00001-of-00001.safetensors": a, "model.safetensors": a}, nil,
			"", "", "(choose with --weights 'consolidated*' or --weights 'model.safetensors')"},
		{"two files that become one", map[string][]byte{"m.safetensors": a, "m.gguf": ggufOf(t)}, nil,
			"", "", `two files would both become "m.qins": found `},
		{"no file chosen", map[string][]byte{"m.safetensors": a}, []string{"*.gguf", "x*"}, "", "", "(--weights chooses none of m.safetensors)"},
		{"a part of the index chosen", map[string][]byte{"x.safetensors": a, "y.safetensors": b, name: index(`"a.weight": "x.safetensors"`, `"b.weight": "y.safetensors"`)}, []string{"x*"},
			name, "", "--weights chooses only some of the files that the index names: found not y.safetensors"},
		{"a bad pattern", map[string][]byte{"m.safetensors": a}, []string{"[a"}, "", "", `--weights "[a": syntax error in pattern`},
		{"converted already", map[string][]byte{"m.qins": a, "x.safetensors": b}, nil, "m.qins", "", "the folder holds a converted model already (qinsconv decode turns it back)"},
		{"a manifest of an earlier conversion", map[string][]byte{"m.safetensors": a, "qins-manifest.json": []byte("{}")}, nil, "qins-manifest.json", "", "the folder holds a converted model already"},
		{"an index of an earlier conversion", map[string][]byte{"m.safetensors": a, "model.qins.index.json": []byte("{}")}, nil, "model.qins.index.json", "", "the folder holds a converted model already"},
		{"a bad index", map[string][]byte{"m.safetensors": a, name: []byte(`{"weight_map": {}`)}, nil, name, "", ""},
		{"an index that names a tensor twice", map[string][]byte{"m.safetensors": a, name: index(`"a.weight": "m.safetensors"`, `"a.weight": "m.safetensors"`)}, nil, name, "", ""},
		{"a bad file", map[string][]byte{"m.safetensors": []byte("no file of weights")}, nil, "m.safetensors", "", ""},
		{"a configuration that says it is converted", map[string][]byte{"m.safetensors": a, "config.json": []byte(`{"a": 1, "quantization_config": {"quant_method": "qins", "bits": 4}}`)}, nil, "config.json", "",
			`the configuration says that the weights are converted already, and they are not: found quantization_config with the quant_method "qins" (remove that member`},
		{"such a configuration elsewhere", map[string][]byte{"m.gguf": ggufOf(t), "sub/config.json": []byte(`{"quantization_config": {"quant_method": "\u0071ins"}}`)}, nil, "sub/config.json", "",
			"the configuration says that the weights are converted already"},
		{"names that collide", map[string][]byte{"m.safetensors": packed(t, nil, weight("a.weight", 1), weight("a.stored", 2))}, nil, "m.safetensors", "a.weight", `its plane "a.stored" would collide with that of another tensor`},
		{"a folder in a file's place", map[string][]byte{"m.safetensors/x": a, "n.safetensors": b}, nil, "m.safetensors", "", "this is a folder, expected a file"},
		{"a name that Windows takes for another", map[string][]byte{"m.safetensors": a, "a:b.txt": nil}, nil, "a:b.txt", "", "a manifest could not hold this name"},
		{"a name with a backslash", map[string][]byte{"m.safetensors": a, `..\c.txt`: nil}, nil, `..\c.txt`, "", "a manifest could not hold this name"},
		{"a name of two lines", map[string][]byte{"m.safetensors": a, "a\nb.txt": nil}, nil, "a\nb.txt", "", `a manifest could not hold this name, which is no path on every system: found "a\nb.txt"`},
		{"an index for files of another", map[string][]byte{"sub/x.safetensors": a, name: index(`"a.weight": "sub/x.safetensors"`), "sub/" + name: index(`"a.weight": "x.safetensors"`)}, nil,
			"", "", "the index of another folder names this file too"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := writeFiles(t, c.files)
			before := mustTree(t, in)
			dir := t.TempDir()
			out := filepath.Join(dir, "out")
			opts := convert.Options{Weights: c.weights}
			expect := func(what string, err error) {
				t.Helper()
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v, expected %s", what, err, c.says)
				}
				var bad *format.Error
				var option *convert.OptionError
				if errors.As(err, &option) && c.name == "a bad pattern" {
					return
				}
				if !errors.As(err, &bad) {
					t.Errorf("%s: %v is no format.Error", what, err)
					return
				}
				if c.file != "" && bad.File != filepath.Join(in, filepath.FromSlash(c.file)) || bad.Tensor != c.tensor {
					t.Errorf("%s: the error names %q and tensor %q: %v", what, bad.File, bad.Tensor, err)
				}
			}
			_, err := convert.ConvertDir(t.Context(), in, out, opts)
			expect("convert", err)
			expectFiles(t, dir)
			// That makes a model of it, and not of each file.
			put(t, filepath.Join(in, "model_index.json"), nil)
			b, err := convert.Batch(t.Context(), in, out, opts)
			if err == nil && (b.Failed != len(b.Models) || b.Failed == 0) {
				t.Errorf("batch: %d of %d failed", b.Failed, len(b.Models))
			}
			for name, about := range mustTree(t, dir) {
				if !strings.HasPrefix(about, "d") {
					t.Errorf("batch: there is %s", name)
				}
			}
			if err := os.Remove(filepath.Join(in, "model_index.json")); err != nil {
				t.Fatal(err)
			}
			_, err = convert.PlanDir(t.Context(), in, opts)
			expect("plan", err)
			sameTree(t, "the input", mustTree(t, in), before)
		})
	}
}

// TestDirWeights chooses among files that are the same model.
func TestDirWeights(t *testing.T) {
	a, b := packed(t, nil, weight("a.weight", 1)), packed(t, nil, weight("b.weight", 2))
	both := packed(t, nil, weight("tok.weight", 1), weight("out.weight", 2))
	shards := map[string][]byte{"model-00001-of-00002.safetensors": a, "model-00002-of-00002.safetensors": b}
	in := writeFiles(t, map[string][]byte{"model-00001-of-00002.safetensors": a, "model-00002-of-00002.safetensors": b,
		"model.safetensors.index.json": indexOf(t, shards), "consolidated.safetensors": both, "config.json": []byte("{}"), "notes.txt": []byte("x")})
	for pattern, want := range map[string][]string{
		"consolidated*": {"config.json", "consolidated.qins", "notes.txt", "qins-manifest.json"},
		"model-*":       {"config.json", "model-00001-of-00002.qins", "model-00002-of-00002.qins", "model.qins.index.json", "notes.txt", "qins-manifest.json"},
	} {
		dir := t.TempDir()
		out, back := filepath.Join(dir, "out"), filepath.Join(dir, "back")
		opts := convert.Options{Weights: []string{pattern}}
		if _, err := convert.ConvertDir(t.Context(), in, out, opts); err != nil {
			t.Fatal(err)
		}
		expectFiles(t, out, want...)
		expectVerified(t, out, "")
		expectVerified(t, out, in)
		if err := convert.DecodeDir(t.Context(), out, back, convert.Options{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDirPlaces refuses outputs that lie where the input does, and such as hold
// what is not the conversion's.
func TestDirPlaces(t *testing.T) {
	model := map[string][]byte{"m.safetensors": packed(t, nil, weight("a.weight", 1)), "sub/notes.txt": []byte("x")}
	for _, c := range []struct {
		name    string
		in, out string // below a folder that holds the model in "model"
		build   func(dir string) error
		says    string
	}{
		{"the same", "model", "model", nil, "the output is the input"},
		{"the same, said otherwise", "model", "model/sub/..", nil, "the output is the input"},
		{"inside", "model", "model/out", nil, "the output is inside the input"},
		{"deep inside", "model", "model/sub/out", nil, "the output is inside the input"},
		{"around", "model", ".", nil, "is inside the output"},
		{"the same through a link", "model", "link", func(dir string) error { return os.Symlink("model", filepath.Join(dir, "link")) }, "the output is the input"},
		{"inside through a link", "model", "link/out", func(dir string) error { return os.Symlink("model/sub", filepath.Join(dir, "link")) }, "the output is inside the input"},
		{"inside through a link of the input", "link", "model/out", func(dir string) error { return os.Symlink("model", filepath.Join(dir, "link")) }, "the output is inside the input"},
		{"around through a link", "link", "around", func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, "around"), 0o777); err != nil {
				return err
			}
			if err := os.Rename(filepath.Join(dir, "model"), filepath.Join(dir, "around", "model")); err != nil {
				return err
			}
			return os.Symlink("around/model", filepath.Join(dir, "link"))
		}, "is inside the output"},
		{"no folder for it", "model", "nowhere/out", nil, "no such file or directory"},
		{"a file", "model", "file", func(dir string) error { return os.WriteFile(filepath.Join(dir, "file"), nil, 0o666) }, "file: is a file, expected the name of a folder"},
		{"a link to nothing", "model", "link", func(dir string) error { return os.Symlink("nowhere", filepath.Join(dir, "link")) }, "link"},
		{"a folder with other files", "model", "other", func(dir string) error {
			put(t, filepath.Join(dir, "other", "thesis.txt"), []byte("years of work"))
			return nil
		}, "the output exists already (use --force to replace it)"},
		{"a folder with the state of none", "model", "other", func(dir string) error {
			put(t, filepath.Join(dir, "other", ".qinsconv"), []byte("a file"))
			return nil
		}, "is in the way of a folder"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range model {
				put(t, filepath.Join(dir, "model", filepath.FromSlash(name)), data)
			}
			if c.build != nil {
				if err := c.build(dir); err != nil {
					t.Fatal(err)
				}
			}
			before := mustTree(t, dir)
			in, out := filepath.Join(dir, c.in), filepath.Join(dir, c.out)
			for what, job := range map[string]func() error{
				"convert": func() error {
					_, err := convert.ConvertDir(t.Context(), in, out, convert.Options{})
					return err
				},
				"batch": func() error {
					if c.name == "a folder with other files" || c.name == "no folder for it" {
						return errors.New(c.says) // a batch adds to what is there, and makes what is not
					}
					_, err := convert.Batch(t.Context(), in, out, convert.Options{})
					return err
				},
			} {
				if err := job(); err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v, expected %s", what, err, c.says)
				}
				sameTree(t, what, mustTree(t, dir), before)
			}
		})
	}
}

// escapeTensors are those of an escape vector's model.
var escapeTensors = []string{"a.weight", "b.weight"}

// TestEscapes sends models whose paths and links lead elsewhere through
// everything that reads folders. What is outside stays as it is.
func TestEscapes(t *testing.T) {
	for _, v := range fixtures.EscapeVectors() {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			dir, outs := t.TempDir(), t.TempDir()
			if err := v.Build(dir); errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			before := mustTree(t, dir)
			model := filepath.Join(dir, fixtures.EscapeModel)
			out := filepath.Join(outs, "out")
			_, planned := convert.PlanDir(t.Context(), model, convert.Options{})
			r, converted := convert.ConvertDir(t.Context(), model, out, convert.Options{})
			b, batch := convert.Batch(t.Context(), model, filepath.Join(outs, "batch"), convert.Options{})
			if batch == nil && b.Failed > 0 {
				batch = errors.New(b.Models[0].Error)
			}
			sameTree(t, "what was there", mustTree(t, dir), before)
			if v.Verdict == fixtures.Reject {
				for what, err := range map[string]error{"plan": planned, "convert": converted, "batch": batch} {
					if err == nil || !strings.Contains(err.Error(), v.Contains) {
						t.Errorf("%s: %v, expected an error about %s", what, err, v.Contains)
					}
				}
				for name, about := range mustTree(t, outs) {
					if !strings.HasPrefix(about, "d") {
						t.Errorf("%s was written", name)
					}
				}
				return
			}
			for what, err := range map[string]error{"plan": planned, "convert": converted, "batch": batch} {
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			var names []string
			for _, f := range r.Manifest.Files {
				for _, x := range f.Tensors {
					names = append(names, x.Name)
				}
			}
			if slices.Sort(names); fmt.Sprint(names) != fmt.Sprint(escapeTensors) {
				t.Errorf("tensors %q, expected %q", names, escapeTensors)
			}
			for name, about := range mustTree(t, outs) {
				if strings.HasPrefix(about, "L") {
					t.Errorf("%s is a link", name)
				}
			}
			sameTree(t, "the batch", mustTree(t, filepath.Join(outs, "batch")), mustTree(t, out))
			expectVerified(t, out, model)
			back := filepath.Join(outs, "back")
			if err := convert.DecodeDir(t.Context(), out, back, convert.Options{}); err != nil {
				t.Fatal(err)
			}
			if names, want := fileNames(t, back), followed(t, model); fmt.Sprint(names) != fmt.Sprint(want) {
				t.Errorf("decoded %q, expected %q", names, want)
			}
			sameTree(t, "what was there", mustTree(t, dir), before)
		})
	}
}

// followed lists the files below a folder, links to folders included.
func followed(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	var walk func(folder string)
	walk = func(folder string) {
		entries, err := os.ReadDir(filepath.Join(dir, folder))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := filepath.Join(folder, e.Name())
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				walk(name)
			} else {
				names = append(names, filepath.ToSlash(name))
			}
		}
	}
	walk("")
	slices.Sort(names)
	return names
}

// TestEscapesOfOutputs gives manifests and indices of converted folders names
// that lead elsewhere.
func TestEscapesOfOutputs(t *testing.T) {
	in := writeFiles(t, map[string][]byte{"x.safetensors": packed(t, nil, weight("a.weight", 1)), "y.safetensors": packed(t, nil, weight("b.weight", 2)), "notes.txt": []byte("x"),
		"model.safetensors.index.json": indexOf(t, map[string][]byte{"x.safetensors": packed(t, nil, weight("a.weight", 1)), "y.safetensors": packed(t, nil, weight("b.weight", 2))})})
	whole := filepath.Join(t.TempDir(), "out")
	if _, err := convert.ConvertDir(t.Context(), in, whole, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	names := fileNames(t, whole)
	type change struct {
		file string
		text func(t *testing.T, path string) []byte
	}
	resealed := func(set func(m *convert.DirManifest, path string)) func(t *testing.T, path string) []byte {
		return func(t *testing.T, path string) []byte {
			m, err := convert.ReadDirManifest(filepath.Join(whole, convert.DirManifestName))
			if err != nil {
				t.Fatal(err)
			}
			set(m, path)
			return convert.SealDirManifest(t, m)
		}
	}
	for what, c := range map[string]change{
		"index": {"model.qins.index.json", func(t *testing.T, path string) []byte {
			quoted, err := json.Marshal(path)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Appendf(nil, `{"metadata": {}, "weight_map": {"a.weight": "x.qins", "b.weight": %s}}`, quoted)
		}},
		"output":    {convert.DirManifestName, resealed(func(m *convert.DirManifest, path string) { m.Files[0].Output.Name = path })},
		"source":    {convert.DirManifestName, resealed(func(m *convert.DirManifest, path string) { m.Files[0].Source.Name = path })},
		"side file": {convert.DirManifestName, resealed(func(m *convert.DirManifest, path string) { m.SideFiles[0].Name = path })},
	} {
		for _, path := range fixtures.EscapePaths() {
			t.Run(fmt.Sprintf("%s %q", what, path), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				out := filepath.Join(dir, fixtures.EscapeModel)
				for _, name := range names {
					put(t, filepath.Join(out, filepath.FromSlash(name)), mustRead(t, filepath.Join(whole, filepath.FromSlash(name))))
				}
				put(t, filepath.Join(out, c.file), c.text(t, path))
				put(t, filepath.Join(dir, "outside", "model-00002-of-00002.safetensors"), []byte("outside"))
				before := mustTree(t, dir)
				report, err := convert.Verify(t.Context(), out, convert.VerifyOptions{})
				if err == nil && report.Worst() == "" {
					t.Error("verify found nothing")
				}
				err = convert.DecodeDir(t.Context(), out, filepath.Join(dir, "back"), convert.Options{})
				var bad *format.Error
				if !errors.As(err, &bad) || bad.File != filepath.Join(out, c.file) {
					t.Errorf("decode: %v", err)
				}
				sameTree(t, "all", mustTree(t, dir), before)

				// A conversion to the folder makes it anew.
				if what == "output" {
					outside := mustTree(t, filepath.Join(dir, "outside"))
					if _, err := convert.ConvertDir(t.Context(), in, out, convert.Options{}); err != nil {
						t.Fatal(err)
					}
					sameTree(t, "again", mustTree(t, out), mustTree(t, whole))
					sameTree(t, "outside", mustTree(t, filepath.Join(dir, "outside")), outside)
				}
			})
		}
	}
}

// TestLooseRefused holds that a batch tells of loose files that it cannot
// convert, and converts the others.
func TestLooseRefused(t *testing.T) {
	a, b := packed(t, nil, weight("a.weight", 1)), packed(t, nil, weight("b.weight", 2))
	for name, c := range map[string]struct {
		files map[string][]byte
		made  []string
		says  string
	}{
		"two files that become one":                {map[string][]byte{"m.safetensors": a, "m.gguf": ggufOf(t)}, []string{"m"}, `two files would both become "m.qins"`},
		"a number too many":                        {map[string][]byte{"m-00000-of-00001.safetensors": a, "m-00001-of-00001.safetensors": b}, nil, "the file's number is not one of its set: found 0, expected 1 to 1"},
		"a missing part":                           {map[string][]byte{"m-00001-of-00002.safetensors": a, "n.safetensors": b}, []string{"n"}, "a file of the model is missing"},
		"a missing part of many":                   {map[string][]byte{"m-00001-of-9223372036854775807.gguf": ggufOf(t), "n.safetensors": b}, []string{"n"}, "m-00002-of-9223372036854775807.gguf: a file of the model is missing"},
		"a missing part, numbered with six digits": {map[string][]byte{"m-00001-of-000003.safetensors": a, "m-00003-of-000003.safetensors": b}, nil, "m-00002-of-000003.safetensors: a file of the model is missing"},
		"consolidated beside shards": {map[string][]byte{"consolidated.safetensors": a, "model-00001-of-00002.safetensors": a, "model-00002-of-00002.safetensors": b, "n.safetensors": b, "m.gguf": ggufOf(t)}, []string{"m", "n"},
			"the folder holds the same model twice, it seems: found consolidated.safetensors beside model-00002-of-00002.safetensors (choose with --weights 'consolidated*' or --weights 'model-*.safetensors')"},
		"consolidated shards beside a file": {map[string][]byte{"consolidated-00001-of-00001.safetensors": a, "model.safetensors": a}, nil, "(choose with --weights 'consolidated*' or --weights 'model.safetensors')"},
		"a bad file":                        {map[string][]byte{"bad.safetensors": []byte("bad"), "n.safetensors": b}, []string{"n"}, "bad.safetensors: "},
	} {
		t.Run(name, func(t *testing.T) {
			in := writeFiles(t, nil)
			for name, data := range c.files {
				put(t, filepath.Join(in, "sub", name), data)
			}
			dir := t.TempDir()
			r, err := convert.Batch(t.Context(), in, filepath.Join(dir, "out"), convert.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if r.Failed != 1 || len(r.Models) != len(c.made)+1 {
				t.Errorf("%d of %d failed, expected 1 of %d", r.Failed, len(r.Models), len(c.made)+1)
			}
			for _, m := range r.Models {
				if (m.Status == convert.ModelFailed) != (m.Error != "") || !strings.Contains(c.says, m.Error) && !strings.Contains(m.Error, c.says) {
					t.Errorf("%+v, expected %s", m, c.says)
				}
			}
			var want []string
			for _, name := range c.made {
				want = append(want, "out/sub/"+name+".qins", "out/sub/"+name+".qins.manifest.json")
			}
			if names := fileNames(t, dir); !slices.Equal(names, want) {
				t.Errorf("made %q, expected %q", names, want)
			}
		})
	}
}
