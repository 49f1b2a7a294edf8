// Package gguf reads and writes GGUF files, versions 2 and 3, little-endian: a
// fixed header, typed key-values in an order of their own, a table of tensors,
// then the tensors' bytes at aligned offsets.
//
// Opening a file checks its header as strictly as ggml does: magic and version,
// known value and tensor types, no arrays of arrays, names that are neither
// empty, too long nor repeated, an alignment that is a power of two, at most
// four dimensions, rows of whole blocks, offsets that are the running sum of
// padded sizes, and data that the file holds. Sizes are multiplied with checks
// for overflow, and no memory is sized by a count before the bytes that it
// counts are known to be there.
//
// On some points it is stricter on purpose: the name of a tensor is never
// empty; names and keys are valid UTF-8 without NUL, since ggml cuts a name
// there; a key has at most 65,535 bytes, as the specification says; a product
// of dimensions that overflows is an error even if another dimension is zero;
// and there are [MaxHeader], [MaxKeyValues] and [MaxTensors].
//
// Not checked, as in ggml: the bytes of padding, whether the last tensor is
// padded, and what follows it ([File.Gaps] lists all of that); the encoding of
// string values; that a bool is 0 or 1 (others are true, and are written back
// as they were); which keys there are and what they mean, the alignment apart.
// Values of tensors are not looked at.
package gguf

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/qinsconv/qinsconv/format"
)

// A File is an open GGUF file. It implements [format.Source].
type File struct {
	io.ReaderAt
	name   string
	size   int64
	header *header
	closer io.Closer
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
	g, err := New(f, info.Size(), path)
	if err != nil {
		f.Close()
		return nil, err
	}
	g.closer = f
	return g, nil
}

// New reads the header of a file of the given size. Errors give the file that
// name.
func New(r io.ReaderAt, size int64, name string) (*File, error) {
	h, err := parseHeader(&cursor{r: r, file: name, size: size})
	if err != nil {
		return nil, err
	}
	return &File{ReaderAt: r, name: name, size: size, header: h}, nil
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
func (f *File) Format() string { return "gguf" }

// Size implements [format.Source].
func (f *File) Size() int64 { return f.size }

// Tensors implements [format.Source]. The file stores dimensions innermost
// first; here they are outermost first.
func (f *File) Tensors() []format.Tensor { return f.header.tensors }

// Metadata implements [format.Source]: the key-values that are strings.
func (f *File) Metadata() []format.Entry {
	var list []format.Entry
	for _, kv := range f.header.keyValues {
		if s, err := As[string](kv.Value); err == nil {
			list = append(list, format.Entry{Key: kv.Key, Value: s})
		}
	}
	return list
}

// Version returns the version of the format that the file states, 2 or 3.
func (f *File) Version() uint32 { return f.header.version }

// Alignment returns what offsets of tensors are a multiple of.
func (f *File) Alignment() int64 { return f.header.alignment }

// KeyValues lists all key-values in the order of the file. Callers do not
// change the slice.
func (f *File) KeyValues() []KeyValue { return f.header.keyValues }

// Lookup returns the value of a key.
func (f *File) Lookup(key string) (Value, bool) { return lookup(f.header.keyValues, key) }

// HeaderSize returns the number of bytes before the data section, the padding
// before it included. Without tensors it is where the key-values end.
func (f *File) HeaderSize() int64 { return f.header.dataStart }

// RawHeader returns the first HeaderSize bytes of the file, which
// [NewRestorer] takes. Callers do not change them.
func (f *File) RawHeader() []byte { return f.header.raw }

// KeyValueSection returns which bytes of the file hold the key-values.
func (f *File) KeyValueSection() Span {
	return Span{Offset: fixedSize, Size: f.header.infoStart - fixedSize}
}

// Gaps lists the bytes behind the header that belong to no tensor, in the order
// of the file: padding, and whatever follows the last tensor. Header, tensors
// and gaps together are the whole file.
func (f *File) Gaps() []Span { return f.header.gaps(f.size) }

// A Span is a part of a file.
type Span struct{ Offset, Size int64 }

// ErrNoKey is the cause of the error for a key that a file does not have.
var ErrNoKey = errors.New("the file has no such key")

// Get returns the value of a key that has exactly the type T. Where any width
// of integer will do, use [File.Lookup] with [Value.Uint] or [Value.Int].
func Get[T Scalar](f *File, key string) (T, error) {
	return get(f, key, As[T])
}

// GetArray returns the elements of an array that has exactly the element type
// T.
func GetArray[T Scalar](f *File, key string) ([]T, error) {
	return get(f, key, Elements[T])
}

func get[T any](f *File, key string, as func(Value) (T, error)) (T, error) {
	fail := func(err error) (T, error) {
		var none T
		return none, &format.Error{File: f.name, Problem: "key " + format.Quote(key), Err: err}
	}
	v, ok := f.Lookup(key)
	if !ok {
		return fail(ErrNoKey)
	}
	got, err := as(v)
	if err != nil {
		return fail(err)
	}
	return got, nil
}

func lookup(list []KeyValue, key string) (Value, bool) {
	for i := range list {
		if list[i].Key == key {
			return list[i].Value, true
		}
	}
	return Value{}, false
}

// readError tells a file that ends early from one that cannot be read.
func readError(file string, size int64, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &format.Error{File: file, Problem: "the file is shorter than it was said to be", Expected: fmt.Sprintf("%d bytes", size)}
	}
	return fmt.Errorf("reading %s: %w", file, err)
}
