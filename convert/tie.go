package convert

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// tie makes tensor i a name for what tensor to holds.
func (p *Plan) tie(i, to int, how qins.Tie) {
	t := &p.Tensors[i]
	t.Action, t.TiedTo, t.Tie = qins.Tied, p.Tensors[to].Name, how
}

// tieByOffset ties names with the same data offsets, whatever their shapes and
// dtypes. The first one in the header holds the data.
func (p *Plan) tieByOffset() {
	type place struct{ offset, size int64 }
	first := make(map[place]int, len(p.Tensors))
	for i := range p.Tensors {
		t := &p.Tensors[i]
		at := place{t.at.Offset, t.at.Size}
		if at.size == 0 {
			continue
		}
		if to, ok := first[at]; ok {
			p.tie(i, to, qins.TieOffset)
			t.SourceBytes = 0
			continue
		}
		first[at] = i
	}
}

// A tier ties the tensors of all files of a model.
type tier struct {
	plans []*Plan
	index map[string]place
}

// A place says which tensor of which file.
type place struct{ plan, tensor int }

// newTier lists the names of all tensors. Each stands in one file only.
func newTier(plans []*Plan) (*tier, error) {
	t := &tier{plans: plans, index: map[string]place{}}
	for i, p := range plans {
		for j := range p.Tensors {
			name := p.Tensors[j].Name
			if other, taken := t.index[name]; taken {
				return nil, &format.Error{File: p.src.Name(), Tensor: name, Problem: "two files hold this tensor",
					Found: plans[other.plan].src.Name(), Expected: "each tensor in one file of the model",
					Hint: "choose the files that belong together with " + eitherOf(plans[other.plan].src.Name(), p.src.Name())}
			}
			t.index[name] = place{i, j}
		}
	}
	return t, nil
}

// eitherOf is how to choose one of two files that seem to hold the same, and
// those that belong to it.
func eitherOf(a, b string) string {
	a, b = filepath.Base(a), filepath.Base(b)
	one, other := globOf(a), globOf(b)
	for _, p := range []struct{ glob, not string }{{one, b}, {other, a}} {
		if both, err := path.Match(p.glob, p.not); err != nil || both {
			return "--weights GLOB"
		}
	}
	return fmt.Sprintf("--weights '%s' or --weights '%s'", one, other)
}

func (t *tier) at(p place) *PlannedTensor { return &t.plans[p.plan].Tensors[p.tensor] }

// root returns the tensor that holds the data of a tied one.
func (t *tier) root(tied *PlannedTensor) *PlannedTensor { return t.at(t.index[tied.TiedTo]) }

// tieByMetadata adds the names that safetensors' save_model dropped from a file
// and recorded as "dropped: kept".
func (t *tier) tieByMetadata(plan int) {
	p := t.plans[plan]
	for _, e := range p.src.metadata() {
		to, kept := t.index[e.Value]
		_, there := t.index[e.Key]
		if !kept || to.plan != plan || there || e.Key == "format" {
			continue
		}
		holder := t.at(to)
		dropped := PlannedTensor{Tensor: qins.Tensor{Name: e.Key, DType: holder.DType, Shape: holder.Shape}, at: holder.at}
		if holder.Action == qins.Tied {
			to = t.index[holder.TiedTo]
		}
		t.index[e.Key] = place{plan, len(p.Tensors)}
		p.Tensors = append(p.Tensors, dropped)
		p.tie(len(p.Tensors)-1, to.tensor, qins.TieMetadata)
	}
}

// kind is what two tensors with the same content have in common. Ties do not
// cross folders, so that an output names another by its file's name.
type kind struct {
	folder string
	dtype  format.DType
	shape  string
}

func (t *tier) kind(p place) kind {
	pt := t.at(p)
	return kind{path.Dir(t.plans[p.plan].out), pt.DType, pt.Shape.String()}
}

// sampleSize is how many bytes of a tensor suggest that it is stored twice.
const sampleSize = 256

