package convert_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/x448/float16"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// A spec is a tensor of a file that a test makes. Those of the same dtype,
// shape and seed have the same bytes.
type spec struct {
	name  string
	dtype format.DType
	shape format.Shape
	seed  uint64
	of    string // the tensor whose place in the file it shares; none where empty
}

// weight is a matrix of F32 that is encoded, unless its name keeps it.
func weight(name string, seed uint64) spec {
	return spec{name: name, dtype: format.F32, shape: format.Shape{32, 32}, seed: seed}
}

// packed returns a safetensors file of the tensors.
func packed(t testing.TB, metadata []format.Entry, specs ...spec) []byte {
	t.Helper()
	var list []format.Tensor
	var data []byte
	for _, s := range specs {
		x := format.Tensor{Name: s.name, DType: s.dtype, Shape: s.shape}
		if s.of != "" {
			at := slices.IndexFunc(list, func(t format.Tensor) bool { return t.Name == s.of })
			x.Offset, x.Size = list[at].Offset, list[at].Size
			list = append(list, x)
			continue
		}
		r := rand.New(rand.NewPCG(s.seed, 7))
		n, ok := s.shape.Elements()
		if !ok {
			t.Fatalf("bad shape %v", s.shape)
		}
		x.Offset = int64(len(data))
		for range n {
			v := float32(r.NormFloat64() / 30)
			switch s.dtype {
			case format.F32:
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
			case format.BF16:
				data = binary.LittleEndian.AppendUint16(data, uint16(math.Float32bits(v)>>16))
			case format.F16:
				data = binary.LittleEndian.AppendUint16(data, float16.Fromfloat32(v).Bits())
			case format.U8:
				data = append(data, byte(r.Uint32()))
			default:
				t.Fatalf("no values of dtype %v", s.dtype)
			}
		}
		x.Size = int64(len(data)) - x.Offset
		list = append(list, x)
	}
	return fixtures.Pack(metadata, list, data)
}

// indexOf returns an index, in the form of the stock writer's, of the files of
// a folder.
func indexOf(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	x := safetensors.Index{Metadata: []byte(`{"total_size":1}`)}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := safetensors.New(bytes.NewReader(files[name]), int64(len(files[name])), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, tensor := range f.Tensors() {
			x.Entries = append(x.Entries, format.Entry{Key: tensor.Name, Value: name})
		}
	}
	text, err := x.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// writeFiles writes files, by slash-separated names, into a new folder.
func writeFiles(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		put(t, filepath.Join(dir, filepath.FromSlash(name)), data)
	}
	return dir
}

