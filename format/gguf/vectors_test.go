package gguf_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
)

func parse(b []byte) (*gguf.File, error) {
	return gguf.New(bytes.NewReader(b), int64(len(b)), "in.gguf")
}

func TestVectors(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range fixtures.GGUFVectors() {
		if seen[v.Name] {
			t.Errorf("two vectors are named %s", v.Name)
		}
		seen[v.Name] = true
		t.Run(v.Name, func(t *testing.T) {
			f, err := parse(v.File)
			if v.Verdict == fixtures.Accept {
				if err != nil {
					t.Fatalf("%s: %v", v.About, err)
				}
				checkAccepted(t, f, v.File)
				return
			}
			if err == nil {
				t.Fatalf("accepted: %s", v.About)
			}
			var bad *format.Error
			if !errors.As(err, &bad) {
				t.Fatalf("%v is a %T", err, err)
			}
			if bad.File != "in.gguf" || bad.Tensor != v.Tensor {
				t.Errorf("%v: names file %q and tensor %q, expected tensor %q", err, bad.File, bad.Tensor, v.Tensor)
			}
			t.Log(err)
		})
	}
	if len(seen) < 70 {
		t.Errorf("%d vectors", len(seen))
	}
}

// checkAccepted checks what holds for every file that is accepted.
func checkAccepted(t *testing.T, f *gguf.File, b []byte) {
	t.Helper()
	if err := sumsUp(f); err != nil {
		t.Error(err)
	}
	if got := f.RawHeader(); !bytes.Equal(got, b[:f.HeaderSize()]) {
		t.Error("the raw header is not what the file begins with")
	}
	again, err := encodeAgain(f)
	if err != nil {
		t.Fatalf("encoding it again: %v", err)
	}
	// The padding before the data may hold anything, and is written as zeros.
	want := bytes.Clone(b[:f.HeaderSize()])
	clear(want[infoEnd(f):])
	if !bytes.Equal(again, want) {
		t.Errorf("encoding it again gives other bytes:\n%x\n%x", again, want)
	}
	restored, err := restore(f)
	if err != nil {
		t.Fatalf("restoring it: %v", err)
	}
	if !bytes.Equal(restored, b) {
		t.Errorf("restoring it gives other bytes:\n%x\n%x", restored, b)
	}
}

// sumsUp checks that header, tensors and gaps are the whole file, once.
func sumsUp(f *gguf.File) error {
	covered := f.HeaderSize()
	for _, x := range f.Tensors() {
		if x.Offset%f.Alignment() != 0 || x.Offset < f.HeaderSize() || x.Offset+x.Size > f.Size() {
			return fmt.Errorf("tensor %s lies at %d to %d", x.Name, x.Offset, x.Offset+x.Size)
		}
		covered += x.Size
	}
	for _, g := range f.Gaps() {
		covered += g.Size
	}
	if covered != f.Size() {
		return fmt.Errorf("the parts sum to %d bytes of %d", covered, f.Size())
	}
	return nil
}

// infoEnd returns where the tensor table ends, computed from its contents.
func infoEnd(f *gguf.File) int64 {
	kv := f.KeyValueSection()
	end := kv.Offset + kv.Size
	for _, x := range f.Tensors() {
		end += 8 + int64(len(x.Name)) + 4 + 8*int64(len(x.Shape)) + 4 + 8
	}
	return end
}

// encodeAgain writes a header from the parsed one.
func encodeAgain(f *gguf.File) ([]byte, error) {
	tensors := append([]format.Tensor(nil), f.Tensors()...)
	if err := gguf.Place(tensors, f.Alignment()); err != nil {
		return nil, err
	}
	for i, x := range f.Tensors() {
		if tensors[i].Offset+f.HeaderSize() != x.Offset || tensors[i].Size != x.Size {
			return nil, fmt.Errorf("tensor %s is placed at %d+%d", x.Name, tensors[i].Offset, tensors[i].Size)
		}
	}
	return gguf.AppendHeader(nil, f.Version(), f.KeyValues(), tensors)
}

// restore writes a file from its raw header, tensors and gaps.
func restore(f *gguf.File) ([]byte, error) {
	var out memory
	w, err := gguf.NewRestorer(&out, f.RawHeader(), f.Size())
	if err != nil {
		return nil, err
	}
	for i, x := range w.Tensors() {
		p := make([]byte, x.Size)
		if err := format.ReadFull(f, p, x.Offset); err != nil {
			return nil, err
		}
		if err := w.WriteAt(p, i, 0); err != nil {
			return nil, err
		}
	}
	for i, g := range w.Gaps() {
		p := make([]byte, g.Size)
		if err := format.ReadFull(f, p, g.Offset); err != nil {
			return nil, err
		}
		if err := w.WriteGap(p, i, 0); err != nil {
			return nil, err
		}
	}
	if w.Size() != f.Size() {
		return nil, fmt.Errorf("a size of %d", w.Size())
	}
	return out, nil
}

