package convert_test

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
	"github.com/qinsconv/qinsconv/qins/codec"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenFile holds the SHA-256 of what conversions write. Every kernel, every
// number of workers and every machine gives the same.
const goldenFile = "testdata/golden.txt"

// goldenSources are small enough to make in a test. The second one has tensors
// of several chunks, in each type that is encoded.
func goldenSources(t testing.TB) map[string]string {
	dir := t.TempDir()
	list := map[string]string{"small": filepath.Join(dir, "small.safetensors"), "chunks": filepath.Join(dir, "chunks.safetensors")}
	if err := os.WriteFile(list["small"], fixtures.Small(fixtures.TieContent), 0o666); err != nil {
		t.Fatal(err)
	}
	tensors := []format.Tensor{
		{Name: "a.weight", DType: format.F32, Shape: format.Shape{301, 1001}},
		{Name: "b.weight", DType: format.F16, Shape: format.Shape{2, qins.ChunkWeights}},
		{Name: "c.weight", DType: format.BF16, Shape: format.Shape{151, 1003}},
		{Name: "embed.weight", DType: format.BF16, Shape: format.Shape{201, 1001}},
		{Name: "norm.weight", DType: format.F16, Shape: format.Shape{150_001}},
	}
	if err := fixtures.WriteTensors(list["chunks"], []format.Entry{{Key: "format", Value: "pt"}}, tensors); err != nil {
		t.Fatal(err)
	}
	return list
}

// digests converts the sources to every layout and decodes them, and lists the
// sums of all that is written.
func digests(t testing.TB, jobs int) string {
	t.Helper()
	var b strings.Builder
	sources := goldenSources(t)
	dir := t.TempDir()
	sum := func(name, path string) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// A new version of the tool is no other result.
		if strings.HasSuffix(path, ".json") {
			lines := bytes.SplitAfter(data, []byte("\n"))
			lines = append(lines[:2], lines[3:len(lines)-3]...)
			data = bytes.Join(lines, nil)
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(data), name)
	}
	for _, name := range []string{"small", "chunks"} {
		sum(name+".safetensors", sources[name])
		for _, layout := range qins.Layouts() {
			out, back := filepath.Join(dir, name+".qins"), filepath.Join(dir, name+".back")
			opts := convert.Options{Layout: layout, Jobs: jobs, Force: true}
			if _, err := convert.Convert(t.Context(), sources[name], out, opts); err != nil {
				t.Fatal(err)
			}
			if err := convert.Decode(t.Context(), out, back, opts); err != nil {
				t.Fatal(err)
			}
			sum(fmt.Sprintf("%s.%s.qins", name, layout), out)
			sum(fmt.Sprintf("%s.%s.qins.manifest.json", name, layout), convert.ManifestPath(out))
			sum(fmt.Sprintf("%s.%s.decoded", name, layout), back)
		}
	}
	return b.String()
}

// TestGolden holds every kernel that this machine has to the golden files.
func TestGolden(t *testing.T) {
	if *update {
		if err := os.MkdirAll(filepath.Dir(goldenFile), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenFile, []byte(digests(t, 1)), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	defer codec.Use(codec.Best())
	for _, k := range codec.Kernels() {
		for _, jobs := range []int{1, 8} {
			t.Run(fmt.Sprintf("%s/jobs %d", k.Name(), jobs), func(t *testing.T) {
				codec.Use(k)
				compareLines(t, digests(t, jobs), string(want))
			})
		}
	}
}

func compareLines(t *testing.T, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	if len(g) != len(w) {
		t.Fatalf("%d files, expected %d", len(g)-1, len(w)-1)
	}
	for i := range g {
		if g[i] != w[i] {
			t.Errorf("found    %s\nexpected %s", g[i], w[i])
		}
	}
}

// TestJobs converts the toy model with one worker and with many.
func TestJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("it converts 14 MB six times")
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "toy.safetensors"), filepath.Join(dir, "toy.qins")
	if err := fixtures.WriteToy(in, fixtures.TieContent); err != nil {
		t.Fatal(err)
	}
	for _, layout := range qins.Layouts() {
		var first [2][]byte
		for _, jobs := range []int{1, 8} {
			if _, err := convert.Convert(t.Context(), in, out, convert.Options{Layout: layout, Jobs: jobs, Force: true}); err != nil {
				t.Fatal(err)
			}
			for i, path := range []string{out, convert.ManifestPath(out)} {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if first[i] == nil {
					first[i] = data
				} else if !bytes.Equal(first[i], data) {
					t.Errorf("%s: %s differs with %d workers", layout, filepath.Base(path), jobs)
				}
			}
		}
	}
}
