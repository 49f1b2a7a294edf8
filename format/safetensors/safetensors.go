// Package safetensors reads and writes safetensors files: eight bytes of
// header length, a JSON header, then the tensors' bytes.
//
// Opening a file checks its header as strictly as the reference reader does:
// the length limit, valid UTF-8 and JSON, known dtypes, sizes that agree with
// shapes in arithmetic that cannot overflow, and data that is covered without
// gap or overlap. On two points it differs on purpose: names that share exactly
// the same offsets are tied tensors and accepted, and a name given twice is an
// error. Values are not looked at.
//
// An [Index] says which files a sharded model consists of. Its syntax is checked
// in the same way, and that its paths stay inside the model's folder as they are
// written; links are followed by whoever opens the files.
package safetensors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/qinsconv/qinsconv/format"
)

// A File is an open safetensors file. It implements [format.Source].
type File struct {
	io.ReaderAt
	name     string
	size     int64
	header   int64
	padding  int64 // of the header
	metadata []format.Entry
	tensors  []format.Tensor
	closer   io.Closer
}

// Open opens the file at path and reads its header.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	s, err := New(f, info.Size(), path)
	if err != nil {
		f.Close()
		return nil, err
	}
	s.closer = f
	return s, nil
}

// New reads the header of a file of the given size. Errors give the file that
// name.
func New(r io.ReaderAt, size int64, name string) (*File, error) {
	f := &File{ReaderAt: r, name: name, size: size}
	text, err := f.readHeader()
	if err != nil {
		return nil, err
	}
	p, err := parseHeader(name, text)
	if err != nil {
		return nil, err
	}
	f.header = PrefixSize + int64(len(text))
	f.padding = int64(len(text) - len(bytes.TrimRight(text, " ")))
	if err := p.place(f.header, size); err != nil {
		return nil, err
	}
	f.metadata, f.tensors = p.metadata, p.tensors
	return f, nil
}

func (f *File) readHeader() ([]byte, error) {
	if f.size < PrefixSize {
		return nil, &format.Error{File: f.name, Problem: "too short for a safetensors file",
			Found: fmt.Sprintf("%d bytes", f.size), Expected: "at least 8"}
	}
	var length [PrefixSize]byte
	if err := format.ReadFull(f, length[:], 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > MaxHeader {
		return nil, &format.Error{File: f.name, Problem: "the header is too long, or this is no safetensors file",
			Found: fmt.Sprintf("%d bytes", n), Expected: fmt.Sprintf("at most %d", MaxHeader)}
	}
	if int64(n) > f.size-PrefixSize {
		return nil, &format.Error{File: f.name, Problem: "the header reaches past the end of the file",
			Found: fmt.Sprintf("%d bytes of header in a file of %d", n, f.size), Expected: fmt.Sprintf("at most %d", f.size-PrefixSize)}
	}
	text := make([]byte, n)
	if err := format.ReadFull(f, text, PrefixSize); err != nil {
		return nil, err
	}
	return text, nil
}

// Close closes a file that Open opened.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Name implements [format.Source].
func (f *File) Name() string { return f.name }

// Format implements [format.Source].
func (f *File) Format() string { return "safetensors" }

// Size implements [format.Source].
func (f *File) Size() int64 { return f.size }

// HeaderSize returns the number of bytes before the data, the length field and
// any padding included.
func (f *File) HeaderSize() int64 { return f.header }

// PaddingSize returns how many of these bytes are spaces after the JSON.
func (f *File) PaddingSize() int64 { return f.padding }

// Tensors implements [format.Source].
func (f *File) Tensors() []format.Tensor { return f.tensors }

// Metadata implements [format.Source]. It is nil where the header has none.
func (f *File) Metadata() []format.Entry { return f.metadata }
