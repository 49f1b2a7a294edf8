package gguf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/qinsconv/qinsconv/format"
)

// Alignment returns what [AlignmentKey] among the key-values sets, or
// [DefaultAlignment].
func Alignment(keyValues []KeyValue) (int64, error) {
	v, ok := lookup(keyValues, AlignmentKey)
	if !ok {
		return DefaultAlignment, nil
	}
	return alignmentOf(v)
}

// Place sets each tensor's Size from its dtype and shape and its Offset one
// after another from 0, padded to the alignment, in the order of the slice.
func Place(tensors []format.Tensor, alignment int64) error {
	if alignment <= 0 || alignment&(alignment-1) != 0 {
		return &format.Error{Problem: "the alignment is not a power of two", Found: fmt.Sprint(alignment)}
	}
	var next int64
	for i := range tensors {
		t := &tensors[i]
		if _, ok := TypeID(t.DType); !ok {
			return noType(t)
		}
		size, ok := t.Shape.Bytes(t.DType)
		if !ok || size > math.MaxInt64 || int64(size) > math.MaxInt64-alignment-next {
			return &format.Error{Tensor: t.Name, Problem: "the shape overflows or does not fill whole blocks",
				Found: fmt.Sprintf("%s %s", t.DType, t.Shape)}
		}
		t.Offset, t.Size = next, int64(size)
		next = pad(next+t.Size, alignment)
	}
	return nil
}

func noType(t *format.Tensor) error {
	return &format.Error{Tensor: t.Name, Problem: "GGUF has no such dtype", Found: t.DType.String()}
}

// AppendHeader appends a header for tensors whose offsets count from the start
// of the data, as [Place] sets them, with the padding before the data if there
// are tensors. Key-values and tensors are written in the order given. A header
// that the reader would not accept is an error.
func AppendHeader(dst []byte, version uint32, keyValues []KeyValue, tensors []format.Tensor) ([]byte, error) {
	b, _, err := encode(version, keyValues, tensors)
	return append(dst, b...), err
}

// encode builds a header and reads it again, as the header of a file of the
// returned size: what is written is what would be accepted.
func encode(version uint32, keyValues []KeyValue, tensors []format.Tensor) (b []byte, size int64, err error) {
	alignment, err := Alignment(keyValues)
	if err != nil {
		return nil, 0, err
	}
	if b, err = appendFields(version, keyValues, tensors); err != nil {
		return nil, 0, err
	}
	size = int64(len(b))
	if len(tensors) > 0 {
		start := pad(size, alignment)
		if start > MaxHeader {
			return nil, 0, &format.Error{Problem: "the header would be too long", Found: fmt.Sprintf("%d bytes", start), Expected: fmt.Sprintf("at most %d", MaxHeader)}
		}
		b = append(b, make([]byte, start-size)...)
		// Tensors out of order or past the end are found by parsing.
		last := tensors[len(tensors)-1]
		if last.Offset < 0 || last.Size < 0 || last.Offset > math.MaxInt64-last.Size-start-alignment {
			return nil, 0, &format.Error{Tensor: last.Name, Problem: "the data lies beyond any file", Found: fmt.Sprintf("%d bytes from %d on", last.Size, last.Offset)}
		}
		size = start + pad(last.Offset+last.Size, alignment)
	}
	h, err := parseHeader(loaded(b, size))
	if err != nil {
		return nil, 0, err
	}
	for i, t := range h.tensors {
		if t.Size != tensors[i].Size {
			return nil, 0, &format.Error{Tensor: t.Name, Problem: "the size does not fit the shape",
				Found: fmt.Sprintf("%d bytes", tensors[i].Size), Expected: fmt.Sprintf("%d bytes for %s %s", t.Size, t.DType, t.Shape)}
		}
	}
	return b, size, nil
}

// loaded returns a cursor on the header of a file of which there is no more
// yet.
func loaded(b []byte, size int64) *cursor {
	return &cursor{r: bytes.NewReader(nil), size: size, buf: b}
}

