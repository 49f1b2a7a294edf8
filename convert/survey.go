package convert

import (
	"context"
	"hash/maphash"

	"github.com/qinsconv/qinsconv/qins"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// A scan is what the survey found out about one tensor.
type scan struct {
	weights codec.Scan // of tensors that may be encoded
	hashed  bool
	hash    uint64
}

// survey reads the tensors that may be encoded or stored twice, and ties those
// with the same content.
func (p *Plan) survey(ctx context.Context, opts Options) ([]scan, error) {
	scans := make([]scan, len(p.Tensors))
	repeated := p.repeatedKinds()
	for i := range scans {
		scans[i] = scan{weights: codec.NewScan(), hashed: repeated[i]}
	}
	wanted := func(i int) bool { return p.Tensors[i].Action == qins.Encoded || repeated[i] }
	total, done := p.bytes(wanted), int64(0)
	// The hashes are compared within this process only, so that a fast one with
	// a seed of its own will do.
	seed := maphash.MakeSeed()

	process := func(_ int, pc piece, data []byte, s *scan) error {
		*s = scan{weights: codec.NewScan()}
		if t := &p.Tensors[pc.tensor]; t.Action == qins.Encoded {
			qins.Scan(t.DType, data, &s.weights)
		}
		if repeated[pc.tensor] {
			s.hash = maphash.Bytes(seed, data)
		}
		return nil
	}
	commit := func(pc piece, s *scan) error {
		t := &scans[pc.tensor]
		t.weights.Merge(s.weights)
		const odd = 0x9e3779b97f4a7c15
		t.hash = (t.hash ^ s.hash) * odd
		done += int64(pc.size)
		opts.Events(Progress{Phase: "survey", Done: done, Total: total})
		return nil
	}
	if err := runPieces(ctx, p.src, opts.Jobs, p.pieces(wanted), process, commit); err != nil {
		return nil, err
	}
	return scans, p.tieByContent(scans)
}
