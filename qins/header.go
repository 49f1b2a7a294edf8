package qins

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// A Header is the description in a file's metadata.
type Header struct {
	Version int    `json:"version"`
	Layout  Layout `json:"layout"`
	// Chunk is the number of weights in a chunk.
	Chunk  int    `json:"chunk"`
	Source Source `json:"source"`
	// DataOrder lists the indices of the tensors in the order of their data in
	// the source. It is left out where that is the order of the list.
	DataOrder []int `json:"data_order,omitempty"`
	// Tensors lists the source's tensors in the order of its header.
	Tensors []Tensor `json:"tensors"`
}

// Order returns the indices of the tensors in the order of their data in the
// source.
func (h *Header) Order() []int {
	if h.DataOrder != nil {
		return h.DataOrder
	}
	order := make([]int, len(h.Tensors))
	for i := range order {
		order[i] = i
	}
	return order
}

// A Source says what kind of file the tensors came from.
type Source struct {
	Format string `json:"format"`
	// Container is what beside the tensors is needed to write the file again.
	// It is nil for safetensors.
	Container *Container `json:"container,omitempty"`
}

// An Action says what became of a tensor.
type Action string

const (
	Encoded Action = "encoded" // stored as codes and signs
	Kept    Action = "kept"    // stored without loss
	Tied    Action = "tied"    // the same as another tensor, stored there
)

// A Tie says how a tied tensor was found.
type Tie string

const (
	TieOffset   Tie = "offset"   // both names had the same data offsets
	TieContent  Tie = "content"  // the same bytes were stored twice
	TieMetadata Tie = "metadata" // the writer dropped the name and recorded it
)

// An Encoding says how the bytes of a plane are stored.
type Encoding string

const (
	Raw  Encoding = "raw"  // as they are
	Int8 Encoding = "int8" // signs, +1 or −1
	Bits Encoding = "bits" // signs, eight to a byte, least significant first
	// Zstd is a sequence of zstd frames, one for each chunk, with an index.
	// Of codes they hold the codes, of kept tensors the byte planes.
	Zstd Encoding = "zstd"
	// ZstdRotated is Zstd of a kept floating-point tensor whose elements were
	// rotated by one bit, so that exponents fill a plane of their own.
	ZstdRotated Encoding = "zstd-rotated"
)

// A Tensor is one tensor of the source.
type Tensor struct {
	Name   string       `json:"name"`
	DType  format.DType `json:"dtype"`
	Shape  format.Shape `json:"shape"`
	Action Action       `json:"action"`
	TiedTo string       `json:"tied_to,omitempty"`
	// TiedIn is the name of the file in the same folder that stores TiedTo,
	// empty where that is this file.
	TiedIn string `json:"tied_in,omitempty"`
	Tie    Tie    `json:"tie,omitempty"`
	Codec  *Codec `json:"codec,omitempty"`
	// Stored and Sign are how the planes of an encoded tensor are stored, Data
	// how a kept one's bytes are.
	Stored Encoding `json:"stored,omitempty"`
	Sign   Encoding `json:"sign,omitempty"`
	Data   Encoding `json:"data,omitempty"`
	// CRC is that of the planes as stored, one after another: codes, signs and
	// parameters, or data. A tied tensor has none.
	CRC Checksum `json:"crc32c,omitempty"`
}

// Elements returns the number of elements.
func (t *Tensor) Elements() int64 {
	n, _ := t.Shape.Elements()
	return int64(n)
}

// Size returns the tensor's size in the source, in bytes.
func (t *Tensor) Size() int64 {
	n, _ := t.Shape.Bytes(t.DType)
	return int64(n)
}

// A Codec names the codec of a tensor and its parameters. In JSON it is an
// object with the id and a number for each parameter, under its name.
type Codec struct {
	ID     string
	Params []float32
}

// MarshalJSONTo writes the parameters so that they are read back exactly, by
// readers that take numbers for float64 too.
func (c *Codec) MarshalJSONTo(enc *jsontext.Encoder) error {
	family, err := codec.ByID(c.ID)
	if err != nil {
		return err
	}
	write := func(t jsontext.Token) {
		if err == nil {
			err = enc.WriteToken(t)
		}
	}
	write(jsontext.BeginObject)
	write(jsontext.String("id"))
	write(jsontext.String(c.ID))
	for i, name := range family.Params {
		write(jsontext.String(name))
		write(jsontext.Float(float64(c.Params[i])))
	}
	write(jsontext.EndObject)
	return err
}

