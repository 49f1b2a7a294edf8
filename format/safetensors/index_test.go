package safetensors_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
)

// inPath puts a path, as JSON has it, into an index.
func inPath(file string) string {
	return `{"weight_map":{"a":"model-1.safetensors","t":"` + file + `"}}`
}

const (
	ok      = ""
	noIndex = "the index is not valid JSON of the expected form"
)

// indexVectors are indices and what the error says of them; nothing, where
// they are to be accepted. Those of tensor "t" name it.
var indexVectors = []struct{ name, text, problem, tensor string }{
	// Syntax.
	{"smallest", `{"weight_map":{}}`, ok, ""},
	{"usual", `{"metadata":{"total_size":12},"weight_map":{"a":"x","b":"x","c":"y"}}`, ok, ""},
	{"white space", " \r\n\t{ \"weight_map\" : { \"a\" : \"x\" } } \n\n", ok, ""},
	{"other members", `{"weight_map":{"a":"x"},"z":[1,{"deep":null}],"metadata":{},"y":1e400}`, ok, ""},
	{"large numbers", `{"metadata":{"total_size":123456789012345678901234567890,"f":1.50}, "weight_map":{}}`, ok, ""},
	{"html", `{"metadata":{"<a>":"&"},"weight_map":{"<t>&\u2028":"a&b"}}`, ok, ""},
	{"empty name", `{"weight_map":{"":"x"}}`, ok, ""},
	{"empty file", ``, noIndex, ""},
	{"null", `null`, "the index is malformed: expected an object", ""},
	{"array", `[]`, "the index is malformed: expected an object", ""},
	{"cut", `{"weight_map":{"a":"x"`, noIndex, ""},
	{"cut at a colon", `{"weight_map":`, noIndex, ""},
	{"more behind", `{"weight_map":{}}{}`, "more text after the index's object", ""},
	{"nul behind", "{\"weight_map\":{}}\x00", noIndex, ""},
	{"comma behind the last", `{"weight_map":{"a":"x",}}`, noIndex, ""},
	{"comment", `{"weight_map":{}/**/}`, noIndex, ""},
	{"byte order mark", "\ufeff{\"weight_map\":{}}", noIndex, ""},
	{"not utf-8", "{\"weight_map\":{\"a\xff\":\"x\"}}", noIndex, ""},
	{"lone surrogate", `{"weight_map":{"a\ud800":"x"}}`, noIndex, ""},
	{"tensor twice", `{"weight_map":{"a":"x","a":"x"}}`, noIndex, ""},
	{"tensor twice, escaped", `{"weight_map":{"a":"x","\u0061":"y"}}`, noIndex, ""},
	{"weight_map twice", `{"weight_map":{},"weight_map":{}}`, noIndex, ""},
	{"metadata twice", `{"metadata":{},"weight_map":{},"metadata":{}}`, noIndex, ""},
	{"twice inside metadata", `{"metadata":{"a":1,"a":1},"weight_map":{}}`, noIndex, ""},
	{"nested too deeply", `{"weight_map":{},"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, noIndex, ""},
	{"metadata of null", `{"metadata":null,"weight_map":{}}`, "metadata is not an object", ""},
	{"metadata of a number", `{"metadata":1,"weight_map":{}}`, "metadata is not an object", ""},
	{"no weight_map", `{"metadata":{}}`, "the index has no weight_map", ""},
	{"weight_map in other case", `{"Weight_Map":{}}`, "the index has no weight_map", ""},
	{"weight_map of null", `{"weight_map":null}`, "weight_map is not an object", ""},
	{"weight_map of pairs", `{"weight_map":[["a","x"]]}`, "weight_map is not an object", ""},
	{"file of null", `{"weight_map":{"t":null}}`, "weight_map gives it no file", "t"},
	{"file of a number", `{"weight_map":{"t":1}}`, "weight_map gives it no file", "t"},
	{"file of a list", `{"weight_map":{"t":["x"]}}`, "weight_map gives it no file", "t"},

	// Paths.
	{"path", inPath(`model-00002-of-00002.safetensors`), ok, ""},
	{"path below", inPath(`a/b/c.safetensors`), ok, ""},
	{"path of dots", inPath(`...`), ok, ""},
	{"path beginning with dots", inPath(`..a/..b`), ok, ""},
	{"path beginning with a dot", inPath(`.hidden`), ok, ""},
	{"path with a space", inPath(`a b`), ok, ""},
	{"path beyond ASCII", inPath(`größe`), ok, ""},
	{"path with a colon", inPath(`1:2`), outside, "t"},
	{"path above", inPath(`../x`), outside, "t"},
	{"path above, escaped", inPath(`\u002e\u002e\u002fx`), outside, "t"},
	{"path far above", inPath(`../../../../../../etc/passwd`), outside, "t"},
	{"path above and back", inPath(`../model/x`), outside, "t"},
	{"path above after going down", inPath(`a/../../x`), outside, "t"},
	{"path down and up", inPath(`a/../x`), outside, "t"},
	{"path ending above", inPath(`a/..`), outside, "t"},
	{"path of the parent", inPath(`..`), outside, "t"},
	{"path of the folder", inPath(`.`), outside, "t"},
	{"path with a dot first", inPath(`./x`), outside, "t"},
	{"path with a dot inside", inPath(`a/./x`), outside, "t"},
	{"path with a dot last", inPath(`a/.`), outside, "t"},
	{"path empty", inPath(``), outside, "t"},
	{"path absolute", inPath(`/etc/passwd`), outside, "t"},
	{"path with two slashes first", inPath(`//host/share`), outside, "t"},
	{"path with two slashes inside", inPath(`a//b`), outside, "t"},
	{"path ending in a slash", inPath(`a/`), outside, "t"},
	{"path of the root", inPath(`/`), outside, "t"},
	{"path with a backslash", inPath(`a\\b`), outside, "t"},
	{"path above with a backslash", inPath(`..\\x`), outside, "t"},
	{"path of a share", inPath(`\\\\host\\share\\x`), outside, "t"},
	{"path of a device", inPath(`\\\\.\\C:\\x`), outside, "t"},
	{"path of a drive", inPath(`C:\\x`), outside, "t"},
	{"path of a drive with slashes", inPath(`C:/x`), outside, "t"},
	{"path of a drive's folder", inPath(`c:x`), outside, "t"},
	{"path of a drive alone", inPath(`z:`), outside, "t"},
	{"path with a nul", inPath(`x\u0000.safetensors`), outside, "t"},
	{"path with a line feed", inPath(`x\ny`), outside, "t"},
	{"path with an escape character", inPath(`\u001b[2Jx`), outside, "t"},
	{"path with delete", inPath(`x\u007f`), outside, "t"},
	{"path with a C1 control", inPath(`x\u009by`), outside, "t"},
}

const outside = "expected a path inside the model's folder"

func TestIndexVectors(t *testing.T) {
	for _, v := range indexVectors {
		t.Run(v.name, func(t *testing.T) {
			x, err := safetensors.ParseIndex([]byte(v.text), "in.index.json")
			if v.problem == ok {
				if err != nil {
					t.Fatal(err)
				}
				checkIndex(t, x)
				return
			}
			var bad *format.Error
			if !errors.As(err, &bad) {
				t.Fatalf("%T: %v", err, err)
			}
			text := err.Error()
			if bad.File != "in.index.json" || bad.Tensor != v.tensor || !strings.Contains(text, v.problem) {
				t.Errorf("%v: expected tensor %q and %q", err, v.tensor, v.problem)
			}
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("the message holds control characters: %q", text)
			}
		})
	}
}

