package convert_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// statuses converts a folder and lists what became of each file, by its output's
// base name, with the warnings.
func statuses(t testing.TB, in, out string, opts convert.Options) (files map[string]convert.FileStatus, warnings []string, err error) {
	t.Helper()
	files = map[string]convert.FileStatus{}
	events := opts.Events
	opts.Events = func(e convert.Event) {
		switch e := e.(type) {
		case convert.FileDone:
			files[filepath.Base(e.Out)] = e.Status
		case convert.Warning:
			warnings = append(warnings, e.Message)
		}
		if events != nil {
			events(e)
		}
	}
	_, err = convert.ConvertDir(t.Context(), in, out, opts)
	return files, warnings, err
}

// TestResume converts a folder again after something changed in it, or in the
// output. What is redone is what had to be, and the result that of a conversion
// to an empty folder.
func TestResume(t *testing.T) {
	const (
		c = convert.Converted
		u = convert.Unchanged
	)
	config := func(rows int) []byte { return fmt.Appendf(nil, "{\n  \"vocab_size\": %d\n}\n", rows) }
	shard := func(tensor string, seed uint64) []byte { return packed(t, nil, weight(tensor, seed)) }
	rows := packed(t, nil, spec{name: "rows.weight", dtype: format.F32, shape: format.Shape{48, 32}, seed: 3})
	source := map[string][]byte{"a.safetensors": shard("a.weight", 1), "b.safetensors": shard("b.weight", 2), "c.safetensors": rows,
		"config.json": config(1), "tokenizer.json": []byte("{}"), "extra/deep/notes.txt": []byte("x"), "extra/stays.txt": nil}
	type change func(t *testing.T, in, out string) error
	write := func(name string, data []byte) change {
		return func(t *testing.T, in, _ string) error { put(t, filepath.Join(in, name), data); return nil }
	}
	changed := func(name string, change func(data []byte) []byte) change {
		return func(t *testing.T, _, out string) error {
			path := filepath.Join(out, name)
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			put(t, path, change(mustRead(t, path)))
			return os.Chtimes(path, time.Time{}, info.ModTime()) // so that only the bytes tell
		}
	}
	remove := func(name string) change {
		return func(t *testing.T, _, out string) error { return os.Remove(filepath.Join(out, name)) }
	}
	for _, k := range []struct {
		name    string
		change  change
		a, b, c convert.FileStatus
		warning string
	}{
		{"nothing", func(*testing.T, string, string) error { return nil }, u, u, u, ""},
		{"source touched", func(_ *testing.T, in, _ string) error {
			return os.Chtimes(filepath.Join(in, "a.safetensors"), time.Time{}, time.Now().Add(time.Hour))
		}, u, u, u, ""},
		{"source of the same size, older", func(t *testing.T, in, _ string) error {
			path := filepath.Join(in, "b.safetensors")
			put(t, path, shard("b.weight", 22))
			return os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour))
		}, u, c, u, ""},
		{"source of another size", write("a.safetensors", packed(t, nil, weight("a.weight", 1), weight("a2.weight", 4))), c, u, u, ""},
		{"source with another name for the same bytes", write("a.safetensors", shard("A.weight", 1)), c, u, u, ""},
		{"source that is now tied", write("b.safetensors", shard("b.weight", 1)), u, c, u, ""},
		{"rows are the vocabulary's", write("config.json", config(48)), u, u, c, ""},
		{"side file changed", write("tokenizer.json", []byte(`{"a": 1}`)), u, u, u, ""},
		{"side file changed in the output", changed("tokenizer.json", func([]byte) []byte { return []byte("[]") }), u, u, u, ""},
		{"side file removed from the source", func(_ *testing.T, in, _ string) error { return os.RemoveAll(filepath.Join(in, "extra", "deep")) }, u, u, u, ""},
		{"side file removed and a source changed", func(t *testing.T, in, _ string) error {
			put(t, filepath.Join(in, "a.safetensors"), shard("a.weight", 11))
			return os.Remove(filepath.Join(in, "extra", "deep", "notes.txt"))
		}, c, u, u, ""},
		{"side file added", write("more/added.txt", []byte("added")), u, u, u, ""},
		{"output truncated", changed("b.qins", func(b []byte) []byte { return b[:len(b)-1] }), u, c, u, ""},
		{"output emptied", changed("b.qins", func([]byte) []byte { return nil }), u, c, u, ""},
		{"output longer", changed("b.qins", func(b []byte) []byte { return append(b, 0) }), u, c, u, ""},
		{"bit flipped", changed("b.qins", func(b []byte) []byte { b[len(b)-5] ^= 4; return b }), u, c, u, ""},
		{"output removed", remove("b.qins"), u, c, u, ""},
		{"output a link", func(_ *testing.T, _, out string) error {
			elsewhere := filepath.Join(filepath.Dir(out), "elsewhere.qins")
			if err := os.Rename(filepath.Join(out, "b.qins"), elsewhere); err != nil {
				return err
			}
			return os.Symlink(elsewhere, filepath.Join(out, "b.qins"))
		}, u, c, u, ""},
		{"all outputs removed", func(_ *testing.T, _, out string) error {
			return errors.Join(os.Remove(filepath.Join(out, "a.qins")), os.Remove(filepath.Join(out, "b.qins")), os.Remove(filepath.Join(out, "c.qins")))
		}, c, c, c, ""},
		{"temporary files left", func(t *testing.T, _, out string) error {
			for _, name := range []string{".b.qins", ".gone.qins", "extra/.stays.txt", ".b.qins.manifest.json"} {
				put(t, filepath.Join(out, name+".qinsconv-tmp"), []byte("half"))
			}
			return nil
		}, u, u, u, ""},
		{"configuration of the output removed", remove("config.json"), u, u, u, ""},
		{"manifest removed", remove(convert.DirManifestName), c, c, c, ""}, // but there is the state of an unfinished one, see below
		{"manifest damaged", changed(convert.DirManifestName, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), c, c, c, "all files are converted again"},
		{"manifest emptied", changed(convert.DirManifestName, func([]byte) []byte { return nil }), c, c, c, "all files are converted again"},
		{"manifest of another tool", changed(convert.DirManifestName, func(b []byte) []byte {
			return bytes.Replace(b, []byte(convert.Tool), []byte("qinsconv 0.0.0"), 1)
		}), c, c, c, "all files are converted again"},
		{"shard removed", func(_ *testing.T, in, _ string) error { return os.Remove(filepath.Join(in, "c.safetensors")) }, u, u, "", ""},
		{"shard removed and another changed", func(t *testing.T, in, _ string) error {
			put(t, filepath.Join(in, "a.safetensors"), shard("a.weight", 11))
			return os.Remove(filepath.Join(in, "c.safetensors"))
		}, c, u, "", ""},
		{"shard moved to a folder", func(t *testing.T, in, _ string) error {
			if err := os.Mkdir(filepath.Join(in, "sub"), 0o777); err != nil {
				return err
			}
			return os.Rename(filepath.Join(in, "c.safetensors"), filepath.Join(in, "sub", "c.safetensors"))
		}, u, u, c, ""},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			in, dir := writeFiles(t, source), t.TempDir()
			out, fresh := filepath.Join(dir, "out"), filepath.Join(dir, "fresh")
			if _, _, err := statuses(t, in, out, convert.Options{}); err != nil {
				t.Fatal(err)
			}
			if err := k.change(t, in, out); err != nil {
				t.Fatal(err)
			}
			var force bool
			if k.name == "manifest removed" {
				_, _, err := statuses(t, in, out, convert.Options{})
				var exists *convert.ExistsError
				if !errors.As(err, &exists) {
					t.Errorf("%v, expected that the output exists", err)
				}
				force = true
			}
			got, warnings, err := statuses(t, in, out, convert.Options{Force: force})
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]convert.FileStatus{"a.qins": k.a, "b.qins": k.b, "c.qins": k.c}
			if k.c == "" {
				delete(want, "c.qins")
			}
			if !maps.Equal(got, want) {
				t.Errorf("found %v, expected %v", got, want)
			}
			if k.warning == "" && len(warnings) > 0 || k.warning != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], k.warning)) {
				t.Errorf("warnings %q, expected %q", warnings, k.warning)
			}
			if _, _, err := statuses(t, in, fresh, convert.Options{}); err != nil {
				t.Fatal(err)
			}
			sameTree(t, "the output", mustTree(t, out), mustTree(t, fresh))
			expectVerified(t, out, in)

			again, _, err := statuses(t, in, out, convert.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for name, status := range again {
				if status != u {
					t.Errorf("once more: %s was %s", name, status)
				}
			}
		})
	}
}

