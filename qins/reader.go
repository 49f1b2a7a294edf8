package qins

import (
	"fmt"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// A ChunkReader reads chunks of a file's tensors. Each goroutine has its own.
type ChunkReader struct {
	f      *File
	kernel *codec.Kernel
	frames frameReader
	stored []byte
	signs  []byte
	plain  []byte
	out    []byte
}

// NewChunkReader returns a ChunkReader.
func (f *File) NewChunkReader() *ChunkReader {
	return &ChunkReader{f: f, kernel: codec.Best()}
}

// A ChunkSum is the checksum of a chunk as stored.
type ChunkSum [maxPlanes]sum

// A TensorSum joins the checksums of a tensor's chunks, added in order.
type TensorSum struct{ planes ChunkSum }

// Add adds the next chunk.
func (s *TensorSum) Add(c ChunkSum) {
	for k := range c {
		s.planes[k] = s.planes[k].join(c[k])
	}
}

// CheckSum compares the sums of all chunks of stored tensor i with its CRC-32C.
func (f *File) CheckSum(i int, sums *TensorSum) error {
	t := &f.header.Tensors[i]
	s, err := f.prepare(i)
	if err != nil {
		return err
	}
	crc := sum{}
	for k, p := range s.planes {
		part := sum{}
		read := p.Offset
		if k < maxPlanes {
			part = sums.planes[k]
			read += part.n
		}
		rest := make([]byte, p.Offset+p.Size-read) // an index or a parameter
		if err := format.ReadFull(f.st, rest, read); err != nil {
			return err
		}
		crc = crc.join(part).join(sumOf(rest))
	}
	if got := (Checksum{crc.crc, true}); got != t.CRC {
		return &ChecksumError{&format.Error{File: f.Name(), Tensor: t.Name, Problem: "the data does not match its CRC-32C",
			Found: got.String(), Expected: t.CRC.String(), Hint: "the file was damaged after it was written"}}
	}
	return nil
}

// A ChecksumError says that data differs from what was once written.
type ChecksumError struct{ Bad *format.Error }

// Error implements error.
func (e *ChecksumError) Error() string { return e.Bad.Error() }

// Unwrap returns what is bad.
func (e *ChecksumError) Unwrap() error { return e.Bad }

// Read decodes chunk c of stored tensor i to dst, which holds a full chunk or
// more, in the source's dtype. It returns the checksum of what it read and the
// number of bytes decoded.
func (r *ChunkReader) Read(dst []byte, i, c int) (ChunkSum, int, error) {
	var sums ChunkSum
	t := &r.f.header.Tensors[i]
	s, err := r.f.prepare(i)
	if err != nil {
		return sums, 0, err
	}
	off, n := t.chunk(c)
	dst = dst[:n]
	bad := func(problem string, err error) error {
		return &ChecksumError{&format.Error{File: r.f.Name(), Tensor: t.Name, Problem: fmt.Sprintf("chunk %d: %s", c, problem), Err: err}}
	}

	data := &s.planes[storedPlane]
	frame := func(out []byte) error {
		at := s.index.offsets[c]
		r.stored = resize(r.stored, int(s.index.offsets[c+1]-at))
		if err := format.ReadFull(r.f.st, r.stored, data.Offset+at); err != nil {
			return err
		}
		sums[storedPlane] = sumOf(r.stored)
		if err := r.frames.read(out, r.stored); err != nil {
			return bad("bad data", err)
		}
		return nil
	}

	if t.Action == Kept {
		if !data.stream {
			if err := format.ReadFull(r.f.st, dst, data.Offset+off); err != nil {
				return sums, 0, err
			}
			sums[storedPlane] = sumOf(dst)
			return sums, n, nil
		}
		size := elementSize(t.DType)
		if size == 1 {
			return sums, n, frame(dst)
		}
		r.plain = resize(r.plain, n)
		if err := frame(r.plain); err != nil {
			return sums, 0, err
		}
		codec.JoinPlanes(dst, r.plain, size, t.Data == ZstdRotated)
		return sums, n, nil
	}

	typ, _ := floatType(t.DType)
	weights := n / typ.Size()
	first := off / int64(typ.Size())
	r.plain = resize(r.plain, weights)
	codes := r.plain
	if data.stream {
		err = frame(codes)
	} else {
		err = format.ReadFull(r.f.st, codes, data.Offset+first)
		sums[storedPlane] = sumOf(codes)
	}
	if err != nil {
		return sums, 0, err
	}

	signs := &s.planes[signPlane]
	bits := (weights + 7) / 8
	if t.Sign == Int8 {
		r.stored = resize(r.stored, weights)
		if err := format.ReadFull(r.f.st, r.stored, signs.Offset+first); err != nil {
			return sums, 0, err
		}
		sums[signPlane] = sumOf(r.stored)
		r.signs = resize(r.signs, bits)
		if !codec.PackSigns(r.signs, r.stored) {
			return sums, 0, bad("a sign is neither +1 nor -1", nil)
		}
	} else {
		r.signs = resize(r.signs, bits)
		if err := format.ReadFull(r.f.st, r.signs, signs.Offset+first/8); err != nil {
			return sums, 0, err
		}
		sums[signPlane] = sumOf(r.signs)
		if data.stream && sums[signPlane].crc != s.index.signs[c] {
			return sums, 0, bad("the signs do not match their CRC-32C", nil)
		}
		if used := weights % 8; used != 0 && r.signs[bits-1]>>used != 0 {
			return sums, 0, bad("there are signs past the last weight", nil)
		}
	}
	r.kernel.Decode(typ, dst, codes, r.signs, s.decoder)
	return sums, n, nil
}
