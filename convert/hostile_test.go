package convert_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

var le = binary.LittleEndian

// A parts is a .qins file taken to pieces, which need not fit together.
type parts struct {
	meta     map[string]any // the description
	text     string         // in its place where it is not empty
	metadata []format.Entry
	planes   []format.Tensor
	data     map[string][]byte
	shared   map[string]string // planes that get the offsets of another
	sealed   bool              // the checksums are to be computed again
}

func takeApart(t testing.TB, file []byte) *parts {
	s, err := safetensors.New(bytes.NewReader(file), int64(len(file)), "file")
	if err != nil {
		t.Fatal(err)
	}
	p := &parts{planes: slices.Clone(s.Tensors()), data: map[string][]byte{}, shared: map[string]string{}}
	for _, e := range s.Metadata() {
		if e.Key != qins.MetadataKey {
			p.metadata = append(p.metadata, e)
			continue
		}
		d := json.NewDecoder(strings.NewReader(e.Value))
		d.UseNumber()
		if err := d.Decode(&p.meta); err != nil {
			t.Fatal(err)
		}
	}
	for _, plane := range p.planes {
		p.data[plane.Name] = slices.Clone(file[plane.Offset:][:plane.Size])
	}
	return p
}

// tensor returns the description of one tensor.
func (p *parts) tensor(name string) map[string]any {
	for _, t := range p.meta["tensors"].([]any) {
		if m := t.(map[string]any); m["name"] == name {
			return m
		}
	}
	panic("no tensor " + name)
}

// append adds a description to the list.
func (p *parts) append(t any) {
	p.meta["tensors"] = append(p.meta["tensors"].([]any), t)
	delete(p.meta, "data_order")
}

func (p *parts) plane(name string) *format.Tensor {
	return &p.planes[slices.IndexFunc(p.planes, func(t format.Tensor) bool { return t.Name == name })]
}

// resize sets the data of a plane whose shape is its size.
func (p *parts) resize(name string, data []byte) {
	p.data[name] = data
	p.plane(name).Shape = format.Shape{uint64(len(data))}
}

func (p *parts) remove(name string) {
	p.planes = slices.DeleteFunc(p.planes, func(t format.Tensor) bool { return t.Name == name })
}

func (p *parts) add(name string, d format.DType, shape format.Shape, data []byte) {
	p.planes = append(p.planes, format.Tensor{Name: name, DType: d, Shape: shape})
	p.data[name] = data
}

// seal computes the checksum of each stored tensor again.
func (p *parts) seal() {
	table := crc32.MakeTable(crc32.Castagnoli)
	for _, t := range p.meta["tensors"].([]any) {
		m := t.(map[string]any)
		name := m["name"].(string)
		stem := strings.TrimSuffix(name, ".weight")
		var sum uint32
		switch m["action"] {
		case "encoded":
			for _, end := range []string{".stored", ".sign", ".log_min", ".log_max"} {
				sum = crc32.Update(sum, table, p.data[stem+end])
			}
		case "kept":
			data, ok := p.data[name]
			if !ok {
				data = p.data[name+".planes"]
			}
			sum = crc32.Checksum(data, table)
		default:
			continue
		}
		m["crc32c"] = fmt.Sprintf("%08x", sum)
	}
}

