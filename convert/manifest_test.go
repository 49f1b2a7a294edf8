package convert

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// smallManifest converts the small model and returns the manifest's bytes.
func smallManifest(t testing.TB, layout qins.Layout) []byte {
	t.Helper()
	in := filepath.Join(t.TempDir(), "in.safetensors")
	if err := os.WriteFile(in, fixtures.Small(fixtures.TieContent), 0o666); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(filepath.Dir(in), "m.qins")
	if _, err := Convert(t.Context(), in, out, Options{Layout: layout}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(ManifestPath(out))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestManifestFlips changes every byte of a manifest.
func TestManifestFlips(t *testing.T) {
	text := smallManifest(t, qins.Packed)
	for at := range text {
		for _, mask := range []byte{0x01, 0x20, 0xff} {
			text[at] ^= mask
			if _, err := parseManifest("m", text); err == nil {
				t.Errorf("byte %d ^ %#x: found nothing", at, mask)
			}
			text[at] ^= mask
		}
	}
	if _, err := parseManifest("m", text); err != nil {
		t.Error(err)
	}
}

// TestManifestThatDoesNotAddUp changes a manifest and its own sum with it.
func TestManifestThatDoesNotAddUp(t *testing.T) {
	text := smallManifest(t, qins.Packed)
	for _, c := range []struct {
		says   string
		change func(m *Manifest)
	}{
		{"unknown schema", func(m *Manifest) { m.Schema = "qins-manifest/2" }},
		{"the parts of the output do not add up", func(m *Manifest) { m.Output.HeaderBytes++ }},
		{"the parts of the output do not add up", func(m *Manifest) { m.Output.PaddingBytes = math.MaxUint64 }},
		{"the parts of the output do not add up", func(m *Manifest) { m.Output.HeaderBytes = math.MaxUint64 - m.Output.PayloadBytes + 1 }},
		{"do not add up to payload_bytes", func(m *Manifest) { m.Output.PayloadBytes--; m.Output.HeaderBytes++ }},
		{"do not add up to payload_bytes", func(m *Manifest) { m.Tensors[0].OutputBytes++ }},
		{"larger than its file", func(m *Manifest) { m.Tensors[0].OutputBytes = math.MaxUint64 }},
		{"source_bytes do not fit the shape", func(m *Manifest) { m.Tensors[1].SourceBytes-- }},
		{"source_bytes do not fit the shape", func(m *Manifest) { m.Tensors[1].Shape = format.Shape{32, 41} }},
		{"the shape overflows", func(m *Manifest) { m.Tensors[1].Shape = format.Shape{1 << 62, 4} }},
		{"source_bytes do not fit the shape", func(m *Manifest) { m.Tensors[1].DType = format.F16 }},
		{"more source bytes than the source", func(m *Manifest) { m.Source.Size = 20000 }},
		{"the totals do not add up", func(m *Manifest) { m.Source.Size++ }},
		{"the totals do not add up", func(m *Manifest) { m.Totals.Parameters++ }},
		{"the totals do not add up", func(m *Manifest) { m.Totals.Ratio += 1e-6 }},
		{"the totals do not add up", func(m *Manifest) { m.Totals.Encoded.OutputBytes-- }},
		{"the totals do not add up", func(m *Manifest) { m.Totals.Tied.Tensors = math.MaxUint64 }},
		{"the totals do not add up", func(m *Manifest) { m.Tensors = m.Tensors[:len(m.Tensors)-1] }},
		{"codec and error belong to encoded tensors", func(m *Manifest) { m.Tensors[1].Action = qins.Kept }},
		{"codec and error belong to encoded tensors", func(m *Manifest) { m.Tensors[1].Error = nil }},
		{"codec and error belong to encoded tensors", func(m *Manifest) { m.Tensors[0].Error = m.Tensors[1].Error }},
		{"unknown codec", func(m *Manifest) { m.Options.Codec = "mu-law" }},
		{"source_bytes do not fit the shape", func(m *Manifest) {
			tied := &m.Tensors[slices.IndexFunc(m.Tensors, func(t ManifestTensor) bool { return t.Tie == qins.TieContent })]
			m.Totals.Tied.SourceBytes -= tied.SourceBytes
			tied.SourceBytes = 0
		}},
	} {
		m, err := parseManifest("m", text)
		if err != nil {
			t.Fatal(err)
		}
		c.change(m)
		changed, err := m.seal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseManifest("m", changed); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, expected %q", err, c.says)
		}
	}
}

// FuzzManifest holds the manifest's reader to accepting nothing that is not
// written again as it was.
func FuzzManifest(f *testing.F) {
	for _, layout := range qins.Layouts() {
		f.Add(smallManifest(f, layout), false)
	}
	f.Add([]byte(`{"schema":"qins-manifest/1","tensors":[{"shape":[0]}]}`), true)
	f.Fuzz(func(t *testing.T, text []byte, reseal bool) {
		if reseal {
			text = withOwnSum(text)
		}
		m, err := parseManifest("m", text)
		if err != nil {
			return
		}
		again, err := m.seal()
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%v\n%s\nis written again as\n%s", err, text, again)
		}
	})
}

// withOwnSum gives a manifest the sum of its own bytes, if it is one at all.
func withOwnSum(text []byte) []byte {
	m := new(Manifest)
	if err := json.Unmarshal(text, m); err != nil {
		return text
	}
	sealed, err := m.seal()
	if err != nil {
		return text
	}
	return sealed
}
