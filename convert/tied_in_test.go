package convert_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// tieAcross makes the packed folder of two files whose weights are the same:
// y.weight of b.qins is tied to x.weight of a.qins.
func tieAcross(t testing.TB) map[string][]byte {
	t.Helper()
	in := writeFiles(t, map[string][]byte{"a.safetensors": packed(t, nil, weight("x.weight", 1), weight("embed.weight", 3)),
		"b.safetensors": packed(t, nil, weight("y.weight", 1), weight("lm_head.weight", 3), weight("z.weight", 2))})
	out := filepath.Join(t.TempDir(), "out")
	if _, err := convert.ConvertDir(t.Context(), in, out, convert.Options{Layout: qins.Packed}); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"a.qins": mustRead(t, filepath.Join(out, "a.qins")), "b.qins": mustRead(t, filepath.Join(out, "b.qins"))}
}

// TestHostileTies gives the header of a .qins file ties to other files that are
// no good, and holds that everything that reads it says so.
func TestHostileTies(t *testing.T) {
	whole := tieAcross(t)
	tie := func(file string) func(t *testing.T, p *parts) {
		return func(_ *testing.T, p *parts) { p.tensor("y.weight")["tied_in"] = file }
	}
	with := func(key string, value any) func(t *testing.T, p *parts) {
		return func(_ *testing.T, p *parts) { p.tensor("y.weight")[key] = value }
	}
	const isName = "tied_in belongs to tied tensors and is the name of a file in the same folder"
	type files = map[string][]byte
	for _, c := range []struct {
		name   string
		change func(t *testing.T, p *parts)
		more   files
		// What opening the file, and reading the tie, must say.
		open, follow string
	}{
		{"above", tie("../x.qins"), files{"../x.qins": whole["a.qins"]}, isName + `, found "../x.qins"`, ""},
		{"absolute", tie("/x.qins"), nil, isName, ""},
		{"below", tie("sub/a.qins"), files{"sub/a.qins": whole["a.qins"]}, isName, ""},
		{"a backslash", tie(`..\x.qins`), nil, isName, ""},
		{"a drive", tie("c:x.qins"), nil, isName, ""},
		{"dots", tie(".."), nil, isName, ""},
		{"a dot", tie("."), nil, isName, ""},
		{"a zero byte", tie("a.qins\x00"), nil, isName, ""},
		{"a line", tie("a.qins\n"), nil, isName, ""},
		{"a number", with("tied_in", 1), nil, "not of the expected form", ""},
		{"of an encoded tensor", func(_ *testing.T, p *parts) { p.tensor("z.weight")["tied_in"] = "a.qins" }, nil, isName, ""},
		{"of a tied tensor without a name", with("tied_to", ""), nil, "tied_to and tie belong to tied tensors", ""},
		{"itself", tie("b.qins"), nil, "", `"y.weight" of another file is tied to this tensor, which is not stored here`},
		{"itself, to what it stores", func(_ *testing.T, p *parts) {
			m := p.tensor("y.weight")
			m["tied_in"], m["tied_to"] = "b.qins", "z.weight"
		}, nil, "", "-"}, // odd, but it can be read
		{"missing", tie("c.qins"), nil, "", "its data is in another file of the model, which is missing"},
		{"a folder", tie("c.qins"), files{"c.qins/x": nil}, "", "c.qins"},
		{"empty", tie("c.qins"), files{"c.qins": nil}, "", "c.qins: "},
		{"no .qins file", tie("c.qins"), files{"c.qins": packed(t, nil, weight("x.weight", 1))}, "", "this is no .qins file"},
		{"the manifest", tie("c.json"), files{"c.json": []byte("{}")}, "", "c.json: "},
		{"no such tensor", with("tied_to", "w.weight"), nil, "", `tensor "w.weight": "y.weight" of another file is tied to this tensor, which is not stored here`},
		{"another dtype", with("dtype", "I32"), nil, "", "is tied to this tensor, which does not fit it"},
		{"another size", with("shape", []int{32, 33}), nil, "", "is tied to this tensor, which does not fit it: found F32 [32,32], expected F32 [32,33]"},
		{"a size that overflows", with("shape", []any{number(uint64(1 << 63)), number(8)}), nil, "overflows", ""},
		{"kept bytes of another dtype and the same size", func(_ *testing.T, p *parts) { p.tensor("lm_head.weight")["dtype"] = "I32" }, nil, "", "-"},
		{"a loop", nil, files{"a.qins": changedQINS(t, whole["a.qins"], func(p *parts) {
			p.remove("x.stored")
			p.remove("x.sign")
			p.remove("x.log_min")
			p.remove("x.log_max")
			m := p.tensor("x.weight")
			for _, key := range []string{"codec", "stored", "sign", "crc32c"} {
				delete(m, key)
			}
			m["action"], m["tied_to"], m["tie"], m["tied_in"] = "tied", "y.weight", "content", "b.qins"
		})}, "", "is tied to this tensor, which is not stored here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "model")
			put(t, filepath.Join(dir, "a.qins"), whole["a.qins"])
			b := whole["b.qins"]
			if c.change != nil {
				b = changedQINS(t, b, func(p *parts) { c.change(t, p) })
			}
			path := filepath.Join(dir, "b.qins")
			put(t, path, b)
			for name, data := range c.more {
				put(t, filepath.Join(dir, filepath.FromSlash(name)), data)
			}
			before := mustTree(t, filepath.Dir(dir))
			expect := func(what, says string, err error) {
				t.Helper()
				if says == "-" {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
					return
				}
				var bad *format.Error
				if err == nil || !strings.Contains(err.Error(), says) || c.name != "a folder" && !errors.As(err, &bad) {
					t.Errorf("%s: %v, expected %s", what, err, says)
				}
			}
			says := c.open + c.follow
			f, err := qins.Open(path)
			if c.open != "" {
				expect("open", c.open, err)
				_, err := convert.Inspect(path)
				expect("inspect", c.open, err)
			} else {
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				for i, x := range f.Tensors() {
					f.Stored(i)
					f.StoredSize(i)
					f.PlanesOf(i)
					_, err := f.Float32(x.Name)
					if x.TiedIn != "" && err == nil {
						t.Errorf("%s was read from the file alone", x.Name)
					}
					if x.TiedIn != "" {
						f.Check(t.Context(), i)
						r := f.NewChunkReader()
						if _, _, err := r.Read(make([]byte, 4096), i, 0); err == nil {
							t.Errorf("a chunk of %s was read", x.Name)
						}
					}
				}
				if _, err := convert.Inspect(path); err != nil {
					t.Errorf("inspect: %v", err)
				}
			}
			back := filepath.Join(filepath.Dir(dir), "back")
			expect("decode", says, convert.Decode(t.Context(), path, back, convert.Options{}))
			os.Remove(back)
			if c.name != "the manifest" && c.name != "above" { // whose other files are carried over
				expect("decode of the folder", says, convert.DecodeDir(t.Context(), dir, back, convert.Options{}))
			}
			os.RemoveAll(back)
			for what, path := range map[string]string{"the file": path, "the folder": dir} {
				report, err := convert.Verify(t.Context(), path, convert.VerifyOptions{})
				switch {
				case c.name == "a folder":
					if err == nil && report.OK() {
						t.Errorf("verify %s: found nothing", what)
					}
				case err != nil:
					t.Errorf("verify %s: %v", what, err)
				case says == "-" && !report.OK():
					t.Errorf("verify %s: %+v", what, report.Findings)
				case says != "-" && report.OK():
					t.Errorf("verify %s: found nothing", what)
				}
			}
			sameTree(t, "all", mustTree(t, filepath.Dir(dir)), before)
		})
	}
}