func (p *parts) pack(t testing.TB) []byte {
	if p.sealed {
		p.seal()
	}
	text := p.text
	if text == "" {
		b, err := json.Marshal(p.meta)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	at := map[string]int64{}
	var data []byte
	for i := range p.planes {
		plane := &p.planes[i]
		plane.Size = int64(len(p.data[plane.Name]))
		if with, ok := p.shared[plane.Name]; ok {
			plane.Offset = at[with]
			continue
		}
		plane.Offset = int64(len(data))
		at[plane.Name] = plane.Offset
		data = append(data, p.data[plane.Name]...)
	}
	return fixtures.Pack(append(slices.Clone(p.metadata), format.Entry{Key: qins.MetadataKey, Value: text}), p.planes, data)
}

// A stream is a plane of frames taken to pieces.
type stream struct {
	frames [][]byte
	sizes  []uint32
	signs  []uint32 // nil where there is none
	count  uint32
	footer uint32
}

func takeStreamApart(b []byte, signs bool) *stream {
	n := int(le.Uint32(b[len(b)-9:]))
	s := &stream{count: uint32(n), footer: 0x8f92eab1}
	table := b[len(b)-9-8*n:]
	if signs {
		sums := b[len(b)-9-8*n-8-4*n:]
		for i := range n {
			s.signs = append(s.signs, le.Uint32(sums[4*i:]))
		}
	}
	for i := range n {
		size := le.Uint32(table[8*i:])
		s.frames = append(s.frames, slices.Clone(b[:size]))
		s.sizes = append(s.sizes, le.Uint32(table[8*i+4:]))
		b = b[size:]
	}
	return s
}

func (s *stream) pack() []byte {
	var b []byte
	for _, f := range s.frames {
		b = append(b, f...)
	}
	if s.signs != nil {
		b = le.AppendUint32(b, 0x184d2a51)
		b = le.AppendUint32(b, uint32(4*len(s.signs)))
		for _, sum := range s.signs {
			b = le.AppendUint32(b, sum)
		}
	}
	b = le.AppendUint32(b, 0x184d2a5e)
	b = le.AppendUint32(b, uint32(8*len(s.frames)+9))
	for i, f := range s.frames {
		b = le.AppendUint32(b, uint32(len(f)))
		b = le.AppendUint32(b, s.sizes[i])
	}
	b = le.AppendUint32(b, s.count)
	b = append(b, 0)
	return le.AppendUint32(b, s.footer)
}

// base files, made once.
func bases(t testing.TB) map[string][]byte {
	dir := t.TempDir()
	list := map[string][]byte{}
	in := filepath.Join(dir, "in")
	add := func(name string, layout qins.Layout) {
		out := filepath.Join(dir, name)
		if _, err := convert.Convert(t.Context(), in, out, convert.Options{Layout: layout}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		list[name] = b
	}
	if err := os.WriteFile(in, fixtures.Small(fixtures.TieOffset), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, l := range qins.Layouts() {
		add(string(l), l)
	}
	// Three chunks.
	long := []format.Tensor{{Name: "m.weight", DType: format.BF16, Shape: format.Shape{3, 100_000}}}
	if err := fixtures.WriteTensors(in, nil, long); err != nil {
		t.Fatal(err)
	}
	add("long", qins.Compact)
	return list
}

// A hostile is a change to a valid file.
type hostile struct {
	name   string
	base   string
	tensor string // that errors must name
	says   string // what they must say
	change func(p *parts)
}

func number(n any) json.Number { return json.Number(fmt.Sprint(n)) }

// inMeta changes the description as text.
func inMeta(old, new string) func(*parts) {
	return func(p *parts) {
		b, _ := json.Marshal(p.meta)
		if !strings.Contains(string(b), old) {
			panic("nothing to change: " + old)
		}
		p.text = strings.Replace(string(b), old, new, 1)
	}
}

func set(key string, value any) func(*parts) {
	return func(p *parts) { p.meta[key] = value }
}

// setIn changes a member of one tensor; nil removes it.
func setIn(tensor, key string, value any) func(*parts) {
	return func(p *parts) {
		if value == nil {
			delete(p.tensor(tensor), key)
		} else {
			p.tensor(tensor)[key] = value
		}
	}
}

// inCodec changes a parameter of b.weight.
func inCodec(key string, value any) func(*parts) {
	return func(p *parts) {
		c := p.tensor("b.weight")["codec"].(map[string]any)
		if value == nil {
			delete(c, key)
		} else {
			c[key] = value
		}
	}
}

// params sets both parameters of b.weight in both places.
func params(lo, hi float32) func(*parts) {
	return func(p *parts) {
		c := p.tensor("b.weight")["codec"].(map[string]any)
		c["log_min"], c["log_max"] = number(float64(lo)), number(float64(hi))
		p.data["b.log_min"] = le.AppendUint32(nil, math.Float32bits(lo))
		p.data["b.log_max"] = le.AppendUint32(nil, math.Float32bits(hi))
		p.sealed = true
	}
}

// inStream changes the stream of a plane; the checksum stays true.
func inStream(plane string, signs bool, change func(*stream)) func(*parts) {
	return func(p *parts) {
		s := takeStreamApart(p.data[plane], signs)
		change(s)
		p.resize(plane, s.pack())
		p.sealed = true
	}
}

// inData changes the bytes of a plane; the checksum stays true.
func inData(plane string, change func(b []byte)) func(*parts) {
	return func(p *parts) {
		change(p.data[plane])
		p.sealed = true
	}
}

// frame compresses as the library does.
func frame(src []byte, options ...zstd.EOption) []byte {
	w, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithSingleSegment(true), zstd.WithZeroFrames(true)}, options...)...)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(src, nil)
}

