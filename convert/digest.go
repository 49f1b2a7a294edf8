package convert

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"
	"time"

	"github.com/qinsconv/qinsconv/format"
)

// A digest is the SHA-256 of a file that is hashed from its beginning to its
// end: of what others have read, as long as it follows them, and of what it
// reads itself.
type digest struct {
	r     io.ReaderAt
	size  int64
	name  string
	limit limit
	hash  hash.Hash
	at    int64 // what comes next
	buf   []byte

	// While a file is converted, the hash of the source follows, until it leaves
	// about as much of it as the output has: both of these are then hashed at
	// the same time, each of which only one processor can do.
	leave            atomic.Int64
	alone            bool // does not follow any more
	reading, working time.Duration
}

// hashFile returns the SHA-256 of a file's first size bytes.
func hashFile(ctx context.Context, r io.ReaderAt, size int64, name string) (string, error) {
	return newDigest(r, size, name, make(limit, 1)).sum(ctx)
}

func newDigest(r io.ReaderAt, size int64, name string, limit limit) *digest {
	return &digest{r: r, size: size, name: name, limit: limit, hash: sha256.New()}
}

// converted says how many bytes of the source have become how many of the
// output.
func (d *digest) converted(from, to int64) {
	d.leave.Store(int64(float64(to) / float64(max(from, 1)) * float64(d.size)))
}

// follow hashes a part of the file that was read, and what lies before it.
func (d *digest) follow(ctx context.Context, read span) error {
	d.reading += read.reading
	d.working += read.working
	end := read.off + int64(len(read.data))
	switch {
	case d.alone || end <= d.at:
		return nil
	case d.size-end < d.leave.Load() && cap(d.limit) > 1 && d.reading < d.working:
		// Where reading is what takes the time, it is not done twice.
		d.alone = true
		return nil
	}
	if err := d.to(ctx, read.off); err != nil {
		return err
	}
	d.limit.begin()
	defer d.limit.end()
	d.hash.Write(read.data[d.at-read.off:])
	d.at = end
	return nil
}

// hashBuffer fits the cache nearest to a processor that it shares with nobody.
const hashBuffer = 128 << 10

// to reads the file as far as end.
func (d *digest) to(ctx context.Context, end int64) error {
	if d.at < end && d.buf == nil {
		d.buf = make([]byte, hashBuffer)
	}
	step := func() error {
		d.limit.begin()
		defer d.limit.end()
		n, err := d.r.ReadAt(d.buf[:min(int64(len(d.buf)), end-d.at)], d.at)
		d.hash.Write(d.buf[:n])
		d.at += int64(n)
		return err
	}
	for d.at < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil && d.at < end {
			if errors.Is(err, io.EOF) {
				return &format.Error{File: d.name, Problem: "the file became shorter while it was read",
					Found: fmt.Sprintf("its end at byte %d", d.at), Expected: fmt.Sprintf("%d bytes", d.size)}
			}
			return fmt.Errorf("reading %s: %w", d.name, err)
		}
	}
	return nil
}

// sum reads what is left and returns the hash of it all.
func (d *digest) sum(ctx context.Context) (string, error) {
	if err := d.to(ctx, d.size); err != nil {
		return "", err
	}
	return hex.EncodeToString(d.hash.Sum(nil)), nil
}