// TestResumeOptions converts again with other options.
func TestResumeOptions(t *testing.T) {
	in := writeFiles(t, map[string][]byte{"a.safetensors": packed(t, nil, weight("a.weight", 1)), "b.safetensors": packed(t, nil, weight("b.weight", 2))})
	rule, err := convert.NewRule(false, "^a")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, k := range map[string]struct {
		opts convert.Options
		says string
	}{
		"layout": {convert.Options{Layout: "packed"}, "was converted with other options: found --layout compact --codec log, expected --layout packed --codec log (use --force to convert it again)"},
		"rules":  {convert.Options{Rules: []convert.Rule{rule}}, "found --layout compact --codec log, expected --layout compact --codec log --exclude ^a"},
	} {
		t.Run(name, func(t *testing.T) {
			out, fresh := filepath.Join(dir, name), filepath.Join(dir, name+" fresh")
			for _, from := range []string{"finished", "unfinished"} {
				if _, _, err := statuses(t, in, out, convert.Options{Force: true}); err != nil {
					t.Fatal(err)
				}
				if from == "unfinished" {
					if err := os.RemoveAll(out); err != nil {
						t.Fatal(err)
					}
					// The first file is finished, the second one is not.
					ctx, cancel := context.WithCancel(t.Context())
					_, err := convert.ConvertDir(ctx, in, out, convert.Options{Events: func(e convert.Event) {
						if _, ok := e.(convert.FileDone); ok {
							cancel()
						}
					}})
					cancel()
					if !errors.Is(err, context.Canceled) {
						t.Fatal(err)
					}
				}
				before := mustTree(t, out)
				_, _, err := statuses(t, in, out, k.opts)
				var differ *convert.OptionsDifferError
				if !errors.As(err, &differ) || !strings.Contains(err.Error(), k.says) {
					t.Errorf("%s: %v, expected %s", from, err, k.says)
				}
				sameTree(t, from, mustTree(t, out), before)
				forced := k.opts
				forced.Force = true
				got, _, err := statuses(t, in, out, forced)
				if err != nil || got["a.qins"] != convert.Converted || got["b.qins"] != convert.Converted {
					t.Errorf("%s: with force %v, %v", from, got, err)
				}
				if _, _, err := statuses(t, in, fresh, k.opts); err != nil {
					t.Fatal(err)
				}
				sameTree(t, from, mustTree(t, out), mustTree(t, fresh))
			}
		})
	}
}

