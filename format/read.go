package format

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// ReadFull fills p from offset off. A file that ends before that has been cut
// since its header was read, which is reported as such.
func ReadFull(s Source, p []byte, off int64) error {
	n, err := s.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{
			File:     s.Name(),
			Problem:  "the file became shorter while it was read",
			Found:    fmt.Sprintf("its end at byte %d", off+int64(n)),
			Expected: fmt.Sprintf("%d bytes", s.Size()),
		}
	}
	if at := (*fs.PathError)(nil); errors.As(err, &at) && at.Path == s.Name() {
		return err
	}
	return fmt.Errorf("reading %s: %w", s.Name(), err)
}
