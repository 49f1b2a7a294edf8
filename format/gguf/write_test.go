package gguf_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
)

func kv(key string, v gguf.Value) gguf.KeyValue { return gguf.KeyValue{Key: key, Value: v} }

// TestWriter writes a file and reads it back through the file system.
func TestWriter(t *testing.T) {
	for _, alignment := range []uint32{0, 8, 32, 4096} {
		kvs := []gguf.KeyValue{kv("general.architecture", gguf.Of("llama"))}
		if alignment != 0 {
			kvs = append(kvs, kv(gguf.AlignmentKey, gguf.Of(alignment)))
		}
		align, err := gguf.Alignment(kvs)
		if err != nil || align != int64(max(alignment, 32)) && alignment != 8 {
			t.Fatalf("alignment %d, %v", align, err)
		}
		tensors := []format.Tensor{
			{Name: "a.weight", DType: format.F16, Shape: format.Shape{3, 5}},
			{Name: "b.weight", DType: format.Q8_0, Shape: format.Shape{2, 64}},
			{Name: "empty", DType: format.F32, Shape: format.Shape{0}},
			{Name: "scalar", DType: format.F64, Shape: format.Shape{}},
		}
		if err := gguf.Place(tensors, align); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "out.gguf")
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		w, err := gguf.NewWriter(out, 3, kvs, tensors)
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range tensors {
			half := x.Size / 2
			data := bytes.Repeat([]byte{byte(i + 1)}, int(x.Size))
			if err := errors.Join(w.WriteAt(data[half:], i, half), w.WriteAt(data[:half], i, 0)); err != nil {
				t.Fatal(err)
			}
			if w.WriteAt([]byte{1}, i, x.Size) == nil || w.WriteAt([]byte{1}, i, -1) == nil || w.WriteAt(nil, i, 1<<62) == nil {
				t.Errorf("wrote outside tensor %d", i)
			}
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := gguf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if f.Size() != w.Size() || f.Size()%align != 0 || f.Format() != "gguf" || f.Name() != path {
			t.Errorf("%d bytes, expected %d", f.Size(), w.Size())
		}
		for i, x := range f.Tensors() {
			if x.Name != tensors[i].Name || x.DType != tensors[i].DType || x.Shape.String() != tensors[i].Shape.String() || x.Size != tensors[i].Size {
				t.Errorf("%v, expected %v", x, tensors[i])
			}
			if x.Offset != w.Tensors()[i].Offset {
				t.Errorf("%s: read at %d, written at %d", x.Name, x.Offset, w.Tensors()[i].Offset)
			}
			p := make([]byte, x.Size)
			if err := format.ReadFull(f, p, x.Offset); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{byte(i + 1)}, int(x.Size))) {
				t.Errorf("%s: %x, %v", x.Name, p, err)
			}
		}
		for _, g := range f.Gaps() {
			p := make([]byte, g.Size)
			if err := format.ReadFull(f, p, g.Offset); err != nil || !bytes.Equal(p, make([]byte, g.Size)) {
				t.Errorf("padding at %d: %x, %v", g.Offset, p, err)
			}
		}
	}
}

// TestShapeOrder holds golden bytes: the innermost dimension stands first.
func TestShapeOrder(t *testing.T) {
	tensors := []format.Tensor{{Name: "a", DType: format.F32, Shape: format.Shape{2, 3}, Size: 24}}
	b, err := gguf.AppendHeader(nil, 3, nil, tensors)
	if err != nil {
		t.Fatal(err)
	}
	want := fixed(1, 0).u64(1).u8('a').u32(2).u64(3).u64(2).u32(0).u64(0)
	if got := b[:len(want)]; !bytes.Equal(got, want) || len(b) != 96 {
		t.Errorf("%x, %d bytes", got, len(b))
	}
}