// rawFrame is a frame of one raw block, with a descriptor and the fields
// between it and the block.
func rawFrame(descriptor byte, fields, content []byte) []byte {
	b := le.AppendUint32(nil, 0xfd2fb528)
	b = append(append(b, descriptor), fields...)
	n := len(content)<<3 | 1
	b = append(b, byte(n), byte(n>>8), byte(n>>16))
	return append(b, content...)
}

func skippable(n int) []byte {
	b := le.AppendUint32(nil, 0x184d2a50)
	return append(le.AppendUint32(b, uint32(n)), make([]byte, n)...)
}

func hostiles() []hostile {
	var list []hostile
	add := func(base, name, tensor, says string, change func(p *parts)) {
		list = append(list, hostile{name, base, tensor, says, change})
	}

	// The description.
	add("packed", "a later version", "", "unknown version of the .qins format: found 2, expected 1 (a later qinsconv may read it)", set("version", number(2)))
	add("packed", "no version", "", "found 0, expected 1", func(p *parts) { delete(p.meta, "version") })
	add("packed", "version is a string", "", "not valid JSON", set("version", "1"))
	add("packed", "version is not whole", "", "not valid JSON", set("version", number("1.5")))
	add("packed", "unknown layout", "", `unknown layout "dense"`, set("layout", "dense"))
	add("packed", "no layout", "", `unknown layout ""`, func(p *parts) { delete(p.meta, "layout") })
	add("plain", "another layout", "b.weight", `in the packed layout`, set("layout", "packed"))
	add("compact", "compact taken for packed", "a.counts", "unexpected encoding", set("layout", "packed"))
	add("packed", "wrong chunk size", "", "unknown chunk size: found 65536, expected 131072", set("chunk", number(65536)))
	add("packed", "chunk size zero", "", "unknown chunk size", set("chunk", number(0)))
	add("packed", "chunk size negative", "", "unknown chunk size", set("chunk", number(-131072)))
	add("packed", "unknown member", "", "not of the expected form", set("extra", true))
	add("packed", "unknown member of a tensor", "", "not of the expected form", setIn("b.weight", "extra", 1))
	add("packed", "a member twice", "", "", inMeta(`"layout":`, `"layout":"plain","layout":`))
	add("packed", "no json", "", "not valid JSON", func(p *parts) { p.text = "{" })
	add("packed", "an array", "", "not valid JSON", func(p *parts) { p.text = "[]" })
	add("packed", "null", "", "found 0, expected 1", func(p *parts) { p.text = "null" })
	add("packed", "text after the description", "", "not valid JSON", inMeta(`{`, `{} {`))
	add("packed", "no tensors", "", "the qins metadata does not describe this tensor", func(p *parts) { delete(p.meta, "tensors"); delete(p.meta, "data_order") })
	add("packed", "a tensor twice", "b.weight", "lists the tensor twice", func(p *parts) {
		p.append(p.tensor("b.weight"))
	})
	add("packed", "a null among the tensors", "", "", func(p *parts) { p.append(nil) })
	add("packed", "order with a tensor twice", "", "not an order", set("data_order", []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 8}))
	add("packed", "order past the end", "", "not an order", set("data_order", []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 10}))
	add("packed", "order with a negative", "", "not an order", set("data_order", []int{0, 1, 2, 3, 4, 5, 6, 7, 8, -1}))
	add("packed", "order too short", "", "does not list every tensor", set("data_order", []int{0, 1, 2}))

	// One tensor.
	add("packed", "no dtype", "b.weight", "", setIn("b.weight", "dtype", nil))
	add("packed", "unknown dtype", "", "unknown dtype", setIn("b.weight", "dtype", "F33"))
	add("packed", "no name", "", "", setIn("b.weight", "name", nil))
	add("packed", "no shape", "b.weight", "does not fit the description", setIn("b.weight", "shape", nil))
	add("packed", "shape negative", "", "not of the expected form", setIn("b.weight", "shape", []int{-32, 40}))
	add("packed", "shape too large", "b.weight", "overflows", setIn("b.weight", "shape", []any{number(uint64(1 << 63)), 4}))
	add("packed", "shape of too many bytes", "b.weight", "overflows", setIn("b.weight", "shape", []any{number(uint64(1 << 62)), 1}))
	add("packed", "shape above int64", "a.counts", "overflows", setIn("a.counts", "shape", []any{number(uint64(1 << 63))}))
	add("packed", "another shape", "b.weight", `its plane "b.stored" does not fit the description: found U8 [32,40], expected U8 [40,32]`, setIn("b.weight", "shape", []int{40, 32}))
	add("packed", "a larger shape", "b.weight", "does not fit the description", setIn("b.weight", "shape", []int{1 << 20, 1 << 20}))
	add("packed", "another dtype", "c.bias", "does not fit the description", setIn("c.bias", "dtype", "I32"))
	add("packed", "a block dtype", "c.bias", "", setIn("c.bias", "dtype", "Q4_0"))
	add("packed", "unknown action", "b.weight", "unknown action", setIn("b.weight", "action", "dropped"))
	add("packed", "no action", "b.weight", "unknown action", setIn("b.weight", "action", nil))
	add("packed", "encoded integers", "b.weight", "I32 cannot be encoded", setIn("b.weight", "dtype", "I32"))
	add("packed", "kept with a codec", "b.weight", "a codec belongs to encoded tensors", setIn("b.weight", "action", "kept"))
	add("packed", "no codec", "b.weight", "a codec belongs to encoded tensors", setIn("b.weight", "codec", nil))
	add("packed", "unknown codec", "", "unknown codec", inCodec("id", "mu-law"))
	add("packed", "no codec id", "", "the codec has no id", inCodec("id", nil))
	add("packed", "a parameter too many", "", "no others", inCodec("rows", number(1)))
	add("packed", "a parameter too few", "", "no others", inCodec("log_max", nil))
	add("packed", "a parameter under another name", "", "", func(p *parts) { inCodec("log_max", nil)(p); inCodec("logmax", number(1))(p) })
	add("packed", "a parameter is no float32", "", "not a float32", inCodec("log_min", number("-10.1")))
	add("packed", "a parameter is a string", "", "not a float32", inCodec("log_min", "-10"))
	add("packed", "a parameter is infinite", "", "not a float32", inCodec("log_max", number("1e999")))
	add("packed", "codes compressed outside the compact layout", "b.weight", "in the packed layout", setIn("b.weight", "stored", "zstd"))
	add("compact", "codes raw in the compact layout", "b.weight", "in the compact layout", setIn("b.weight", "stored", "raw"))
	add("packed", "signs as bytes in the packed layout", "b.weight", "in the packed layout", setIn("b.weight", "sign", "int8"))
	add("packed", "kept data compressed in the packed layout", "a.counts", "unexpected encoding", setIn("a.counts", "data", "zstd"))
	add("compact", "kept data compressed in another way", "c.bias", "unexpected encoding", setIn("c.bias", "data", "zstd"))
	add("compact", "kept data without an encoding", "c.bias", "data to kept ones", setIn("c.bias", "data", nil))
	add("packed", "no checksum", "b.weight", "has a crc32c", setIn("b.weight", "crc32c", nil))
	add("packed", "checksum too short", "", "bad CRC-32C", setIn("b.weight", "crc32c", "123"))
	add("packed", "checksum in upper case", "", "bad CRC-32C", setIn("b.weight", "crc32c", "ABCDEF01"))
	add("packed", "checksum of a tied tensor", "lm_head.weight", "no tied one", setIn("lm_head.weight", "crc32c", "00000000"))

	// Ties.
	add("packed", "tied to nothing", "lm_head.weight", `it is tied to "gone", which is not stored`, setIn("lm_head.weight", "tied_to", "gone"))
	add("packed", "tied to itself", "lm_head.weight", "which is not stored", setIn("lm_head.weight", "tied_to", "lm_head.weight"))
	add("packed", "tied to a tied tensor", "other", "which is not stored", func(p *parts) {
		p.append(map[string]any{"name": "other", "dtype": "BF16", "shape": []int{41, 52},
			"action": "tied", "tied_to": "lm_head.weight", "tie": "content"})
	})
	add("packed", "tied to another size", "lm_head.weight", "does not fit", setIn("lm_head.weight", "tied_to", "c.bias"))
	add("packed", "tied to codes of another dtype", "lm_head.weight", "does not fit", func(p *parts) {
		m := p.tensor("lm_head.weight")
		m["tied_to"], m["shape"] = "b.weight", []int{64, 40}
	})
	add("packed", "unknown tie", "lm_head.weight", "unknown tie", setIn("lm_head.weight", "tie", "guess"))
	add("packed", "no tie", "lm_head.weight", "belong to tied tensors", setIn("lm_head.weight", "tie", nil))
	add("packed", "a kept tensor with a tie", "c.bias", "belong to tied tensors", func(p *parts) {
		m := p.tensor("c.bias")
		m["tied_to"], m["tie"] = "b.weight", "offset"
	})

	// Planes.
	add("packed", "no codes", "b.weight", `its plane "b.stored" is missing`, func(p *parts) { p.remove("b.stored") })
	add("packed", "no signs", "b.weight", `its plane "b.sign" is missing`, func(p *parts) { p.remove("b.sign") })
	add("packed", "no parameter", "b.weight", `its plane "b.log_max" is missing`, func(p *parts) { p.remove("b.log_max") })
	add("packed", "no kept data", "c.bias", `its plane "c.bias" is missing`, func(p *parts) { p.remove("c.bias") })
	add("packed", "a tensor too many", "extra", "does not describe this tensor", func(p *parts) {
		p.add("extra", format.U8, format.Shape{3}, []byte{1, 2, 3})
	})
	add("packed", "an empty tensor too many", "extra", "does not describe this tensor", func(p *parts) { p.add("extra", format.U8, format.Shape{0}, nil) })
	add("plain", "signs of another dtype", "b.weight", `its plane "b.sign" does not fit the description: found U8 [32,40], expected I8 [32,40]`, func(p *parts) { p.plane("b.sign").DType = format.U8 })
	add("plain", "codes of another dtype", "b.weight", "found I8 [32,40], expected U8 [32,40]", func(p *parts) { p.plane("b.stored").DType = format.I8 })
	add("packed", "a parameter with a dimension", "b.weight", "found F32 [1], expected F32 []", func(p *parts) { p.plane("b.log_min").Shape = format.Shape{1} })
	add("packed", "a parameter of another dtype", "b.weight", "found I32 [], expected F32 []", func(p *parts) { p.plane("b.log_min").DType = format.I32 })
	add("compact", "a stream of two dimensions", "b.weight", "does not fit the description", func(p *parts) {
		p.plane("b.stored").Shape = format.Shape{1, uint64(len(p.data["b.stored"]))}
	})
	add("packed", "planes that share storage", "", "planes share their storage", func(p *parts) { p.shared["b.log_max"] = "b.log_min" })
	add("packed", "codes that share storage", "", "planes share their storage", func(p *parts) {
		p.data["embed.weight"] = p.data["embed.weight"][:4264]
		p.shared["d.log_max"] = "b.log_max"
	})

	// Parameters.
	add("packed", "a parameter differs", "b.weight", `plane "b.log_min" differs from the metadata`, inData("b.log_min", func(b []byte) { b[0]++ }))
	add("packed", "a parameter is nan", "b.weight", `plane "b.log_max" differs from the metadata: found NaN`, inData("b.log_max", func(b []byte) { le.PutUint32(b, 0x7fc00000) }))
	add("packed", "a parameter is minus zero", "b.weight", `differs from the metadata`, func(p *parts) {
		params(-10, 0)(p)
		le.PutUint32(p.data["b.log_max"], 1<<31)
	})
	add("packed", "parameters reversed", "b.weight", "not a range of logarithms", params(-1, -10))
	add("packed", "parameters far apart", "b.weight", "not a range of logarithms", params(-1e30, 1e30))
	add("compact", "parameters far below", "b.weight", "not a range of logarithms", params(-1000, -900))

	// Data.
	add("packed", "codes changed", "b.weight", "the data does not match its CRC-32C", func(p *parts) { p.data["b.stored"][7]++ })
	add("packed", "signs changed", "b.weight", "the data does not match its CRC-32C", func(p *parts) { p.data["b.sign"][7]++ })
	add("packed", "kept data changed", "c.bias", "the data does not match its CRC-32C", func(p *parts) { p.data["c.bias"][7]++ })
	add("packed", "another checksum", "c.bias", "the data does not match its CRC-32C", setIn("c.bias", "crc32c", "00000000"))
	add("plain", "a sign of zero", "b.weight", "chunk 0: a sign is neither +1 nor -1", inData("b.sign", func(b []byte) { b[1279] = 0 }))
	add("plain", "a sign of two", "b.weight", "chunk 0: a sign is neither +1 nor -1", inData("b.sign", func(b []byte) { b[0] = 2 }))
	add("plain", "a sign of minus 128", "d.weight", "chunk 0: a sign is neither +1 nor -1", inData("d.sign", func(b []byte) { b[1352] = 128 }))
	add("packed", "signs after the last weight", "d.weight", "chunk 0: there are signs past the last weight", inData("d.sign", func(b []byte) { b[169] |= 1 << 1 }))
	add("compact", "signs after the last weight, compact", "d.weight", "chunk 0: the signs do not match", inData("d.sign", func(b []byte) { b[169] |= 1 << 7 }))
	add("long", "signs of the second chunk changed", "m.weight", "chunk 1: the signs do not match", inData("m.sign", func(b []byte) { b[qins.ChunkWeights/8]++ }))

	// The index.
	raw := func(change func(b []byte) []byte) func(*parts) {
		return func(p *parts) {
			p.resize("m.stored", change(p.data["m.stored"]))
			p.sealed = true
		}
	}
	long := func(name, says string, change func(*stream)) {
		add("long", name, "m.weight", says, inStream("m.stored", true, change))
	}
	table := func(b []byte, at int, v uint32) []byte { le.PutUint32(b[len(b)-9-3*8+at:], v); return b }
	sized := func(b []byte, i int) uint32 { return le.Uint32(b[len(b)-9-3*8+8*i:]) }
	add("long", "index without magic", "m.weight", "bad index", raw(func(b []byte) []byte { b[len(b)-1]++; return b }))
	add("long", "index of another kind", "m.weight", "the index begins with", raw(func(b []byte) []byte { b[len(b)-9-3*8-8]++; return b }))
	add("long", "index of another length", "m.weight", "a part of the index has 32 bytes, expected 33 for 3 chunks", raw(func(b []byte) []byte { b[len(b)-9-3*8-4]--; return b }))
	add("long", "index with a descriptor", "m.weight", "bad index", raw(func(b []byte) []byte { b[len(b)-5] = 1 << 7; return b }))
	add("long", "sums of another kind", "m.weight", "the index begins with", raw(func(b []byte) []byte { b[len(b)-9-3*8-8-3*4-8]++; return b }))
	add("long", "sums of another length", "m.weight", "expected 12 for 3 chunks", raw(func(b []byte) []byte { b[len(b)-9-3*8-8-3*4-4]++; return b }))
	add("long", "index claims more than there is", "m.weight", "chunk 2: the index claims", raw(func(b []byte) []byte { return table(b, 16, sized(b, 2)+1) }))
	add("long", "index claims less than there is", "m.weight", "the index covers", raw(func(b []byte) []byte { return table(b, 16, sized(b, 2)-1) }))
	add("long", "index claims more than a frame can have", "m.weight", "chunk 0: the index claims 131100 bytes", raw(func(b []byte) []byte { return table(b, 0, 131100) }))
	add("long", "index claims 4 gb", "m.weight", "chunk 1: the index claims 4294967295 bytes", raw(func(b []byte) []byte { return table(b, 8, math.MaxUint32) }))
	add("long", "index runs backwards", "m.weight", "chunk 1: the index claims", raw(func(b []byte) []byte { return table(b, 8, -sized(b, 0)) }))
	add("long", "index claims another content", "m.weight", "chunk 1: the index claims 131071 bytes, expected 131072", raw(func(b []byte) []byte { return table(b, 12, 131071) }))
	add("long", "index moves a boundary", "m.weight", "chunk 0: bad data", raw(func(b []byte) []byte { table(b, 0, sized(b, 0)-1); return table(b, 8, sized(b, 1)+1) }))
	long("index of too many chunks", "bad index", func(s *stream) {
		s.frames, s.sizes, s.signs, s.count = append(s.frames, frame(nil)), append(s.sizes, 0), append(s.signs, 0), 4
	})
	long("index of too few chunks", "bad index", func(s *stream) {
		s.frames, s.sizes, s.signs, s.count = s.frames[:2], s.sizes[:2], s.signs[:2], 2
	})
	long("index counts another number", "not with the count of 3 chunks", func(s *stream) { s.count = 4 })
	long("index counts 2^32-1", "not with the count of 3 chunks", func(s *stream) { s.count = math.MaxUint32 })
	long("chunks exchanged", "chunk 2: the index claims", func(s *stream) { s.frames[0], s.frames[2] = s.frames[2], s.frames[0] })
	add("long", "stream too short for an index", "m.weight", `too short for its index: found 20 bytes, expected at least 61`, raw(func(b []byte) []byte { return b[:20] }))
	add("long", "no stream", "m.weight", "too short for its index", raw(func([]byte) []byte { return nil }))
	add("long", "only an index", "m.weight", "bad index", raw(func(b []byte) []byte { return b[len(b)-61:] }))
	add("long", "more weights than chunks", "m.weight", "", setIn("m.weight", "shape", []int{6, 100_000}))

	// Frames. a.counts has 4,200 bytes in one chunk.
	content := make([]byte, 4200)
	more := frame(make([]byte, 4201))
	le.PutUint16(more[5:], 4200-256)
	fcs := func(n uint32) []byte { return le.AppendUint32(nil, n) }
	one := func(name, says string, f []byte) {
		add("compact", name, "a.counts", "chunk 0: bad data: "+says, inStream("a.counts.planes", false, func(s *stream) { s.frames[0] = f }))
	}
	one("no frame", "", nil)
	one("frame of zeros", "", make([]byte, 100))
	one("frame of another format", "", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	one("skippable frame", "there is a skippable frame in place of data", skippable(100))
	one("frame that claims more", "the frame claims 4201 bytes, expected 4200", rawFrame(0xa4, fcs(4201), content))
	one("frame that claims less", "the frame claims 4199 bytes, expected 4200", rawFrame(0xa4, fcs(4199), content))
	one("frame that claims 2^60", "the frame claims 1152921504606846976 bytes", rawFrame(0xe4, le.AppendUint64(nil, 1<<60), content))
	one("frame of fewer bytes", "", append(rawFrame(0xa4, fcs(4200), content[:4199]), 0, 0, 0, 0))
	one("frame of more bytes", "", more)
	one("frame with a dictionary", "the frame wants a dictionary", rawFrame(0xa5, append([]byte{7}, fcs(4200)...), content))
	one("frame with a window", "the frame has a window in place of a content size", frame(content, zstd.WithSingleSegment(false), zstd.WithWindowSize(1<<20)))
	one("frame without a content size", "the frame has a window in place of a content size", rawFrame(0x04, []byte{0x50}, content))
	one("frame without a checksum", "the frame has no checksum", frame(content, zstd.WithEncoderCRC(false)))
	one("frame with a false checksum", "decoding the frame", append(rawFrame(0xa4, fcs(4200), content), 1, 2, 3, 4))
	one("frame cut in its checksum", "decoding the frame", frame(content)[:len(frame(content))-1])
	one("frame cut in its header", "reading the frame's header", frame(content)[:5])
	one("frame cut after its header", "decoding the frame", frame(content)[:9])
	one("frame with a reserved bit", "", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xac}, frame(content)[5:]...))
	one("block of a reserved type", "decoding the frame", append(le.AppendUint32(nil, 0xfd2fb528), append(append([]byte{0xa4}, fcs(4200)...), 7, 0, 0, 1, 2, 3, 4)...))
	one("block that repeats a byte 2 mb", "decoding the frame", append(le.AppendUint32(nil, 0xfd2fb528), append(append([]byte{0xa4}, fcs(4200)...), 0xfb, 0xff, 0xff, 9, 1, 2, 3, 4)...))
	one("two frames", "", append(frame(content), frame([]byte("more"))...))
	one("frame in two", "", append(frame(content[:2100]), frame(content[2100:])...))
	one("frame and an empty frame", "there are 9 bytes after the frame", append(frame(content), frame(nil)...))
	one("frame and a skippable frame", "there are 12 bytes after the frame", append(frame(content), skippable(4)...))
	one("skippable frame and a frame", "", append(skippable(4), frame(content)...))

	// Claims that would take all memory.
	add("compact", "huge shape on a small stream", "a.counts", "too short for its index", setIn("a.counts", "shape", []any{number(uint64(1 << 40))}))
	add("compact", "largest shape on a small stream", "a.counts", "", setIn("a.counts", "shape", []any{number(uint64(math.MaxInt64))}))
	add("compact", "largest shape of floats on a small stream", "c.bias", "", setIn("c.bias", "shape", []any{number(uint64(1<<61 - 1))}))
	add("compact", "huge shape of codes", "b.weight", "", setIn("b.weight", "shape", []any{number(uint64(1 << 31)), number(uint64(1 << 28))}))
	add("compact", "shape of one chunk too many", "a.counts", "too large: found I8 [17592186044417], expected at most 134217728 chunks", setIn("a.counts", "shape", []any{number(uint64(1<<44 + 1))}))
	add("compact", "shape of the most chunks", "a.counts", "too short for its index", setIn("a.counts", "shape", []any{number(uint64(1 << 44))}))
	add("compact", "dimensions that multiply to zero", "a.counts", "bad index", setIn("a.counts", "shape", []any{0, number(uint64(math.MaxUint64))}))
	add("compact", "codes of no weights", "b.weight", "", setIn("b.weight", "shape", []int{0, 40}))
	return list
}

