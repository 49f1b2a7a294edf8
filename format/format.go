// Package format says what a tensor is, whichever file it comes from: its
// dtype, its shape in arithmetic that cannot overflow unnoticed, and a Source
// to read its bytes from.
//
// The packages below it, one for each file format, check everything that a
// header claims before they hand out a Tensor: offsets lie inside the file,
// sizes agree with shape and dtype, names are unique. They read no tensor data
// and know nothing of values.
package format

import (
	"fmt"
	"io"
	"strings"
)

// A Tensor is one named array in a file.
type Tensor struct {
	Name   string
	DType  DType
	Shape  Shape
	Offset int64 // of the first byte, from the start of the file
	Size   int64 // in bytes
}

// Elements returns the number of elements. It is exact for every tensor that a
// Source lists, as readers reject shapes that overflow.
func (t Tensor) Elements() int64 {
	n, _ := t.Shape.Elements()
	return int64(n)
}

// An Entry is one key and value of a file's metadata, which keeps its order.
type Entry struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// A Source is an open checkpoint. ReadAt takes offsets from the start of the
// file, as in Tensor.Offset, and may be called by many goroutines at once.
type Source interface {
	io.ReaderAt
	// Name returns the name that errors give the file, usually its path.
	Name() string
	// Format returns "safetensors" or "gguf".
	Format() string
	// Size returns the length of the file in bytes.
	Size() int64
	// Tensors lists the tensors in the order of the file's header. Callers do
	// not change the slice.
	Tensors() []Tensor
	// Metadata lists the file's string metadata in the order of its header.
	Metadata() []Entry
}

// An Error says what is wrong with a file. Bad input of every format, the
// .qins file and the manifest included, is reported as one.
type Error struct {
	File     string
	Tensor   string // empty where no single tensor is to blame
	Problem  string
	Found    string // may be empty
	Expected string // may be empty
	Hint     string // what to do about it; may be empty
	Err      error  // the cause; may be nil
}

// Error writes FILE: tensor "NAME": PROBLEM: found X, expected Y: cause (hint).
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ": ")
	}
	if e.Tensor != "" {
		fmt.Fprintf(&b, "tensor %s: ", Quote(e.Tensor))
	}
	b.WriteString(e.Problem)
	found, expected := shorten(e.Found), shorten(e.Expected)
	switch {
	case found != "" && expected != "":
		fmt.Fprintf(&b, ": found %s, expected %s", found, expected)
	case found != "":
		b.WriteString(": found " + found)
	case expected != "":
		b.WriteString(": expected " + expected)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// shorten cuts what is too long to be read, such as a shape of a million
// dimensions.
func shorten(s string) string {
	const most = 1000
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(s[:most], ""), len(s))
}

// quoteLimit keeps a hostile name from filling the screen.
const quoteLimit = 120

// Quote writes a name from a file so that it is safe to print: quoted, control
// characters escaped, a very long one cut.
func Quote(name string) string {
	if len(name) > quoteLimit {
		return fmt.Sprintf("%q… (%d bytes)", name[:quoteLimit], len(name))
	}
	return fmt.Sprintf("%q", name)
}
