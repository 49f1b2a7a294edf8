package convert

import (
	"context"
	"iter"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// A piece is one chunk of one tensor, the unit of work.
type piece struct {
	tensor int
	chunk  int
	off    int64 // in the file
	size   int
	last   bool // of its tensor
}

// pieces cuts a tensor into its chunks.
func pieces(tensor int, t format.Tensor, yield func(piece) bool) bool {
	full := int64(qins.ChunkSize(t.DType))
	for c, at := 0, int64(0); at < t.Size; c, at = c+1, at+full {
		size := min(full, t.Size-at)
		if !yield(piece{tensor, c, t.Offset + at, int(size), at+size == t.Size}) {
			return false
		}
	}
	return true
}

// A worker takes one chunk of a large tensor at a time, or many small ones, so
// that both keep all workers busy. What is small is bounded, as each result of
// a batch has buffers of its own.
const (
	smallPiece  = 32 << 10
	batchBytes  = 512 << 10
	batchPieces = 32
)

// A batch is what one worker does at a time. Batches are used again.
type batch[R any] struct {
	pieces  []piece
	data    []byte
	results []R
	done    chan error
}

// runPieces reads each piece from src, unless that is nil, hands it to one of
// opts.Jobs workers, and commits the results in the order of the pieces. The
// number of batches under way is fixed, and with it the memory. process may be
// called by all workers at once, commit is not. data is valid until process
// returns.
func runPieces[R any](ctx context.Context, src format.Source, opts Options, list iter.Seq[piece],
	process func(worker int, p piece, data []byte, r *R) error, commit func(p piece, r *R) error) error {
	group, ctx := errgroup.WithContext(ctx)
	count := 2*opts.Jobs + 1
	free := make(chan *batch[R], count)
	tasks := make(chan *batch[R], count)
	ordered := make(chan *batch[R], count)
	for range count {
		free <- &batch[R]{done: make(chan error, 1)}
	}

	group.Go(func() error {
		defer close(tasks)
		defer close(ordered)
		var b *batch[R]
		size := 0
		send := func() {
			tasks <- b
			ordered <- b
			b, size = nil, 0
		}
		for p := range list {
			if b != nil && (p.size > smallPiece || size+p.size > batchBytes || len(b.pieces) == batchPieces) {
				send()
			}
			if b == nil {
				select {
				case b = <-free:
					b.pieces = b.pieces[:0]
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			b.pieces = append(b.pieces, p)
			if size += p.size; p.size > smallPiece {
				send()
			}
		}
		if b != nil {
			send()
		}
		return nil
	})
	for worker := range opts.Jobs {
		group.Go(func() error {
			for b := range tasks {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				opts.limit.begin()
				err := b.run(src, worker, process)
				opts.limit.end()
				b.done <- err
			}
			return nil
		})
	}
	group.Go(func() error {
		for b := range ordered {
			select {
			case err := <-b.done:
				if err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
			opts.limit.begin()
			err := b.commit(commit)
			opts.limit.end()
			if err != nil {
				return err
			}
			free <- b
		}
		return nil
	})
	err := group.Wait()
	for range count {
		// All are back, unless something failed.
		select {
		case b := <-free:
			if data := b.data; data != nil {
				buffers.Put(&data)
			}
		default:
		}
	}
	return err
}

// run reads and processes the pieces of a batch, those that are neighbours in
// the file with one read.
func (b *batch[R]) run(src format.Source, worker int, process func(int, piece, []byte, *R) error) error {
	for len(b.results) < len(b.pieces) {
		b.results = append(b.results, *new(R))
	}
	if src == nil {
		for i, p := range b.pieces {
			if err := process(worker, p, nil, &b.results[i]); err != nil {
				return err
			}
		}
		return nil
	}
	for i := 0; i < len(b.pieces); {
		first := b.pieces[i]
		end := first.off + int64(first.size)
		j := i + 1
		for j < len(b.pieces) && b.pieces[j].off == end {
			end += int64(b.pieces[j].size)
			j++
		}
		if n := int(end - first.off); cap(b.data) < n {
			b.data = *buffers.Get().(*[]byte)
			if cap(b.data) < n { // of wide elements
				b.data = make([]byte, n)
			}
		}
		data := b.data[:end-first.off]
		if err := format.ReadFull(src, data, first.off); err != nil {
			return err
		}
		for ; i < j; i++ {
			p := b.pieces[i]
			if err := process(worker, p, data[:p.size:p.size], &b.results[i]); err != nil {
				return err
			}
			data = data[p.size:]
		}
	}
	return nil
}

// buffers are those of batches, for the next of many files.
var buffers = sync.Pool{New: func() any { b := make([]byte, batchBytes); return &b }}

// commit commits the results of a batch.
func (b *batch[R]) commit(commit func(piece, *R) error) error {
	for i, p := range b.pieces {
		if err := commit(p, &b.results[i]); err != nil {
			return err
		}
	}
	return nil
}

// lazyWeights makes the tables of a tensor when they are first needed.
type lazyWeights struct {
	mu      sync.Mutex
	weights *qins.Weights
}

func (l *lazyWeights) get(t *qins.Tensor) (*qins.Weights, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.weights == nil {
		w, err := qins.NewWeights(t.Codec, t.DType)
		if err != nil {
			return nil, err
		}
		l.weights = w
	}
	return l.weights, nil
}

func (l *lazyWeights) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.weights = nil
}
