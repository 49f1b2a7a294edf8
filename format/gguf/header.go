package gguf

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"unicode/utf8"

	"github.com/qinsconv/qinsconv/format"
)

// Limits on what is read. They lie far above what models need, and keep a
// hostile file from taking much more memory than an honest one.
const (
	MaxHeader    = 100_000_000 // bytes before the data section
	MaxKeyValues = 1 << 18
	MaxTensors   = 1 << 18
)

// Limits of the format.
const (
	MaxKey        = 1<<16 - 1 // bytes of a key
	MaxTensorName = 62        // bytes; the reference refuses 63 and more
	MaxDimensions = 4
)

// DefaultAlignment is that of files without [AlignmentKey].
const DefaultAlignment = 32

// AlignmentKey names the one key-value, a u32, that changes how files are read.
const AlignmentKey = "general.alignment"

const (
	magic = "GGUF"
	// fixedSize is the length of magic, version and the two counts.
	fixedSize = 4 + 4 + 8 + 8
	// minKeyValue is the shortest key-value: length, one byte of key, type and
	// one byte of value.
	minKeyValue = 8 + 1 + 4 + 1
	// minTensor is the shortest entry of the tensor table: length, one byte of
	// name, number of dimensions, none of them, type and offset.
	minTensor = 8 + 1 + 4 + 4 + 8
)

// A header is everything before the data section.
type header struct {
	version   uint32
	alignment int64
	keyValues []KeyValue
	tensors   []format.Tensor
	infoStart int64 // of the tensor table
	infoEnd   int64
	dataStart int64
	raw       []byte // the bytes before dataStart
}

// A parser reads one header. Values are slices of the bytes read, which move
// while they grow, so until the end they are only known by their place.
type parser struct {
	*cursor
	header
	entries []entry
}

// An entry is the place of a key-value. MaxHeader fits 32 bits.
type entry struct {
	key, keyEnd, value, valueEnd uint32
	typ                          Type
}

// in returns the value where all the bytes read are buf.
func (e *entry) in(buf []byte) Value {
	return Value{typ: e.typ, raw: buf[e.value:e.valueEnd:e.valueEnd]}
}

func parseHeader(c *cursor) (*header, error) {
	p := &parser{cursor: c}
	if most := min(p.size, MaxHeader); int64(len(p.buf)) > most {
		return nil, p.fail("the header is too long", fmt.Sprintf("%d bytes", len(p.buf)), fmt.Sprintf("at most %d", most))
	}
	keyValues, tensors, err := p.fixed()
	if err != nil {
		return nil, err
	}
	if err := p.readKeyValues(keyValues); err != nil {
		return nil, err
	}
	if err := p.findAlignment(); err != nil {
		return nil, err
	}
	p.infoStart = int64(p.pos)
	if err := p.readTensors(tensors); err != nil {
		return nil, err
	}
	p.infoEnd = int64(p.pos)
	if err := p.place(); err != nil {
		return nil, err
	}
	p.keep()
	h := p.header // alone, so that the rest of the parser is let go
	return &h, nil
}

// fail reports a problem with the file as a whole.
func (p *parser) fail(problem, found, expected string) error {
	return &format.Error{File: p.file, Problem: problem, Found: found, Expected: expected}
}

// fixed reads what stands before the key-values and returns the two counts,
// which the bytes left do not rule out.
func (p *parser) fixed() (keyValues, tensors uint64, err error) {
	if p.size < fixedSize {
		return 0, 0, p.fail("too short for a GGUF file", fmt.Sprintf("%d bytes", p.size), fmt.Sprintf("at least %d", fixedSize))
	}
	if err := p.need(fixedSize, "the fixed header"); err != nil {
		return 0, 0, err
	}
	if got := p.buf[:len(magic)]; string(got) != magic {
		return 0, 0, p.fail("this is no GGUF file: wrong magic", fmt.Sprintf("%q", got), fmt.Sprintf("%q", magic))
	}
	p.version = binary.LittleEndian.Uint32(p.buf[4:])
	tensors = binary.LittleEndian.Uint64(p.buf[8:])
	keyValues = binary.LittleEndian.Uint64(p.buf[16:])
	p.pos = fixedSize
	if err := p.checkVersion(); err != nil {
		return 0, 0, err
	}
	for _, count := range []struct {
		what      string
		n         uint64
		min, most uint64
	}{
		{"key-values", keyValues, minKeyValue, MaxKeyValues},
		{"tensors", tensors, minTensor, MaxTensors},
	} {
		if room := p.left() / count.min; count.n > room {
			return 0, 0, p.fail("the file has no room for its "+count.what, fmt.Sprintf("a count of %d", count.n), fmt.Sprintf("at most %d", room))
		}
		if count.n > count.most {
			return 0, 0, p.fail("too many "+count.what, fmt.Sprint(count.n), fmt.Sprintf("at most %d", count.most))
		}
	}
	return keyValues, tensors, nil
}

func (p *parser) checkVersion() error {
	const expected = "version 2 or 3"
	switch v := p.version; {
	case v == 2 || v == 3:
		return nil
	case v == 1:
		return &format.Error{File: p.file, Problem: "GGUF version 1 is no longer in use", Found: "version 1", Expected: expected,
			Hint: "convert it with a llama.cpp of 2023, or take a newer file of the model"}
	case v != 0 && v&0xffff == 0:
		return &format.Error{File: p.file, Problem: "this GGUF file is big-endian",
			Found: fmt.Sprintf("version %d stored with the most significant byte first", bits.ReverseBytes32(v)), Expected: "a little-endian file",
			Hint: "gguf_convert_endian.py of llama.cpp converts it"}
	default:
		return p.fail("unknown GGUF version", fmt.Sprintf("version %d", v), expected)
	}
}

