package qins

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
)

// Sizes are those of a finished file's parts, in bytes. They sum to its size.
type Sizes struct {
	Header  int64 // the length field and the JSON
	Padding int64 // spaces after the JSON
	Payload int64 // the tensors
	// Tensors is the share of the payload of each tensor of the header.
	Tensors []int64
}

// Total returns the size of the file.
func (s Sizes) Total() int64 { return s.Header + s.Padding + s.Payload }

// A Writer writes a .qins file. Tensors are written in the order of their data
// in the source, chunk by chunk.
//
// In the file, tensors of wide dtypes come first, so that every offset is a
// multiple of the dtype's size; then come the bytes of all other planes.
type Writer struct {
	dst      io.WriterAt
	header   Header
	text     []byte // the description, with CRCs still to be filled in
	metadata []format.Entry
	// Small planes of neighbouring tensors are written together: those of wide
	// dtypes, and all others.
	wide, rest gatherer
	reserved   int64 // bytes before the data
	tensors    []written
	end        int64 // of the data placed so far
	buf        []byte
}

// written is the state of one stored tensor.
type written struct {
	planes []plane
	begun  bool
	chunks int
	filled [maxPlanes]sum
	frames []int // sizes of a stream's frames
	sizes  []int // what they decode to
	signs  []uint32
}

// NewWriter prepares a file for the tensors of h, whose CRCs it ignores.
// metadata is that of the source. It fails, before anything is written, where
// names collide or the header would be too long.
func NewWriter(dst io.WriterAt, h *Header, metadata []format.Entry) (*Writer, error) {
	w := &Writer{dst: dst, header: *h, metadata: metadata, tensors: make([]written, len(h.Tensors))}
	w.wide.dst, w.rest.dst = dst, dst
	w.header.Tensors = slices.Clone(h.Tensors)
	for _, e := range metadata {
		if e.Key == MetadataKey {
			return nil, &format.Error{Problem: "the source's metadata has an entry " + format.Quote(MetadataKey) + " already"}
		}
	}
	for i := range w.tensors {
		t := &w.header.Tensors[i]
		t.CRC = Checksum{Valid: t.Action != Tied}
		w.tensors[i].planes = t.planes()
	}
	if err := w.header.check(""); err != nil {
		return nil, err // which no reader would take
	}
	if err := checkNames(w.header.Tensors, func(i int) []plane { return w.tensors[i].planes }); err != nil {
		return nil, err
	}
	var err error
	if w.text, err = w.header.marshal(); err != nil {
		return nil, err
	}
	var wide []*plane
	for i := range w.tensors {
		planes := w.tensors[i].planes
		for j := range planes {
			if planes[j].DType.Align() > 1 {
				wide = append(wide, &planes[j])
			}
		}
	}
	slices.SortStableFunc(wide, func(a, b *plane) int { return cmp.Compare(b.DType.Align(), a.DType.Align()) })
	for _, p := range wide {
		p.Offset = w.end
		w.end += p.Size
	}
	return w, w.reserve()
}

// reserve makes room for the longest header that the file can turn out to need,
// which without streams is the very header.
func (w *Writer) reserve() error {
	streams := slices.ContainsFunc(w.tensors, func(t written) bool {
		return len(t.planes) > 0 && t.planes[storedPlane].stream
	})
	if streams {
		w.placeFarOut()
	} else {
		for _, i := range w.header.Order() {
			w.begin(i)
		}
	}
	// Names and places take about as much as is said of them, and quotes take
	// two bytes each.
	json, err := w.marshal(3 * len(w.text))
	if err != nil {
		return err
	}
	w.reserved, err = safetensors.FramedSize(len(json), 0)
	return err
}

// placeFarOut gives the planes that have no place yet the offsets with the most
// digits that they can turn out to have.
func (w *Writer) placeFarOut() {
	most := w.end
	for i := range w.tensors {
		for _, p := range w.tensors[i].planes {
			if p.stream {
				most += w.streamBound(i)
			} else if p.DType.Align() == 1 {
				most += p.Size
			}
		}
	}
	for i := range w.tensors {
		for j := range w.tensors[i].planes {
			p := &w.tensors[i].planes[j]
			if p.stream {
				p.Shape, p.Size = format.Shape{uint64(w.streamBound(i))}, 0
			}
			if p.DType.Align() == 1 {
				p.Offset = most - p.Size
			}
		}
	}
}

