package qins_test

import (
	"bytes"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// A base is a valid file that the fuzzer changes.
type base struct {
	description string
	metadata    []format.Entry
	planes      []format.Tensor // offsets count from the start of the data
	data        []byte
}

func newBase(t testing.TB, layout qins.Layout) base {
	t.Helper()
	file, err := os.ReadFile(made(t, fixtures.Small(fixtures.TieOffset), layout).Name())
	if err != nil {
		t.Fatal(err)
	}
	s, err := safetensors.New(bytes.NewReader(file), int64(len(file)), "base")
	if err != nil {
		t.Fatal(err)
	}
	b := base{data: file[s.HeaderSize():]}
	for _, e := range s.Metadata() {
		if e.Key == qins.MetadataKey {
			b.description = e.Value
		} else {
			b.metadata = append(b.metadata, e)
		}
	}
	for _, p := range s.Tensors() {
		p.Offset -= s.HeaderSize()
		b.planes = append(b.planes, p)
	}
	return b
}

// FuzzFile reads arbitrary bytes, and files of which the description is
// arbitrary and some of the data changed. It must not panic nor take more
// memory than the file's size allows, and what passes the check must be
// readable.
func FuzzFile(f *testing.F) {
	var bases []base
	for i, layout := range qins.Layouts() {
		b := newBase(f, layout)
		bases = append(bases, b)
		f.Add(uint8(i), b.description, uint16(0), []byte{})
		f.Add(uint8(i), b.description, uint16(len(b.data)-60), []byte{1, 0xff})
		for _, old := range []struct{ from, to string }{
			{`"shape":[4200]`, `"shape":[9223372036854775807]`}, {`"dtype":"I8",`, ``}, {`[32,40]`, `[40,32]`}, {`"kept"`, `"tied"`},
		} {
			f.Add(uint8(i), strings.Replace(b.description, old.from, old.to, 1), uint16(0), []byte{})
		}
		f.Add(uint8(len(qins.Layouts())), "", uint16(0), fixtures.Pack(append(b.metadata, format.Entry{Key: qins.MetadataKey, Value: b.description}), b.planes, b.data))
	}
	f.Fuzz(func(t *testing.T, which uint8, description string, at uint16, change []byte) {
		file := change
		if int(which) < len(bases) {
			b := bases[which]
			data := bytes.Clone(b.data)
			for i, x := range change {
				if int(at)+i < len(data) {
					data[int(at)+i] ^= x
				}
			}
			// The writer refuses what is not UTF-8.
			description = strings.ToValidUTF8(description, "")
			file = fixtures.Pack(append(slices.Clone(b.metadata), format.Entry{Key: qins.MetadataKey, Value: description}), b.planes, data)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		readAll(t, file)
		runtime.ReadMemStats(&after)
		// A chunk's buffers, a decoder and the description for each tensor.
		if n := int(after.TotalAlloc - before.TotalAlloc); n > 64<<20+1000*len(file) {
			t.Errorf("%d MB were allocated for a file of %d bytes", n>>20, len(file))
		}
	})
}

func readAll(t *testing.T, file []byte) {
	s, err := safetensors.New(bytes.NewReader(file), int64(len(file)), "file")
	if err != nil {
		return
	}
	f, err := qins.New(s)
	if err != nil {
		return
	}
	var stored int64
	for i := range f.Tensors() {
		tensor := &f.Tensors()[i]
		stored += f.StoredSize(i)
		var checked error
		if tensor.Action != qins.Tied {
			checked = f.Check(t.Context(), i)
		}
		buf := make([]byte, min(tensor.Size(), 1<<16)/8*8)
		if err := f.ReadElements(buf, i, 0); err != nil && checked == nil && tensor.Action != qins.Tied {
			t.Errorf("%q passes its check and cannot be read: %v", tensor.Name, err)
		}
		if qins.Encodable(tensor.DType) {
			if _, err := f.Float32Range(tensor.Name, 0, min(tensor.Elements(), 1000)); err != nil && checked == nil && tensor.Action != qins.Tied {
				t.Errorf("%q passes its check and cannot be read: %v", tensor.Name, err)
			}
		}
	}
	if stored != f.Size()-f.HeaderSize() {
		t.Errorf("the tensors have %d bytes, the data %d", stored, f.Size()-f.HeaderSize())
	}
}
