package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// command runs the command in this process.
func command(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), append([]string{"qinsconv"}, args...), &out, &errs)
	return status, out.String(), errs.String()
}

// unconvertible are accepted by the reader, but a manifest could not describe
// them exactly.
var unconvertible = []string{"shape with a zero first"}

// TestVectors runs every vector through every command.
func TestVectors(t *testing.T) {
	for _, v := range fixtures.Vectors() {
		if v.Name == "gguf" {
			continue // no safetensors file, but a good one of its own format
		}
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			in := filepath.Join(t.TempDir(), "in.safetensors")
			if err := os.WriteFile(in, v.File, 0o666); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(filepath.Dir(in), "out")
			notQINS := [][]string{{"verify", in}, {"decode", in, out}}
			reading := [][]string{{"inspect", in}, {"plan", in}, {in, out}}
			switch {
			case v.Verdict == fixtures.Reject:
				refuse(t, in, v.Tensor, append(reading, notQINS...))
			case slices.Contains(unconvertible, v.Name):
				refuse(t, in, "t", reading[1:])
			default:
				refuse(t, in, "", notQINS)
				through(t, in)
			}
		})
	}
}

// refuse expects bad input of every one of some commands, and no file beside
// the input.
func refuse(t *testing.T, in, tensor string, commands [][]string) {
	t.Helper()
	before, err := os.ReadFile(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range commands {
		status, stdout, stderr := command(t, args...)
		if status != exitInput || stdout != "" && args[0] != "verify" {
			t.Errorf("%s: status %d, expected %d; output %q", args, status, exitInput, stdout)
		}
		if !strings.HasPrefix(stderr, "qinsconv: "+in+": ") {
			t.Errorf("%s: the file is not named: %s", args, stderr)
		}
		if tensor != "" && !strings.Contains(stderr, fmt.Sprintf("tensor %q", tensor)) {
			t.Errorf("%s: tensor %q is not named: %s", args, tensor, stderr)
		}
	}
	if after, err := os.ReadFile(in); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the input changed: %v", err)
	}
	expectFiles(t, filepath.Dir(in), filepath.Base(in))
}

func expectFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, expected %q", dir, got, want)
	}
}

// through converts a file to every layout, verifies it in every way and
// decodes it.
func through(t *testing.T, in string) {
	ok := func(args ...string) {
		t.Helper()
		if status, _, stderr := command(t, append(args, "--quiet")...); status != exitDone {
			t.Fatalf("%s: status %d: %s", args, status, stderr)
		}
	}
	ok("inspect", in)
	ok("inspect", "--json", in)
	var first []byte
	for _, l := range qins.Layouts() {
		layout := string(l)
		dir := t.TempDir()
		out, back := filepath.Join(dir, "m.qins"), filepath.Join(dir, "back")
		ok("plan", in, "--layout", layout)
		ok(in, out, "--layout", layout)
		ok("inspect", out)
		ok("verify", out)
		ok("verify", out, "--against", in)
		if err := os.Remove(convert.ManifestPath(out)); err != nil {
			t.Fatal(err)
		}
		ok("verify", out)
		ok("verify", out, "--against", in)
		ok("decode", out, back)
		expectFiles(t, dir, "m.qins", "back")

		data, err := os.ReadFile(back)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = data
			compareTensors(t, in, out, back)
		} else if !bytes.Equal(first, data) {
			t.Errorf("%s decodes to another file than %s", layout, qins.Layouts()[0])
		}
	}
}

// compareTensors compares a source with what came back.
func compareTensors(t *testing.T, in, out, back string) {
	t.Helper()
	open := func(path string) *safetensors.File {
		f, err := safetensors.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	source, decoded := open(in), open(back)
	q, err := qins.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if !slices.Equal(source.Metadata(), decoded.Metadata()) {
		t.Errorf("metadata: found %q, expected %q", decoded.Metadata(), source.Metadata())
	}
	if len(source.Tensors()) != len(decoded.Tensors()) {
		t.Fatalf("%d tensors came back, expected %d", len(decoded.Tensors()), len(source.Tensors()))
	}
	for i, want := range source.Tensors() {
		got := decoded.Tensors()[i]
		if got.Name != want.Name || got.DType != want.DType || got.Shape.String() != want.Shape.String() {
			t.Errorf("tensor %d: found %q %v %v, expected %q %v %v", i, got.Name, got.DType, got.Shape, want.Name, want.DType, want.Shape)
			continue
		}
		a, b := make([]byte, want.Size), make([]byte, got.Size)
		if err := format.ReadFull(source, a, want.Offset); err != nil {
			t.Fatal(err)
		}
		if err := format.ReadFull(decoded, b, got.Offset); err != nil {
			t.Fatal(err)
		}
		at, _ := q.Lookup(want.Name)
		stored := q.Tensors()[q.Stored(at)]
		if stored.Action == qins.Kept {
			if !bytes.Equal(a, b) {
				t.Errorf("tensor %q was kept and came back changed", want.Name)
			}
			continue
		}
		codec := stored.Codec
		step := math.Expm1((float64(codec.Params[1])-float64(codec.Params[0]))/508) + 1e-6
		if want.DType == format.BF16 {
			step += 1.0 / 256
		} else if want.DType == format.F16 {
			step += 1.0 / 2048
		}
		wantValues, gotValues := floats(t, source, want), floats(t, decoded, got)
		for k, w := range wantValues {
			g := gotValues[k]
			size := math.Abs(float64(w))
			if math.Signbit(float64(w)) != math.Signbit(float64(g)) || (w == 0) != (g == 0) ||
				size > 1e-7 && math.Abs(float64(w)-float64(g)) > step*size {
				if want.DType == format.F16 && size < 1e-4 {
					continue // denormal numbers are far apart
				}
				t.Fatalf("tensor %q: weight %d: found %g, expected %g within %g", want.Name, k, g, w, step)
			}
		}
	}
}

// floats reads a tensor as float32 through the library, which keeps everything
// where it is told so.
func floats(t *testing.T, f *safetensors.File, tensor format.Tensor) []float32 {
	t.Helper()
	out := filepath.Join(t.TempDir(), "kept.qins")
	rule, err := convert.NewRule(false, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := convert.Convert(t.Context(), f.Name(), out, convert.Options{Rules: []convert.Rule{rule}}); err != nil {
		t.Fatal(err)
	}
	q, err := qins.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	values, err := q.Float32(tensor.Name)
	if err != nil {
		t.Fatal(err)
	}
	return values
}