// streamBound is the size that a stream cannot exceed.
func (w *Writer) streamBound(i int) int64 {
	t := &w.header.Tensors[i]
	size, chunk := t.Size(), ChunkSize(t.DType)
	if t.Action == Encoded {
		size, chunk = t.Elements(), ChunkWeights
	}
	n := Chunks(t.DType, t.Size())
	return size + int64(n)*int64(frameBound(chunk)-chunk) + tailSize(n, t.Action == Encoded)
}

// marshal writes the header's JSON, tensors in the order of their offsets. room
// is what it makes room for.
func (w *Writer) marshal(room int) ([]byte, error) {
	list := make([]format.Tensor, 0, (maxPlanes+2)*len(w.tensors))
	for i := range w.tensors {
		for _, p := range w.tensors[i].planes {
			list = append(list, p.Tensor)
		}
	}
	slices.SortStableFunc(list, func(a, b format.Tensor) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Size, b.Size))
	})
	metadata := append(slices.Clone(w.metadata), format.Entry{Key: MetadataKey, Value: string(w.text)})
	return safetensors.AppendHeader(make([]byte, 0, room), metadata, list)
}

// fillIn writes the CRCs, which are in the order of the stored tensors, over the
// zeros that the description was made with. Within a string the quotes of what
// it looks for would be escaped.
func (w *Writer) fillIn() {
	const member, zeros = `"crc32c":"`, "00000000"
	at := 0
	for i := range w.header.Tensors {
		if t := &w.header.Tensors[i]; t.Action != Tied {
			at += bytes.Index(w.text[at:], []byte(member+zeros)) + len(member)
			copy(w.text[at:], t.CRC.String())
		}
	}
}

// Predict predicts the sizes of the finished file from those of its streams.
func (w *Writer) Predict(streams func(tensor int) int64) Sizes {
	s := Sizes{Header: w.reserved, Tensors: make([]int64, len(w.tensors))}
	for i := range w.tensors {
		for _, p := range w.tensors[i].planes {
			if p.stream {
				s.Tensors[i] += streams(i)
			} else {
				s.Tensors[i] += p.Size
			}
		}
		s.Payload += s.Tensors[i]
	}
	return s
}

// Append writes the next chunk of tensor i of the header.
func (w *Writer) Append(i int, c *Chunk) error {
	t := &w.tensors[i]
	w.begin(i)
	for k := maxPlanes - 1; k >= 0; k-- { // in the order in which they lie
		data := c.planes[k]
		if len(data) == 0 {
			continue
		}
		p := &t.planes[k]
		if !p.stream && t.filled[k].n+int64(len(data)) > p.Size {
			return fmt.Errorf("tensor %s: more data than its shape has", format.Quote(w.header.Tensors[i].Name))
		}
		if err := w.write(p, t.filled[k].n, data); err != nil {
			return err
		}
		t.filled[k] = t.filled[k].join(c.sums[k])
	}
	if t.planes[storedPlane].stream {
		t.frames = append(t.frames, len(c.planes[storedPlane]))
		t.sizes = append(t.sizes, c.raw)
		if w.header.Tensors[i].Action == Encoded {
			t.signs = append(t.signs, c.sums[signPlane].crc)
		}
	}
	if t.chunks++; t.chunks == Chunks(w.header.Tensors[i].DType, w.header.Tensors[i].Size()) {
		return w.finish(i)
	}
	return nil
}

// write writes into a plane.
func (w *Writer) write(p *plane, off int64, data []byte) error {
	g := &w.rest
	if p.DType.Align() > 1 {
		g = &w.wide
	}
	return g.writeAt(data, w.reserved+p.Offset+off)
}

// begin places the planes of a tensor that have no place yet, a stream last,
// as it grows.
func (w *Writer) begin(i int) {
	t := &w.tensors[i]
	if t.begun || len(t.planes) == 0 {
		return
	}
	t.begun = true
	place := func(stream bool) {
		for j := range t.planes {
			if p := &t.planes[j]; p.DType.Align() == 1 && p.stream == stream {
				p.Offset = w.end
				w.end += p.Size
			}
		}
	}
	place(false)
	place(true)
	if t.planes[storedPlane].stream && w.header.Tensors[i].Action == Encoded {
		t.signs = []uint32{}
	}
}