// changedQINS takes a .qins file to pieces and together again.
func changedQINS(t testing.TB, file []byte, change func(p *parts)) []byte {
	t.Helper()
	p := takeApart(t, file)
	change(p)
	return p.pack(t)
}

// TestTieToNoName has a tensor whose name is empty, which the stock library
// writes and reads, hold what others are tied to.
func TestTieToNoName(t *testing.T) {
	for name, c := range map[string]struct {
		file []byte
		ok   bool
	}{
		"alone":                 {packed(t, nil, weight("", 1), weight("b.weight", 2)), true},
		"tied itself":           {packed(t, nil, weight("b.weight", 1), weight("", 1)), true},
		"holds the same bytes":  {packed(t, nil, weight("", 1), weight("b.weight", 1)), false},
		"holds what is dropped": {packed(t, []format.Entry{{Key: "b.weight", Value: ""}}, weight("", 1)), false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			in, out, back := filepath.Join(dir, "in.safetensors"), filepath.Join(dir, "out.qins"), filepath.Join(dir, "back")
			if err := os.WriteFile(in, c.file, 0o666); err != nil {
				t.Fatal(err)
			}
			keep, err := convert.NewRule(false, "")
			if err != nil {
				t.Fatal(err)
			}
			_, err = convert.Convert(t.Context(), in, out, convert.Options{Rules: []convert.Rule{keep}})
			if !c.ok {
				var bad *format.Error
				if !errors.As(err, &bad) || bad.Tensor != "b.weight" || bad.File != in {
					t.Errorf("%v", err)
				}
				expectFiles(t, dir, "in.safetensors")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := convert.Decode(t.Context(), out, back, convert.Options{}); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, c.file) {
				t.Errorf("it does not come back: %v", err)
			}
		})
	}
}