// TestStopped cancels a conversion after each file. Decoding and verification
// know the folder for unfinished; the next run ends it.
func TestStopped(t *testing.T) {
	in := filepath.Join(t.TempDir(), "model")
	if err := fixtures.WriteManyShards(in, 4, 2, 2048); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	fresh := filepath.Join(dir, "fresh")
	if _, _, err := statuses(t, in, fresh, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	for at := range 4 {
		out := filepath.Join(dir, fmt.Sprint(at))
		ctx, cancel := context.WithCancel(t.Context())
		finished := 0
		_, err := convert.ConvertDir(ctx, in, out, convert.Options{Events: func(e convert.Event) {
			if _, ok := e.(convert.FileDone); ok {
				finished++
			} else if _, ok := e.(convert.TensorDone); ok && finished == at {
				cancel()
			}
		}})
		cancel()
		var stopped *convert.StoppedError
		if !errors.As(err, &stopped) || !errors.Is(err, context.Canceled) || finished != at {
			t.Errorf("after %d files: %v, with %d finished", at, err, finished)
		}
		if at == 0 {
			if _, err := os.Lstat(out); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a folder was left behind: %v", err)
			}
		} else {
			for _, name := range fileNames(t, out) {
				if strings.HasPrefix(filepath.Base(name), ".") {
					t.Errorf("%s was left behind", name)
				}
			}
			if err := convert.DecodeDir(t.Context(), out, filepath.Join(dir, "back"), convert.Options{}); err == nil || !strings.Contains(err.Error(), "its conversion is not finished (run it again, or qinsconv batch --finish)") {
				t.Errorf("decode: %v", err)
			}
			report, err := convert.Verify(t.Context(), out, convert.VerifyOptions{})
			if err != nil || !slices.ContainsFunc(report.Findings, func(f convert.Finding) bool { return strings.Contains(f.Message, "was interrupted: run it again") }) {
				t.Errorf("verify: %+v, %v", report.Findings, err)
			}
		}
		got, _, err := statuses(t, in, out, convert.Options{})
		if err != nil {
			t.Fatal(err)
		}
		unchanged := 0
		for _, status := range got {
			if status == convert.Unchanged {
				unchanged++
			}
		}
		if unchanged != at || len(got) != 4 {
			t.Errorf("after %d files: %v", at, got)
		}
		sameTree(t, "the output", mustTree(t, out), mustTree(t, fresh))
	}

	// What was finished before it was stopped, and is gone from the source.
	out := filepath.Join(dir, "less")
	loose := writeFiles(t, map[string][]byte{"a.safetensors": packed(t, nil, weight("a.weight", 1)), "sub/b.safetensors": packed(t, nil, weight("b.weight", 2)), "z.safetensors": packed(t, nil, weight("z.weight", 3))})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	finished := 0
	_, err := convert.ConvertDir(ctx, loose, out, convert.Options{Events: func(e convert.Event) {
		if _, ok := e.(convert.FileDone); ok {
			if finished++; finished == 2 {
				cancel()
			}
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(loose, "sub")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := statuses(t, loose, out, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	expectFiles(t, out, "a.qins", "qins-manifest.json", "z.qins")
}

// TestHubCache converts a snapshot of a hub cache, the repository and the whole
// cache, none of which changes.
func TestHubCache(t *testing.T) {
	cache := t.TempDir()
	snapshot, err := fixtures.WriteHubCache(cache, "acme", "toy", fixtures.SmallDir(format.F16))
	if err != nil {
		t.Fatal(err)
	}
	other := fixtures.SmallDir(format.BF16)
	other.Shards = 1
	if _, err := fixtures.WriteHubCache(cache, "acme", "other", other); err != nil {
		t.Fatal(err)
	}
	before := mustTree(t, cache)
	commit := filepath.Base(snapshot)
	j := travel(t, snapshot, convert.Options{})
	want := mustTree(t, j.out)
	for name, about := range want {
		if strings.HasPrefix(about, "L") {
			t.Errorf("%s is a link", name)
		}
	}
	for what, k := range map[string]struct {
		src, at string
		models  int
	}{
		"cache":      {cache, "models--acme--toy/snapshots/" + commit, 2},
		"repository": {filepath.Join(cache, "models--acme--toy"), "snapshots/" + commit, 1},
		"snapshots":  {filepath.Dir(snapshot), commit, 1},
		"snapshot":   {snapshot, ".", 1},
	} {
		dst := filepath.Join(t.TempDir(), "deep", "dst")
		r, err := convert.Batch(t.Context(), k.src, dst, convert.Options{})
		if err != nil || r.Failed > 0 || len(r.Models) != k.models {
			t.Fatalf("%s: %+v, %v", what, r, err)
		}
		sameTree(t, what, mustTree(t, filepath.Join(dst, filepath.FromSlash(k.at))), want)
		expectVerified(t, dst, k.src)
		for name := range mustTree(t, dst) {
			if strings.Contains(name, "blobs") || strings.Contains(name, "refs") {
				t.Errorf("%s: %s was made", what, name)
			}
		}
		if r, err := convert.Batch(t.Context(), k.src, dst, convert.Options{}); err != nil || r.Models[0].Status != convert.ModelUnchanged {
			t.Errorf("%s: again: %+v, %v", what, r, err)
		}
	}
	sameTree(t, "the cache", mustTree(t, cache), before)

	// A download that is not finished.
	var blob string
	for name, about := range before {
		if strings.HasSuffix(name, "-00002-of-00003.safetensors") {
			_, target, _ := strings.Cut(about, " to ")
			blob = filepath.Join(cache, filepath.Dir(name), target)
		}
	}
	if err := os.Rename(blob, blob+".incomplete"); err != nil {
		t.Fatal(err)
	}
	r, err := convert.Batch(t.Context(), cache, filepath.Join(t.TempDir(), "dst"), convert.Options{})
	if err != nil || r.Failed != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if m := r.Models[1]; !strings.Contains(m.Error, "the link leads to no file") {
		t.Errorf("%+v", m)
	}
}
