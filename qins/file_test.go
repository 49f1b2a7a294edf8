package qins_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// made converts a safetensors file and opens the result.
func made(t testing.TB, source []byte, layout qins.Layout) *qins.File {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, source, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := convert.Convert(t.Context(), in, out, convert.Options{Layout: layout}); err != nil {
		t.Fatal(err)
	}
	f, err := qins.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// patterned returns a file of one name for n F32 of which each is its index, and
// one for the same bytes as 2n BF16, which no rule encodes.
func patterned(n int) []byte {
	data := make([]byte, 4*n)
	for i := range n {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(i)))
	}
	return fixtures.Pack(nil, []format.Tensor{
		{Name: "a", DType: format.F32, Shape: format.Shape{uint64(n)}, Size: int64(4 * n)},
		{Name: "view", DType: format.BF16, Shape: format.Shape{uint64(2 * n)}, Size: int64(4 * n)},
	}, data)
}

// TestRanges reads parts of a tensor that lie in one chunk or in several, by its
// own name and through a view of another dtype.
func TestRanges(t *testing.T) {
	const n = 2*qins.ChunkWeights + 1000
	for _, layout := range qins.Layouts() {
		f := made(t, patterned(n), layout)
		if i, _ := f.Lookup("view"); f.Tensors()[i].Action != qins.Tied {
			t.Fatal("the view is not tied")
		}
		for _, r := range []struct{ first, n int64 }{
			{0, n}, {0, 0}, {n, 0}, {0, 1}, {n - 1, 1}, {7, 5}, {qins.ChunkWeights - 3, 6}, {qins.ChunkWeights, qins.ChunkWeights},
			{2*qins.ChunkWeights - 1, 1001}, {1, n - 1},
		} {
			got, err := f.Float32Range("a", r.first, r.n)
			if err != nil || int64(len(got)) != r.n {
				t.Fatalf("%s: %d from %d: %d values, %v", layout, r.n, r.first, len(got), err)
			}
			for i, v := range got {
				if want := float32(r.first + int64(i)); v != want {
					t.Fatalf("%s: element %d: found %g, expected %g", layout, r.first+int64(i), v, want)
				}
			}
			// Each half of an element, beginning with the second one.
			first, count := 2*r.first, 2*r.n
			if count > 0 {
				first, count = first+1, count-1
			}
			if got, err = f.Float32Range("view", first, count); err != nil || int64(len(got)) != count {
				t.Fatalf("%s: view: %d from %d: %d values, %v", layout, count, first, len(got), err)
			}
			for i, v := range got {
				k := first + int64(i)
				half := math.Float32bits(float32(k/2)) >> (16 * (k % 2)) << 16
				if math.Float32bits(v) != half {
					t.Fatalf("%s: view: element %d: found %x, expected %x", layout, k, math.Float32bits(v), half)
				}
			}
		}
		for _, r := range []struct{ first, n int64 }{{-1, 1}, {0, -1}, {0, n + 1}, {n, 1}, {n + 1, 0}, {math.MaxInt64, 1}, {1, math.MaxInt64}} {
			var bad *format.Error
			if _, err := f.Float32Range("a", r.first, r.n); !errors.As(err, &bad) || bad.Tensor != "a" {
				t.Errorf("%s: %d from %d: %v", layout, r.n, r.first, err)
			}
		}
		if _, err := f.Float32("b"); err == nil {
			t.Error("a tensor that is not there was read")
		}
	}
}

// TestRows reads an encoded tensor by parts and whole.
func TestRows(t *testing.T) {
	list := []format.Tensor{{Name: "m.weight", DType: format.F16, Shape: format.Shape{300, 1001}}}
	path := filepath.Join(t.TempDir(), "in")
	if err := fixtures.WriteTensors(path, nil, list); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var first []float32
	for _, layout := range qins.Layouts() {
		f := made(t, source, layout)
		whole, err := f.Float32("m.weight")
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = whole
		}
		for row := range int64(300) {
			part, err := f.Float32Range("m.weight", row*1001, 1001)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range part {
				if at := row*1001 + int64(i); math.Float32bits(v) != math.Float32bits(whole[at]) || v != first[at] {
					t.Fatalf("%s: row %d, column %d: found %g, expected %g", layout, row, i, v, whole[at])
				}
			}
		}
	}
}

// TestOnlyTouchedChunks damages one chunk; others can still be read.
func TestOnlyTouchedChunks(t *testing.T) {
	f := made(t, patterned(3*qins.ChunkWeights), qins.Compact)
	file, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	plane := f.PlanesOf(0)[0]
	file[plane.Offset+plane.Size/2] ^= 1
	s, err := safetensors.New(bytes.NewReader(file), int64(len(file)), "damaged")
	if err != nil {
		t.Fatal(err)
	}
	damaged, err := qins.New(s)
	if err != nil {
		t.Fatal(err)
	}
	good := 0
	for c := range int64(3) {
		_, err := damaged.Float32Range("a", c*qins.ChunkWeights, qins.ChunkWeights)
		var sum *qins.ChecksumError
		if err == nil {
			good++
		} else if !errors.As(err, &sum) {
			t.Errorf("chunk %d: %v, expected a ChecksumError", c, err)
		}
	}
	if good != 2 {
		t.Errorf("%d chunks can be read, expected 2", good)
	}
	if err := damaged.Check(t.Context(), 0); err == nil {
		t.Error("the check found nothing")
	}
}
