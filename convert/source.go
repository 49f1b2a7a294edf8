package convert

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// isGGUF reports whether a file begins as GGUF files do.
func isGGUF(r io.ReaderAt) bool {
	magic := make([]byte, len("GGUF"))
	n, _ := r.ReadAt(magic, 0)
	return string(magic[:n]) == "GGUF"
}

// A source is a checkpoint file and what it was when it was opened.
type source struct {
	format.Source
	file *reopened
}

// openSource opens a checkpoint of any format that can be converted.
func openSource(path string) (*source, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	s, err := readSource(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

func readSource(f *reopened) (*source, error) {
	path := f.path
	s := &source{file: f}
	var err error
	if isGGUF(f) {
		s.Source, err = gguf.New(f, f.info.Size(), path)
		return s, err
	}
	st, err := safetensors.New(f, f.info.Size(), path)
	if err != nil {
		return nil, err
	}
	if qins.IsQINS(st) {
		return nil, &format.Error{File: path, Problem: "this is a .qins file already", Hint: "qinsconv decode turns it back"}
	}
	s.Source = st
	return s, nil
}

// Close closes the file, which opens again when it is read.
func (s *source) Close() error { return s.file.Close() }

// metadata returns the entries that a .qins file takes over. Those of a GGUF
// file are in its container.
func (s *source) metadata() []format.Entry {
	if _, ok := s.Source.(*gguf.File); ok {
		return nil
	}
	return s.Metadata()
}

// container returns what a GGUF file has beside its tensors, nil for others.
func (s *source) container() (*qins.Container, error) {
	g, ok := s.Source.(*gguf.File)
	if !ok {
		return nil, nil
	}
	gaps, err := s.gaps(g)
	if err != nil {
		return nil, err
	}
	c, err := qins.NewContainer(s.Size(), g.RawHeader(), gaps)
	// The header can hold a vocabulary of megabytes, and has served.
	s.Source = &view{s.file, s.Format(), s.Name(), s.Size(), s.Tensors()}
	return c, err
}

// gaps returns the bytes between and after the tensors of a GGUF file that are not
// zero.
func (s *source) gaps(g *gguf.File) ([]qins.Gap, error) {
	var gaps []qins.Gap
	total := int64(0)
	for _, gap := range g.Gaps() {
		if gap.Size > max(qins.MaxGaps, g.Alignment()) {
			return nil, &format.Error{File: s.Name(), Problem: "there are bytes after the last tensor that belong to none",
				Found: fmt.Sprintf("%d bytes", gap.Size), Expected: fmt.Sprintf("at most %d", qins.MaxGaps)}
		}
		zero, err := s.isZero(gap)
		if err != nil {
			return nil, err
		}
		if zero {
			continue
		}
		if total += gap.Size; total > qins.MaxGaps {
			return nil, &format.Error{File: s.Name(), Problem: "the bytes between the tensors are not zero",
				Found: fmt.Sprintf("more than %d of them", qins.MaxGaps)}
		}
		data := make([]byte, gap.Size)
		if err := format.ReadFull(s, data, gap.Offset); err != nil {
			return nil, err
		}
		gaps = append(gaps, qins.Gap{Offset: gap.Offset, Data: data})
	}
	return gaps, nil
}

// isZero reports whether all bytes of a span are zero, which may be a large one.
func (s *source) isZero(span gguf.Span) (bool, error) {
	buf := make([]byte, min(span.Size, hashBuffer))
	for at := int64(0); at < span.Size; at += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), span.Size-at)]
		if err := format.ReadFull(s, buf, span.Offset+at); err != nil {
			return false, err
		}
		if slices.ContainsFunc(buf, func(b byte) bool { return b != 0 }) {
			return false, nil
		}
	}
	return true, nil
}

// A view is what is needed of a source once its header has been taken over.
type view struct {
	io.ReaderAt
	format, name string
	size         int64
	tensors      []format.Tensor
}

// Format implements format.Source.
func (v *view) Format() string { return v.format }

// Name implements format.Source.
func (v *view) Name() string { return v.name }

// Size implements format.Source.
func (v *view) Size() int64 { return v.size }

// Metadata implements format.Source.
func (v *view) Metadata() []format.Entry { return nil }

// Tensors implements format.Source.
func (v *view) Tensors() []format.Tensor { return v.tensors }

