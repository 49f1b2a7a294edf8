//go:build unix

package convert_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
)

// TestPermissions holds that who could not read a file of a model cannot read
// its copy either, there and back.
func TestPermissions(t *testing.T) {
	const name = "model.safetensors.index.json"
	shards := map[string][]byte{"x.safetensors": packed(t, nil, weight("a.weight", 1))}
	in := writeFiles(t, map[string][]byte{"x.safetensors": shards["x.safetensors"], name: indexOf(t, shards),
		"config.json": []byte("{}"), "token": []byte("secret"), "run.sh": []byte("#!/bin/sh\n"), "sealed": []byte("x"), "usual": nil})
	modes := map[string]fs.FileMode{"config.json": 0o600, name: 0o640, "token": 0o600, "run.sh": 0o755, "sealed": 0o400, "usual": 0o644}
	for name, mode := range modes {
		if err := os.Chmod(filepath.Join(in, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	out, back := filepath.Join(dir, "out"), filepath.Join(dir, "back")
	run := func() {
		t.Helper()
		if _, err := convert.ConvertDir(t.Context(), in, out, convert.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(folder string) {
		t.Helper()
		for name, mode := range modes {
			if folder == out && name == "model.safetensors.index.json" {
				name = "model.qins.index.json"
			}
			info, err := os.Stat(filepath.Join(folder, name))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != mode {
				t.Errorf("%s: %v, expected %v", name, info.Mode(), mode)
			}
		}
	}
	run()
	expect(out)
	// What a killed run left may have been open to all.
	if err := os.Remove(filepath.Join(out, "token")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(out, ".token.qinsconv-tmp"), []byte("x"))
	run()
	expect(out)
	if err := convert.DecodeDir(t.Context(), out, back, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	expect(back)
	// So may what an earlier version made.
	if err := os.Chmod(filepath.Join(out, "token"), 0o644); err != nil {
		t.Fatal(err)
	}
	run()
	expect(out)
}
