package safetensors_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
)

func parse(file []byte) (*safetensors.File, error) {
	return safetensors.New(bytes.NewReader(file), int64(len(file)), "in.safetensors")
}

// relative returns the tensors with offsets that count from the start of the
// data, as the header has them.
func relative(f *safetensors.File) []format.Tensor {
	list := slices.Clone(f.Tensors())
	for i := range list {
		list[i].Offset -= f.HeaderSize()
	}
	return list
}

func equalTensors(a, b []format.Tensor) bool {
	return slices.EqualFunc(a, b, func(s, t format.Tensor) bool {
		return s.Name == t.Name && s.DType == t.DType && slices.Equal(s.Shape, t.Shape) && s.Offset == t.Offset && s.Size == t.Size
	})
}

func TestVectors(t *testing.T) {
	for _, v := range fixtures.Vectors() {
		t.Run(v.Name, func(t *testing.T) {
			f, err := parse(v.File)
			if v.Verdict == fixtures.Accept {
				if err != nil {
					t.Fatalf("rejected, though %s: %v", v.About, err)
				}
				checkAccepted(t, f, v.File)
				return
			}
			if err == nil {
				t.Fatalf("accepted, though %s", v.About)
			}
			var bad *format.Error
			if !errors.As(err, &bad) {
				t.Fatalf("the error is a %T: %v", err, err)
			}
			if bad.Tensor != v.Tensor {
				t.Errorf("the error names tensor %q, expected %q: %v", bad.Tensor, v.Tensor, err)
			}
			if bad.File != "in.safetensors" || bad.Problem == "" {
				t.Errorf("the error does not say file and problem: %#v", bad)
			}
			if text := err.Error(); strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("the message holds control characters: %q", text)
			}
		})
	}
}

