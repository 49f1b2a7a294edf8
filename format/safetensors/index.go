package safetensors

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/qinsconv/qinsconv/format"
)

// MaxIndex is the longest index, in bytes, that [ReadIndex] reads.
const MaxIndex = MaxHeader

// The members of an index that have a meaning.
const (
	indexMetadata  = "metadata"
	indexWeightMap = "weight_map"
)

// An Index says which file of a sharded model holds each tensor, as
// model.safetensors.index.json does.
type Index struct {
	Name     string         // that errors give the file
	Metadata jsontext.Value // an object as the file has it; nil where absent
	Entries  []format.Entry // tensor and file, in the order of weight_map
	Extra    []Member       // what else the file says, in its order
}

// A Member is a name and value of a JSON object.
type Member struct {
	Name  string
	Value jsontext.Value
}

// ReadIndex reads and checks the index at path.
func ReadIndex(path string) (*Index, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	// Before it is opened: opening a pipe waits for its writer.
	if !info.Mode().IsRegular() {
		return nil, &format.Error{File: path, Problem: "the index is not a file", Found: info.Mode().String()}
	}
	tooLong := func(found int64) error {
		return &format.Error{File: path, Problem: "the index is too long",
			Found: fmt.Sprintf("%d bytes", found), Expected: fmt.Sprintf("at most %d", MaxIndex)}
	}
	if info.Size() > MaxIndex {
		return nil, tooLong(info.Size())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxIndex+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxIndex {
		return nil, tooLong(int64(len(text))) // it has grown
	}
	return ParseIndex(text, path)
}

// ParseIndex checks everything that an index says by itself: its syntax, that
// no name is given twice, and that every file is named by a clean path inside
// the model's folder. Whether the files exist is not looked at. Errors give the
// index that name.
func ParseIndex(text []byte, name string) (*Index, error) {
	p := &indexParser{reader: newReader(name, "index", text), x: &Index{Name: name}}
	if err := p.index(); err != nil {
		return nil, p.bad(err)
	}
	return p.x, nil
}

type indexParser struct {
	reader
	x *Index
}

func (p *indexParser) index() error {
	if err := p.expect('{', "an object"); err != nil {
		return err
	}
	found := false
	for p.dec.PeekKind() == '"' {
		name, err := p.str()
		if err != nil {
			return err
		}
		if name == indexWeightMap {
			found = true
			if err := p.weightMap(); err != nil {
				return err
			}
			continue
		}
		value, err := p.dec.ReadValue()
		if err != nil {
			return err
		}
		value = slices.Clone(value)
		if name != indexMetadata {
			p.x.Extra = append(p.x.Extra, Member{name, value})
			continue
		}
		if k := value.Kind(); k != '{' {
			return p.unexpected("metadata is not an object", k)
		}
		p.x.Metadata = value
	}
	if err := p.expect('}', "a name or the end of the object"); err != nil {
		return err
	}
	if err := p.end(); err != nil {
		return err
	}
	if !found {
		return &format.Error{File: p.file, Problem: "the index has no weight_map"}
	}
	return nil
}

func (p *indexParser) weightMap() error {
	if k := p.dec.PeekKind(); k != '{' && k != jsontext.KindInvalid {
		return p.unexpected("weight_map is not an object", k)
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return err
	}
	for p.dec.PeekKind() == '"' {
		tensor, err := p.str()
		if err != nil {
			return err
		}
		if k := p.dec.PeekKind(); k != '"' && k != jsontext.KindInvalid {
			return &format.Error{File: p.file, Tensor: tensor, Problem: "weight_map gives it no file", Found: kindName(k), Expected: "a string"}
		}
		file, err := p.str()
		if err != nil {
			return err
		}
		if !format.IsLocal(file) {
			return &format.Error{File: p.file, Tensor: tensor, Problem: "weight_map gives it a file that cannot be used",
				Found: format.Quote(file), Expected: "a path inside the model's folder"}
		}
		p.x.Entries = append(p.x.Entries, format.Entry{Key: tensor, Value: file})
	}
	return p.expect('}', "a tensor's name or the end of weight_map")
}

// Files returns the files that the index names, in the order in which they
// first appear.
func (x *Index) Files() []string {
	var list []string
	seen := map[string]bool{}
	for _, e := range x.Entries {
		if !seen[e.Value] {
			seen[e.Value] = true
			list = append(list, e.Value)
		}
	}
	return list
}

// Rename returns an index with other names for the files.
func (x *Index) Rename(file func(string) string) *Index {
	y := *x
	y.Entries = make([]format.Entry, len(x.Entries))
	for i, e := range x.Entries {
		y.Entries[i] = format.Entry{Key: e.Key, Value: file(e.Value)}
	}
	return &y
}

// Marshal writes the index as the stock writer does, indented by two spaces:
// metadata, weight_map, then what else there was. An index that [ParseIndex]
// would not accept is an error.
func (x *Index) Marshal() ([]byte, error) {
	w := headerWriter{}
	member := func(name string, value jsontext.Value) {
		w.comma(len(w.dst))
		w.quote(name)
		w.byte(':')
		w.dst = append(w.dst, value...)
	}
	if x.Metadata != nil {
		member(indexMetadata, x.Metadata)
	}
	member(indexWeightMap, nil)
	w.byte('{')
	for i, e := range x.Entries {
		w.comma(i)
		w.quote(e.Key)
		w.byte(':')
		w.quote(e.Value)
	}
	w.byte('}')
	for _, m := range x.Extra {
		member(m.Name, m.Value)
	}
	if w.err != nil {
		return nil, w.err
	}
	text := jsontext.Value(slices.Concat([]byte{'{'}, w.dst, []byte{'}'}))
	if _, err := ParseIndex(text, x.Name); err != nil {
		return nil, err
	}
	if err := text.Indent(jsontext.WithIndent("  ")); err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}
