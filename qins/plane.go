package qins

import (
	"strings"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// A plane is one tensor of the .qins file, a part of a tensor of the source.
type plane struct {
	format.Tensor // Size is unknown before writing where stream is set
	stream        bool
}

// Most planes that a tensor can have but for its parameters.
const (
	storedPlane = 0 // or the data of a kept tensor
	signPlane   = 1
	maxPlanes   = 2
)

// stem is what the names of an encoded tensor's planes begin with: M for
// M.weight, the buffer names of the seed's QINSLinear, and else all of it.
func stem(name string) string {
	if m, ok := strings.CutSuffix(name, ".weight"); ok && m != "" {
		return m
	}
	return name
}

// planes lists the planes of a stored tensor: codes and signs, or the data,
// then the codec's parameters.
func (t *Tensor) planes() []plane {
	fixed := func(name string, d format.DType, shape format.Shape) plane {
		size, _ := shape.Bytes(d)
		return plane{Tensor: format.Tensor{Name: name, DType: d, Shape: shape, Size: int64(size)}}
	}
	stream := func(name string) plane {
		return plane{Tensor: format.Tensor{Name: name, DType: format.U8}, stream: true}
	}
	switch t.Action {
	case Kept:
		if t.Data != Raw {
			return []plane{stream(t.Name + ".planes")}
		}
		if block, _ := t.DType.Block(); block != 1 && !nativeBlock(t.DType) {
			return []plane{fixed(t.Name, format.U8, format.Shape{uint64(t.Size())})}
		}
		return []plane{fixed(t.Name, t.DType, t.Shape)}
	case Encoded:
		m := stem(t.Name)
		list := make([]plane, maxPlanes, maxPlanes+len(t.Codec.Params))
		if t.Stored == Zstd {
			list[storedPlane] = stream(m + ".stored")
		} else {
			list[storedPlane] = fixed(m+".stored", format.U8, t.Shape)
		}
		if t.Sign == Int8 {
			list[signPlane] = fixed(m+".sign", format.I8, t.Shape)
		} else {
			list[signPlane] = fixed(m+".sign", format.U8, format.Shape{uint64(t.Elements()+7) / 8})
		}
		family, err := codec.ByID(t.Codec.ID)
		if err != nil {
			return list
		}
		for _, name := range family.Params {
			list = append(list, fixed(m+"."+name, format.F32, format.Shape{}))
		}
		return list
	}
	return nil
}

// nativeBlock reports whether safetensors itself has the packed dtype.
func nativeBlock(d format.DType) bool {
	return d == format.F4 || d == format.F6_E2M3 || d == format.F6_E3M2
}

// keptEncoding is how the compact layout stores kept tensors that shrink.
func keptEncoding(d format.DType) Encoding {
	if _, ok := floatType(d); ok {
		return ZstdRotated
	}
	return Zstd
}

// elementSize is the width of the byte planes of a kept tensor.
func elementSize(d format.DType) int {
	if block, bytes := d.Block(); block == 1 {
		return int(bytes)
	}
	return 1
}

// ChunkSize returns the bytes that a full chunk of a tensor takes in the source.
func ChunkSize(d format.DType) int { return ChunkWeights * elementSize(d) }

// Chunks returns the number of chunks of a tensor of the given dtype and size
// in bytes.
func Chunks(d format.DType, size int64) int {
	chunk := int64(ChunkSize(d))
	n := size / chunk
	if size%chunk != 0 { // without adding to a size that may be the largest
		n++
	}
	return int(n)
}

// chunk returns where chunk i of the tensor lies in the tensor's source bytes.
func (t *Tensor) chunk(i int) (off int64, size int) {
	full := int64(ChunkSize(t.DType))
	off = int64(i) * full
	return off, int(min(full, t.Size()-off))
}

// checkNames returns an error where the file for these tensors would need one
// name twice. planes are those of tensor i.
func checkNames(tensors []Tensor, planes func(i int) []plane) error {
	owner := make(map[string]string, 5*len(tensors)) // most have four planes
	for i := range tensors {
		owner[tensors[i].Name] = tensors[i].Name
	}
	for i := range tensors {
		t := &tensors[i]
		for _, p := range planes(i) {
			if other, taken := owner[p.Name]; taken && p.Name != t.Name {
				hint := "exclude one of them from encoding with --exclude"
				if t.Action == Kept {
					hint = "choose another layout with --layout"
				}
				return &format.Error{Tensor: t.Name, Problem: "its plane " + format.Quote(p.Name) + " would collide with that of another tensor",
					Found: format.Quote(other), Hint: hint}
			}
			owner[p.Name] = t.Name
		}
	}
	return nil
}
