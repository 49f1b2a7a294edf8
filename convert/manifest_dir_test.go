package convert

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// smallDirManifest converts a folder of two files with a tie across them and
// returns the manifest's bytes.
func smallDirManifest(t testing.TB) []byte {
	t.Helper()
	in := t.TempDir()
	matrix := func(name string) format.Tensor {
		return format.Tensor{Name: name, DType: format.F32, Shape: format.Shape{32, 32}}
	}
	// Tensors that stand at the same place have the same bytes.
	if err := fixtures.WriteTensors(filepath.Join(in, "a.safetensors"), nil, []format.Tensor{matrix("a.weight")}); err != nil {
		t.Fatal(err)
	}
	if err := fixtures.WriteTensors(filepath.Join(in, "b.safetensors"), nil, []format.Tensor{matrix("b.weight"), matrix("norm.weight")}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in, "config.json"), []byte("{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if _, err := ConvertDir(t.Context(), in, out, Options{Layout: qins.Packed}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, DirManifestName))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestDirManifestFlips changes every byte of a folder's manifest.
func TestDirManifestFlips(t *testing.T) {
	text := smallDirManifest(t)
	for at := range text {
		text[at] ^= 0x20
		if _, err := parseDirManifest("m", text); err == nil {
			t.Errorf("byte %d: found nothing", at)
		}
		text[at] ^= 0x20
	}
	if _, err := parseDirManifest("m", text); err != nil {
		t.Error(err)
	}
}

// TestDirManifestThatDoesNotAddUp changes a folder's manifest and the sums of
// its own with it.
func TestDirManifestThatDoesNotAddUp(t *testing.T) {
	text := smallDirManifest(t)
	for _, c := range []struct {
		says   string
		change func(m *DirManifest)
	}{
		{"unknown schema", func(m *DirManifest) { m.Schema = "qins-manifest/2" }},
		{"the totals do not add up", func(m *DirManifest) { m.Totals.Parameters++ }},
		{"the totals do not add up", func(m *DirManifest) { m.Totals.Tied.SourceBytes-- }},
		{"the totals do not add up", func(m *DirManifest) { m.Files = m.Files[:1] }},
		{"the totals do not add up", func(m *DirManifest) { m.Files[1].Totals.Kept.Parameters++ }},
		{"the totals do not add up", func(m *DirManifest) { m.Files[0].Source.Size++ }},
		{"do not add up to its size", func(m *DirManifest) { m.Files[0].Output.Size++ }},
		{"a size is too large", func(m *DirManifest) { m.Files[0].Output.Size = math.MaxUint64 }},
		{"a size is too large", func(m *DirManifest) { m.Files[1].Source.Size = 1<<53 + 1 }},
		{"a size is too large", func(m *DirManifest) { m.SideFiles[0].Size = 1 << 60 }},
		{"the sizes are too large", func(m *DirManifest) { m.Files[0].Output.Size = 1 << 53 }},
		{"the manifest names a file twice", func(m *DirManifest) { m.Files[1].Output.Name = m.Files[0].Output.Name }},
		{"the manifest names a file twice", func(m *DirManifest) { m.SideFiles[0].Name = m.Files[0].Output.Name }},
		{"the manifest names a file twice", func(m *DirManifest) { m.SideFiles[0].Name = DirManifestName }},
		{"the manifest names a file twice", func(m *DirManifest) { m.SideFiles = append(m.SideFiles, m.SideFiles[0]) }},
		{"it is tied to a tensor that is not stored", func(m *DirManifest) { m.Files[1].Tensors[0].TiedIn = "c.qins" }},
		{"it is tied to a tensor that is not stored", func(m *DirManifest) { m.Files[1].Tensors[0].TiedTo = "b.weight" }},
		{"it is tied to a tensor that is not stored", func(m *DirManifest) { m.Files[1].Tensors[0].TiedIn = "../a.qins" }},
		{"it is tied to a tensor that is not stored", func(m *DirManifest) { m.Files[0].Output.Name = "sub/a.qins" }},
	} {
		m, err := parseDirManifest("m", text)
		if err != nil {
			t.Fatal(err)
		}
		c.change(m)
		if _, err := parseDirManifest("m", SealDirManifest(t, m)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, expected %q", err, c.says)
		}
	}
	m, err := parseDirManifest("m", text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(SealDirManifest(t, m), text) {
		t.Error("unchanged it is written in another way")
	}
	// Of one file, with the sum of the whole made again.
	m.Files[0].Options.Rules = append(m.Files[0].Options.Rules, "exclude x")
	changed, err := m.seal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseDirManifest("m", changed); err == nil || !strings.Contains(err.Error(), `the part of "a.qins" was changed: self_sha256`) {
		t.Errorf("%v", err)
	}
}

// FuzzDirManifest holds the reader of folders' manifests to accepting nothing
// that is not written again as it was, nor names outside the folder.
func FuzzDirManifest(f *testing.F) {
	f.Add(smallDirManifest(f), false)
	f.Add([]byte(`{"schema":"qins-manifest/1","files":[],"side_files":[{"name":"../x"}]}`), true)
	f.Add([]byte(`{"schema":"qins-manifest/1","files":[{"output":{"name":"a"},"source":{"name":"b"},"tensors":[{"shape":[0],"tied_in":"c"}]}]}`), true)
	f.Fuzz(func(t *testing.T, text []byte, reseal bool) {
		if reseal {
			m := new(DirManifest)
			if json.Unmarshal(text, m) == nil {
				for i := range m.Files {
					alone := m.file(i)
					if _, err := alone.seal(); err != nil {
						return
					}
					m.Files[i].SelfSHA256 = alone.SelfSHA256
				}
				if sealed, err := m.seal(); err == nil {
					text = sealed
				}
			}
		}
		m, err := parseDirManifest("m", text)
		if err != nil {
			return
		}
		for i := range m.Files {
			if !filepath.IsLocal(m.Files[i].Output.Name) {
				t.Errorf("%q is outside", m.Files[i].Output.Name)
			}
		}
		for _, s := range m.SideFiles {
			if !filepath.IsLocal(s.Name) {
				t.Errorf("%q is outside", s.Name)
			}
		}
		again, err := m.seal()
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%v\n%s\nis written again as\n%s", err, text, again)
		}
	})
}
