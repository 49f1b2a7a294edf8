package convert

import (
	"fmt"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// A DirManifest tells what the conversion of a folder did. Its totals are those
// of the weights; what else is in the folder is listed as it was carried over.
type DirManifest struct {
	Schema     string         `json:"schema"`
	Tool       string         `json:"tool"`
	Files      []ManifestFile `json:"files"`
	SideFiles  []SideFile     `json:"side_files"`
	Totals     Totals         `json:"totals"`
	SelfSHA256 string         `json:"self_sha256"`
}

// A SideFile is a file of the output that holds no weights.
type SideFile struct {
	Name   string `json:"name"` // slash-separated, in the folder
	Size   uint64 `json:"size"`
	SHA256 string `json:"sha256"`
}

// file returns the manifest that file i would have by itself.
func (m *DirManifest) file(i int) *Manifest {
	return &Manifest{Schema: m.Schema, Tool: m.Tool, ManifestFile: m.Files[i]}
}

// SourceSize is the size of all files that were converted.
func (m *DirManifest) SourceSize() uint64 {
	return m.sum(func(f *ManifestFile) uint64 { return f.Source.Size })
}

// OutputSize is the size of all files that were made of them.
func (m *DirManifest) OutputSize() uint64 {
	return m.sum(func(f *ManifestFile) uint64 { return f.Output.Size })
}

// SideSize is the size of all other files.
func (m *DirManifest) SideSize() uint64 {
	var n uint64
	for i := range m.SideFiles {
		n += m.SideFiles[i].Size
	}
	return n
}

func (m *DirManifest) sum(size func(*ManifestFile) uint64) uint64 {
	var n uint64
	for i := range m.Files {
		n += size(&m.Files[i])
	}
	return n
}

// total sums up the files.
func (m *DirManifest) total() Totals {
	var t Totals
	for i := range m.Files {
		f := &m.Files[i].Totals
		t.Encoded.addGroup(f.Encoded)
		t.Kept.addGroup(f.Kept)
		t.Tied.addGroup(f.Tied)
	}
	t.quotients(m.SourceSize(), m.OutputSize())
	return t
}

func (g *Group) addGroup(h Group) {
	g.Tensors += h.Tensors
	g.Parameters += h.Parameters
	g.SourceBytes += h.SourceBytes
	g.OutputBytes += h.OutputBytes
}

// seal sets the manifest's own sum and returns its text.
func (m *DirManifest) seal() ([]byte, error) {
	m.SelfSHA256 = ""
	return seal(m, &m.SelfSHA256)
}

// ReadDirManifest reads the manifest of a folder. One that is not in the form in
// which it is written, that does not add up or that names files outside the
// folder is an error.
func ReadDirManifest(path string) (*DirManifest, error) {
	text, err := readManifestText(path)
	if err != nil {
		return nil, err
	}
	return parseDirManifest(path, text)
}

func parseDirManifest(path string, text []byte) (*DirManifest, error) {
	m := new(DirManifest)
	if err := unmarshalManifest(path, text, m, &m.Schema, &m.SelfSHA256); err != nil {
		return nil, err
	}
	return m, m.check(path)
}

// check checks that the manifest adds up.
func (m *DirManifest) check(path string) error {
	seen := map[string]bool{DirManifestName: true}
	name := func(name string) error {
		if !format.IsLocal(name) {
			return &format.Error{File: path, Problem: "the manifest names a file outside its folder", Found: format.Quote(name), Expected: "a path inside the model's folder"}
		}
		if seen[name] {
			return &format.Error{File: path, Problem: "the manifest names a file twice", Found: format.Quote(name)}
		}
		seen[name] = true
		return nil
	}
	const most = 1 << 53 // so that sums do not overflow, and are exact
	var whole uint64
	for i := range m.Files {
		f := &m.Files[i]
		if err := name(f.Output.Name); err != nil {
			return err
		}
		if !format.IsLocal(f.Source.Name) {
			return &format.Error{File: path, Problem: "the manifest names a source outside its folder", Found: format.Quote(f.Source.Name)}
		}
		if f.Output.Size > most || f.Source.Size > most {
			return &format.Error{File: path, Problem: "a size is too large", Found: fmt.Sprint(max(f.Output.Size, f.Source.Size))}
		}
		if whole += f.Output.Size + f.Source.Size; whole > most {
			return &format.Error{File: path, Problem: "the sizes are too large", Found: fmt.Sprint(whole)}
		}
		alone := m.file(i)
		if _, err := alone.seal(); err != nil || alone.SelfSHA256 != f.SelfSHA256 {
			return &format.Error{File: path, Problem: "the part of " + format.Quote(f.Output.Name) + " was changed: self_sha256", Found: format.Quote(f.SelfSHA256), Expected: alone.SelfSHA256, Err: err}
		}
		if err := alone.check(path); err != nil {
			return err
		}
	}
	for _, f := range m.SideFiles {
		if err := name(f.Name); err != nil {
			return err
		}
		if f.Size > most {
			return &format.Error{File: path, Problem: "a size is too large", Found: fmt.Sprint(f.Size)}
		}
	}
	if err := checkTotals(path, m.Totals, m.total()); err != nil {
		return err
	}
	return m.checkTies(path)
}

// checkTies checks that what is tied across files is there.
func (m *DirManifest) checkTies(path string) error {
	type tensor struct{ file, name string }
	stored := map[tensor]bool{}
	for i := range m.Files {
		for _, t := range m.Files[i].Tensors {
			if t.Action != qins.Tied {
				stored[tensor{m.Files[i].Output.Name, t.Name}] = true
			}
		}
	}
	for i := range m.Files {
		for _, t := range m.Files[i].Tensors {
			if t.TiedIn != "" && !stored[tensor{sibling(m.Files[i].Output.Name, t.TiedIn), t.TiedTo}] {
				return &format.Error{File: path, Tensor: t.Name, Problem: "it is tied to a tensor that is not stored", Found: format.Quote(t.TiedTo) + " in " + format.Quote(t.TiedIn)}
			}
		}
	}
	return nil
}
