package convert_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/qinsconv/qinsconv/"

// imports says for each folder which packages its files may import beside the
// standard library, and those of the module. Folders below one that stands here
// follow its rule. Tests are free, and so is what makes test data or code.
var imports = map[string][]string{
	"qins/codec": {"golang.org/x/sys/cpu"},
	"qins": {module + "qins/codec", module + "format", "github.com/klauspost/compress", "github.com/x448/float16",
		"github.com/cespare/xxhash/v2", "github.com/go-json-experiment/json"},
	"format": {module + "format", "github.com/go-json-experiment/json"},
	"convert": {module + "format", module + "qins", "golang.org/x/sync/errgroup", "golang.org/x/sys",
		"github.com/go-json-experiment/json"},
	"cmd/qinsconv": {module + "convert", module + "format", module + "qins", "github.com/urfave/cli/v2", "github.com/dustin/go-humanize",
		"github.com/schollz/progressbar/v3", "github.com/xrash/smetrics", "golang.org/x/term", "github.com/go-json-experiment/json"},
}

// TestImports holds the direction of imports: cmd to convert to qins to
// qins/codec, all of them to format, and no arrow back.
func TestImports(t *testing.T) {
	root := ".."
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		folder := filepath.ToSlash(rel)
		for imports[folder] == nil && strings.Contains(folder, "/") {
			folder = folder[:strings.LastIndex(folder, "/")]
		}
		allowed := imports[folder]
		if allowed == nil {
			if folder != "fixtures" {
				t.Errorf("%s: no rule says what this folder may import", path)
			}
			return nil
		}
		seen[folder] = true
		// Build constraints are not looked at, so that every platform counts.
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
				if imported == "C" || imported == "plugin" {
					t.Errorf("%s imports %s", path, imported)
				}
				continue // the standard library
			}
			ok := slices.ContainsFunc(allowed, func(a string) bool { return imported == a || strings.HasPrefix(imported, a+"/") })
			if !ok {
				t.Errorf("%s imports %s, which %s may not", path, imported, folder)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for folder := range imports {
		if !seen[folder] {
			t.Errorf("%s has no files", folder)
		}
	}
}
