package convert_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
	"github.com/qinsconv/qinsconv/qins"
)

// TestGGUFVectors takes every odd GGUF file through each layout and back, and
// sees every hostile one refused with nothing left behind.
func TestGGUFVectors(t *testing.T) {
	ctx := context.Background()
	for _, v := range fixtures.GGUFVectors() {
		t.Run(v.Name, func(t *testing.T) {
			dir := t.TempDir()
			in, out, back := filepath.Join(dir, "in.gguf"), filepath.Join(dir, "out.qins"), filepath.Join(dir, "back.gguf")
			if err := os.WriteFile(in, v.File, 0o666); err != nil {
				t.Fatal(err)
			}
			if v.Verdict == fixtures.Reject {
				_, err := convert.Convert(ctx, in, out, convert.Options{})
				var bad *format.Error
				if !errors.As(err, &bad) {
					t.Fatalf("found %v, expected a *format.Error", err)
				}
				if bad.File != in || bad.Tensor != v.Tensor && v.Tensor != "" {
					t.Errorf("found file %q and tensor %q, expected %q and %q", bad.File, bad.Tensor, in, v.Tensor)
				}
				if _, err := convert.NewPlan(ctx, in, convert.Options{}); !errors.As(err, &bad) {
					t.Errorf("plan: found %v, expected a *format.Error", err)
				}
				onlyFile(t, dir, "in.gguf")
				return
			}
			for _, layout := range qins.Layouts() {
				opts := convert.Options{Layout: layout, Force: true, Jobs: 2}
				m, err := convert.Convert(ctx, in, out, opts)
				if err != nil {
					t.Fatal(err)
				}
				report, err := convert.Verify(ctx, out, convert.VerifyOptions{Against: in})
				if err != nil || !report.OK() {
					t.Fatalf("%s: verify: %v %v", layout, err, report)
				}
				if err := convert.Decode(ctx, out, back, opts); err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(back)
				if err != nil {
					t.Fatal(err)
				}
				if m.Totals.Encoded.Tensors == 0 && !bytes.Equal(got, v.File) {
					t.Errorf("%s: nothing was encoded, and the file came back changed", layout)
				}
				if len(got) != len(v.File) {
					t.Errorf("%s: found %d bytes, expected %d", layout, len(got), len(v.File))
				}
			}
		})
	}
}

func onlyFile(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != name {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

// TestGGUFCodes converts the same weights as GGUF and as safetensors, which
// gives the same codes, and looks at what comes back.
func TestGGUFCodes(t *testing.T) {
	ctx := context.Background()
	for _, d := range []format.DType{format.F32, format.F16, format.BF16} {
		dir := t.TempDir()
		model := fixtures.LlamaModel{Layers: 1, Hidden: 64, Intermediate: 160, Vocab: 512, KVDim: 32, DType: d}
		st, gg := filepath.Join(dir, "m.safetensors"), filepath.Join(dir, "m.gguf")
		if err := fixtures.WriteLlama(st, model); err != nil {
			t.Fatal(err)
		}
		alignment := gguf.KeyValue{Key: gguf.AlignmentKey, Value: gguf.Of(uint32(4096))}
		if err := fixtures.WriteGGUFLlama(gg, model, alignment); err != nil {
			t.Fatal(err)
		}
		files := map[string]*qins.File{}
		for _, in := range []string{st, gg} {
			if _, err := convert.Convert(ctx, in, in+".qins", convert.Options{Layout: qins.Packed}); err != nil {
				t.Fatal(err)
			}
			f, err := qins.Open(in + ".qins")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			files[in] = f
		}
		encoded := 0
		for _, a := range files[st].Tensors() {
			j, ok := files[gg].Lookup(fixtures.GGUFName(a.Name))
			if !ok {
				t.Fatalf("%s has no counterpart", a.Name)
			}
			b := files[gg].Tensors()[j]
			if strings.Contains(a.Name, "norm") {
				continue // F32 in GGUF, whatever the matrices are
			}
			if a.Action != b.Action || a.CRC != b.CRC {
				t.Errorf("%s: found %s with CRC-32C %s as GGUF, expected %s with %s", a.Name, b.Action, b.CRC, a.Action, a.CRC)
			}
			if a.Action == qins.Encoded {
				encoded++
			}
		}
		if encoded != 7 {
			t.Errorf("found %d encoded tensors, expected 7", encoded)
		}

		back := filepath.Join(dir, "back.gguf")
		if err := convert.Decode(ctx, gg+".qins", back, convert.Options{}); err != nil {
			t.Fatal(err)
		}
		before, err := gguf.Open(gg)
		if err != nil {
			t.Fatal(err)
		}
		defer before.Close()
		after, err := gguf.Open(back)
		if err != nil {
			t.Fatal(err)
		}
		defer after.Close()
		if !bytes.Equal(before.RawHeader(), after.RawHeader()) {
			t.Error("the header came back changed")
		}
	}
}

// TestDamagedContainer changes the GGUF header that a .qins file carries, which
// verify finds without a manifest and decode refuses.
func TestDamagedContainer(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "m.gguf"), filepath.Join(dir, "m.qins")
	model := fixtures.LlamaModel{Layers: 1, Hidden: 64, Intermediate: 160, Vocab: 512, KVDim: 32, DType: format.F16}
	if err := fixtures.WriteGGUFLlama(in, model); err != nil {
		t.Fatal(err)
	}
	if _, err := convert.Convert(ctx, in, out, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(convert.ManifestPath(out)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	const member = `\"head\":\"`
	start := bytes.Index(whole, []byte(member)) + len(member)
	size := bytes.IndexByte(whole[start:], '\\')
	if start < len(member) || size < 200 {
		t.Fatalf("found a head of %d characters at %d", size, start)
	}
	for at := start; at < start+size-4; at += 97 {
		damaged := bytes.Clone(whole)
		if damaged[at] == 'A' {
			damaged[at] = 'B'
		} else {
			damaged[at] = 'A'
		}
		if err := os.WriteFile(out, damaged, 0o666); err != nil {
			t.Fatal(err)
		}
		report, err := convert.Verify(ctx, out, convert.VerifyOptions{})
		if err != nil || report.OK() {
			t.Errorf("character %d: verify: %v %+v, expected a finding", at-start, err, report)
		}
		back := filepath.Join(dir, "back.gguf")
		var bad *format.Error
		if err := convert.Decode(ctx, out, back, convert.Options{}); !errors.As(err, &bad) {
			t.Errorf("character %d: decode: found %v, expected a *format.Error", at-start, err)
		}
	}
}