// checkIndex checks that an index is written so that it is read again as the
// same, and that its files are local.
func checkIndex(t *testing.T, x *safetensors.Index) {
	t.Helper()
	text, err := x.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	y, err := safetensors.ParseIndex(text, x.Name)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if !slices.Equal(x.Entries, y.Entries) || (x.Metadata == nil) != (y.Metadata == nil) || len(x.Extra) != len(y.Extra) {
		t.Errorf("%+v\nwas written as\n%s", x, text)
	}
	again, err := y.Marshal()
	if err != nil || string(again) != string(text) {
		t.Errorf("%v: written again,\n%s\nis\n%s", err, text, again)
	}
	files := map[string]bool{}
	for _, file := range x.Files() {
		files[file] = true
		if !filepath.IsLocal(file) || strings.ContainsAny(file, "\\\x00") {
			t.Errorf("accepted %q", file)
		}
	}
	for _, e := range x.Entries {
		if !files[e.Value] {
			t.Errorf("%q is not among the files", e.Value)
		}
	}
}

func TestIndex(t *testing.T) {
	x, err := safetensors.ParseIndex([]byte(
		`{"weight_map":{"b":"2.safetensors","a":"1.safetensors","<c>":"2.safetensors"},"more":[1],"metadata":{"total_size":1e3,"x":{}}}`), "in.index.json")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"2.safetensors", "1.safetensors"}; !slices.Equal(x.Files(), want) {
		t.Errorf("the files are %q, expected %q", x.Files(), want)
	}
	y := x.Rename(func(file string) string { return strings.Replace(file, ".safetensors", ".qins", 1) })
	if x.Entries[0].Value != "2.safetensors" {
		t.Error("Rename changed the index that it was called on")
	}
	text, err := y.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "metadata": {
    "total_size": 1e3,
    "x": {}
  },
  "weight_map": {
    "b": "2.qins",
    "a": "1.qins",
    "<c>": "2.qins"
  },
  "more": [
    1
  ]
}
`
	if string(text) != want {
		t.Errorf("written as\n%s, expected\n%s", text, want)
	}
}

func TestMarshalRefused(t *testing.T) {
	entry := func(tensor, file string) []format.Entry { return []format.Entry{{Key: tensor, Value: file}} }
	for name, x := range map[string]*safetensors.Index{
		"a path above":       {Entries: entry("t", "../x")},
		"a name twice":       {Entries: append(entry("t", "x"), entry("t", "x")...)},
		"a name not UTF-8":   {Entries: entry("\xff", "x")},
		"a path not UTF-8":   {Entries: entry("t", "\xff")},
		"metadata of a list": {Metadata: []byte("[]")},
		"metadata cut":       {Metadata: []byte("{")},
		"a reserved member":  {Extra: []safetensors.Member{{Name: "weight_map", Value: []byte("{}")}}},
	} {
		var bad *format.Error
		if text, err := x.Marshal(); !errors.As(err, &bad) {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

func TestReadIndex(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "model.safetensors.index.json")
	if _, err := safetensors.ReadIndex(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing index: %v", err)
	}
	refused := func(what, path string) {
		t.Helper()
		var bad *format.Error
		if _, err := safetensors.ReadIndex(path); !errors.As(err, &bad) || bad.File != path {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("a folder", dir)
	text := `{"weight_map":{"a":"x"}}`
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	x, err := safetensors.ReadIndex(path)
	if err != nil || x.Name != path || !reflect.DeepEqual(x.Entries, []format.Entry{{Key: "a", Value: "x"}}) {
		t.Errorf("%+v, %v", x, err)
	}
	// Sparse: nothing of it is read.
	if err := os.Truncate(path, safetensors.MaxIndex+1); err != nil {
		t.Fatal(err)
	}
	refused("a long index", path)
}

// FuzzIndex reads any text as an index.
func FuzzIndex(f *testing.F) {
	for _, v := range indexVectors {
		if len(v.text) < 4096 {
			f.Add(v.text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		x, err := safetensors.ParseIndex([]byte(text), "in.index.json")
		if err != nil {
			var bad *format.Error
			if !errors.As(err, &bad) || bad.File != "in.index.json" {
				t.Fatalf("the error is a %T: %v", err, err)
			}
			return
		}
		checkIndex(t, x)
	})
}

// BenchmarkIndex reads and writes an index of 1,000 shards with 100 tensors
// each.
func BenchmarkIndex(b *testing.B) {
	x := &safetensors.Index{}
	for i := range 100_000 {
		x.Entries = append(x.Entries, format.Entry{Key: fmt.Sprintf("model.layers.%d.mlp.up_proj.weight", i), Value: fmt.Sprintf("model-%05d-of-01000.safetensors", i/100+1)})
	}
	text, err := x.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("parse", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := safetensors.ParseIndex(text, ""); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("marshal", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if _, err := x.Marshal(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
