//go:build unix

package convert_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
)

// TestInputIsTemporary converts and decodes what a killed run left under the name
// that the output has until it is finished.
func TestInputIsTemporary(t *testing.T) {
	dir := t.TempDir()
	in, good := filepath.Join(dir, "in.safetensors"), filepath.Join(dir, "good.qins")
	put(t, in, fixtures.Small(fixtures.TieContent))
	if _, err := convert.Convert(t.Context(), in, good, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]func(from, to string) error{
		"in.safetensors": func(from, to string) error {
			_, err := convert.Convert(t.Context(), from, to, convert.Options{Force: true})
			return err
		},
		"good.qins": func(from, to string) error {
			return convert.Decode(t.Context(), from, to, convert.Options{Force: true})
		},
	} {
		data := mustRead(t, filepath.Join(dir, name))
		for _, temp := range []string{".y.qinsconv-tmp", ".y.manifest.json.qinsconv-tmp"} {
			folder := t.TempDir()
			from := filepath.Join(folder, temp)
			put(t, from, data)
			err := run(from, filepath.Join(folder, "y"))
			if temp == ".y.qinsconv-tmp" || name != "good.qins" { // which has no manifest
				if err == nil || !strings.Contains(err.Error(), "the output is the input") {
					t.Errorf("%s as %s: %v", name, temp, err)
				}
			}
			if got := mustRead(t, from); !bytes.Equal(got, data) {
				t.Errorf("%s as %s was changed", name, temp)
			}
		}
	}
}

// TestOutputIsSpecial has in the place of an output what is there for a purpose.
func TestOutputIsSpecial(t *testing.T) {
	dir := t.TempDir()
	in, good := filepath.Join(dir, "in.safetensors"), filepath.Join(dir, "good.qins")
	put(t, in, fixtures.Small(fixtures.TieContent))
	if _, err := convert.Convert(t.Context(), in, good, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	if err := syscall.Mkfifo(at("pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"link to a pipe": at("pipe"), "link to a folder": dir, "link to a device": os.DevNull} {
		if err := os.Symlink(to, at(name)); err != nil {
			t.Fatal(err)
		}
	}
	before := fileNames(t, folder)
	for _, name := range []string{"pipe", "link to a pipe", "link to a folder", "link to a device"} {
		for _, force := range []bool{false, true} {
			opts := convert.Options{Force: force}
			_, converted := convert.Convert(t.Context(), in, at(name), opts)
			for _, err := range []error{converted, convert.Decode(t.Context(), good, at(name), opts)} {
				if err == nil || !strings.Contains(err.Error(), "expected the name of") {
					t.Errorf("%s, force %v: %v", name, force, err)
				}
			}
			if info, err := os.Lstat(at(name)); err != nil || info.Mode().IsRegular() {
				t.Errorf("%s is now %v, %v", name, info.Mode(), err)
			}
		}
	}
	if after := fileNames(t, folder); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("there is now %q", after)
	}
}

// TestPermissionsOfFiles holds that who may not read a checkpoint may not read
// what is made of it.
func TestPermissionsOfFiles(t *testing.T) {
	for _, mode := range []fs.FileMode{0o600, 0o640, 0o644, 0o755, 0o444} {
		dir := t.TempDir()
		in, out, back := filepath.Join(dir, "in.safetensors"), filepath.Join(dir, "out.qins"), filepath.Join(dir, "back")
		put(t, in, fixtures.Small(fixtures.TieContent))
		if err := os.Chmod(in, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := convert.Convert(t.Context(), in, out, convert.Options{}); err != nil {
			t.Fatal(err)
		}
		if err := convert.Decode(t.Context(), out, back, convert.Options{}); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{out, convert.ManifestPath(out), back} {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got&^(mode|0o600) != 0 || got&0o111 != 0 {
				t.Errorf("%s has %v of a source with %v", filepath.Base(path), got, mode)
			}
		}
	}
}

// TestForeignTemporary has the temporary file of an output be a name of another
// file, which is not to be written to.
func TestForeignTemporary(t *testing.T) {
	dir := t.TempDir()
	in, out, precious := filepath.Join(dir, "in.safetensors"), filepath.Join(dir, "out.qins"), filepath.Join(dir, "precious")
	put(t, in, fixtures.Small(fixtures.TieContent))
	put(t, precious, []byte("precious"))
	if err := os.Link(precious, filepath.Join(dir, ".out.qins.qinsconv-tmp")); err != nil {
		t.Fatal(err)
	}
	if _, err := convert.Convert(t.Context(), in, out, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, precious); string(got) != "precious" {
		t.Error("it was written to")
	}
	expectFiles(t, dir, "in.safetensors", "out.qins", "out.qins.manifest.json", "precious")
}

// TestDecodeOver decodes over what it reads from, or beside what would then
// describe something else.
func TestDecodeOver(t *testing.T) {
	dir := t.TempDir()
	for name, data := range tieAcross(t) {
		put(t, filepath.Join(dir, name), data)
	}
	a, b := filepath.Join(dir, "a.qins"), filepath.Join(dir, "b.qins") // b's data is in a
	before := mustTree(t, dir)
	if err := convert.Decode(t.Context(), b, a, convert.Options{Force: true}); err == nil || !strings.Contains(err.Error(), "the output is the input") {
		t.Errorf("over what it reads: %v", err)
	}
	sameTree(t, "after that", mustTree(t, dir), before)
	other := filepath.Join(dir, "other.qins")
	put(t, convert.ManifestPath(other), []byte("{}"))
	if err := convert.Decode(t.Context(), a, other, convert.Options{Force: true}); err == nil || !strings.Contains(err.Error(), "other.qins.manifest.json: describes a .qins file") {
		t.Errorf("beside a manifest: %v", err)
	}
}
