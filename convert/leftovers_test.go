package convert_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// smallModel writes a folder of two files of weights with some beside them.
func smallModel(t *testing.T) string {
	t.Helper()
	return writeFiles(t, map[string][]byte{"a.safetensors": packed(t, nil, weight("a.weight", 1)), "b.safetensors": packed(t, nil, weight("b.weight", 2)),
		"config.json": []byte("{}"), "notes/README.md": []byte("read me")})
}

func convertDir(t *testing.T, in, out string, opts convert.Options) {
	t.Helper()
	if _, err := convert.ConvertDir(t.Context(), in, out, opts); err != nil {
		t.Fatal(err)
	}
}

// TestSideFileGone removes a file from a model while its conversion, begun anew,
// is not finished. It goes from the output too.
func TestSideFileGone(t *testing.T) {
	in := smallModel(t)
	dir := t.TempDir()
	out, fresh := filepath.Join(dir, "out"), filepath.Join(dir, "fresh")
	convertDir(t, in, out, convert.Options{})
	put(t, filepath.Join(in, "a.safetensors"), packed(t, nil, weight("a.weight", 3)))
	put(t, filepath.Join(in, "b.safetensors"), packed(t, nil, weight("b.weight", 4)))
	convertDir(t, in, out, convert.Options{Part: convert.Part{Index: 1, Count: 2}})
	if _, err := os.Lstat(filepath.Join(out, "notes", "README.md")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(in, "notes")); err != nil {
		t.Fatal(err)
	}
	convertDir(t, in, out, convert.Options{})
	convertDir(t, in, fresh, convert.Options{})
	sameTree(t, "after the second run", mustTree(t, out), mustTree(t, fresh))
}

// TestTemporaryInSource has a model hold what a killed run left. It is no part of
// the model.
func TestTemporaryInSource(t *testing.T) {
	in := smallModel(t)
	dir := t.TempDir()
	out, fresh := filepath.Join(dir, "out"), filepath.Join(dir, "fresh")
	convertDir(t, in, fresh, convert.Options{})
	put(t, filepath.Join(in, ".config.json.qinsconv-tmp"), []byte("junk"))
	convertDir(t, in, out, convert.Options{})
	sameTree(t, "the output", mustTree(t, out), mustTree(t, fresh))
	report, err := convert.Verify(t.Context(), out, convert.VerifyOptions{Against: in})
	if err != nil || !report.OK() {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestHubCacheBelow has a folder with a hub cache in it, of which every file would
// be carried over under two names.
func TestHubCacheBelow(t *testing.T) {
	in := t.TempDir()
	if _, err := fixtures.WriteHubCache(in, "acme", "toy", fixtures.SmallDir(format.BF16)); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	_, err := convert.ConvertDir(t.Context(), in, out, convert.Options{})
	var bad *format.Error
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "models--acme--toy: this is a hub cache") {
		t.Errorf("%v", err)
	}
}

// TestDecodeLeftovers decodes and converts to folders in which a killed run of
// decode left its work.
func TestDecodeLeftovers(t *testing.T) {
	in := smallModel(t)
	dir := t.TempDir()
	out, back, again := filepath.Join(dir, "out"), filepath.Join(dir, "back"), filepath.Join(dir, "again")
	convertDir(t, in, out, convert.Options{})
	if err := convert.DecodeDir(t.Context(), out, back, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	want, converted := mustTree(t, back), mustTree(t, out)
	// Some of the old files were moved away already, and some new ones in.
	put(t, filepath.Join(back, ".qinsconv", "replaced", "config.json"), []byte("old"))
	put(t, filepath.Join(back, ".qinsconv", "folder", "a.safetensors"), []byte("new"))
	if err := os.Remove(filepath.Join(back, "config.json")); err != nil {
		t.Fatal(err)
	}
	if err := convert.DecodeDir(t.Context(), out, back, convert.Options{Force: true}); err != nil {
		t.Fatal(err)
	}
	sameTree(t, "decoded", mustTree(t, back), want)
	put(t, filepath.Join(again, ".qinsconv", "folder", "a.safetensors"), []byte("new"))
	convertDir(t, in, again, convert.Options{})
	sameTree(t, "converted", mustTree(t, again), converted)
}

// TestDecodeToLink decodes to a folder by a link to it.
func TestDecodeToLink(t *testing.T) {
	in := smallModel(t)
	dir := t.TempDir()
	out, folder, link := filepath.Join(dir, "out"), filepath.Join(dir, "folder"), filepath.Join(dir, "link")
	convertDir(t, in, out, convert.Options{})
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	for _, force := range []bool{false, true} {
		if err := convert.DecodeDir(t.Context(), out, link, convert.Options{Force: force}); err != nil {
			t.Fatal(err)
		}
		expectFiles(t, folder, "a.safetensors", "b.safetensors", "config.json", "notes")
	}
	put(t, filepath.Join(folder, "other"), nil)
	if err := convert.DecodeDir(t.Context(), out, link, convert.Options{Force: true}); err == nil || !strings.Contains(err.Error(), "would be lost: other") {
		t.Errorf("%v", err)
	}
}

// TestLongNames carries over a file with the longest name that there can be.
func TestLongNames(t *testing.T) {
	in := smallModel(t)
	name := strings.Repeat("n", 255)
	put(t, filepath.Join(in, name), []byte("x"))
	out := filepath.Join(t.TempDir(), "out")
	convertDir(t, in, out, convert.Options{})
	if got := mustRead(t, filepath.Join(out, name)); string(got) != "x" {
		t.Errorf("found %q", got)
	}
}