// TestWriterRefuses: what the reader would not accept is not written.
func TestWriterRefuses(t *testing.T) {
	one := func(x format.Tensor) []format.Tensor { return []format.Tensor{x} }
	good := format.Tensor{Name: "a", DType: format.F32, Shape: format.Shape{8}, Size: 32}
	with := func(change func(*format.Tensor)) []format.Tensor {
		x := good
		change(&x)
		return one(x)
	}
	for _, c := range []struct {
		problem string
		version uint32
		kvs     []gguf.KeyValue
		tensors []format.Tensor
	}{
		{"unknown GGUF version", 4, nil, nil},
		{"version 1", 1, nil, nil},
		{"empty key", 3, []gguf.KeyValue{kv("", gguf.Of("value"))}, nil},
		{"has no value", 3, []gguf.KeyValue{{Key: "a"}}, nil},
		{"key is given twice", 3, []gguf.KeyValue{kv("a", gguf.Of(true)), kv("a", gguf.Of(true))}, nil},
		{"not a power of two", 3, []gguf.KeyValue{kv(gguf.AlignmentKey, gguf.Of(uint32(33)))}, nil},
		{"found i32, expected u32", 3, []gguf.KeyValue{kv(gguf.AlignmentKey, gguf.Of(int32(32)))}, nil},
		{"name of tensor 0 is too long", 3, nil, with(func(x *format.Tensor) { x.Name = strings.Repeat("n", 64) })},
		{"no such dtype", 3, nil, with(func(x *format.Tensor) { x.DType = format.F8_E4M3 })},
		{"no such dtype", 3, nil, with(func(x *format.Tensor) { x.DType = format.Bool })},
		{"no such dtype", 3, nil, with(func(x *format.Tensor) { x.DType = 0 })},
		{"too many dimensions", 3, nil, with(func(x *format.Tensor) { x.Shape = format.Shape{1, 1, 1, 1, 8} })},
		{"size does not fit the shape", 3, nil, with(func(x *format.Tensor) { x.Size = 31 })},
		{"whole blocks", 3, nil, with(func(x *format.Tensor) { x.DType, x.Shape, x.Size = format.Q8_0, format.Shape{2, 16}, 34 })},
		{"past the end", 3, nil, with(func(x *format.Tensor) { x.Shape = format.Shape{1 << 20} })},
		{"not where the tensor before it ends", 3, nil, with(func(x *format.Tensor) { x.Offset = 32 })},
		{"beyond any file", 3, nil, with(func(x *format.Tensor) { x.Offset = -32 })},
		{"beyond any file", 3, nil, with(func(x *format.Tensor) { x.Size = 1<<63 - 1 })},
		{"two tensors", 3, nil, []format.Tensor{good, {Name: "a", DType: format.F32, Shape: format.Shape{8}, Offset: 32, Size: 32}}},
		{"header would be too long", 3, []gguf.KeyValue{kv(gguf.AlignmentKey, gguf.Of(uint32(1<<31)))}, one(good)},
	} {
		var out memory
		_, err := gguf.NewWriter(&out, c.version, c.kvs, c.tensors)
		if err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %v", c.problem, err)
		}
		var bad *format.Error
		if !errors.As(err, &bad) {
			t.Errorf("%s: a %T", c.problem, err)
		}
		if len(out) != 0 {
			t.Errorf("%s: %d bytes written", c.problem, len(out))
		}
	}
}

func TestPlaceRefuses(t *testing.T) {
	for _, x := range []format.Tensor{
		{Name: "a", DType: format.F32, Shape: format.Shape{1 << 61}},
		{Name: "a", DType: format.F32, Shape: format.Shape{1 << 32, 1 << 32}},
		{Name: "a", DType: format.I8, Shape: format.Shape{1<<63 - 1}},
		{Name: "a", DType: format.Q4_K, Shape: format.Shape{128}},
		{Name: "a", DType: format.U8, Shape: format.Shape{1}},
		{Name: "a", Shape: format.Shape{1}},
	} {
		if err := gguf.Place([]format.Tensor{x}, 32); err == nil {
			t.Errorf("placed %v", x)
		}
	}
	if err := gguf.Place(nil, 0); err == nil {
		t.Error("placed at alignment 0")
	}
	if err := gguf.Place(nil, 24); err == nil {
		t.Error("placed at alignment 24")
	}
	huge := []format.Tensor{
		{Name: "a", DType: format.I8, Shape: format.Shape{1 << 62}},
		{Name: "b", DType: format.I8, Shape: format.Shape{1 << 62}},
	}
	if err := gguf.Place(huge, 32); err == nil {
		t.Error("placed 2^63 bytes")
	}
}

// TestRestorerRefuses: a stored header is no more trusted than a file.
func TestRestorerRefuses(t *testing.T) {
	f := vector(t, "two-tensors")
	raw := f.RawHeader()
	for _, c := range []struct {
		name   string
		header []byte
		size   int64
	}{
		{"no header", nil, f.Size()},
		{"cut", raw[:len(raw)-1], f.Size()},
		{"cut in the table", raw[:60], f.Size()},
		{"more than a header", append(bytes.Clone(raw), 0), f.Size()},
		{"a size below that of the header", raw, int64(len(raw)) - 1},
		{"a size below that of the data", raw, f.Size() - 1},
		{"a negative size", raw, -1},
		{"a header beyond the limit", append(bytes.Clone(raw), make([]byte, gguf.MaxHeader)...), 1 << 40},
	} {
		var out memory
		if _, err := gguf.NewRestorer(&out, c.header, c.size); err == nil || len(out) != 0 {
			t.Errorf("%s: accepted, or %d bytes written", c.name, len(out))
		}
	}
}

func TestTypeIDs(t *testing.T) {
	n := 0
	for id := range uint32(300) {
		d, ok := gguf.DType(id)
		if !ok {
			continue
		}
		n++
		if got, ok := gguf.TypeID(d); !ok || got != id {
			t.Errorf("%d is %v, which is %d", id, d, got)
		}
	}
	if n != 35 {
		t.Errorf("%d types", n)
	}
	for id, want := range map[uint32]string{0: "F32", 1: "F16", 8: "Q8_0", 14: "Q6_K", 29: "IQ1_M", 30: "BF16", 39: "MXFP4", 42: "Q2_0"} {
		if d, ok := gguf.DType(id); !ok || d.String() != want {
			t.Errorf("%d is %v", id, d)
		}
	}
}

func TestOpen(t *testing.T) {
	if _, err := gguf.Open(filepath.Join(t.TempDir(), "none.gguf")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := gguf.Open(t.TempDir()); err == nil {
		t.Error("opened a folder")
	}
}
