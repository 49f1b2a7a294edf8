package qins

import (
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// blockWeights is how many weights go through encoding, decoding and measuring
// at a time, few enough to stay in the processor's caches.
const blockWeights = 1 << 13

// A Weights holds what encoding the weights of one tensor needs. It may be used
// by many goroutines at once.
type Weights struct {
	typ     codec.Type
	encoder *codec.Encoder
	decoder *codec.Decoder
}

// NewWeights prepares a codec for tensors of a dtype that can be encoded.
func NewWeights(c *Codec, d format.DType) (*Weights, error) {
	m, err := codecMap(c)
	if err != nil {
		return nil, err
	}
	typ, _ := floatType(d)
	e, err := codec.NewEncoder(m, typ)
	if err != nil {
		return nil, err
	}
	return &Weights{typ, e, decoderOf(m, d)}, nil
}

// A Chunk is a part of a tensor as stored. A [Packer] fills it and a [Writer]
// takes it; its buffers are used again.
type Chunk struct {
	planes [maxPlanes][]byte
	sums   [maxPlanes]sum
	raw    int // bytes in a frame of it, before compression
}

// Size returns the bytes that the chunk takes in the file, its part of an index
// apart.
func (c *Chunk) Size() int64 {
	n := int64(0)
	for _, p := range c.planes {
		n += int64(len(p))
	}
	return n
}

// A Packer turns chunks of the source's bytes into what the file stores. Each
// goroutine has its own.
type Packer struct {
	kernel  *codec.Kernel
	frames  *frameWriter
	codes   []byte
	scratch []byte
}

// NewPacker returns a Packer.
func NewPacker() *Packer {
	k := codec.Best()
	return &Packer{kernel: k, frames: newFrameWriter(k)}
}

// resize returns a slice of length n, using b again where it is large enough. It
// leaves room for a little more, as the sizes of frames differ a little.
func resize(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n, n+n/16)
	}
	return b[:n]
}

// Encode encodes src, a chunk of tensor t, and adds the errors of what it
// decodes to, where errs is not nil.
func (p *Packer) Encode(c *Chunk, t *Tensor, w *Weights, src []byte, errs *codec.Sums) {
	size := w.typ.Size()
	n := len(src) / size
	signBytes := (n + 7) / 8
	p.scratch = resize(p.scratch, blockWeights*size+signBytes)
	decoded, bits := p.scratch[:blockWeights*size], p.scratch[blockWeights*size:]
	if t.Sign == Bits {
		c.planes[signPlane] = resize(c.planes[signPlane], signBytes)
		bits = c.planes[signPlane]
	}
	var codes []byte
	if t.Stored == Raw {
		c.planes[storedPlane] = resize(c.planes[storedPlane], n)
		codes = c.planes[storedPlane]
	} else {
		p.codes = resize(p.codes, n)
		codes = p.codes
	}

	for at := 0; at < n; at += blockWeights {
		end := min(at+blockWeights, n)
		want := src[at*size : end*size]
		blockCodes, blockSigns := codes[at:end], bits[at/8:(end+7)/8]
		p.kernel.Encode(blockCodes, blockSigns, want, w.encoder)
		if errs != nil {
			got := decoded[:len(want)]
			p.kernel.Decode(w.typ, got, blockCodes, blockSigns, w.decoder)
			p.kernel.Measure(w.typ, want, got, errs)
		}
	}

	c.raw = n
	if t.Stored == Zstd {
		c.planes[storedPlane] = p.frames.appendFrame(c.planes[storedPlane][:0], codes)
	}
	if t.Sign == Int8 {
		c.planes[signPlane] = resize(c.planes[signPlane], n)
		codec.ExpandSigns(c.planes[signPlane], bits)
	}
	c.seal()
}

// Keep stores src, a chunk of a kept tensor, without loss.
func (p *Packer) Keep(c *Chunk, t *Tensor, src []byte) error {
	c.planes[signPlane] = c.planes[signPlane][:0]
	c.raw = len(src)
	if t.Data == Raw {
		c.planes[storedPlane] = resize(c.planes[storedPlane], len(src))
		copy(c.planes[storedPlane], src)
		c.seal()
		return nil
	}
	split := src
	if size := elementSize(t.DType); size > 1 {
		p.scratch = resize(p.scratch, len(src))
		split = p.scratch
		codec.SplitPlanes(split, src, size, t.Data == ZstdRotated)
	}
	var err error
	if t.Data == ZstdRotated {
		c.planes[storedPlane] = p.frames.appendFrame(c.planes[storedPlane][:0], split)
	} else {
		c.planes[storedPlane], err = p.frames.appendSmallest(c.planes[storedPlane][:0], split)
	}
	c.seal()
	return err
}

func (c *Chunk) seal() {
	for i, p := range c.planes {
		c.sums[i] = sumOf(p)
	}
}

// Estimate predicts from histograms what a chunk adds to the stream of a tensor
// that is stored as one. w is nil for kept tensors.
func (p *Packer) Estimate(t *Tensor, w *Weights, src []byte) (int64, error) {
	if t.Action == Encoded {
		n := len(src) / w.typ.Size()
		p.codes = resize(p.codes, n)
		p.scratch = resize(p.scratch, (n+7)/8)
		p.kernel.Encode(p.codes, p.scratch, src, w.encoder)
		return p.frames.estimate(p.codes), nil
	}
	if t.Data != ZstdRotated {
		// Repeats count as well, which no histogram shows.
		var c Chunk
		err := p.Keep(&c, t, src)
		return c.Size(), err
	}
	p.scratch = resize(p.scratch, len(src))
	codec.SplitPlanes(p.scratch, src, elementSize(t.DType), true)
	return p.frames.estimate(p.scratch), nil
}

// Shrinks reports whether the compact layout's encoding makes a sample of a
// kept tensor smaller by enough to be worth decoding.
func (p *Packer) Shrinks(d format.DType, sample []byte) (bool, error) {
	t := Tensor{DType: d, Action: Kept, Data: keptEncoding(d)}
	n, err := p.Estimate(&t, nil, sample)
	return n < int64(len(sample))-int64(len(sample))/64, err
}

// Assign sets how the layout stores a tensor whose action is set. shrinks says
// whether a kept tensor is worth compressing.
func (t *Tensor) Assign(l Layout, shrinks bool) {
	t.Stored, t.Sign, t.Data = "", "", ""
	switch {
	case t.Action == Encoded:
		t.Stored, t.Sign = l.codeEncoding(), l.signEncoding()
	case t.Action == Kept && l == Compact && shrinks:
		t.Data = keptEncoding(t.DType)
	case t.Action == Kept:
		t.Data = Raw
	}
}

// IsStream reports whether the tensor's size in the file is known only once it
// is written.
func (t *Tensor) IsStream() bool {
	return t.Stored == Zstd || t.Data == Zstd || t.Data == ZstdRotated
}

// IndexSize returns the bytes that a stream takes beside its chunks.
func (t *Tensor) IndexSize() int64 {
	return tailSize(Chunks(t.DType, t.Size()), t.Action == Encoded)
}
