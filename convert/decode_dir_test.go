package convert_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// TestDecodeDirRefused holds that folders which are not a whole converted model
// are not decoded, and that nothing is left of the attempt.
func TestDecodeDirRefused(t *testing.T) {
	in := writeFiles(t, map[string][]byte{"a.safetensors": packed(t, nil, weight("a.weight", 1)), "sub/b.safetensors": packed(t, nil, weight("b.weight", 2)),
		"config.json": []byte("{}"), "sub/model.safetensors.index.json": []byte(`{"weight_map": {"b.weight": "b.safetensors"}}`)})
	for name, c := range map[string]struct {
		change func(out string) error
		says   string
	}{
		"no weights":          {func(out string) error { return errors.Join(os.RemoveAll(out), os.Mkdir(out, 0o777)) }, "there are no .qins files"},
		"a file missing":      {func(out string) error { return os.Remove(filepath.Join(out, "a.qins")) }, "a.qins: a file that the manifest lists is missing"},
		"a side file missing": {func(out string) error { return os.Remove(filepath.Join(out, "config.json")) }, "config.json: a file that the manifest lists is missing"},
		"a file of the index missing": {func(out string) error {
			return errors.Join(os.Remove(filepath.Join(out, "sub", "b.qins")), os.Remove(filepath.Join(out, "qins-manifest.json")))
		}, "sub/model.qins.index.json: a file that the index names is missing: found no b.qins"},
		"a changed manifest": {func(out string) error {
			return os.WriteFile(filepath.Join(out, "qins-manifest.json"), []byte("{}"), 0o666)
		}, "qins-manifest.json: "},
		"a damaged file": {func(out string) error {
			path := filepath.Join(out, "sub", "b.qins")
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data[len(data)-9] ^= 1
			return os.WriteFile(path, data, 0o666)
		}, "b.qins: "},
		"a truncated file": {func(out string) error { return os.Truncate(filepath.Join(out, "a.qins"), 100) }, "a.qins: "},
		"a file that is none of ours": {func(out string) error {
			return os.WriteFile(filepath.Join(out, "c.qins"), []byte("no"), 0o666)
		}, "c.qins: "},
		"weights beside what becomes weights of that name": {func(out string) error {
			return os.WriteFile(filepath.Join(out, "a.safetensors"), packed(t, nil, weight("other", 1)), 0o666)
		}, `a.safetensors: a.qins becomes a file of the same name: found "a.safetensors"`},
		"two files of one source": {func(out string) error {
			path := filepath.Join(out, convert.DirManifestName)
			m, err := convert.ReadDirManifest(path)
			if err != nil {
				return err
			}
			m.Files[1].Source.Name = m.Files[0].Source.Name
			return os.WriteFile(path, convert.SealDirManifest(t, m), 0o666)
		}, `sub/b.qins: a.qins becomes a file of the same name`},
		"an index beside what becomes an index of that name": {func(out string) error {
			return os.WriteFile(filepath.Join(out, "sub", "model.safetensors.index.json"), []byte("{}"), 0o666)
		}, `"sub/model.safetensors.index.json"`},
		"a link of a folder that leads outside": {func(out string) error { return os.Symlink("..", filepath.Join(out, "up")) }, "the link leads to a folder outside"},
		"a link to nothing":                     {func(out string) error { return os.Symlink("nowhere", filepath.Join(out, "up")) }, "the link leads to no file"},
		"an unfinished conversion":              {func(out string) error { return os.Mkdir(filepath.Join(out, ".qinsconv"), 0o777) }, "its conversion is not finished"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			out := filepath.Join(dir, "out")
			if _, err := convert.ConvertDir(t.Context(), in, out, convert.Options{}); err != nil {
				t.Fatal(err)
			}
			if err := c.change(out); err != nil {
				t.Fatal(err)
			}
			before := mustTree(t, dir)
			err := convert.DecodeDir(t.Context(), out, filepath.Join(dir, "back"), convert.Options{})
			var bad *format.Error
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, expected %s", err, c.says)
			}
			sameTree(t, "all", mustTree(t, dir), before)
			report, err := convert.Verify(t.Context(), out, convert.VerifyOptions{})
			if err == nil && report.OK() {
				if name != "two files of one source" { // it does not know how they are named
					t.Error("verify found nothing")
				}
			}
		})
	}
}

// TestDecodeWrongKind gives a file where a folder is expected, and the reverse.
func TestDecodeWrongKind(t *testing.T) {
	dir := t.TempDir()
	file, out := filepath.Join(dir, "file.qins"), filepath.Join(dir, "out")
	put(t, file, nil)
	err := convert.DecodeDir(t.Context(), file, out, convert.Options{})
	var bad *format.Error
	if !errors.As(err, &bad) || err.Error() != file+": this is a file, expected the folder of a converted model" {
		t.Errorf("a file: %v", err)
	}
	err = convert.DecodeDir(t.Context(), filepath.Join(dir, "none"), out, convert.Options{})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	err = convert.Decode(t.Context(), dir, out, convert.Options{})
	if err == nil || err.Error() != dir+": is a directory, expected a file" {
		t.Errorf("a folder: %v", err)
	}
	expectFiles(t, dir, "file.qins")
}

// TestDecodeDirCancelled cancels decoding at each file.
func TestDecodeDirCancelled(t *testing.T) {
	in, out := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "out")
	if err := fixtures.WriteManyShards(in, 3, 2, 2048); err != nil {
		t.Fatal(err)
	}
	if _, err := convert.ConvertDir(t.Context(), in, out, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	for at := range 3 {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		finished := 0
		err := convert.DecodeDir(ctx, out, filepath.Join(dir, "back"), convert.Options{Events: func(e convert.Event) {
			if _, ok := e.(convert.FileDone); ok {
				if finished++; finished > at {
					cancel()
				}
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after %d files: %v", at+1, err)
		}
		expectFiles(t, dir)
	}
}

// TestTrailingSlashes takes folders as shells complete them.
func TestTrailingSlashes(t *testing.T) {
	in := writeFiles(t, map[string][]byte{"a.safetensors": packed(t, nil, weight("a.weight", 1)), "config.json": []byte("{}")})
	dir := t.TempDir() + "/"
	if _, err := convert.ConvertDir(t.Context(), in+"/", dir+"out/", convert.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := convert.Batch(t.Context(), in+"/", dir+"dst/", convert.Options{}); err != nil {
		t.Fatal(err)
	}
	expectVerified(t, dir+"out/", in+"/")
	if err := convert.DecodeDir(t.Context(), dir+"out/", dir+"back/", convert.Options{}); err != nil {
		t.Fatal(err)
	}
	expectFiles(t, dir, "back", "dst", "out")
	t.Chdir(filepath.Dir(in))
	for _, out := range []string{"out", "./out", "../" + filepath.Base(filepath.Dir(in)) + "/out"} {
		if _, err := convert.ConvertDir(t.Context(), "model", out, convert.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	expectVerified(t, "out", "model")
	t.Chdir("out")
	expectVerified(t, ".", "../model")
	if err := convert.DecodeDir(t.Context(), ".", "../back", convert.Options{}); err != nil {
		t.Fatal(err)
	}
	expectFiles(t, "..", "back", "model", "out")
}
