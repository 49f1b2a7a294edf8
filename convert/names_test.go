package convert_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// TestNamesThatCollide has tensors named as the planes of another would be. That
// is said, by the plan too, before anything is written.
func TestNamesThatCollide(t *testing.T) {
	weight := func(name string) format.Tensor {
		return format.Tensor{Name: name, DType: format.F32, Shape: format.Shape{32, 32}}
	}
	byteOf := func(name string) format.Tensor {
		return format.Tensor{Name: name, DType: format.U8, Shape: format.Shape{1}}
	}
	include, err := convert.NewRule(true, "^a$")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		list []format.Tensor
		bad  string // the tensor that is named; none where all is well
	}{
		{"codes", []format.Tensor{weight("a.weight"), byteOf("a.stored")}, "a.weight"},
		{"signs", []format.Tensor{byteOf("a.sign"), weight("a.weight")}, "a.weight"},
		{"parameters", []format.Tensor{weight("a.weight"), byteOf("a.log_max")}, "a.weight"},
		{"two weights", []format.Tensor{weight("a"), weight("a.weight")}, "a.weight"},
		{"the module itself", []format.Tensor{weight("a.weight"), byteOf("a")}, ""},
		{"another ending", []format.Tensor{weight("a.weight"), byteOf("a.stored2"), byteOf("stored")}, ""},
	} {
		if err := safetensors.Place(c.list); err != nil {
			t.Fatal(err)
		}
		size := c.list[len(c.list)-1].Offset + c.list[len(c.list)-1].Size
		data := make([]byte, size)
		data[3], data[7], data[size-1] = 0x3c, 0x3d, 0x3e // no tensor is the copy of another
		in := filepath.Join(t.TempDir(), "in.safetensors")
		if err := os.WriteFile(in, fixtures.Pack(nil, c.list, data), 0o666); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for _, layout := range qins.Layouts() {
			opts := convert.Options{Layout: layout, Rules: []convert.Rule{include}, Force: true}
			_, planned := convert.NewPlan(t.Context(), in, opts)
			_, converted := convert.Convert(t.Context(), in, filepath.Join(dir, "m.qins"), opts)
			for _, err := range []error{planned, converted} {
				var bad *format.Error
				switch {
				case c.bad == "" && err != nil:
					t.Errorf("%s: %v", c.name, err)
				case c.bad != "" && (!errors.As(err, &bad) || bad.Tensor != c.bad || bad.File != in):
					t.Errorf("%s: %v, expected an error about %q in %s", c.name, err, c.bad, in)
				}
			}
			if c.bad != "" {
				expectEmpty(t, dir)
			}
		}
	}

	// A source with an entry of metadata under the name that the file needs.
	in := filepath.Join(t.TempDir(), "in.safetensors")
	file := fixtures.Pack([]format.Entry{{Key: qins.MetadataKey, Value: "mine"}}, nil, nil)
	if err := os.WriteFile(in, file, 0o666); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var bad *format.Error
	if _, err := convert.Convert(t.Context(), in, filepath.Join(dir, "m.qins"), convert.Options{}); !errors.As(err, &bad) {
		t.Error(err)
	}
	expectEmpty(t, dir)
}

// TestNamesNotUTF8 has files with names that a manifest cannot hold. That is
// said before anything is written.
func TestNamesNotUTF8(t *testing.T) {
	const says = "the name is not UTF-8"
	file := packed(t, nil, weight("a.weight", 1))
	src, dir := t.TempDir(), t.TempDir()
	in, bad := filepath.Join(src, "a.safetensors"), filepath.Join(src, "a\xff.safetensors")
	if err := os.WriteFile(bad, file, 0o666); errors.Is(err, syscall.EILSEQ) || runtime.GOOS == "windows" {
		t.Skip("the file system has no such names")
	} else if err != nil {
		t.Fatal(err)
	}
	put(t, in, file)
	_, err := convert.Convert(t.Context(), bad, filepath.Join(dir, "m.qins"), convert.Options{})
	if e := (*format.Error)(nil); !errors.As(err, &e) || e.File != bad || !strings.Contains(err.Error(), says) {
		t.Errorf("the input: %v", err)
	}
	_, err = convert.Convert(t.Context(), in, filepath.Join(dir, "m\xff.qins"), convert.Options{})
	if e := (*format.Error)(nil); err == nil || errors.As(err, &e) || !strings.Contains(err.Error(), says) {
		t.Errorf("the output: %v", err)
	}
	expectFiles(t, dir)
	out := filepath.Join(dir, "out")
	r, err := convert.Batch(t.Context(), src, out, convert.Options{})
	if err != nil || r.Failed != 1 || !strings.Contains(r.Models[1].Error, bad+": "+says) {
		t.Errorf("a batch: %+v, %v", r, err)
	}
	expectFiles(t, out, "a.qins", "a.qins.manifest.json")
}
