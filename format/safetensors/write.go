package safetensors

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/qinsconv/qinsconv/format"
)

// headerAlign is what the stock writer pads the header's length to.
const headerAlign = 8

// Place sets each tensor's Size from its dtype and shape and its Offset one
// after another from 0, in the order of the slice.
func Place(tensors []format.Tensor) error {
	var end int64
	for i := range tensors {
		t := &tensors[i]
		size, ok := t.Shape.Bytes(t.DType)
		if !ok || int64(size) < 0 || end+int64(size) < end {
			return &format.Error{Tensor: t.Name, Problem: "the shape overflows or does not fill whole bytes",
				Found: fmt.Sprintf("%s %s", t.DType, t.Shape)}
		}
		t.Offset, t.Size = end, int64(size)
		end += t.Size
	}
	return nil
}

// AppendHeader appends the JSON header for tensors whose offsets count from
// the start of the data, without length field or padding. Metadata and tensors
// are written in the order given.
func AppendHeader(dst []byte, metadata []format.Entry, tensors []format.Tensor) ([]byte, error) {
	w := headerWriter{dst: dst}
	w.byte('{')
	if metadata != nil {
		w.quote(metadataKey)
		w.byte(':')
		w.byte('{')
		for i, e := range metadata {
			w.comma(i)
			w.quote(e.Key)
			w.byte(':')
			w.quote(e.Value)
		}
		w.byte('}')
	}
	for i, t := range tensors {
		if t.Name == metadataKey {
			return nil, &format.Error{Tensor: t.Name, Problem: "the name is reserved in safetensors files"}
		}
		if _, ok := dtypes[t.DType.String()]; !ok {
			return nil, &format.Error{Tensor: t.Name, Problem: "safetensors has no such dtype", Found: t.DType.String()}
		}
		if metadata != nil || i > 0 {
			w.byte(',')
		}
		w.quote(t.Name)
		w.string(`:{"dtype":"` + t.DType.String() + `","shape":`)
		w.string(t.Shape.String())
		w.string(`,"data_offsets":[`)
		w.int(t.Offset)
		w.byte(',')
		w.int(t.Offset + t.Size)
		w.string(`]}`)
	}
	w.byte('}')
	return w.dst, w.err
}

type headerWriter struct {
	dst []byte
	err error
}

func (w *headerWriter) byte(b byte)     { w.dst = append(w.dst, b) }
func (w *headerWriter) string(s string) { w.dst = append(w.dst, s...) }
func (w *headerWriter) int(n int64)     { w.dst = strconv.AppendInt(w.dst, n, 10) }

func (w *headerWriter) comma(i int) {
	if i > 0 {
		w.byte(',')
	}
}

func (w *headerWriter) quote(s string) {
	if !utf8.ValidString(s) && w.err == nil {
		w.err = &format.Error{Problem: "a name is not valid UTF-8", Found: format.Quote(s)}
	}
	w.dst, _ = jsontext.AppendQuote(w.dst, s)
}

// FramedSize returns the size of what FrameHeader makes of a JSON header of the
// given length.
func FramedSize(json int, atLeast int64) (int64, error) {
	size := max(PrefixSize+int64(json), atLeast)
	size += -size & (headerAlign - 1)
	if size-PrefixSize > MaxHeader {
		return 0, &format.Error{Problem: "the header would be too long for a safetensors file",
			Found: fmt.Sprintf("%d bytes", size-PrefixSize), Expected: fmt.Sprintf("at most %d", MaxHeader)}
	}
	return size, nil
}

// FrameHeader puts the length field before a JSON header and pads it with
// spaces so that all of it takes at least atLeast bytes and a multiple of
// eight.
func FrameHeader(json []byte, atLeast int64) ([]byte, error) {
	size, err := FramedSize(len(json), atLeast)
	if err != nil {
		return nil, err
	}
	out := make([]byte, size)
	binary.LittleEndian.PutUint64(out, uint64(size-PrefixSize))
	for i := PrefixSize + copy(out[PrefixSize:], json); i < len(out); i++ {
		out[i] = ' '
	}
	return out, nil
}

// A Writer writes a safetensors file whose sizes are all known beforehand.
type Writer struct {
	dst     io.WriterAt
	start   int64
	tensors []format.Tensor
}

// NewWriter writes the header. Tensors are listed in the order of the slice;
// their offsets count from the start of the data, as [Place] sets them.
func NewWriter(dst io.WriterAt, metadata []format.Entry, tensors []format.Tensor) (*Writer, error) {
	json, err := AppendHeader(nil, metadata, tensors)
	if err != nil {
		return nil, err
	}
	header, err := FrameHeader(json, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dst.WriteAt(header, 0); err != nil {
		return nil, err
	}
	return &Writer{dst: dst, start: int64(len(header)), tensors: tensors}, nil
}

// WriteAt writes p into tensor i of the list, off bytes from its start. Calls
// for parts that do not overlap may run at the same time.
func (w *Writer) WriteAt(p []byte, i int, off int64) error {
	t := w.tensors[i]
	if off < 0 || off+int64(len(p)) > t.Size {
		return fmt.Errorf("writing tensor %s: bytes %d to %d lie outside its %d", format.Quote(t.Name), off, off+int64(len(p)), t.Size)
	}
	_, err := w.dst.WriteAt(p, w.start+t.Offset+off)
	return err
}
