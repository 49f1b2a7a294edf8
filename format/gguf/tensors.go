package gguf

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"

	"github.com/qinsconv/qinsconv/format"
)

func (p *parser) readTensors(count uint64) error {
	for i := range count {
		t, err := p.readTensor(i)
		if err != nil {
			return err
		}
		p.tensors = append(p.tensors, t)
	}
	if i, ok := repeated(len(p.tensors), func(a, b int32) int { return strings.Compare(p.tensors[a].Name, p.tensors[b].Name) }); ok {
		return &format.Error{File: p.file, Tensor: p.tensors[i].Name, Problem: "the name is given to two tensors"}
	}
	return nil
}

// readTensor reads one entry of the tensor table. Its offset counts from the
// start of the data until place makes it absolute.
func (p *parser) readTensor(i uint64) (t format.Tensor, err error) {
	n, err := p.uint64("the length of a tensor's name")
	if err != nil {
		return t, err
	}
	if n == 0 {
		return t, p.fail(fmt.Sprintf("tensor %d has an empty name", i), "", "")
	}
	if n > MaxTensorName {
		return t, p.fail(fmt.Sprintf("the name of tensor %d is too long", i), fmt.Sprintf("%d bytes", n), fmt.Sprintf("at most %d", MaxTensorName))
	}
	start := p.pos
	if err := p.skip(n, "the name of a tensor"); err != nil {
		return t, err
	}
	if name := p.buf[start:p.pos]; !validName(name) {
		return t, p.fail(fmt.Sprintf("the name of tensor %d is not valid UTF-8 without NUL", i), format.Quote(string(name)), "")
	}
	t.Name = string(p.buf[start:p.pos])
	if err := p.readTensorInfo(&t); err != nil {
		var bad *format.Error
		if errors.As(err, &bad) {
			bad.Tensor = t.Name
		}
		return t, err
	}
	return t, nil
}

func (p *parser) readTensorInfo(t *format.Tensor) error {
	dims, err := p.uint32("the number of dimensions")
	if err != nil {
		return err
	}
	if dims > MaxDimensions {
		return p.fail("too many dimensions", fmt.Sprint(dims), fmt.Sprintf("at most %d", MaxDimensions))
	}
	t.Shape = make(format.Shape, dims)
	for j := range t.Shape {
		if t.Shape[len(t.Shape)-1-j], err = p.uint64("a dimension"); err != nil {
			return err
		}
	}
	id, err := p.uint32("the type of the tensor")
	if err != nil {
		return err
	}
	var ok bool
	if t.DType, ok = DType(id); !ok {
		if name, removed := removedTypes[id]; removed {
			return &format.Error{File: p.file, Problem: "the tensor type was removed from ggml", Found: fmt.Sprintf("type %d (%s)", id, name),
				Hint: "quantize the model again with a current llama.cpp"}
		}
		return p.fail("unknown tensor type", fmt.Sprintf("type %d", id), "one that ggml defines")
	}
	if err := p.checkShape(t); err != nil {
		return err
	}
	offset, err := p.uint64("the offset of the tensor")
	if err != nil {
		return err
	}
	if offset > math.MaxInt64 {
		return p.fail("the offset lies beyond any file", fmt.Sprint(offset), "")
	}
	t.Offset = int64(offset)
	return nil
}

// checkShape checks the dimensions and sets the size in bytes.
func (p *parser) checkShape(t *format.Tensor) error {
	// Zeros are left out of the product, so that the order of the dimensions
	// does not decide whether it overflows.
	product, row := uint64(1), uint64(1)
	for _, d := range t.Shape {
		if d > math.MaxInt64 {
			return p.fail("a dimension is negative", fmt.Sprint(int64(d)), "0 or more")
		}
		hi, lo := bits.Mul64(product, max(d, 1))
		if hi != 0 || lo > math.MaxInt64 {
			return p.fail("the shape overflows 64 bits", t.Shape.String(), "")
		}
		product, row = lo, d
	}
	if block, _ := t.DType.Block(); row%block != 0 {
		return p.fail("a row does not fill whole blocks", fmt.Sprintf("%d elements of %s", row, t.DType), fmt.Sprintf("a multiple of %d", block))
	}
	size, ok := t.Shape.Bytes(t.DType)
	if !ok || size > math.MaxInt64 {
		return p.fail("the size overflows 64 bits", fmt.Sprintf("%s %s", t.DType, t.Shape), "")
	}
	t.Size = int64(size)
	return nil
}

// place finds the data section, checks that every offset is the running sum of
// padded sizes and that the data is there, and makes offsets absolute.
func (p *parser) place() error {
	p.dataStart = p.infoEnd
	if len(p.tensors) == 0 {
		return nil
	}
	if err := p.skip(uint64(pad(p.infoEnd, p.alignment)-p.infoEnd), "the padding before the data"); err != nil {
		return err
	}
	p.dataStart = int64(p.pos)
	room := p.size - p.dataStart
	var next int64
	for i := range p.tensors {
		t := &p.tensors[i]
		fail := func(problem, found, expected string) error {
			return &format.Error{File: p.file, Tensor: t.Name, Problem: problem, Found: found, Expected: expected}
		}
		if t.Offset&(p.alignment-1) != 0 {
			return fail("the offset is not aligned", fmt.Sprint(t.Offset), fmt.Sprintf("a multiple of %d", p.alignment))
		}
		if t.Offset != next {
			return fail("the offset is not where the tensor before it ends", fmt.Sprint(t.Offset), fmt.Sprint(next))
		}
		if t.Offset > room || t.Size > room-t.Offset {
			return &format.Error{File: p.file, Tensor: t.Name, Problem: "the data lies past the end of the file",
				Found: fmt.Sprintf("%d data bytes", room), Expected: fmt.Sprintf("%d from %d on", t.Size, t.Offset),
				Hint: "the file may be truncated: compare its size with the original's"}
		}
		// No overflow: the end lies at least one alignment below the file's.
		next = pad(t.Offset+t.Size, p.alignment)
	}
	for i := range p.tensors {
		p.tensors[i].Offset += p.dataStart
	}
	return nil
}

// pad rounds up to a multiple of a power of two. The sum must not overflow.
func pad(n, alignment int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }

// gaps lists what lies between tensors and behind the last, for a file of that
// size.
func (h *header) gaps(size int64) []Span {
	var list []Span
	end := h.dataStart
	add := func(next int64) {
		if next > end {
			list = append(list, Span{Offset: end, Size: next - end})
		}
	}
	for _, t := range h.tensors {
		add(t.Offset)
		end = t.Offset + t.Size
	}
	add(size)
	return list
}