// put writes a file and makes its folder.
func put(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustTree(t testing.TB, dir string) map[string]string {
	t.Helper()
	tree, err := fixtures.Tree(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// sameTree compares what is below two folders, or below one at two times.
func sameTree(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	for name, about := range want {
		if got[name] != about {
			t.Errorf("%s: %s is %q, expected %q", what, name, got[name], about)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: there is also %s", what, name)
		}
	}
}

// fileNames lists the files below a folder.
func fileNames(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	for name, about := range mustTree(t, dir) {
		if !strings.HasPrefix(about, "d") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// expectVerified verifies a path.
func expectVerified(t testing.TB, path, against string) {
	t.Helper()
	report, err := convert.Verify(t.Context(), path, convert.VerifyOptions{Against: against})
	if err != nil || !report.OK() {
		t.Errorf("verifying %s: %v, %v", path, report.Findings, err)
	}
}

// openWeights opens a file of either source format.
func openWeights(t testing.TB, path string) format.Source {
	t.Helper()
	if filepath.Ext(path) == ".gguf" {
		f, err := gguf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// values widens a tensor's bytes.
func values(d format.DType, b []byte) []float64 {
	var list []float64
	for len(b) > 0 {
		switch d {
		case format.F32:
			list = append(list, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
			b = b[4:]
		case format.BF16:
			list = append(list, float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b))<<16)))
			b = b[2:]
		default:
			list = append(list, float64(float16.Frombits(binary.LittleEndian.Uint16(b)).Float32()))
			b = b[2:]
		}
	}
	return list
}

// A journey is a folder that was converted and decoded.
type journey struct {
	in, out, back string
	manifest      *convert.DirManifest
	warnings      []string
}

// travel converts a folder, verifies and decodes it, and compares all of it
// with what there was.
func travel(t testing.TB, in string, opts convert.Options) *journey {
	t.Helper()
	dir := t.TempDir()
	j := &journey{in: in, out: filepath.Join(dir, "out"), back: filepath.Join(dir, "back")}
	before := mustTree(t, in)
	opts.Events = func(e convert.Event) {
		if w, ok := e.(convert.Warning); ok {
			j.warnings = append(j.warnings, w.Tensor+": "+w.Message)
		}
	}
	r, err := convert.ConvertDir(t.Context(), in, j.out, opts)
	if err != nil {
		t.Fatal(err)
	}
	j.manifest = r.Manifest
	expectVerified(t, j.out, "")
	expectVerified(t, j.out, in)
	if err := convert.DecodeDir(t.Context(), j.out, j.back, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	sameTree(t, "the input", mustTree(t, in), before)
	expectFiles(t, dir, "back", "out")
	j.adds(t)
	j.returned(t)
	return j
}

func expectFiles(t testing.TB, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, expected %q", dir, got, want)
	}
}

// adds compares the manifest's figures with the files.
func (j *journey) adds(t testing.TB) {
	t.Helper()
	listed := map[string]bool{convert.DirManifestName: true}
	var source, output uint64
	size := func(path string) uint64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return uint64(info.Size())
	}
	tensors := uint64(0)
	for _, f := range j.manifest.Files {
		listed[f.Output.Name] = true
		if a, b := size(filepath.Join(j.in, f.Source.Name)), size(filepath.Join(j.out, f.Output.Name)); a != f.Source.Size || b != f.Output.Size {
			t.Errorf("%s: %d -> %d bytes, the manifest says %d -> %d", f.Output.Name, a, b, f.Source.Size, f.Output.Size)
		}
		source, output, tensors = source+f.Source.Size, output+f.Output.Size, tensors+uint64(len(f.Tensors))
	}
	for _, f := range j.manifest.SideFiles {
		listed[f.Name] = true
		if n := size(filepath.Join(j.out, f.Name)); n != f.Size {
			t.Errorf("%s: %d bytes, the manifest says %d", f.Name, n, f.Size)
		}
	}
	total := j.manifest.Totals
	if got := total.Encoded.Tensors + total.Kept.Tensors + total.Tied.Tensors; got != tensors {
		t.Errorf("the totals count %d tensors, the files have %d", got, tensors)
	}
	if ratio := float64(source) / float64(output); math.Abs(float64(total.Ratio)-ratio) > 1e-6 {
		t.Errorf("ratio %v, expected %v", total.Ratio, ratio)
	}
	if names := fileNames(t, j.out); !slices.Equal(names, slices.Sorted(maps.Keys(listed))) {
		t.Errorf("the folder holds %q, the manifest lists %q", names, slices.Sorted(maps.Keys(listed)))
	}
}

// returned compares what was decoded with the source.
func (j *journey) returned(t testing.TB) {
	t.Helper()
	tree := mustTree(t, j.back)
	for name, about := range mustTree(t, j.in) {
		if strings.HasSuffix(name, ".safetensors") || strings.HasSuffix(name, ".gguf") {
			if tree[name] == "" {
				t.Errorf("%s did not come back", name)
				continue
			}
			j.weights(t, name)
		} else if strings.HasPrefix(about, "L") {
			if a, b := mustRead(t, filepath.Join(j.in, name)), mustRead(t, filepath.Join(j.back, name)); !bytes.Equal(a, b) {
				t.Errorf("%s came back as %q", name, b)
			}
		} else if tree[name] != about {
			t.Errorf("%s came back as %q, expected %q", name, tree[name], about)
		}
		delete(tree, name)
	}
	for name := range tree {
		t.Errorf("%s came back and was not there", name)
	}
}

// weights compares one file of weights.
func (j *journey) weights(t testing.TB, name string) {
	t.Helper()
	action := map[string]qins.Action{}
	for _, f := range j.manifest.Files {
		for _, x := range f.Tensors {
			action[f.Source.Name+" "+x.Name] = x.Action
		}
	}
	for _, f := range j.manifest.Files {
		for _, x := range f.Tensors {
			if x.TiedIn != "" {
				to := path.Join(path.Dir(f.Source.Name), strings.TrimSuffix(x.TiedIn, ".qins")+path.Ext(f.Source.Name))
				action[f.Source.Name+" "+x.Name] = action[to+" "+x.TiedTo]
			} else if x.TiedTo != "" {
				action[f.Source.Name+" "+x.Name] = action[f.Source.Name+" "+x.TiedTo]
			}
		}
	}
	a, b := openWeights(t, filepath.Join(j.in, name)), openWeights(t, filepath.Join(j.back, name))
	if !slices.Equal(a.Metadata(), b.Metadata()) {
		t.Errorf("%s: metadata %q, expected %q", name, b.Metadata(), a.Metadata())
	}
	if len(a.Tensors()) != len(b.Tensors()) {
		t.Errorf("%s: %d tensors, expected %d", name, len(b.Tensors()), len(a.Tensors()))
		return
	}
	for i, want := range a.Tensors() {
		got := b.Tensors()[i]
		if got.Name != want.Name || got.DType != want.DType || got.Shape.String() != want.Shape.String() {
			t.Errorf("%s: %s %v %v, expected %s %v %v", name, got.Name, got.DType, got.Shape, want.Name, want.DType, want.Shape)
			continue
		}
		x, y := make([]byte, want.Size), make([]byte, got.Size)
		if err := format.ReadFull(a, x, want.Offset); err != nil {
			t.Fatal(err)
		}
		if err := format.ReadFull(b, y, got.Offset); err != nil {
			t.Fatal(err)
		}
		if action[name+" "+want.Name] != qins.Encoded {
			if !bytes.Equal(x, y) {
				t.Errorf("%s: %s was kept and came back changed", name, want.Name)
			}
			continue
		}
		if bytes.Equal(x, y) {
			t.Errorf("%s: %s was encoded and came back unchanged", name, want.Name)
		}
		v, w := values(want.DType, x), values(want.DType, y)
		for k := range v {
			if math.Abs(v[k]-w[k]) > 0.05*math.Abs(v[k])+1e-6 {
				t.Errorf("%s: %s: weight %d is %g, expected %g", name, want.Name, k, w[k], v[k])
				break
			}
		}
	}
}

// tensor returns what the manifest says of a tensor, and of which output.
func (j *journey) tensor(t testing.TB, name string) (file string, about convert.ManifestTensor) {
	t.Helper()
	for _, f := range j.manifest.Files {
		for _, x := range f.Tensors {
			if x.Name == name {
				return f.Output.Name, x
			}
		}
	}
	t.Fatalf("the manifest lists no %s", name)
	return "", about
}

// expectTensor compares what became of a tensor: its action, then its rule, or
// what it is tied to and in which file.
func (j *journey) expectTensor(t testing.TB, name, want string) {
	t.Helper()
	_, x := j.tensor(t, name)
	got := fmt.Sprintf("%s %s", x.Action, x.Rule)
	if x.Action == qins.Tied {
		got = strings.TrimSuffix(fmt.Sprintf("%s to %s in %s", x.Rule, x.TiedTo, x.TiedIn), " in ")
	}
	if got != want {
		t.Errorf("%s: %s, expected %s", name, got, want)
	}
}

// TestDirModels sends the model directories of the fixtures there and back.
func TestDirModels(t *testing.T) {
	for _, d := range []format.DType{format.F32, format.F16, format.BF16} {
		for _, c := range []struct {
			name  string
			model fixtures.ModelDir
		}{
			{"three shards, tied", fixtures.SmallDir(d)},
			{"three shards, not tied", fixtures.ModelDir{LlamaModel: fixtures.SmallDir(d).LlamaModel, Shards: 3}},
			{"one file", fixtures.ModelDir{LlamaModel: fixtures.SmallDir(d).LlamaModel, Tied: true}},
			{"one file and an index", fixtures.ModelDir{LlamaModel: fixtures.SmallDir(d).LlamaModel, Index: true}},
		} {
			for _, layout := range qins.Layouts() {
				if layout != qins.DefaultLayout && (d != format.F32 || c.model.Shards == 0) {
					continue // the files are the concern of other tests
				}
				t.Run(fmt.Sprintf("%s/%s/%s", c.name, d, layout), func(t *testing.T) {
					t.Parallel()
					in := filepath.Join(t.TempDir(), "model")
					if err := fixtures.WriteModelDir(in, c.model); err != nil {
						t.Fatal(err)
					}
					j := travel(t, in, convert.Options{Layout: layout})
					if len(j.warnings) > 0 {
						t.Errorf("warnings: %q", j.warnings)
					}
					config := string(mustRead(t, filepath.Join(j.out, "config.json")))
					if !strings.Contains(config, `"quant_method": "qins"`) || !strings.Contains(config, fmt.Sprintf(`"layout": %q`, layout)) {
						t.Errorf("config.json: %s", config)
					}
					embedding, head := "kept default: embedding or head", "kept default: embedding or head"
					if c.model.Tied && c.model.Shards > 1 {
						head = "tied by content to " + fixtures.DirEmbedding + " in model-00001-of-00003.qins"
					} else if c.model.Tied {
						embedding = "tied by content to " + fixtures.DirHead // which comes first in the file
					}
					j.expectTensor(t, fixtures.DirEmbedding, embedding)
					j.expectTensor(t, fixtures.DirHead, head)
				})
			}
		}
	}
}

// TestDirForms sends folders of other forms there and back.
func TestDirForms(t *testing.T) {
	a, b, c := packed(t, nil, weight("a.weight", 1)), packed(t, nil, weight("b.weight", 2), weight("c.weight", 3)), packed(t, nil, weight("d.weight", 4))
	two := map[string][]byte{"x.safetensors": a, "y.safetensors": b}
	config := []byte(`{"vocab_size": 77}`)
	for name, files := range map[string]map[string][]byte{
		"one file alone":           {"m.safetensors": b},
		"several, no index":        {"a.safetensors": a, "z.safetensors": b, "config.json": config},
		"numbered with six digits": {"m-00001-of-000002.safetensors": a, "m-00002-of-000002.safetensors": b, "config.json": config},
		"numbered past counting":   {"m-00001-of-99999999999999999999.safetensors": a, "config.json": config},
		"numbered, no index":       {"m-00001-of-00002.safetensors": a, "m-00002-of-00002.safetensors": b, "config.json": config},
		"numbered and others":      {"m-00001-of-00002.safetensors": a, "m-00002-of-00002.safetensors": b, "extra.safetensors": c},
		"two sets of numbers":      {"m-00001-of-00001.safetensors": a, "n-00001-of-00002.safetensors": b, "n-00002-of-00002.safetensors": c},
		"odd names, index":         {"x.safetensors": a, "y.safetensors": b, "model.safetensors.index.json": indexOf(t, two)},
		"index of another name": {
			"x.safetensors": a, "y.safetensors": b, "diffusion_pytorch_model.fp16.safetensors.index.json": indexOf(t, two)},
		"index below": {"sub/x.safetensors": a, "sub/y.safetensors": b, "sub/model.safetensors.index.json": indexOf(t, two), "config.json": config},
		"index of files below": {"sub/x.safetensors": a, "sub/deep/y.safetensors": b,
			"model.safetensors.index.json": indexOf(t, map[string][]byte{"sub/x.safetensors": a, "sub/deep/y.safetensors": b})},
		"index and a file that it does not name": {"x.safetensors": a, "y.safetensors": b, "z.safetensors": c, "model.safetensors.index.json": indexOf(t, two)},
		"several models": {
			"model_index.json":                                []byte(`{"_class_name": "Pipeline"}`),
			"unet/config.json":                                []byte("{\n  \"vocab_size\": 32\n}\n"),
			"unet/diffusion_pytorch_model.safetensors":        a,
			"text_encoder/config.json":                        []byte("{}"),
			"text_encoder/model.safetensors":                  a, // the same names in another folder
			"text_encoder_2/x.safetensors":                    a,
			"text_encoder_2/y.safetensors":                    b,
			"text_encoder_2/model.safetensors.index.json":     indexOf(t, two),
			"text_encoder_2/config.json":                      []byte("{\r\n\t\"a\": 1\r\n}"),
			"scheduler/config.json":                           []byte("not read by anybody"),
			"tokenizer/vocab.json":                            []byte("{}"),
			"unet/.hidden":                                    []byte("hidden"),
			"empty.txt":                                       nil,
			"safety_checker/deeper/and/deeper/m.safetensors":  c,
			"safety_checker/deeper/and/deeper/m.safetensors2": []byte("no weights"),
		},
		"gguf and safetensors": {"m.safetensors": a, "w.gguf": ggufOf(t)},
		"names of blanks":      {"my model (1).safetensors": a, "größe.safetensors": b, "a b/c d.txt": []byte("x"), "-.safetensors": c},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			travel(t, writeFiles(t, files), convert.Options{})
		})
	}
}

// ggufOf returns a small GGUF file.
func ggufOf(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	model := fixtures.LlamaModel{Layers: 1, Hidden: 64, Intermediate: 96, Vocab: 320, KVDim: 64, DType: format.F16}
	if err := fixtures.WriteGGUFLlama(path, model); err != nil {
		t.Fatal(err)
	}
	return mustRead(t, path)
}

// TestDirTies ties tensors across the files of a model.
func TestDirTies(t *testing.T) {
	pt := []format.Entry{{Key: "format", Value: "pt"}}
	view := func(name, of string) spec {
		return spec{name: name, dtype: format.F32, shape: format.Shape{16, 64}, of: of}
	}
	for _, c := range []struct {
		name   string
		files  map[string][]byte
		expect map[string]string
	}{
		{"an encoded weight", map[string][]byte{
			"a.safetensors": packed(t, pt, weight("x.weight", 1), weight("y.weight", 2)),
			"b.safetensors": packed(t, pt, weight("z.weight", 1)),
		}, map[string]string{"x.weight": "encoded default: 2-D weight", "z.weight": "tied by content to x.weight in a.qins"}},
		{"three files and twice in one", map[string][]byte{
			"a.safetensors": packed(t, pt, weight("x.weight", 1)),
			"b.safetensors": packed(t, pt, weight("y1.weight", 1), weight("y2.weight", 1)),
			"c.safetensors": packed(t, pt, weight("z.weight", 1)),
		}, map[string]string{"x.weight": "encoded default: 2-D weight", "y1.weight": "tied by content to x.weight in a.qins",
			"y2.weight": "tied by content to x.weight in a.qins", "z.weight": "tied by content to x.weight in a.qins"}},
		{"a chain", map[string][]byte{
			"a.safetensors": packed(t, pt, weight("x.weight", 1)),
			"b.safetensors": packed(t, pt, weight("y.weight", 1), view("view.weight", "y.weight")),
		}, map[string]string{"x.weight": "encoded default: 2-D weight", "y.weight": "tied by content to x.weight in a.qins",
			"view.weight": "tied by offset to x.weight in a.qins"}},
		{"a chain with a dropped name", map[string][]byte{
			"a.safetensors": packed(t, pt, weight("x.weight", 1)),
			"b.safetensors": packed(t, append(pt, format.Entry{Key: "dropped.weight", Value: "y.weight"}), weight("y.weight", 1)),
		}, map[string]string{"y.weight": "tied by content to x.weight in a.qins", "dropped.weight": "tied by metadata to x.weight in a.qins"}},
		{"kept by rule in the first", map[string][]byte{
			"a.safetensors": packed(t, pt, weight("embed.weight", 1)),
			"b.safetensors": packed(t, pt, weight("z.weight", 1)),
		}, map[string]string{"embed.weight": "kept default: embedding or head", "z.weight": "tied by content to embed.weight in a.qins"}},
		{"kept by rule in the second", map[string][]byte{
			"a.safetensors": packed(t, pt, weight("a.weight", 1)),
			"b.safetensors": packed(t, pt, weight("lm_head.weight", 1)),
		}, map[string]string{"a.weight": `kept tied to "lm_head.weight", kept by default: embedding or head`, "lm_head.weight": "tied by content to a.weight in a.qins"}},
		{"kept by rule through a view of the second", map[string][]byte{
			"a.safetensors": packed(t, pt, weight("a.weight", 1)),
			"b.safetensors": packed(t, pt, weight("b.weight", 1), view("lm_head.weight", "b.weight")),
		}, map[string]string{"a.weight": `kept tied to "lm_head.weight", kept by default: embedding or head`,
			"b.weight": "tied by content to a.weight in a.qins", "lm_head.weight": "tied by offset to a.weight in a.qins"}},
		{"a view of another dtype", map[string][]byte{
			"a.safetensors": packed(t, pt, weight("a.weight", 1)),
			"b.safetensors": packed(t, pt, weight("b.weight", 1), spec{name: "bytes", dtype: format.U8, shape: format.Shape{4096}, of: "b.weight"}),
		}, map[string]string{"a.weight": `kept tied to "bytes", kept by default: dtype U8`, "bytes": "tied by offset to a.weight in a.qins"}},
		{"equal bytes of another shape", map[string][]byte{
			"a.safetensors": packed(t, pt, weight("a.weight", 1)),
			"b.safetensors": packed(t, pt, spec{name: "b.weight", dtype: format.F32, shape: format.Shape{16, 64}, seed: 1}),
		}, map[string]string{"a.weight": "encoded default: 2-D weight", "b.weight": "encoded default: 2-D weight"}},
		{"not across folders", map[string][]byte{
			"a/x.safetensors": packed(t, pt, weight("x.weight", 1)),
			"b/y.safetensors": packed(t, pt, weight("y.weight", 1)),
			"model.safetensors.index.json": indexOf(t, map[string][]byte{
				"a/x.safetensors": packed(t, pt, weight("x.weight", 1)), "b/y.safetensors": packed(t, pt, weight("y.weight", 1))}),
		}, map[string]string{"x.weight": "encoded default: 2-D weight", "y.weight": "encoded default: 2-D weight"}},
		{"an empty tensor", map[string][]byte{
			"a.safetensors": packed(t, pt, spec{name: "x", dtype: format.F32, shape: format.Shape{0}}),
			"b.safetensors": packed(t, pt, spec{name: "y", dtype: format.F32, shape: format.Shape{0}}),
		}, map[string]string{"x": "kept default: 1-D", "y": "kept default: 1-D"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, layout := range qins.Layouts() {
				j := travel(t, writeFiles(t, c.files), convert.Options{Layout: layout})
				for name, want := range c.expect {
					j.expectTensor(t, name, want)
				}
				plans, err := convert.PlanDir(t.Context(), j.in, convert.Options{Layout: layout})
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range plans {
					for _, x := range p.Tensors {
						if file, about := j.tensor(t, x.Name); x.Action != about.Action || x.TiedTo != about.TiedTo || x.TiedIn != about.TiedIn {
							t.Errorf("%s of %s: planned as %v %q %q, was %v %q %q", x.Name, file, x.Action, x.TiedTo, x.TiedIn, about.Action, about.TiedTo, about.TiedIn)
						}
					}
				}
				if size := plans.OutputSize(); layout != qins.Compact && size != int64(j.manifest.OutputSize()) {
					t.Errorf("%s: planned %d bytes, found %d", layout, size, j.manifest.OutputSize())
				}
			}
		})
	}
}

// TestDirConfig holds what the configuration says to what becomes of it.
func TestDirConfig(t *testing.T) {
	matrix := spec{name: "rows.weight", dtype: format.F32, shape: format.Shape{77, 32}, seed: 9}
	for _, c := range []struct{ name, config, rows, warning string }{
		{"vocabulary", `{"vocab_size": 77}`, "kept default: vocab_size rows", ""},
		{"vocabulary of the text", `{"text_config": {"vocab_size": 77}}`, "kept default: vocab_size rows", ""},
		{"another vocabulary", `{"vocab_size": 78}`, "encoded default: 2-D weight", ""},
		{"quantized", `{"quantization_config": {"quant_method": "gptq", "bits": 4}}`, "encoded default: 2-D weight", "config.json says that the model is quantized already (gptq); that"},
		{"quantized, it is not said how", `{"quantization_config": {"bits": 4}}`, "encoded default: 2-D weight", "config.json says that the model is quantized already; that"},
		{"quantization is null", `{"quantization_config": null}`, "encoded default: 2-D weight", ""},
		{"as Python has it", "\ufeff{\"time_step_limit\": [0.0, Infinity], \"vocab_size\": 1, \"vocab_size\": 77, \"by\": \"\xe9\"}", "kept default: vocab_size rows", ""},
		{"no object", `[]`, "encoded default: 2-D weight", "config.json: the configuration is not a JSON object: it is [: it is carried over as it is"},
		{"broken", "{\"vocab_size\": 77,\n}", "encoded default: 2-D weight", "config.json: the configuration is not a JSON object: "},
		{"empty", "", "encoded default: 2-D weight", "config.json: the configuration is not a JSON object: "},
		{"tied by name only", `{"tie_word_embeddings": true}`, "encoded default: 2-D weight", "lm_head.weight: the configuration ties it to the embedding, but its bytes are others"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := travel(t, writeFiles(t, map[string][]byte{"config.json": []byte(c.config),
				"m.safetensors": packed(t, nil, matrix, weight("model.embed_tokens.weight", 5), weight("lm_head.weight", 6))}), convert.Options{})
			j.expectTensor(t, "rows.weight", c.rows)
			if c.warning == "" && len(j.warnings) > 0 || !strings.Contains(strings.Join(j.warnings, "\n"), c.warning) {
				t.Errorf("warnings %q, expected %q", j.warnings, c.warning)
			}
			if changed := string(mustRead(t, filepath.Join(j.out, "config.json"))) != c.config; changed == strings.Contains(c.warning, "config.json") {
				t.Errorf("config.json was changed: %v", changed)
			}
		})
	}
}