func (p *parser) readKeyValues(count uint64) error {
	for i := range count {
		e, err := p.readKey(i)
		if err != nil {
			return err
		}
		if err := p.readValue(&e); err != nil {
			return inKey(p.buf[e.key:e.keyEnd], err)
		}
		p.entries = append(p.entries, e)
	}
	key := func(i int32) []byte { return p.buf[p.entries[i].key:p.entries[i].keyEnd] }
	if i, ok := repeated(len(p.entries), func(a, b int32) int { return bytes.Compare(key(a), key(b)) }); ok {
		return p.fail("a key is given twice", format.Quote(string(key(i))), "each key once")
	}
	return nil
}

// repeated returns the first of n items that equals one before it. It sorts
// numbers rather than filling a map, which takes a tenth of the memory.
func repeated(n int, compare func(a, b int32) int) (first int32, found bool) {
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Or(compare(a, b), cmp.Compare(a, b)) })
	for i := 1; i < n; i++ {
		if compare(order[i-1], order[i]) == 0 && (!found || order[i] < first) {
			first, found = order[i], true
		}
	}
	return first, found
}

// inKey names the key that a problem belongs to.
func inKey(key []byte, err error) error {
	var bad *format.Error
	if errors.As(err, &bad) {
		bad.Problem = fmt.Sprintf("key %s: %s", format.Quote(string(key)), bad.Problem)
	}
	return err
}

func (p *parser) readKey(i uint64) (e entry, err error) {
	n, err := p.uint64("the length of a key")
	if err != nil {
		return e, err
	}
	if n == 0 {
		return e, p.fail(fmt.Sprintf("key-value %d has an empty key", i), "", "")
	}
	if n > MaxKey {
		return e, p.fail(fmt.Sprintf("the key of key-value %d is too long", i), fmt.Sprintf("%d bytes", n), fmt.Sprintf("at most %d", MaxKey))
	}
	e.key = uint32(p.pos)
	if err := p.skip(n, "a key"); err != nil {
		return e, err
	}
	e.keyEnd = uint32(p.pos)
	if key := p.buf[e.key:e.keyEnd]; !validName(key) {
		return e, p.fail(fmt.Sprintf("the key of key-value %d is not valid UTF-8 without NUL", i), format.Quote(string(key)), "")
	}
	return e, nil
}

func validName(name []byte) bool {
	return utf8.Valid(name) && bytes.IndexByte(name, 0) < 0
}

func (p *parser) readValue(e *entry) error {
	t, err := p.uint32("the type of a value")
	if err != nil {
		return err
	}
	e.typ, e.value = Type(t), uint32(p.pos)
	switch {
	case !e.typ.Valid():
		return p.fail("unknown value type", fmt.Sprint(t), fmt.Sprintf("at most %d", len(types)-1))
	case e.typ == Array:
		err = p.readArray()
	case e.typ == String:
		err = p.skipString("a string")
	default:
		err = p.skip(types[e.typ].size, "a value")
	}
	e.valueEnd = uint32(p.pos)
	return err
}

func (p *parser) readArray() error {
	t, err := p.uint32("the element type of an array")
	if err != nil {
		return err
	}
	elem := Type(t)
	if !elem.Valid() {
		return p.fail("unknown element type of an array", fmt.Sprint(t), fmt.Sprintf("at most %d", len(types)-1))
	}
	if elem == Array {
		return p.fail("an array of arrays", "", "an array of numbers, bools or strings")
	}
	n, err := p.uint64("the length of an array")
	if err != nil {
		return err
	}
	size := types[elem].size
	if elem == String {
		size = 8 // at least: its length
	}
	if room := p.left() / size; n > room {
		return p.fail("an array reaches past the end of the file", fmt.Sprintf("%d elements of %s", n, elem), fmt.Sprintf("at most %d", room))
	}
	if elem != String {
		return p.skip(n*size, "an array")
	}
	for range n {
		if err := p.skipString("a string of an array"); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) findAlignment() error {
	p.alignment = DefaultAlignment
	for i := range p.entries {
		e := &p.entries[i]
		if string(p.buf[e.key:e.keyEnd]) != AlignmentKey {
			continue
		}
		var err error
		if p.alignment, err = alignmentOf(e.in(p.buf)); err != nil {
			var bad *format.Error
			if errors.As(err, &bad) {
				bad.File = p.file
			}
			return err
		}
	}
	return nil
}

// alignmentOf checks the value of AlignmentKey.
func alignmentOf(v Value) (int64, error) {
	a, err := As[uint32](v)
	if err == nil && bits.OnesCount32(a) != 1 {
		err = &format.Error{Problem: "the alignment is not a power of two", Found: fmt.Sprint(a)}
	}
	if err != nil {
		return 0, inKey([]byte(AlignmentKey), err)
	}
	return int64(a), nil
}

// keep makes key-values of entries, and lets go of what was read beyond the
// header where that is much.
func (p *parser) keep() {
	p.raw = p.buf[:p.dataStart:p.dataStart]
	if cap(p.buf)-len(p.raw) > firstRead {
		p.raw = bytes.Clone(p.raw)
	}
	p.keyValues = make([]KeyValue, len(p.entries))
	for i := range p.entries {
		e := &p.entries[i]
		p.keyValues[i] = KeyValue{Key: string(p.raw[e.key:e.keyEnd]), Value: e.in(p.raw)}
	}
}
