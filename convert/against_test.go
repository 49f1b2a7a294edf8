package convert_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// TestAgainst compares a file without a manifest with its source, and with others
// that are the same but for one thing.
func TestAgainst(t *testing.T) {
	metadata := []format.Entry{{Key: "format", Value: "pt"}}
	list := []spec{weight("a.weight", 1), weight("embed.weight", 2), weight("tied.weight", 1), {name: "n", dtype: format.F16, shape: format.Shape{3}, seed: 4}}
	source := packed(t, metadata, list...)
	other := func(at int, change func(s *spec)) []byte {
		changed := slices.Clone(list)
		change(&changed[at])
		return packed(t, metadata, changed...)
	}
	for _, layout := range qins.Layouts() {
		dir := t.TempDir()
		in, out, with := filepath.Join(dir, "in.safetensors"), filepath.Join(dir, "out.qins"), filepath.Join(dir, "with.safetensors")
		put(t, in, source)
		if _, err := convert.Convert(t.Context(), in, out, convert.Options{Layout: layout}); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(convert.ManifestPath(out)); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			file []byte
			says string // empty where nothing is to be found
		}{
			"the source":                     {source, ""},
			"another encoded tensor":         {other(0, func(s *spec) { s.seed = 9 }), `a.weight: the encoded tensor differs from the source's`},
			"another tied tensor":            {other(2, func(s *spec) { s.seed = 9 }), `tied.weight: the tied tensor differs from the source's`},
			"another kept tensor":            {other(1, func(s *spec) { s.seed = 9 }), `embed.weight: the kept tensor differs from the source's`},
			"another name":                   {other(3, func(s *spec) { s.name = "m" }), `n: the source has no such tensor`},
			"another shape":                  {other(3, func(s *spec) { s.shape = format.Shape{3, 1} }), `n: the source has F16 [3,1], the file F16 [3]`},
			"other metadata":                 {packed(t, []format.Entry{{Key: "format", Value: "tf"}}, list...), `: the metadata is not the source's`},
			"one bit of a weight's mantissa": {flippedHigh(source), `a.weight: the encoded tensor differs from the source's`},
		} {
			put(t, with, c.file)
			report, err := convert.Verify(t.Context(), out, convert.VerifyOptions{Against: with})
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, f := range report.Findings {
				found = append(found, f.Tensor+": "+f.Message)
			}
			if c.says == "" && len(found) > 0 || c.says != "" && !slices.Contains(found, c.says) {
				t.Errorf("%s, %s: found %q, expected %q", layout, name, found, c.says)
			}
		}
	}
}

// flippedHigh changes the exponent of the first element of the first tensor.
func flippedHigh(file []byte) []byte {
	changed := bytes.Clone(file)
	start := 8 + int(le.Uint64(file))
	changed[start+3] ^= 1
	return changed
}

// TestAgainstGGUF compares a file with a GGUF file whose header is another.
func TestAgainstGGUF(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.gguf"), filepath.Join(dir, "out.qins")
	model := fixtures.SmallDir(format.BF16).LlamaModel
	if err := fixtures.WriteGGUFLlama(in, model); err != nil {
		t.Fatal(err)
	}
	if _, err := convert.Convert(t.Context(), in, out, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(convert.ManifestPath(out)); err != nil {
		t.Fatal(err)
	}
	file := mustRead(t, in)
	for _, changed := range []bool{false, true} {
		if changed {
			at := bytes.Index(file, []byte("llama"))
			file = bytes.Clone(file)
			file[at+len("llama")-1] ^= 2 // a string, or a key that nothing else depends on
			put(t, in, file)
		}
		report, err := convert.Verify(t.Context(), out, convert.VerifyOptions{Against: in})
		if err != nil {
			t.Fatal(err)
		}
		if found := slices.ContainsFunc(report.Findings, func(f convert.Finding) bool {
			return strings.Contains(f.Message, "what stands beside the tensors is not the source's")
		}); found != changed {
			t.Errorf("changed %v: %+v", changed, report.Findings)
		}
	}
	report, err := convert.Verify(t.Context(), out, convert.VerifyOptions{Against: writeSmall(t)})
	if err != nil || len(report.Findings) != 1 || report.Findings[0].Message != "this is not the source: found a safetensors file, expected a gguf file" {
		t.Errorf("%+v, %v", report, err)
	}
}

func writeSmall(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "small.safetensors")
	put(t, path, fixtures.Small(fixtures.TieContent))
	return path
}