// memory is a file in memory, of bytes that are not zero until written.
type memory []byte

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	for int64(len(*m)) < off+int64(len(p)) {
		*m = append(*m, 0xa5)
	}
	return copy((*m)[off:], p), nil
}

// TestAllocation reads files whose counts and lengths would fill the memory of
// any machine.
func TestAllocation(t *testing.T) {
	for _, v := range fixtures.GGUFVectors() {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = parse(v.File)
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(256<<10+16*len(v.File)); got > most {
			t.Errorf("%s: %d bytes allocated for a file of %d", v.Name, got, len(v.File))
		}
	}
}

// TestCut cuts an honest file at every byte.
func TestCut(t *testing.T) {
	for _, v := range fixtures.GGUFVectors() {
		if v.Verdict != fixtures.Accept || len(v.File) > 10000 {
			continue
		}
		f, err := parse(v.File)
		if err != nil {
			t.Fatal(err)
		}
		end := f.HeaderSize() // of what no reader can do without
		for _, x := range f.Tensors() {
			end = x.Offset + x.Size
		}
		for n := range v.File {
			_, err := parse(v.File[:n])
			if (err == nil) != (int64(n) >= end) {
				t.Errorf("%s cut to %d bytes of %d: %v", v.Name, n, end, err)
			}
			// A file that is shorter than was said is an error, no panic.
			if _, err := gguf.New(bytes.NewReader(v.File[:n]), int64(len(v.File)), "in.gguf"); err == nil && int64(n) < f.HeaderSize() {
				t.Errorf("%s: accepted with %d bytes of a header of %d", v.Name, n, f.HeaderSize())
			}
		}
	}
}

// sparse is a file that begins with some bytes and goes on with zeros.
type sparse struct {
	head []byte
	size int64
	read int64 // bytes read
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), s.size-off))
	clear(p[:n])
	if off < int64(len(s.head)) {
		copy(p[:n], s.head[off:])
	}
	s.read += int64(n)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// TestHugeFiles is about files that do hold as much as they claim.
func TestHugeFiles(t *testing.T) {
	const terabyte = 1 << 40
	for _, v := range []struct {
		name    string
		head    []byte
		most    int64 // bytes read
		problem string
	}{
		{"string", fixed(0, 1).key("a", gguf.String).u64(terabyte / 2), 1 << 20, `key "a": a string at byte 45 makes the header too long`},
		{"array", fixed(0, 1).key("a", gguf.Array).u32(uint32(gguf.Uint64)).u64(terabyte / 16), 1 << 20, `key "a": an array at byte 49 makes the header too long`},
		{"strings", fixed(0, 1).key("a", gguf.Array).u32(uint32(gguf.String)).u64(terabyte / 16), gguf.MaxHeader, `makes the header too long`},
		{"key-values", fixed(0, terabyte/16), 1 << 20, "too many key-values"},
		{"tensors", fixed(terabyte/32, 0), 1 << 20, "too many tensors"},
		{"alignment", fixed(1, 1).key("general.alignment", gguf.Uint32).u32(1 << 31).u64(1).u8('t').u32(0).u32(0).u64(0), 1 << 20, "the padding before the data"},
	} {
		r := &sparse{head: v.head, size: terabyte}
		_, err := gguf.New(r, r.size, "in.gguf")
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(v.problem)) {
			t.Errorf("%s: %v", v.name, err)
		}
		if r.read > v.most {
			t.Errorf("%s: %d bytes read", v.name, r.read)
		}
	}
	// Sixty-four gigabytes of data are none of the header's business.
	head := fixed(1, 0).u64(1).u8('t').u32(1).u64(1 << 34).u32(0).u64(0)
	r := &sparse{head: head, size: 1<<36 + 63}
	if _, err := gguf.New(r, r.size, "in.gguf"); err == nil || r.read > 1<<20 {
		t.Errorf("one byte short: %v, %d bytes read", err, r.read)
	}
	r.size++
	f, err := gguf.New(r, r.size, "in.gguf")
	if err != nil || r.read > 1<<20 {
		t.Fatalf("%v, %d bytes read", err, r.read)
	}
	if got := f.Tensors()[0]; got.Offset != 64 || got.Size != 1<<36 {
		t.Errorf("tensor at %d of %d bytes", got.Offset, got.Size)
	}
}

// header builds the start of a file.
type header []byte

func fixed(tensors, keyValues uint64) header {
	return header("GGUF").u32(3).u64(tensors).u64(keyValues)
}

func (h header) u8(v byte) header { return append(h, v) }

func (h header) u32(v uint32) header {
	return append(h, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}

func (h header) u64(v uint64) header { return h.u32(uint32(v)).u32(uint32(v >> 32)) }

func (h header) key(k string, t gguf.Type) header {
	return append(h.u64(uint64(len(k))), k...).u32(uint32(t))
}
