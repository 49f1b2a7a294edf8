package convert

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// ggufMagic is what GGUF files begin with.
var ggufMagic = []byte("GGUF")

// A source is an open checkpoint file and what it was when it was opened.
type source struct {
	format.Source
	file    *os.File
	size    int64
	modTime time.Time
}

// openSource opens a checkpoint of any format that can be converted.
func openSource(path string) (*source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s, err := readSource(f, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

func readSource(f *os.File, path string) (*source, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s: is a directory, expected a file", path)
	}
	s := &source{file: f, size: info.Size(), modTime: info.ModTime()}
	magic := make([]byte, len(ggufMagic))
	if n, _ := f.ReadAt(magic, 0); bytes.Equal(magic[:n], ggufMagic) {
		return nil, &format.Error{File: path, Problem: "this is a GGUF file, which this version does not convert"}
	}
	st, err := safetensors.New(f, info.Size(), path)
	if err != nil {
		return nil, err
	}
	if qins.IsQINS(st) {
		return nil, &format.Error{File: path, Problem: "this is a .qins file already", Hint: "qinsconv decode turns it back"}
	}
	s.Source = st
	return s, nil
}

// Close closes the file.
func (s *source) Close() error { return s.file.Close() }

// unchanged returns an error where the file is no longer what it was.
func (s *source) unchanged() error {
	info, err := os.Stat(s.Name())
	if err != nil {
		return err
	}
	if info.Size() != s.size || !info.ModTime().Equal(s.modTime) {
		return &format.Error{File: s.Name(), Problem: "the file changed while it was read",
			Found: fmt.Sprintf("%d bytes", info.Size()), Expected: fmt.Sprintf("%d bytes, not written to since", s.size)}
	}
	return nil
}

// hashFile returns the SHA-256 of a file's first size bytes.
func hashFile(ctx context.Context, r io.ReaderAt, size int64, name string) (string, error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		h.Write(buf[:n])
		at += int64(n)
		if err != nil && at < size {
			if errors.Is(err, io.EOF) {
				return "", &format.Error{File: name, Problem: "the file became shorter while it was read",
					Found: fmt.Sprintf("its end at byte %d", at), Expected: fmt.Sprintf("%d bytes", size)}
			}
			return "", fmt.Errorf("reading %s: %w", name, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// differentFiles returns an error where an output is the input.
func differentFiles(in string, outs ...string) error {
	a, err := os.Stat(in)
	if err != nil {
		return err
	}
	for _, out := range outs {
		if b, err := os.Stat(out); err == nil && os.SameFile(a, b) {
			return fmt.Errorf("%s: the output is the input", out)
		}
	}
	return nil
}