// tieByContent ties tensors of the same dtype and shape whose bytes are the
// same. Most differ in a sample; of those that do not, equal hashes suggest it,
// and the bytes decide. The first one, in the order of files and headers, holds
// the data.
func (t *tier) tieByContent(ctx context.Context, opts Options) error {
	groups := map[kind][]place{}
	for i, p := range t.plans {
		for j := range p.Tensors {
			if pt := &p.Tensors[j]; pt.Action != qins.Tied && pt.at.Size > 0 {
				k := t.kind(place{i, j})
				groups[k] = append(groups[k], place{i, j})
			}
		}
	}
	candidates := make([][]int, len(t.plans)) // the tensors of each file
	mark := func(p place) { candidates[p.plan] = append(candidates[p.plan], p.tensor) }
	for _, group := range groups {
		if len(group) > 1 {
			for _, p := range group {
				mark(p)
			}
		}
	}
	// Hashes are compared within this process only, so that a fast one with a
	// seed of its own will do.
	seed := maphash.MakeSeed()
	samples, err := t.sample(ctx, candidates, seed, opts)
	if err != nil {
		return err
	}
	bySample := map[content][]place{}
	for i, list := range candidates {
		for _, j := range list {
			p := place{i, j}
			c := content{t.kind(p), samples[p]}
			bySample[c] = append(bySample[c], p)
		}
		candidates[i] = nil
	}
	for _, group := range bySample {
		if len(group) > 1 {
			for _, p := range group {
				mark(p)
			}
		}
	}
	hashes, err := t.hash(ctx, candidates, seed, opts)
	if err != nil {
		return err
	}
	return t.tieEqual(ctx, candidates, hashes)
}

// content is what suggests that tensors are the same.
type content struct {
	kind
	hash uint64
}