// finish writes what follows the last chunk and seals the tensor's CRC.
func (w *Writer) finish(i int) error {
	t, h := &w.tensors[i], &w.header.Tensors[i]
	if p := &t.planes[storedPlane]; p.stream {
		w.buf = appendTail(w.buf[:0], t.frames, t.sizes, t.signs)
		if err := w.write(p, t.filled[storedPlane].n, w.buf); err != nil {
			return err
		}
		t.filled[storedPlane] = t.filled[storedPlane].extend(w.buf)
		p.Size = t.filled[storedPlane].n
		p.Shape = format.Shape{uint64(p.Size)}
		w.end += p.Size
		t.frames, t.sizes, t.signs = nil, nil, nil
	}
	crc := sum{}
	for k := range t.planes {
		p := &t.planes[k]
		if h.Action == Encoded && k >= maxPlanes {
			var value [4]byte
			le.PutUint32(value[:], math.Float32bits(h.Codec.Params[k-maxPlanes]))
			if err := w.write(p, 0, value[:]); err != nil {
				return err
			}
			crc = crc.extend(value[:])
			continue
		}
		if t.filled[k].n != p.Size {
			return fmt.Errorf("tensor %s: plane %s has %d bytes, expected %d", format.Quote(h.Name), format.Quote(p.Name), t.filled[k].n, p.Size)
		}
		crc = crc.join(t.filled[k])
	}
	h.CRC = Checksum{crc.crc, true}
	return nil
}

// Stored returns the bytes that tensor i, of which every chunk was written,
// takes in the file.
func (w *Writer) Stored(i int) int64 {
	n := int64(0)
	for _, p := range w.tensors[i].planes {
		n += p.Size
	}
	return n
}

// Finish writes the header, once every tensor is complete, and returns the
// tensors as the header describes them.
func (w *Writer) Finish() (Sizes, []Tensor, error) {
	s := Sizes{Tensors: make([]int64, len(w.tensors))}
	for i := range w.tensors {
		t, h := &w.tensors[i], &w.header.Tensors[i]
		if h.Action == Tied {
			continue
		}
		want := Chunks(h.DType, h.Size())
		if t.chunks != want {
			return s, nil, fmt.Errorf("tensor %s: %d of %d chunks were written", format.Quote(h.Name), t.chunks, want)
		}
		if want == 0 { // no data, but it may have an index or parameters
			w.begin(i)
			if err := w.finish(i); err != nil {
				return s, nil, err
			}
		}
		s.Tensors[i] = w.Stored(i)
	}
	if err := w.wide.flush(); err != nil {
		return s, nil, err
	}
	if err := w.rest.flush(); err != nil {
		return s, nil, err
	}
	s.Payload = w.end
	w.fillIn()
	json, err := w.marshal(int(w.reserved))
	if err != nil {
		return s, nil, err
	}
	header, err := safetensors.FrameHeader(json, w.reserved)
	if err != nil {
		return s, nil, err
	}
	if int64(len(header)) != w.reserved {
		return s, nil, fmt.Errorf("the header needs %d bytes, more than the %d that were reserved", len(header), w.reserved)
	}
	s.Header = safetensors.PrefixSize + int64(len(json))
	s.Padding = int64(len(header)) - s.Header
	_, err = w.dst.WriteAt(header, 0)
	return s, w.header.Tensors, err
}

// A gatherer joins small writes to places that follow each other.
type gatherer struct {
	dst io.WriterAt
	buf []byte
	at  int64 // where buf goes
}

const (
	gatherMax = 4 << 10 // what is not small is written at once
	gatherAll = 64 << 10
)

func (g *gatherer) writeAt(p []byte, off int64) error {
	if off != g.at+int64(len(g.buf)) || len(p) > gatherMax || len(g.buf)+len(p) > gatherAll {
		if err := g.flush(); err != nil {
			return err
		}
		g.at = off
	}
	if len(p) > gatherMax {
		g.at += int64(len(p))
		_, err := g.dst.WriteAt(p, off)
		return err
	}
	g.buf = append(g.buf, p...)
	return nil
}

func (g *gatherer) flush() error {
	if len(g.buf) == 0 {
		return nil
	}
	_, err := g.dst.WriteAt(g.buf, g.at)
	g.at += int64(len(g.buf))
	g.buf = g.buf[:0]
	return err
}
