package convert

import (
	"io"
	"strings"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// An Inspection is what a file's header says.
type Inspection struct {
	File        string         `json:"file"`
	Format      string         `json:"format"`
	Size        int64          `json:"size"`
	HeaderBytes int64          `json:"header_bytes"`
	Metadata    []format.Entry `json:"metadata"`
	Layout      qins.Layout    `json:"layout,omitzero"`
	Tensors     []Inspected    `json:"tensors"`
}

// An Inspected is one tensor of an inspection. Those of a .qins file are the
// source's.
type Inspected struct {
	Name   string       `json:"name"`
	DType  format.DType `json:"dtype"`
	Shape  format.Shape `json:"shape"`
	Offset int64        `json:"offset"` // in the file; of a .qins file's tensors see planes
	Size   int64        `json:"size"`   // that it takes in the file
	Action qins.Action  `json:"action,omitzero"`
	TiedTo string       `json:"tied_to,omitzero"`
	Bits   float64      `json:"bits_per_weight,omitzero"`
	Planes []Inspected  `json:"planes,omitzero"`
}

// Inspect reads the header of a file of any known format.
func Inspect(path string) (*Inspection, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size := f.info.Size()
	if isGGUF(f) {
		return inspectGGUF(f, size, path)
	}
	st, err := safetensors.New(f, size, path)
	if err != nil {
		return nil, err
	}
	list := &Inspection{File: path, Format: "safetensors", Size: st.Size(), HeaderBytes: st.HeaderSize(), Metadata: st.Metadata()}
	if !qins.IsQINS(st) {
		list.Tensors = inspectTensors(st.Tensors())
		return list, nil
	}
	q, err := qins.New(st)
	if err != nil {
		return nil, err
	}
	list.Format, list.Layout, list.Metadata = "qins", q.Header().Layout, q.Metadata()
	for i, t := range q.Tensors() {
		it := Inspected{Name: t.Name, DType: t.DType, Shape: t.Shape, Size: q.StoredSize(i), Action: t.Action, TiedTo: t.TiedTo,
			Planes: inspectTensors(q.PlanesOf(i))}
		if n := t.Elements(); n > 0 {
			it.Bits = 8 * float64(it.Size) / float64(n)
		}
		if len(it.Planes) > 0 {
			it.Offset = it.Planes[0].Offset
		}
		list.Tensors = append(list.Tensors, it)
	}
	return list, nil
}

func inspectGGUF(f io.ReaderAt, size int64, path string) (*Inspection, error) {
	g, err := gguf.New(f, size, path)
	if err != nil {
		return nil, err
	}
	list := &Inspection{File: path, Format: "gguf", Size: g.Size(), HeaderBytes: g.HeaderSize(), Tensors: inspectTensors(g.Tensors())}
	for _, kv := range g.KeyValues() {
		value, err := gguf.As[string](kv.Value)
		if err != nil {
			value = kv.Value.String() // of another type
		}
		// Strings in GGUF files need not be valid UTF-8, those in JSON do.
		list.Metadata = append(list.Metadata, format.Entry{Key: kv.Key, Value: strings.ToValidUTF8(value, "\uFFFD")})
	}
	return list, nil
}

func inspectTensors(tensors []format.Tensor) []Inspected {
	var list []Inspected
	for _, t := range tensors {
		list = append(list, Inspected{Name: t.Name, DType: t.DType, Shape: t.Shape, Offset: t.Offset, Size: t.Size})
	}
	return list
}
