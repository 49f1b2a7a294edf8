package gguf

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/qinsconv/qinsconv/format"
)

// firstRead is how much is read at first. The buffer then doubles, so that it
// grows with what the file really holds.
const firstRead = 64 << 10

// A cursor reads a header from its start and keeps what it has read.
type cursor struct {
	r    io.ReaderAt
	file string
	size int64 // of the file
	buf  []byte
	pos  int
}

// left returns how many bytes of the file lie behind the position.
func (c *cursor) left() uint64 { return uint64(c.size) - uint64(c.pos) }

// need makes sure that the next n bytes are in the buffer.
func (c *cursor) need(n uint64, what string) error {
	if have := uint64(len(c.buf) - c.pos); n <= have {
		return nil
	}
	if n > c.left() {
		return &format.Error{File: c.file, Problem: fmt.Sprintf("%s at byte %d reaches past the end of the file", what, c.pos),
			Found: fmt.Sprintf("%d bytes left", c.left()), Expected: fmt.Sprintf("at least %d", n),
			Hint: "the file may be truncated: compare its size with the original's"}
	}
	if n > MaxHeader-uint64(c.pos) {
		return &format.Error{File: c.file, Problem: fmt.Sprintf("%s at byte %d makes the header too long", what, c.pos),
			Found: fmt.Sprintf("%d bytes", uint64(c.pos)+n), Expected: fmt.Sprintf("at most %d", MaxHeader)}
	}
	limit := int(min(c.size, MaxHeader))
	for len(c.buf) < c.pos+int(n) {
		have := len(c.buf)
		end := min(max(2*have, firstRead), limit)
		// No append, which would grow by more.
		grown := make([]byte, end)
		copy(grown, c.buf)
		c.buf = grown
		if got, err := c.r.ReadAt(c.buf[have:], int64(have)); got < end-have {
			c.buf = c.buf[:have+got]
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return readError(c.file, c.size, err)
		}
	}
	return nil
}

func (c *cursor) uint32(what string) (uint32, error) {
	if err := c.need(4, what); err != nil {
		return 0, err
	}
	v := binary.LittleEndian.Uint32(c.buf[c.pos:])
	c.pos += 4
	return v, nil
}

func (c *cursor) uint64(what string) (uint64, error) {
	if err := c.need(8, what); err != nil {
		return 0, err
	}
	v := binary.LittleEndian.Uint64(c.buf[c.pos:])
	c.pos += 8
	return v, nil
}

// skip passes over n bytes, which end up in the buffer.
func (c *cursor) skip(n uint64, what string) error {
	if err := c.need(n, what); err != nil {
		return err
	}
	c.pos += int(n)
	return nil
}

// skipString passes over a string and its length.
func (c *cursor) skipString(what string) error {
	n, err := c.uint64(what)
	if err != nil {
		return err
	}
	return c.skip(n, what)
}