// A timedSource measures how long it is read.
type timedSource struct {
	format.Source
	spent atomic.Int64 // by all that read, in nanoseconds
}

// ReadAt implements io.ReaderAt.
func (s *timedSource) ReadAt(p []byte, off int64) (int, error) {
	begun := time.Now()
	n, err := s.Source.ReadAt(p, off)
	s.spent.Add(int64(time.Since(begun)))
	return n, err
}

// isSlow reports whether reading takes most of the time of so many workers.
func (s *timedSource) isSlow(elapsed time.Duration, workers int) bool {
	return 2*s.spent.Load() > int64(elapsed)*int64(workers)
}

// unchanged returns an error where the file is no longer what it was.
func (s *source) unchanged() error {
	info, err := os.Stat(s.Name())
	if err != nil {
		return err
	}
	return s.file.same(info)
}

// modTime is when the file was last written to.
func (s *source) modTime() time.Time { return s.file.info.ModTime() }

// A reopened file is open while it is read, and opened again after it was
// closed: of a model with a thousand files, few need to be open at once. It
// stays the file that it was.
type reopened struct {
	path string
	info fs.FileInfo // when it was first opened
	mu   sync.RWMutex
	file *os.File // nil while it is closed
}

func openFile(path string) (*reopened, error) {
	// A pipe would wait for a writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return nil, fmt.Errorf("%s: is a directory, expected a file", path)
	case !info.Mode().IsRegular():
		return nil, &format.Error{File: path, Problem: "this is no regular file", Found: info.Mode().Type().String()}
	}
	return &reopened{path: path, info: info}, nil
}

// openQINS opens a .qins file.
func openQINS(path string) (*qins.File, error) {
	if _, err := openFile(path); err != nil {
		return nil, err
	}
	return qins.Open(path)
}

// ReadAt implements io.ReaderAt.
func (r *reopened) ReadAt(p []byte, off int64) (int, error) {
	r.mu.RLock()
	for r.file == nil {
		r.mu.RUnlock()
		if err := r.open(); err != nil {
			return 0, err
		}
		r.mu.RLock()
	}
	defer r.mu.RUnlock()
	return r.file.ReadAt(p, off)
}

func (r *reopened) open() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != nil {
		return nil
	}
	f, err := os.Open(r.path)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = r.same(info)
	}
	if err != nil {
		f.Close()
		return err
	}
	r.file = f
	return nil
}

// same returns an error where info is not that of the file once opened.
func (r *reopened) same(info fs.FileInfo) error {
	if info.Size() != r.info.Size() || !info.ModTime().Equal(r.info.ModTime()) {
		return &format.Error{File: r.path, Problem: "the file changed while it was read",
			Found: fmt.Sprintf("%d bytes", info.Size()), Expected: fmt.Sprintf("%d bytes, not written to since", r.info.Size())}
	}
	return nil
}

// Close closes the file until it is read again.
func (r *reopened) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// hashFile returns the SHA-256 of a file's first size bytes.
func hashFile(ctx context.Context, r io.ReaderAt, size int64, name string) (string, error) {
	return hashPaced(ctx, r, size, name, nil, make(limit, 1))
}

// hashBuffer fits the cache nearest to a processor that it shares with nobody.
const hashBuffer = 128 << 10

// hashPaced is hashFile for work that goes on beside others. It keeps its
// processor as long as it may go on, or it would fall behind: of all that is to be
// done, only this cannot be divided.
func hashPaced(ctx context.Context, r io.ReaderAt, size int64, name string, pace *pace, limit limit) (string, error) {
	h := sha256.New()
	buf := make([]byte, hashBuffer)
	at := int64(0)
	goOn := func() error {
		limit.begin()
		defer limit.end()
		for at < size && pace.allows(at) && ctx.Err() == nil {
			n, err := r.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
			h.Write(buf[:n])
			if at += int64(n); err != nil && at < size {
				return err
			}
		}
		return ctx.Err()
	}
	for at < size {
		if err := pace.wait(ctx, at); err != nil {
			return "", err
		}
		switch err := goOn(); {
		case errors.Is(err, io.EOF):
			return "", &format.Error{File: name, Problem: "the file became shorter while it was read",
				Found: fmt.Sprintf("its end at byte %d", at), Expected: fmt.Sprintf("%d bytes", size)}
		case ctx.Err() != nil:
			return "", ctx.Err()
		case err != nil:
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