// UnmarshalJSONFrom reads what MarshalJSONTo writes, with exactly its members.
func (c *Codec) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var members map[string]jsontext.Value
	if err := json.UnmarshalDecode(dec, &members); err != nil {
		return err
	}
	if err := json.Unmarshal(members["id"], &c.ID); err != nil {
		return fmt.Errorf("the codec has no id: %w", err)
	}
	family, err := codec.ByID(c.ID)
	if err != nil {
		return err
	}
	if len(members) != 1+len(family.Params) {
		return fmt.Errorf("codec %s has the parameters %q and no others", c.ID, family.Params)
	}
	c.Params = make([]float32, len(family.Params))
	for i, name := range family.Params {
		v, err := strconv.ParseFloat(string(members[name]), 64)
		if err != nil || float64(float32(v)) != v || math.IsInf(v, 0) {
			return fmt.Errorf("parameter %s of codec %s is not a float32: %q", name, c.ID, members[name])
		}
		c.Params[i] = float32(v)
	}
	return nil
}

// A Checksum is a CRC-32C. In JSON it is a string of eight hexadecimal digits,
// empty where there is none.
type Checksum struct {
	Sum   uint32
	Valid bool
}

// IsZero reports that there is no checksum.
func (c Checksum) IsZero() bool { return !c.Valid }

// String returns the digits.
func (c Checksum) String() string {
	text, _ := c.AppendText(nil)
	return string(text)
}

// MarshalText writes the digits.
func (c Checksum) MarshalText() ([]byte, error) { return c.AppendText(nil) }

// AppendText appends the digits.
func (c Checksum) AppendText(b []byte) ([]byte, error) {
	if !c.Valid {
		return b, nil
	}
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], c.Sum)
	return hex.AppendEncode(b, sum[:]), nil
}

// UnmarshalText reads the digits, lower case only.
func (c *Checksum) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*c = Checksum{}
		return nil
	}
	n, err := strconv.ParseUint(string(text), 16, 32)
	if err != nil || fmt.Sprintf("%08x", n) != string(text) {
		return fmt.Errorf("bad CRC-32C %s", format.Quote(string(text)))
	}
	*c = Checksum{uint32(n), true}
	return nil
}

// marshal writes the description as one line of JSON.
func (h *Header) marshal() ([]byte, error) {
	return json.Marshal(h, json.OmitZeroStructFields(false))
}

// parseHeader reads a description strictly: nothing unknown, nothing twice.
func parseHeader(file, text string) (*Header, error) {
	// The version comes first, as a later one may mean other members.
	var v struct {
		Version int `json:"version"`
	}
	bad := func(problem string, err error) error {
		return &format.Error{File: file, Problem: problem, Err: err}
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nil, bad("the qins metadata is not valid JSON", err)
	}
	if v.Version != Version {
		return nil, &format.Error{File: file, Problem: "unknown version of the .qins format",
			Found: strconv.Itoa(v.Version), Expected: strconv.Itoa(Version), Hint: "a later qinsconv may read it"}
	}
	h := new(Header)
	if err := json.Unmarshal([]byte(text), h, json.RejectUnknownMembers(true)); err != nil {
		return nil, bad("the qins metadata is not of the expected form", err)
	}
	return h, h.check(file)
}

// maxChunks bounds a tensor to 2^44 elements, so that the number of its chunks
// and the size of their index fit an int on every machine.
const maxChunks = 1 << 27