// TestOneOfSeveral handles a file of a converted model by itself.
func TestOneOfSeveral(t *testing.T) {
	first, second := packed(t, nil, weight("x.weight", 1)), packed(t, nil, weight("y.weight", 1), weight("z.weight", 2))
	in := writeFiles(t, map[string][]byte{"a.safetensors": first, "b.safetensors": second})
	j := travel(t, in, convert.Options{})
	b := filepath.Join(j.out, "b.qins")
	back := filepath.Join(t.TempDir(), "b.safetensors")
	if err := convert.Decode(t.Context(), b, back, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mustRead(t, back), mustRead(t, filepath.Join(j.back, "b.safetensors"))) {
		t.Error("alone it decodes to another file")
	}
	expectVerified(t, b, filepath.Join(in, "b.safetensors"))

	// Without the other.
	lone := filepath.Join(t.TempDir(), "b.qins")
	put(t, lone, mustRead(t, b))
	const says = `tensor "y.weight": its data is in another file of the model, which is missing: found a tie to "x.weight" in "a.qins"`
	err := convert.Decode(t.Context(), lone, filepath.Join(filepath.Dir(lone), "back"), convert.Options{})
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("decode: %v, expected %s", err, says)
	}
	expectFiles(t, filepath.Dir(lone), "b.qins")
	report, err := convert.Verify(t.Context(), lone, convert.VerifyOptions{})
	if err != nil || len(report.Findings) != 1 || !strings.Contains(report.Findings[0].Message, `"a.qins"`) {
		t.Errorf("verify: %+v, %v", report.Findings, err)
	}
	if _, err := convert.Inspect(lone); err != nil {
		t.Errorf("inspect: %v", err)
	}
	f, err := qins.Open(lone)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Float32("z.weight"); err != nil {
		t.Errorf("what is in the file: %v", err)
	}
	if _, err := f.Float32("y.weight"); err == nil || !strings.Contains(err.Error(), `its data is in another file of the model: found a tie to "x.weight" in "a.qins"`) {
		t.Errorf("what is in another: %v", err)
	}
}
