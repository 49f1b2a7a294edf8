package convert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// maze makes folders, each with two links to the next, so that there are more
// ways through them than can be gone.
func maze(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i := range 28 {
		folder := filepath.Join(dir, fmt.Sprintf("d%02d", i))
		if err := os.Mkdir(folder, 0o777); err != nil {
			t.Fatal(err)
		}
		for _, link := range []string{"a", "b"} {
			if err := os.Symlink(filepath.Join("..", fmt.Sprintf("d%02d", i+1)), filepath.Join(folder, link)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "d28"), 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestMaze(t *testing.T) {
	t.Parallel()
	dir := maze(t)
	const says = "links to folders lead to more than 10000 files and folders"
	var bad *format.Error
	if _, err := listFolder(t.Context(), dir); !errors.As(err, &bad) || !strings.Contains(err.Error(), says) {
		t.Errorf("as a model: %v", err)
	}
	if _, err := Batch(t.Context(), dir, filepath.Join(t.TempDir(), "out"), Options{}); !errors.As(err, &bad) || !strings.Contains(err.Error(), says) {
		t.Errorf("as several: %v", err)
	}
}

// TestStopped holds that what takes long ends with its context.
func TestStopped(t *testing.T) {
	dir := maze(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "x.safetensors")
	file := fixtures.Small(fixtures.TieContent)
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	a, err := openFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	_, compared := sameContent(ctx, a, a)
	src, err := openSource(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	p := &Plan{src: src}
	if err := p.list(); err != nil {
		t.Fatal(err)
	}
	_, tied := (&tier{plans: []*Plan{p}}).sameBytes(ctx, place{}, place{})
	_, listed := listFolder(ctx, dir)
	_, found := findModels(ctx, dir, Options{})
	_, copied := copyFile(t.Context(), path+".copy", bytes.NewReader(file), int64(len(file)), path, 0o666)
	if copied != nil {
		t.Fatal(copied)
	}
	late := &endingReader{Reader: bytes.NewReader(file), left: len(file)}
	ctx, late.end = context.WithCancel(t.Context())
	_, stopped := copyFile(ctx, path+".stopped", late, int64(len(file)), path, 0o666)
	for what, err := range map[string]error{"listing": listed, "finding": found, "copying": stopped, "comparing": compared, "comparing tensors": tied} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v is left", entries, err)
	}
}

// An endingReader ends a context when all of it has been read once.
type endingReader struct {
	*bytes.Reader
	left int
	end  func()
}

func (r *endingReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.Reader.ReadAt(p, off)
	if r.left -= n; r.left <= 0 {
		r.end()
	}
	return n, err
}
