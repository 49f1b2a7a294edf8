package safetensors

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/qinsconv/qinsconv/format"
)

// MaxHeader is the longest header, in bytes, that readers of the format accept.
const MaxHeader = 100_000_000

// PrefixSize is the size of the length field that stands before the header.
const PrefixSize = 8

// metadataKey names the header's one entry that is no tensor.
const metadataKey = "__metadata__"

// dtypes are those that the format can name. The block types of other formats
// are not among them.
var dtypes = map[string]format.DType{}

func init() {
	for _, d := range []format.DType{
		format.F4, format.F6_E2M3, format.F6_E3M2,
		format.Bool, format.U8, format.I8, format.F8_E5M2, format.F8_E4M3, format.F8_E8M0, format.F8_E4M3FNUZ, format.F8_E5M2FNUZ,
		format.I16, format.U16, format.F16, format.BF16,
		format.I32, format.U32, format.F32,
		format.C64, format.F64, format.I64, format.U64,
	} {
		dtypes[d.String()] = d
	}
}

// A parser reads one header. Offsets in it count from the end of the header
// until place makes them absolute.
type parser struct {
	reader
	metadata []format.Entry
	tensors  []format.Tensor
}

// parseHeader checks everything that a header says by itself: its syntax, the
// shape of each entry, and that sizes agree with shapes.
func parseHeader(file string, text []byte) (*parser, error) {
	p := &parser{reader: newReader(file, "header", text)}
	if err := p.header(); err != nil {
		return nil, p.bad(err)
	}
	return p, nil
}

func (p *parser) header() error {
	if err := p.expect('{', "an object"); err != nil {
		return err
	}
	for p.dec.PeekKind() == '"' {
		name, err := p.str()
		if err != nil {
			return err
		}
		if name == metadataKey {
			err = p.readMetadata()
		} else {
			err = p.readTensor(name)
		}
		if err != nil {
			return err
		}
	}
	if err := p.expect('}', "a name or the end of the object"); err != nil {
		return err
	}
	return p.end()
}

func (p *parser) readMetadata() error {
	if err := p.expect('{', "an object for __metadata__"); err != nil {
		return err
	}
	p.metadata = []format.Entry{}
	for p.dec.PeekKind() == '"' {
		key, err := p.str()
		if err != nil {
			return err
		}
		if k := p.dec.PeekKind(); k != '"' {
			return p.unexpected(fmt.Sprintf("__metadata__ entry %s must be a string", format.Quote(key)), k)
		}
		value, err := p.str()
		if err != nil {
			return err
		}
		p.metadata = append(p.metadata, format.Entry{Key: key, Value: value})
	}
	return p.expect('}', "a key or the end of __metadata__")
}

func (p *parser) readTensor(name string) error {
	t := format.Tensor{Name: name}
	fail := func(problem, found, expected string) error {
		return &format.Error{File: p.file, Tensor: name, Problem: problem, Found: found, Expected: expected}
	}
	if k := p.dec.PeekKind(); k != '{' {
		return fail("the entry is not an object", kindName(k), "an object with dtype, shape and data_offsets")
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return err
	}
	var dtype string
	var offsets []uint64
	var hasDType, hasShape, hasOffsets bool
	for p.dec.PeekKind() == '"' {
		field, err := p.str()
		if err != nil {
			return err
		}
		switch field {
		case "dtype":
			hasDType = true
			if k := p.dec.PeekKind(); k != '"' {
				return fail("dtype is not a string", kindName(k), "a string")
			}
			dtype, err = p.str()
		case "shape":
			hasShape = true
			t.Shape, err = p.integers(name, "shape", -1)
		case "data_offsets":
			hasOffsets = true
			offsets, err = p.integers(name, "data_offsets", 2)
		default:
			err = p.dec.SkipValue()
		}
		if err != nil {
			return err
		}
	}
	if err := p.expect('}', "a field or the end of the entry"); err != nil {
		return err
	}
	switch {
	case !hasDType:
		return fail("the entry has no dtype", "", "")
	case !hasShape:
		return fail("the entry has no shape", "", "")
	case !hasOffsets:
		return fail("the entry has no data_offsets", "", "")
	}
	var ok bool
	if t.DType, ok = dtypes[dtype]; !ok {
		return fail("unknown dtype", format.Quote(dtype), "one that safetensors defines")
	}
	begin, end := offsets[0], offsets[1]
	if begin > end {
		return fail("data_offsets run backwards", fmt.Sprintf("[%d,%d]", begin, end), "begin ≤ end")
	}
	n, ok := t.Shape.Elements()
	if !ok {
		return fail("the shape overflows 64 bits", t.Shape.String(), "")
	}
	size, ok := t.Shape.Bytes(t.DType)
	if !ok {
		return fail("the shape does not fill whole bytes or overflows 64 bits", fmt.Sprintf("%d elements of %s", n, t.DType), "")
	}
	if end-begin != size {
		return fail("data_offsets do not fit the shape", fmt.Sprintf("%d bytes", end-begin),
			fmt.Sprintf("%d bytes for %s %s", size, t.DType, t.Shape))
	}
	const most = 1<<63 - 1
	if end > most {
		return fail("data_offsets lie beyond any file", fmt.Sprintf("[%d,%d]", begin, end), "")
	}
	t.Offset, t.Size = int64(begin), int64(size)
	p.tensors = append(p.tensors, t)
	return nil
}