// sample hashes a few bytes in the middle of each candidate.
func (t *tier) sample(ctx context.Context, candidates [][]int, seed maphash.Seed, opts Options) (map[place]uint64, error) {
	var mu sync.Mutex
	samples := map[place]uint64{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(opts.Jobs)
	for i, list := range candidates {
		if len(list) == 0 {
			continue
		}
		slices.Sort(list) // as the data lies, more or less
		group.Go(func() error {
			p := t.plans[i]
			defer t.rest(p)
			hashes := make([]uint64, len(list))
			var buf [sampleSize]byte
			for k, j := range list {
				if err := ctx.Err(); err != nil {
					return err
				}
				at := p.Tensors[j].at
				data := buf[:min(at.Size, sampleSize)]
				if err := format.ReadFull(p.src, data, at.Offset+(at.Size-int64(len(data)))/2); err != nil {
					return err
				}
				hashes[k] = maphash.Bytes(seed, data)
			}
			mu.Lock()
			defer mu.Unlock()
			for k, j := range list {
				samples[place{i, j}] = hashes[k]
			}
			return nil
		})
	}
	return samples, group.Wait()
}

// hash hashes each candidate.
func (t *tier) hash(ctx context.Context, candidates [][]int, seed maphash.Seed, opts Options) (map[place]uint64, error) {
	hashes := map[place]uint64{}
	total := int64(0)
	for i, list := range candidates {
		for _, j := range list {
			total += t.at(place{i, j}).at.Size
		}
	}
	meter := opts.meter("compare", total)
	for i, list := range candidates {
		if len(list) == 0 {
			continue
		}
		p := t.plans[i]
		wanted := make([]bool, len(p.Tensors))
		for _, j := range list {
			wanted[j] = true
		}
		process := func(_ int, _ piece, data []byte, h *uint64) error {
			*h = maphash.Bytes(seed, data)
			return nil
		}
		commit := func(pc piece, h *uint64) error {
			const odd = 0x9e3779b97f4a7c15
			at := place{i, pc.tensor}
			hashes[at] = (hashes[at] ^ *h) * odd
			meter.add(pc.size)
			return nil
		}
		list := p.pieces(func(j int) bool { return wanted[j] })
		if err := runPieces(ctx, p.src, opts, list, process, commit); err != nil {
			return nil, err
		}
		t.rest(p)
	}
	return hashes, nil
}

// rest closes a file of a model directory until it is read again: there may be
// many.
func (t *tier) rest(p *Plan) {
	if p.out != "" {
		p.src.Close()
	}
}

// tieEqual ties the candidates whose bytes are the same.
func (t *tier) tieEqual(ctx context.Context, candidates [][]int, hashes map[place]uint64) error {
	followers := map[string][]*PlannedTensor{} // tied to a tensor already
	for _, p := range t.plans {
		for j := range p.Tensors {
			if pt := &p.Tensors[j]; pt.Action == qins.Tied {
				followers[pt.TiedTo] = append(followers[pt.TiedTo], pt)
			}
		}
	}
	first := map[content][]place{}
	for i, list := range candidates {
		slices.Sort(list)
		for _, j := range list {
			p := place{i, j}
			key := content{t.kind(p), hashes[p]}
			same := -1
			for k, to := range first[key] {
				equal, err := t.sameBytes(ctx, p, to)
				if err != nil {
					return err
				}
				if equal {
					same = k
					break
				}
			}
			if same < 0 {
				first[key] = append(first[key], p)
				continue
			}
			to := first[key][same]
			pt := t.at(p)
			if pt.Action == qins.Encoded {
				pt.Rule = "" // it does not stand in the way of encoding
			}
			pt.Action, pt.Tie = qins.Tied, qins.TieContent
			for _, tied := range append(followers[pt.Name], pt) {
				tied.TiedTo = t.at(to).Name
				if to.plan != i {
					tied.TiedIn = path.Base(t.plans[to.plan].out)
				}
			}
		}
		t.rest(t.plans[i])
	}
	return nil
}

func (t *tier) sameBytes(ctx context.Context, p, q place) (bool, error) {
	const step = 1 << 20
	a, b := t.at(p).at, t.at(q).at
	from, with := t.plans[p.plan].src, t.plans[q.plan].src
	if p.plan != q.plan {
		defer t.rest(t.plans[q.plan])
	}
	x, y := make([]byte, min(step, a.Size)), make([]byte, min(step, a.Size))
	for at := int64(0); at < a.Size; at += step {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n := min(step, a.Size-at)
		if err := format.ReadFull(from, x[:n], a.Offset+at); err != nil {
			return false, err
		}
		if err := format.ReadFull(with, y[:n], b.Offset+at); err != nil {
			return false, err
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// checkNames returns an error where a tensor without a name holds what is tied
// to it: a .qins file could not say so.
func (t *tier) checkNames() error {
	for _, p := range t.plans {
		for i := range p.Tensors {
			if tied := &p.Tensors[i]; tied.Action == qins.Tied && tied.TiedTo == "" {
				return &format.Error{File: p.src.Name(), Tensor: tied.Name, Problem: "it is tied to a tensor whose name is empty, which a .qins file cannot hold",
					Hint: "give that tensor a name"}
			}
		}
	}
	return nil
}

// keepTied keeps each tensor under one of whose names a rule keeps it, and
// those that are also read as another dtype.
func (t *tier) keepTied() {
	for _, p := range t.plans {
		for i := range p.Tensors {
			tied := &p.Tensors[i]
			if tied.Action != qins.Tied {
				continue
			}
			to := t.root(tied)
			if to.Action != qins.Encoded {
				tied.Rule = ""
				continue
			}
			switch {
			case tied.Rule != "":
				to.Action, to.Rule = qins.Kept, fmt.Sprintf("tied to %s, kept by %s", format.Quote(tied.Name), tied.Rule)
			case tied.DType != to.DType:
				to.Action, to.Rule = qins.Kept, fmt.Sprintf("tied to %s of dtype %s", format.Quote(tied.Name), tied.DType)
			}
		}
	}
}