// TestHostile runs changed files through everything that reads .qins files.
func TestHostile(t *testing.T) {
	base := bases(t)
	list := hostiles()
	if len(list) < 120 {
		t.Errorf("%d files", len(list))
	}
	names := map[string]bool{}
	for _, h := range list {
		if names[h.name] {
			t.Errorf("%q stands twice", h.name)
		}
		names[h.name] = true
		t.Run(h.name, func(t *testing.T) {
			p := takeApart(t, base[h.base])
			h.change(p)
			path := filepath.Join(t.TempDir(), "hostile.qins")
			if err := os.WriteFile(path, p.pack(t), 0o666); err != nil {
				t.Fatal(err)
			}
			expectHostile(t, path, h)
		})
	}
}

// TestUnchanged takes the valid files to pieces and together again, so that
// TestHostile's verdicts come from its changes.
func TestUnchanged(t *testing.T) {
	for name, file := range bases(t) {
		p := takeApart(t, file)
		p.sealed = true
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, p.pack(t), 0o666); err != nil {
			t.Fatal(err)
		}
		report, err := convert.Verify(t.Context(), path, convert.VerifyOptions{})
		if err != nil || !report.OK() {
			t.Errorf("%s: %v, %v", name, report.Findings, err)
		}
	}
}

func expectHostile(t *testing.T, path string, h hostile) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)

	// The tensor is named by the error of opening the file or of its check.
	expect := func(what string, err error) {
		t.Helper()
		var bad *format.Error
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v, expected a format.Error", what, err)
			return
		}
		if bad.File != path {
			t.Errorf("%s: the error names file %q: %v", what, bad.File, err)
		}
		if h.tensor != "" && bad.Tensor != h.tensor {
			t.Errorf("%s: the error names tensor %q, expected %q: %v", what, bad.Tensor, h.tensor, err)
		}
		if !strings.Contains(err.Error(), h.says) {
			t.Errorf("%s: %v, expected %q", what, err, h.says)
		}
	}
	f, err := qins.Open(path)
	if err != nil {
		expect("open", err)
	} else {
		found := 0
		for i := range f.Tensors() {
			f.PlanesOf(i)
			if f.Tensors()[i].Action == qins.Tied {
				continue
			}
			if err := f.Check(t.Context(), i); err != nil {
				expect("check", err)
				found++
			}
		}
		if found != 1 {
			t.Errorf("check: %d tensors are bad, expected 1", found)
		}
		f.Float32(h.tensor) // must not panic, nor take all memory
		f.Close()
	}

	report, err := convert.Verify(t.Context(), path, convert.VerifyOptions{Jobs: 1})
	if err != nil || len(report.Findings) != 1 {
		t.Fatalf("verify: %v, %v", report.Findings, err)
	}
	if got := report.Findings[0]; got.File != path || h.tensor != "" && got.Tensor != h.tensor || !strings.Contains(got.Message, h.says) {
		t.Errorf("verify: %+v, expected tensor %q and %q", got, h.tensor, h.says)
	}

	out := filepath.Join(filepath.Dir(path), "out")
	expect("decode", convert.Decode(t.Context(), path, out, convert.Options{Jobs: 1}))
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("decode left %v behind", entries)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 100<<20 {
		t.Errorf("%d MB were allocated", n>>20)
	}
}