func appendFields(version uint32, keyValues []KeyValue, tensors []format.Tensor) ([]byte, error) {
	le := binary.LittleEndian
	b := []byte(magic)
	b = le.AppendUint32(b, version)
	b = le.AppendUint64(b, uint64(len(tensors)))
	b = le.AppendUint64(b, uint64(len(keyValues)))
	for _, kv := range keyValues {
		t, ok := kv.Value.Type()
		if !ok {
			return nil, &format.Error{Problem: fmt.Sprintf("key %s has no value", format.Quote(kv.Key))}
		}
		b = le.AppendUint64(b, uint64(len(kv.Key)))
		b = append(b, kv.Key...)
		b = le.AppendUint32(b, uint32(t))
		b = append(b, kv.Value.raw...)
	}
	for _, t := range tensors {
		id, ok := TypeID(t.DType)
		if !ok {
			return nil, noType(&t)
		}
		b = le.AppendUint64(b, uint64(len(t.Name)))
		b = append(b, t.Name...)
		b = le.AppendUint32(b, uint32(len(t.Shape)))
		for i := len(t.Shape) - 1; i >= 0; i-- {
			b = le.AppendUint64(b, t.Shape[i])
		}
		b = le.AppendUint32(b, id)
		b = le.AppendUint64(b, uint64(t.Offset))
	}
	return b, nil
}

// A Writer writes a GGUF file whose sizes are all known beforehand.
type Writer struct {
	dst     io.WriterAt
	size    int64
	tensors []format.Tensor
	gaps    []Span
}

// NewWriter writes the header and all padding, that of the last tensor
// included. The offsets of tensors count from the start of the data, as [Place]
// sets them for the [Alignment] of the key-values.
func NewWriter(dst io.WriterAt, version uint32, keyValues []KeyValue, tensors []format.Tensor) (*Writer, error) {
	b, size, err := encode(version, keyValues, tensors)
	if err != nil {
		return nil, err
	}
	return NewRestorer(dst, b, size)
}

// NewRestorer writes a header as [File.RawHeader] gave it, for a file of that
// size, and zeros wherever there will be no tensor. The header is checked as in
// [New]. A gap that was not zero in the original is put back with WriteGap.
func NewRestorer(dst io.WriterAt, header []byte, size int64) (*Writer, error) {
	h, err := parseHeader(loaded(header, size))
	if err != nil {
		return nil, err
	}
	if h.dataStart != int64(len(header)) {
		return nil, &format.Error{Problem: "there is more than a header", Found: fmt.Sprintf("%d bytes", len(header)), Expected: fmt.Sprint(h.dataStart)}
	}
	w := &Writer{dst: dst, size: size, tensors: h.tensors, gaps: h.gaps(size)}
	if _, err := dst.WriteAt(header, 0); err != nil {
		return nil, err
	}
	for _, gap := range w.gaps {
		if err := writeZeros(dst, gap); err != nil {
			return nil, err
		}
	}
	return w, nil
}

var zeros [64 << 10]byte

func writeZeros(dst io.WriterAt, s Span) error {
	for s.Size > 0 {
		n := min(s.Size, int64(len(zeros)))
		if _, err := dst.WriteAt(zeros[:n], s.Offset); err != nil {
			return err
		}
		s.Offset, s.Size = s.Offset+n, s.Size-n
	}
	return nil
}

// Size returns the length of the finished file.
func (w *Writer) Size() int64 { return w.size }

// Tensors lists the tensors with their places in the file. Callers do not
// change the slice.
func (w *Writer) Tensors() []format.Tensor { return w.tensors }

// Gaps lists the bytes that belong to no tensor, as [File.Gaps] does.
func (w *Writer) Gaps() []Span { return w.gaps }

// WriteAt writes p into tensor i of the list, off bytes from its start. Calls
// for parts that do not overlap may run at the same time.
func (w *Writer) WriteAt(p []byte, i int, off int64) error {
	t := w.tensors[i]
	if err := writeInto(w.dst, p, Span{t.Offset, t.Size}, off); err != nil {
		return fmt.Errorf("writing tensor %s: %w", format.Quote(t.Name), err)
	}
	return nil
}

// WriteGap writes p into gap i of the list, off bytes from its start.
func (w *Writer) WriteGap(p []byte, i int, off int64) error {
	if err := writeInto(w.dst, p, w.gaps[i], off); err != nil {
		return fmt.Errorf("writing padding at byte %d: %w", w.gaps[i].Offset, err)
	}
	return nil
}

func writeInto(dst io.WriterAt, p []byte, s Span, off int64) error {
	if off < 0 || off > s.Size || int64(len(p)) > s.Size-off {
		return fmt.Errorf("%d bytes from %d on lie outside its %d", len(p), off, s.Size)
	}
	_, err := dst.WriteAt(p, s.Offset+off)
	return err
}
