package qins

import (
	"fmt"
	"math"

	"github.com/x448/float16"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// newDecoder prepares decoding of codes to a dtype.
func newDecoder(c *Codec, d format.DType) (*codec.Decoder, error) {
	m, err := codecMap(c)
	if err != nil {
		return nil, err
	}
	return decoderOf(m, d), nil
}

func codecMap(c *Codec) (*codec.Map, error) {
	family, err := codec.ByID(c.ID)
	if err != nil {
		return nil, err
	}
	m, err := family.Map(c.Params)
	return &m, err
}

// decoderOf rounds the levels once from float32 to the dtype.
func decoderOf(m *codec.Map, d format.DType) *codec.Decoder {
	if d == format.F32 {
		var levels [256]uint32
		for c, l := range m.Levels {
			levels[c] = math.Float32bits(l)
		}
		return codec.NewDecoder32(&levels)
	}
	var levels [256]uint16
	for c, l := range m.Levels {
		levels[c] = narrow(d, l)
	}
	return codec.NewDecoder16(&levels)
}

// narrow rounds a positive float32 to F16 or BF16, ties to even.
func narrow(d format.DType, f float32) uint16 {
	if d == format.F16 {
		return float16.Fromfloat32(f).Bits()
	}
	bits := math.Float32bits(f)
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// Roundtrip puts in dst what src, a chunk of a tensor's weights or less, decodes to once
// it is encoded, and adds its errors.
func (p *Packer) Roundtrip(dst, src []byte, w *Weights, s *codec.Sums) {
	n := len(src) / w.typ.Size()
	p.codes, p.scratch = resize(p.codes, n), resize(p.scratch, (n+7)/8)
	p.kernel.Encode(p.codes, p.scratch, src, w.encoder)
	p.kernel.Decode(w.typ, dst, p.codes, p.scratch, w.decoder)
	p.kernel.Measure(w.typ, src, dst, s)
}

// Scan adds weights of a dtype that can be encoded to a scan.
func Scan(d format.DType, src []byte, s *codec.Scan) {
	t, _ := floatType(d)
	codec.Best().Scan(t, src, s)
}

// Fit derives a codec's parameters from a scan of all weights, or says why the
// tensor is to be kept.
func Fit(id string, s codec.Scan) (*Codec, error) {
	family, err := codec.ByID(id)
	if err != nil {
		return nil, err
	}
	params, err := family.Fit(s)
	if err != nil {
		return nil, err
	}
	return &Codec{ID: id, Params: params}, nil
}

// Encodable reports whether a dtype's tensors can be encoded.
func Encodable(d format.DType) bool {
	_, ok := floatType(d)
	return ok
}

// toFloat32 widens the elements of a tensor to float32 where that loses
// nothing, so from F32, F16 and BF16.
func toFloat32(dst []float32, src []byte, d format.DType) error {
	switch d {
	case format.F32:
		for i := range dst {
			dst[i] = math.Float32frombits(le.Uint32(src[4*i:]))
		}
	case format.F16:
		for i := range dst {
			dst[i] = float16.Frombits(le.Uint16(src[2*i:])).Float32()
		}
	case format.BF16:
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(le.Uint16(src[2*i:])) << 16)
		}
	default:
		return fmt.Errorf("a tensor of dtype %s cannot be read as float32", d)
	}
	return nil
}
