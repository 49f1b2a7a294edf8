package qins

import (
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/qinsconv/qinsconv/format"
)

// A Container holds what a source's file has beside its tensors, for formats in
// which that cannot be made again from them.
type Container struct {
	// Size is that of the source's file.
	Size int64 `json:"size"`
	// Head is a zstd frame of everything before the source's tensors.
	Head []byte `json:"head"`
	// Gaps are the bytes between and after the tensors that are not zero.
	Gaps []Gap `json:"gaps,omitempty"`
}

// A Gap is a run of bytes in the source's file.
type Gap struct {
	Offset int64  `json:"offset"`
	Data   []byte `json:"data"`
}

// The longest head and the most bytes in gaps that a container may have.
const (
	MaxHead = 100_000_000
	MaxGaps = 1 << 20
)

// NewContainer compresses a head.
func NewContainer(size int64, head []byte, gaps []Gap) (*Container, error) {
	enc, err := newEncoder(zstd.SpeedDefault, len(head))
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	return &Container{size, enc.EncodeAll(head, nil), gaps}, nil
}

// RawHead returns the head, of at most MaxHead bytes.
func (c *Container) RawHead() ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxHead), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	head, err := dec.DecodeAll(c.Head, nil)
	if err != nil {
		return nil, fmt.Errorf("decoding the source's header: %w", err)
	}
	return head, nil
}

// check says what is wrong with a source's description, if anything is.
func (s *Source) check(file string) error {
	bad := func(problem string) error { return &format.Error{File: file, Problem: problem} }
	switch {
	case s.Format != "safetensors" && s.Format != "gguf":
		return bad("unknown source format " + format.Quote(s.Format))
	case (s.Format == "gguf") != (s.Container != nil):
		return bad("a container belongs to sources of format gguf, and to all of them")
	case s.Container == nil:
		return nil
	}
	total := int64(0)
	for _, g := range s.Container.Gaps {
		total += int64(len(g.Data))
		if g.Offset < 0 || g.Offset > s.Container.Size-int64(len(g.Data)) || total > MaxGaps {
			return bad("the container's gaps lie outside the source or are too long")
		}
	}
	return nil
}