// integers reads an array of unsigned integers; count is how many it must
// hold, or negative for any number.
func (p *parser) integers(tensor, field string, count int) ([]uint64, error) {
	fail := func(found string) error {
		expected := "an array of unsigned integers"
		if count >= 0 {
			expected = fmt.Sprintf("an array of %d unsigned integers", count)
		}
		return &format.Error{File: p.file, Tensor: tensor, Problem: "bad " + field, Found: found, Expected: expected}
	}
	if k := p.dec.PeekKind(); k != '[' {
		return nil, fail(kindName(k))
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return nil, err
	}
	list := []uint64{}
	for {
		switch k := p.dec.PeekKind(); k {
		case ']':
			if _, err := p.dec.ReadToken(); err != nil {
				return nil, err
			}
			if count >= 0 && len(list) != count {
				return nil, fail(fmt.Sprintf("%d of them", len(list)))
			}
			return list, nil
		case '0':
			v, err := p.dec.ReadValue()
			if err != nil {
				return nil, err
			}
			n, err := strconv.ParseUint(string(v), 10, 64)
			if err != nil {
				return nil, fail(format.Quote(string(v)))
			}
			if list = append(list, n); count >= 0 && len(list) > count {
				return nil, fail(fmt.Sprintf("more than %d of them", count))
			}
		case jsontext.KindInvalid:
			_, err := p.dec.ReadToken()
			return nil, err
		default:
			return nil, fail("an element that is " + kindName(k))
		}
	}
}

// place checks that the tensors cover the data section without gap or partial
// overlap and makes their offsets absolute. Tensors with exactly the same
// offsets share storage.
func (p *parser) place(dataStart, fileSize int64) error {
	order := make([]int, len(p.tensors))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		s, t := &p.tensors[a], &p.tensors[b]
		return cmp.Or(cmp.Compare(s.Offset, t.Offset), cmp.Compare(s.Size, t.Size))
	})
	var end int64
	for i, at := range order {
		t := &p.tensors[at]
		if i > 0 && t.Size > 0 {
			prev := &p.tensors[order[i-1]]
			if t.Offset == prev.Offset && t.Size == prev.Size {
				continue
			}
		}
		if t.Offset != end {
			problem := "the data overlaps that of another tensor"
			if t.Offset > end {
				problem = "there is a gap in the data before this tensor"
			}
			return &format.Error{File: p.file, Tensor: t.Name, Problem: problem,
				Found: fmt.Sprintf("begin %d", t.Offset), Expected: strconv.FormatInt(end, 10)}
		}
		end = t.Offset + t.Size
		if end > fileSize-dataStart {
			return &format.Error{File: p.file, Tensor: t.Name, Problem: "the data lies past the end of the file",
				Found: fmt.Sprintf("%d data bytes", fileSize-dataStart), Expected: fmt.Sprintf("at least %d", end),
				Hint: "the file may be truncated: compare its size with the original's"}
		}
	}
	if end != fileSize-dataStart {
		return &format.Error{File: p.file, Problem: "there is data after the last tensor",
			Found: fmt.Sprintf("%d data bytes", fileSize-dataStart), Expected: strconv.FormatInt(end, 10)}
	}
	for i := range p.tensors {
		p.tensors[i].Offset += dataStart
	}
	return nil
}
