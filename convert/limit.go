package convert

import (
	"context"
	"math"
	"sync/atomic"
)

// A limit is the number of processors that a job keeps busy at a time, whatever
// they do: reading, encoding, hashing, writing.
type limit chan struct{}

// begin waits for a processor, end gives it back.
func (l limit) begin() { l <- struct{}{} }
func (l limit) end()   { <-l }

// A pace lets the hash of a source go on no faster than the conversion leaves
// time for it. What remains when the output is finished is then about as much as
// the output has, so that both are hashed at the same time, each of which only
// one processor can do.
type pace struct {
	until atomic.Int64
	moved chan struct{} // has an element where until has changed
}

func newPace() *pace { return &pace{moved: make(chan struct{}, 1)} }

// converted says how many bytes of the source have been converted, and how many
// of them are to be left for later.
func (p *pace) converted(from, left int64) { p.set(from - left) }

// free lets the hash go on as it can: nothing is converted yet, or everything is.
func (p *pace) free() { p.set(math.MaxInt64) }

func (p *pace) set(until int64) {
	p.until.Store(until)
	select {
	case p.moved <- struct{}{}:
	default:
	}
}

// allows reports whether the hash may go on from at, with or without a pace.
func (p *pace) allows(at int64) bool { return p == nil || at < p.until.Load() }

// wait waits until it may.
func (p *pace) wait(ctx context.Context, at int64) error {
	for !p.allows(at) {
		select {
		case <-p.moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
