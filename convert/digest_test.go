package convert

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/qinsconv/qinsconv/format"
)

// A countingReader counts the bytes that are read from it.
type countingReader struct {
	io.ReaderAt
	read int64
}

// ReadAt implements io.ReaderAt.
func (r *countingReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	r.read += int64(n)
	return n, err
}

// TestDigestFollows hashes a file of which parts were read before, with gaps
// between them and parts that overlap.
func TestDigestFollows(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 1))
	text := make([]byte, 3*hashBuffer+7)
	for i := range text {
		text[i] = byte(r.Uint32())
	}
	sum := sha256.Sum256(text)
	want := hex.EncodeToString(sum[:])
	size := int64(len(text))
	part := func(from, to int64) span {
		return span{off: from, data: slices.Clone(text[from:to]), reading: time.Second, working: 2 * time.Second}
	}
	busy, slow := make(limit, 2), part(0, size-10)
	slow.reading *= 3
	for _, c := range []struct {
		name             string
		limit            limit
		converted, parts int64 // of the size, what each hundredth byte has become
		spans            []span
		reads            int64
	}{
		{"nothing", busy, 0, 0, nil, size},
		{"all", busy, 0, 0, []span{part(0, size)}, 0},
		{"in parts", busy, 0, 0, []span{part(0, 1), part(1, 1), part(1, 2*hashBuffer), part(2*hashBuffer, size)}, 0},
		{"with gaps", busy, 0, 0, []span{part(100, 200), part(hashBuffer+300, 2*hashBuffer)}, 100 + hashBuffer + 100 + size - 2*hashBuffer},
		{"overlapping", busy, 0, 0, []span{part(0, 200), part(100, 300), part(50, 250)}, size - 300},
		{"leaving as much as the output has", busy, size, size / 2, []span{part(0, size/2-1), part(size/2-1, size), part(size/2-1, size)}, size - size/2 + 1},
		{"for one processor", make(limit, 1), size, size / 2, []span{part(0, size-10)}, 10},
		{"from a slow disk", busy, size, size / 2, []span{slow}, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := &countingReader{ReaderAt: bytes.NewReader(text)}
			d := newDigest(from, size, "name", c.limit)
			d.converted(c.converted, c.parts)
			for _, s := range c.spans {
				if err := d.follow(t.Context(), s); err != nil {
					t.Fatal(err)
				}
				clear(s.data) // as its buffer is used again
			}
			got, err := d.sum(t.Context())
			if err != nil || got != want {
				t.Errorf("got %s, %v, expected %s", got, err, want)
			}
			if from.read != c.reads {
				t.Errorf("%d bytes were read, expected %d", from.read, c.reads)
			}
		})
	}

	d := newDigest(bytes.NewReader(text[:100]), size, "name", busy)
	var bad *format.Error
	if _, err := d.sum(t.Context()); !errors.As(err, &bad) || bad.File != "name" || bad.Found != "its end at byte 100" {
		t.Errorf("of a file that became shorter: %v", err)
	}
}
