package convert

import (
	"context"

	"github.com/qinsconv/qinsconv/qins"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// survey scans the tensors that may be encoded.
func (p *Plan) survey(ctx context.Context, opts Options) ([]codec.Scan, error) {
	scans := make([]codec.Scan, len(p.Tensors))
	for i := range scans {
		scans[i] = codec.NewScan()
	}
	wanted := func(i int) bool { return p.Tensors[i].Action == qins.Encoded }
	meter := opts.meter("survey", p.bytes(wanted))
	process := func(_ int, pc piece, data []byte, s *codec.Scan) error {
		*s = codec.NewScan()
		qins.Scan(p.Tensors[pc.tensor].DType, data, s)
		return nil
	}
	commit := func(pc piece, s *codec.Scan) error {
		scans[pc.tensor].Merge(*s)
		meter.add(pc.size)
		return nil
	}
	return scans, runPieces(ctx, p.src, opts, p.pieces(wanted), process, commit)
}