// checkAccepted checks what every accepted file has in common: the parts sum
// to its size, and its header is written and read again to the same tensors.
func checkAccepted(t *testing.T, f *safetensors.File, file []byte) {
	t.Helper()
	type span struct{ off, size int64 }
	var sum int64
	seen := map[span]bool{}
	for _, x := range f.Tensors() {
		if size, ok := x.Shape.Bytes(x.DType); !ok || size != uint64(x.Size) {
			t.Errorf("tensor %q: %d bytes for %v %v", x.Name, x.Size, x.DType, x.Shape)
		}
		if x.Offset < f.HeaderSize() || x.Offset+x.Size > f.Size() {
			t.Errorf("tensor %q lies outside the file", x.Name)
		}
		if s := (span{x.Offset, x.Size}); !seen[s] {
			seen[s] = true
			sum += x.Size
		}
	}
	if f.HeaderSize()+sum != f.Size() || f.Size() != int64(len(file)) {
		t.Errorf("a header of %d bytes and data of %d in a file of %d", f.HeaderSize(), sum, len(file))
	}
	json, err := safetensors.AppendHeader(nil, f.Metadata(), relative(f))
	if err != nil {
		t.Fatalf("its header cannot be written: %v", err)
	}
	head, err := safetensors.FrameHeader(json, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(head)%8 != 0 {
		t.Errorf("a header of %d bytes", len(head))
	}
	again, err := parse(append(head, file[f.HeaderSize():]...))
	if err != nil {
		t.Fatalf("its header, written again, is rejected: %v\n%s", err, json)
	}
	if !equalTensors(relative(again), relative(f)) {
		t.Errorf("its header, written again, has the tensors %v, expected %v", again.Tensors(), f.Tensors())
	}
	if !slices.Equal(again.Metadata(), f.Metadata()) || (again.Metadata() == nil) != (f.Metadata() == nil) {
		t.Errorf("its header, written again, has the metadata %q, expected %q", again.Metadata(), f.Metadata())
	}
}

// TestStockHeaders writes headers in the stock writer's form again, byte for
// byte.
func TestStockHeaders(t *testing.T) {
	for _, header := range []string{
		`{}`,
		`{"__metadata__":{}}`,
		`{"__metadata__":{"format":"pt"}}`,
		`{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}`,
		`{"__metadata__":{"format":"pt","a\n\"b\\":"é\u0001"},"a.weight":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[0,5],"data_offsets":[8,8]}}`,
		`{"b":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"重":{"dtype":"F4","shape":[4],"data_offsets":[8,10]}}`,
	} {
		framed, err := safetensors.FrameHeader([]byte(header), 0)
		if err != nil {
			t.Fatal(err)
		}
		data := 0
		if i := strings.LastIndexByte(header, ','); strings.Contains(header, "data_offsets") {
			for _, c := range header[i+1:] {
				if c < '0' || c > '9' {
					break
				}
				data = 10*data + int(c-'0')
			}
		}
		f, err := parse(append(framed, make([]byte, data)...))
		if err != nil {
			t.Errorf("%s: %v", header, err)
			continue
		}
		got, err := safetensors.AppendHeader(nil, f.Metadata(), relative(f))
		if err != nil || string(got) != header {
			t.Errorf("wrote %s, %v, expected %s", got, err, header)
		}
	}
}

// TestFixtureHeaders does so for whole files.
func TestFixtureHeaders(t *testing.T) {
	for _, tie := range []fixtures.Tie{fixtures.TieOffset, fixtures.TieContent, fixtures.TieMetadata} {
		path := filepath.Join(t.TempDir(), "toy.safetensors")
		if err := fixtures.WriteToy(path, tie); err != nil {
			t.Fatal(err)
		}
		f, err := safetensors.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		json, err := safetensors.AppendHeader(nil, f.Metadata(), relative(f))
		if err != nil {
			t.Fatal(err)
		}
		want, err := safetensors.FrameHeader(json, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, f.HeaderSize())
		if err := format.ReadFull(f, got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%v: the header is\n%s\nexpected\n%s", tie, got, want)
		}
	}
}

// TestFrameHeader goes through every length around a multiple of eight and
// every room around that.
func TestFrameHeader(t *testing.T) {
	for n := 2; n < 40; n++ {
		json := []byte("{" + strings.Repeat(" ", n-2) + "}")
		for room := range int64(64) {
			head, err := safetensors.FrameHeader(json, room)
			if err != nil {
				t.Fatal(err)
			}
			least := max(8+int64(n), room)
			if size := int64(len(head)); size < least || size >= least+8 || size%8 != 0 {
				t.Errorf("%d bytes with room for %d take %d", n, room, size)
			}
			if got := binary.LittleEndian.Uint64(head); got != uint64(len(head)-8) {
				t.Errorf("the length field says %d of %d", got, len(head)-8)
			}
			if !bytes.Equal(head[8:8+n], json) || len(bytes.Trim(head[8+n:], " ")) != 0 {
				t.Errorf("%d bytes with room for %d: %q", n, room, head)
			}
		}
	}
	if _, err := safetensors.FrameHeader(make([]byte, safetensors.MaxHeader), 0); err != nil {
		t.Errorf("the longest header: %v", err)
	}
	var bad *format.Error
	if _, err := safetensors.FrameHeader(make([]byte, safetensors.MaxHeader+1), 0); !errors.As(err, &bad) {
		t.Errorf("a header that is too long: %v", err)
	}
	if _, err := safetensors.FrameHeader(nil, safetensors.MaxHeader+9); !errors.As(err, &bad) {
		t.Errorf("room that is too long: %v", err)
	}
}

func TestAppendHeaderRefuses(t *testing.T) {
	u8 := func(name string) []format.Tensor {
		return []format.Tensor{{Name: name, DType: format.U8, Shape: format.Shape{0}}}
	}
	for name, c := range map[string]struct {
		metadata []format.Entry
		tensors  []format.Tensor
	}{
		"reserved name":           {nil, u8("__metadata__")},
		"name of bad UTF-8":       {nil, u8("a\xff")},
		"metadata key, bad UTF-8": {[]format.Entry{{Key: "\xff"}}, nil},
		"metadata, bad UTF-8":     {[]format.Entry{{Value: "\xff"}}, nil},
		"block dtype":             {nil, []format.Tensor{{Name: "a", DType: format.Q8_0, Shape: format.Shape{32}}}},
		"no dtype":                {nil, []format.Tensor{{Name: "a", Shape: format.Shape{32}}}},
	} {
		var bad *format.Error
		if got, err := safetensors.AppendHeader(nil, c.metadata, c.tensors); !errors.As(err, &bad) {
			t.Errorf("%s: wrote %s, %v", name, got, err)
		}
	}
}

func TestPlace(t *testing.T) {
	list := []format.Tensor{
		{Name: "a", DType: format.F32, Shape: format.Shape{3}},
		{Name: "b", DType: format.U8, Shape: format.Shape{}},
		{Name: "c", DType: format.F64, Shape: format.Shape{0, 9}},
		{Name: "d", DType: format.F4, Shape: format.Shape{6}},
	}
	if err := safetensors.Place(list); err != nil {
		t.Fatal(err)
	}
	for i, want := range [][2]int64{{0, 12}, {12, 1}, {13, 0}, {13, 3}} {
		if got := [2]int64{list[i].Offset, list[i].Size}; got != want {
			t.Errorf("tensor %s is placed at %v, expected %v", list[i].Name, got, want)
		}
	}
	for name, list := range map[string][]format.Tensor{
		"part of a byte":   {{DType: format.F4, Shape: format.Shape{3}}},
		"shape overflows":  {{DType: format.U8, Shape: format.Shape{1 << 32, 1 << 32}}},
		"more than 2^63":   {{DType: format.U8, Shape: format.Shape{1 << 63}}},
		"together 2^63":    {{DType: format.U8, Shape: format.Shape{1 << 62}}, {DType: format.U8, Shape: format.Shape{1 << 62}}},
		"bytes pass 2^64":  {{DType: format.F64, Shape: format.Shape{1 << 61}}},
		"no dtype, a size": {{DType: format.F64, Shape: format.Shape{1<<64 - 1}}},
	} {
		var bad *format.Error
		if err := safetensors.Place(list); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// memory is a file in memory that grows as it is written.
type memory []byte

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(*m) {
		*m = append(*m, make([]byte, end-len(*m))...)
	}
	return copy((*m)[off:], p), nil
}

func TestWriter(t *testing.T) {
	list := []format.Tensor{
		{Name: "a", DType: format.U8, Shape: format.Shape{5}},
		{Name: "b", DType: format.U16, Shape: format.Shape{2}},
	}
	if err := safetensors.Place(list); err != nil {
		t.Fatal(err)
	}
	var m memory
	w, err := safetensors.NewWriter(&m, []format.Entry{{Key: "k", Value: "v"}}, list)
	if err != nil {
		t.Fatal(err)
	}
	// In parts and out of order.
	for _, part := range []struct {
		tensor int
		off    int64
		data   string
	}{{1, 2, "89"}, {0, 3, "45"}, {1, 0, "67"}, {0, 0, "123"}} {
		if err := w.WriteAt([]byte(part.data), part.tensor, part.off); err != nil {
			t.Fatal(err)
		}
	}
	const json = `{"__metadata__":{"k":"v"},"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},"b":{"dtype":"U16","shape":[2],"data_offsets":[5,9]}}`
	want := fixtures.Frame(json+strings.Repeat(" ", -len(json)&7), []byte("123456789"))
	if !bytes.Equal(m, want) {
		t.Errorf("wrote\n%q, expected\n%q", []byte(m), want)
	}
	for _, bad := range []struct {
		tensor int
		off    int64
		n      int
	}{{0, 4, 2}, {0, -1, 1}, {1, 5, 0}, {0, 0, 6}} {
		if err := w.WriteAt(make([]byte, bad.n), bad.tensor, bad.off); err == nil {
			t.Errorf("wrote %d bytes at %d of tensor %d", bad.n, bad.off, bad.tensor)
		}
	}
	if !bytes.Equal(m, want) {
		t.Error("a refused write changed the file")
	}
}

// cut is a file that is shorter than its size says.
type cut struct {
	r    io.ReaderAt
	left int64
	err  error
}

func (c cut) ReadAt(p []byte, off int64) (int, error) {
	if off >= c.left {
		return 0, c.err
	}
	if int64(len(p)) > c.left-off {
		n, _ := c.r.ReadAt(p[:c.left-off], off)
		return n, c.err
	}
	return c.r.ReadAt(p, off)
}

// TestShrinkingFile cuts a file at every byte after its size was taken.
func TestShrinkingFile(t *testing.T) {
	file := fixtures.Frame(`{"t":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}}`, make([]byte, 16))
	for left := range len(file) {
		for _, end := range []error{io.EOF, io.ErrUnexpectedEOF} {
			f, err := safetensors.New(cut{bytes.NewReader(file), int64(left), end}, int64(len(file)), "in.safetensors")
			if left >= len(file)-16 {
				if err != nil {
					t.Fatalf("with %d bytes left, the header: %v", left, err)
				}
				x := f.Tensors()[0]
				err = format.ReadFull(f, make([]byte, x.Size), x.Offset)
			}
			var bad *format.Error
			if !errors.As(err, &bad) || bad.File != "in.safetensors" {
				t.Errorf("with %d bytes left: %v", left, err)
			}
		}
	}
	// An error of the disk is not the file's fault.
	broken := errors.New("broken disk")
	_, err := safetensors.New(cut{bytes.NewReader(file), 4, broken}, int64(len(file)), "in.safetensors")
	var bad *format.Error
	if !errors.Is(err, broken) || errors.As(err, &bad) {
		t.Errorf("a broken disk: %v", err)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := safetensors.Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	path := filepath.Join(dir, "bad.safetensors")
	if err := os.WriteFile(path, []byte("short"), 0o666); err != nil {
		t.Fatal(err)
	}
	var bad *format.Error
	if _, err := safetensors.Open(path); !errors.As(err, &bad) || bad.File != path {
		t.Errorf("a bad file: %v", err)
	}
	if err := os.WriteFile(path, fixtures.Frame("{}", nil), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if f.Name() != path || f.Format() != "safetensors" || f.Size() != 10 || f.HeaderSize() != 10 || len(f.Tensors()) != 0 || f.Metadata() != nil {
		t.Errorf("an empty file is %+v", f)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("reading a closed file: %v", err)
	}
}

// FuzzHeader reads any header with any length of data behind it.
func FuzzHeader(f *testing.F) {
	for _, v := range fixtures.Vectors() {
		if len(v.File) >= 8 && len(v.File) < 4096 {
			n := min(binary.LittleEndian.Uint64(v.File), uint64(len(v.File)-8))
			f.Add(string(v.File[8:8+n]), uint16(len(v.File)-8-int(n)))
		}
	}
	f.Fuzz(func(t *testing.T, header string, data uint16) {
		file := fixtures.Frame(header, make([]byte, data))
		s, err := parse(file)
		if err != nil {
			var bad *format.Error
			if !errors.As(err, &bad) {
				t.Fatalf("the error is a %T: %v", err, err)
			}
			return
		}
		checkAccepted(t, s, file)
	})
}

// manyTensors is a header with that many tensors, close to the limit of 100 MB
// at 500,000.
func manyTensors(b *testing.B, n int) []byte {
	list := make([]format.Tensor, n)
	layer := strings.Repeat("transformer.block.", 6)
	for i := range list {
		list[i] = format.Tensor{Name: layer + strings.Repeat("x", 6) + string(rune('a'+i%26)) + "." + number(i) + ".weight", DType: format.U8, Shape: format.Shape{1, 1}}
	}
	if err := safetensors.Place(list); err != nil {
		b.Fatal(err)
	}
	json, err := safetensors.AppendHeader(nil, nil, list)
	if err != nil {
		b.Fatal(err)
	}
	return fixtures.Frame(string(json), make([]byte, n))
}

func number(i int) string {
	digits := []byte("0000000")
	for at := len(digits) - 1; i > 0; at-- {
		digits[at] = byte('0' + i%10)
		i /= 10
	}
	return string(digits)
}

// BenchmarkParse reads headers of many tensors. The time for one of them does
// not depend on their number.
func BenchmarkParse(b *testing.B) {
	for _, n := range []int{5_000, 50_000, 500_000} {
		b.Run(number(n), func(b *testing.B) {
			file := manyTensors(b, n)
			b.SetBytes(int64(len(file)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := parse(file); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/float64(n), "ns/tensor")
		})
	}
}