// check checks the description by itself.
func (h *Header) check(file string) error {
	bad := func(tensor, problem string) error {
		return &format.Error{File: file, Tensor: tensor, Problem: problem}
	}
	if !slices.Contains(Layouts(), h.Layout) {
		return bad("", "unknown layout "+format.Quote(string(h.Layout)))
	}
	if h.Chunk != ChunkWeights {
		return &format.Error{File: file, Problem: "unknown chunk size", Found: strconv.Itoa(h.Chunk), Expected: strconv.Itoa(ChunkWeights)}
	}
	if err := h.Source.check(file); err != nil {
		return err
	}
	if h.DataOrder != nil {
		seen := make([]bool, len(h.Tensors))
		for _, at := range h.DataOrder {
			if at < 0 || at >= len(seen) || seen[at] {
				return bad("", "data_order is not an order of the tensors")
			}
			seen[at] = true
		}
		if len(h.DataOrder) != len(seen) {
			return bad("", "data_order does not list every tensor")
		}
	}
	index := make(map[string]*Tensor, len(h.Tensors))
	for i := range h.Tensors {
		t := &h.Tensors[i]
		if index[t.Name] != nil {
			return bad(t.Name, "the qins metadata lists the tensor twice")
		}
		index[t.Name] = t
		if !t.DType.Valid() {
			return bad(t.Name, "it has no dtype")
		}
		if n, ok := t.Shape.Bytes(t.DType); !ok || n > math.MaxInt64 {
			return &format.Error{File: file, Tensor: t.Name, Problem: "the shape overflows or does not fill whole bytes",
				Found: fmt.Sprintf("%s %s", t.DType, t.Shape)}
		}
		if t.Size() > maxChunks*int64(ChunkSize(t.DType)) {
			return &format.Error{File: file, Tensor: t.Name, Problem: "the tensor is too large", Found: fmt.Sprintf("%s %s", t.DType, t.Shape),
				Expected: fmt.Sprintf("at most %d chunks", maxChunks)}
		}
		if problem := t.check(h.Layout); problem != "" {
			return bad(t.Name, problem)
		}
	}
	for i := range h.Tensors {
		t := &h.Tensors[i]
		if t.Action != Tied || t.TiedIn != "" {
			continue
		}
		to := index[t.TiedTo]
		if to == nil || to.Action == Tied {
			return bad(t.Name, "it is tied to "+format.Quote(t.TiedTo)+", which is not stored")
		}
		if to.Size() != t.Size() || to.Action == Encoded && to.DType != t.DType {
			return &format.Error{File: file, Tensor: t.Name, Problem: "it does not fit the tensor that it is tied to",
				Found: fmt.Sprintf("%s %s", t.DType, t.Shape), Expected: fmt.Sprintf("%s %s", to.DType, to.Shape)}
		}
	}
	return nil
}

// check says what is wrong with the members of one tensor, if anything is.
func (t *Tensor) check(l Layout) string {
	isTied, isEncoded, isKept := t.Action == Tied, t.Action == Encoded, t.Action == Kept
	switch {
	case !isTied && !isEncoded && !isKept:
		return "unknown action " + format.Quote(string(t.Action))
	case isTied != (t.TiedTo != "") || isTied != (t.Tie != ""):
		return "tied_to and tie belong to tied tensors, and to all of them"
	case t.TiedIn != "" && (!isTied || !isFileName(t.TiedIn)):
		return "tied_in belongs to tied tensors and is the name of a file in the same folder, found " + format.Quote(t.TiedIn)
	case isTied && t.Tie != TieOffset && t.Tie != TieContent && t.Tie != TieMetadata:
		return "unknown tie " + format.Quote(string(t.Tie))
	case isTied == t.CRC.Valid:
		return "every stored tensor has a crc32c, and no tied one"
	case isEncoded != (t.Codec != nil):
		return "a codec belongs to encoded tensors, and to all of them"
	case isEncoded:
		if _, ok := floatType(t.DType); !ok {
			return "a tensor of dtype " + t.DType.String() + " cannot be encoded"
		}
		if t.Stored != l.codeEncoding() || t.Sign != l.signEncoding() || t.Data != "" {
			return fmt.Sprintf("in the %s layout stored is %q and sign is %q", l, l.codeEncoding(), l.signEncoding())
		}
	case t.Stored != "" || t.Sign != "" || isKept != (t.Data != ""):
		return "stored and sign belong to encoded tensors, data to kept ones"
	case isKept && t.Data != Raw:
		if l != Compact || t.Data != keptEncoding(t.DType) {
			return "unexpected encoding " + format.Quote(string(t.Data))
		}
	}
	return ""
}

// isFileName reports whether a name leads to a file of the folder that it is
// looked up in, whatever the system.
func isFileName(name string) bool {
	return name != "." && name != ".." && !strings.ContainsAny(name, `/\:`) && !strings.ContainsFunc(name, unicode.IsControl)
}

// floatType returns the codec's type for a dtype that can be encoded.
func floatType(d format.DType) (codec.Type, bool) {
	switch d {
	case format.F32:
		return codec.F32, true
	case format.F16:
		return codec.F16, true
	case format.BF16:
		return codec.BF16, true
	}
	return 0, false
}
