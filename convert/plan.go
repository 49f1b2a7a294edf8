package convert

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// A Plan says what becomes of each tensor of a file, and why.
type Plan struct {
	Layout  qins.Layout
	Codec   string
	Rules   []string
	Tensors []PlannedTensor // in the order of the source's header
	// Sizes are the predicted sizes of the file: exact for plain and packed,
	// within one percent for compact. NewPlan sets them.
	Sizes qins.Sizes

	src    *source
	out    string // the output's name in the model, slash-separated
	header qins.Header
	// The source's order of data.
	order []int
}

// A PlannedTensor is a tensor and what is to become of it.
type PlannedTensor struct {
	qins.Tensor
	Rule string // that decided; empty for tied tensors
	// SourceBytes are those that the source stores for this name alone: none
	// where it shares the bytes of another.
	SourceBytes int64
	// OutputBytes are those that the file stores, predicted in a plan.
	OutputBytes int64

	at format.Tensor // in the source; of the kept name where this one was dropped
}

// NewPlan surveys the file in and says what Convert would do with it.
func NewPlan(ctx context.Context, in string, opts Options) (*Plan, error) {
	opts, err := opts.normalize()
	if err != nil {
		return nil, err
	}
	if err := opts.ofFile(in); err != nil {
		return nil, err
	}
	src, err := openSource(in)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	opts.Events(Start{In: in, Size: src.Size(), Tensors: len(src.Tensors())})
	p, err := planFile(ctx, src, opts)
	if err != nil {
		return nil, err
	}
	if err := p.prepare(ctx, opts); err != nil {
		return nil, err
	}
	return p, p.predict(ctx, opts)
}

// SourceSize returns the size of the source in bytes.
func (p *Plan) SourceSize() int64 { return p.src.Size() }

// Name returns the path of the file.
func (p *Plan) Name() string { return p.src.Name() }

// Plans are those of the files of a model.
type Plans []*Plan

// PlanDir surveys a model directory, or the split GGUF file whose first part in
// is, and says what ConvertDir would do with it.
func PlanDir(ctx context.Context, in string, opts Options) (Plans, error) {
	opts, err := opts.normalize()
	if err != nil {
		return nil, err
	}
	m, err := openModel(ctx, in, opts)
	if err != nil {
		return nil, err
	}
	units := m.units()
	size := sizeOf(units, Part{}.share(units))
	opts.Events(Start{In: in, Size: size, Files: len(units)})
	d, err := newDirConversion(ctx, m, "", false, opts)
	if err != nil {
		return nil, err
	}
	// Files are planned beside each other, as one of them may have too little
	// for all workers.
	var mu sync.Mutex
	inner := opts
	inner.Jobs = max(opts.Jobs/len(d.shards), 1)
	inner.Events = func(e Event) {
		if w, ok := e.(Warning); ok {
			mu.Lock()
			defer mu.Unlock()
			opts.Events(w)
		}
	}
	progress := newOverall(opts.Events, size)
	plans := make(Plans, len(d.shards))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(opts.Jobs)
	for i, s := range d.shards {
		plans[i] = s.plan
		group.Go(func() error {
			defer s.plan.src.Close()
			if err := s.plan.prepare(ctx, inner); err != nil {
				return err
			}
			if err := s.plan.predict(ctx, inner); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			progress.advance(s.size())
			return nil
		})
	}
	return plans, group.Wait()
}

// SourceSize returns the size of the sources in bytes.
func (l Plans) SourceSize() int64 {
	n := int64(0)
	for _, p := range l {
		n += p.SourceSize()
	}
	return n
}

// OutputSize returns the predicted size of the outputs in bytes.
func (l Plans) OutputSize() int64 {
	n := int64(0)
	for _, p := range l {
		n += p.Sizes.Total()
	}
	return n
}

// RuleNames lists the rules that decided, in the order in which the tensors
// first name them.
func (l Plans) RuleNames() []string {
	var names []string
	seen := map[string]bool{}
	for _, p := range l {
		for i := range p.Tensors {
			if rule := p.Tensors[i].rule(); !seen[rule] {
				seen[rule] = true
				names = append(names, rule)
			}
		}
	}
	return names
}

// ByRule sums up the tensors by the rule that decided about them.
func (l Plans) ByRule() map[string]Group {
	groups := map[string]Group{}
	for _, p := range l {
		for i := range p.Tensors {
			t := &p.Tensors[i]
			g := groups[t.rule()]
			g.add(t.Action, uint64(t.Elements()), uint64(t.SourceBytes), uint64(t.OutputBytes))
			groups[t.rule()] = g
		}
	}
	return groups
}

// rule is the rule that decided, or how the tensor is tied.
func (t *PlannedTensor) rule() string {
	if t.Action == qins.Tied {
		return "tied by " + string(t.Tie)
	}
	return t.Rule
}

// largestExact is the largest integer up to which a float64 holds each, as
// numbers in JSON are read by many.
const largestExact = 1<<53 - 1

// planFile plans a file that is a model by itself.
func planFile(ctx context.Context, src *source, opts Options) (*Plan, error) {
	plans, err := planFiles(ctx, []*source{src}, []string{""}, modelConfig{}, opts)
	if err != nil {
		return nil, err
	}
	return plans[0], nil
}

// planFiles decides about every tensor of the files of a model, whose outputs
// will have the names outs. Tensors are tied across files in the same folder.
func planFiles(ctx context.Context, sources []*source, outs []string, config modelConfig, opts Options) ([]*Plan, error) {
	plans := make([]*Plan, len(sources))
	for i, src := range sources {
		p := &Plan{Layout: opts.Layout, Codec: opts.Codec, Rules: []string{}, src: src, out: outs[i]}
		for _, r := range opts.Rules {
			p.Rules = append(p.Rules, r.String())
		}
		if err := p.list(); err != nil {
			return nil, err
		}
		plans[i] = p
	}
	t, err := newTier(plans)
	if err != nil {
		return nil, err
	}
	for i, p := range plans {
		p.tieByOffset()
		t.tieByMetadata(i)
		p.decide(config, opts.Rules)
		p.sort()
	}
	if err := t.tieByContent(ctx, opts); err != nil {
		return nil, err
	}
	t.keepTied()
	return plans, t.checkNames()
}

// list lists the tensors of the source.
func (p *Plan) list() error {
	p.Tensors = make([]PlannedTensor, 0, len(p.src.Tensors()))
	for _, t := range p.src.Tensors() {
		for _, d := range t.Shape {
			if d > largestExact {
				return &format.Error{File: p.src.Name(), Tensor: t.Name, Problem: "a dimension is too large",
					Found: t.Shape.String(), Expected: fmt.Sprintf("at most %d", int64(largestExact))}
			}
		}
		p.Tensors = append(p.Tensors, PlannedTensor{Tensor: qins.Tensor{Name: t.Name, DType: t.DType, Shape: t.Shape}, SourceBytes: t.Size, at: t})
	}
	return nil
}

// decide sets for each tensor whether it is to be encoded, and by which rule.
func (p *Plan) decide(config modelConfig, rules []Rule) {
	for i := range p.Tensors {
		t := &p.Tensors[i]
		named := t.at
		named.Name = t.Name
		encode, rule := decide(named, config, rules)
		t.Rule = rule
		if t.Action != qins.Tied {
			t.Action = qins.Kept
			if encode {
				t.Action = qins.Encoded
			}
		} else if encode {
			t.Rule = "" // it does not stand in the way of encoding
		}
	}
}

// prepare reads the weights for their ranges, after which it is settled how the
// file is stored.
func (p *Plan) prepare(ctx context.Context, opts Options) error {
	// First what needs memory for a moment only, which then serves the rest.
	container, err := p.src.container()
	if err != nil {
		return err
	}
	scans, err := p.survey(ctx, opts)
	if err != nil {
		return err
	}
	if err := p.fit(scans, opts); err != nil {
		return err
	}
	if err := p.assign(); err != nil {
		return err
	}
	p.header = qins.Header{Version: qins.Version, Layout: p.Layout, Chunk: qins.ChunkWeights,
		Source: qins.Source{Format: p.src.Format(), Container: container}}
	p.header.Tensors = make([]qins.Tensor, len(p.Tensors))
	for i := range p.Tensors {
		p.header.Tensors[i] = p.Tensors[i].Tensor
	}
	if !slices.IsSorted(p.order) {
		p.header.DataOrder = p.order
	}
	return nil
}

// sort finds the order of the data.
func (p *Plan) sort() {
	p.order = make([]int, len(p.Tensors))
	for i := range p.order {
		p.order[i] = i
	}
	offset := func(t *PlannedTensor) int64 {
		if t.Tie == qins.TieMetadata {
			return math.MaxInt64 // it has no data, and stands last
		}
		return t.at.Offset
	}
	slices.SortStableFunc(p.order, func(a, b int) int {
		s, t := &p.Tensors[a], &p.Tensors[b]
		return cmp.Or(cmp.Compare(offset(s), offset(t)), cmp.Compare(s.at.Size, t.at.Size))
	})
}

// fit derives the codec's parameters and keeps what it refuses.
func (p *Plan) fit(scans []codec.Scan, opts Options) error {
	for i := range p.Tensors {
		t := &p.Tensors[i]
		if t.Action != qins.Encoded {
			continue
		}
		c, err := qins.Fit(p.Codec, scans[i])
		if err != nil {
			t.Action, t.Rule = qins.Kept, fmt.Sprintf("%s%v (%s)", refusedRule, err, t.Rule)
			opts.Events(Warning{File: p.src.Name(), Tensor: t.Name, Message: fmt.Sprintf("kept as it is: %v", err)})
			continue
		}
		t.Codec = c
	}
	return nil
}

// assign sets how each tensor is stored. In the compact layout, kept tensors
// are compressed where a sample of them shrinks.
func (p *Plan) assign() error {
	packer := qins.NewPacker()
	buf := []byte{}
	for i := range p.Tensors {
		t := &p.Tensors[i]
		shrinks := false
		if t.Action == qins.Kept && p.Layout == qins.Compact && t.at.Size >= minSample {
			size := min(int64(qins.ChunkSize(t.DType)), t.at.Size)
			for _, at := range []int64{0, (t.at.Size - size) / 2 / 8 * 8, (t.at.Size - size) / 8 * 8} {
				buf = slices.Grow(buf[:0], int(size))[:size]
				if err := format.ReadFull(p.src, buf, t.at.Offset+at); err != nil {
					return err
				}
				ok, err := packer.Shrinks(t.DType, buf)
				if err != nil {
					return err
				}
				if shrinks = shrinks || ok; shrinks || t.at.Size == size {
					break
				}
			}
		}
		t.Assign(p.Layout, shrinks)
	}
	return nil
}

// minSample is the size from which compressing a kept tensor is worth it.
// Smaller ones stay readable for every safetensors reader.
const minSample = 4096

// isStored reports whether tensor i has data in the file.
func (p *Plan) isStored(i int) bool { return p.Tensors[i].Action != qins.Tied }

// pieces lists the chunks of the tensors that want selects, in the order of the
// data.
func (p *Plan) pieces(want func(i int) bool) iter.Seq[piece] {
	return func(yield func(piece) bool) {
		for _, i := range p.order {
			if want(i) && !pieces(i, p.Tensors[i].at, yield) {
				return
			}
		}
	}
}

// bytes is the size in the source of the tensors that want selects.
func (p *Plan) bytes(want func(i int) bool) int64 {
	n := int64(0)
	for i := range p.Tensors {
		if want(i) {
			n += p.Tensors[i].at.Size
		}
	}
	return n
}

// predict sets the sizes.
func (p *Plan) predict(ctx context.Context, opts Options) error {
	streams := make([]int64, len(p.Tensors))
	weights := make([]lazyWeights, len(p.Tensors))
	packers := make([]*qins.Packer, opts.Jobs)
	for i := range packers {
		packers[i] = qins.NewPacker()
	}
	wanted := func(i int) bool { return p.isStored(i) && p.Tensors[i].IsStream() }
	meter := opts.meter("estimate", p.bytes(wanted))
	process := func(worker int, pc piece, data []byte, size *int64) (err error) {
		t := &p.Tensors[pc.tensor]
		var w *qins.Weights
		if t.Action == qins.Encoded {
			if w, err = weights[pc.tensor].get(&t.Tensor); err != nil {
				return err
			}
		}
		*size, err = packers[worker].Estimate(&t.Tensor, w, data)
		return err
	}
	commit := func(pc piece, size *int64) error {
		streams[pc.tensor] += *size
		meter.add(pc.size)
		if pc.last {
			weights[pc.tensor].drop()
		}
		return nil
	}
	if err := runPieces(ctx, p.src, opts, p.pieces(wanted), process, commit); err != nil {
		return err
	}
	w, err := qins.NewWriter(nil, &p.header, p.src.metadata())
	if err != nil {
		return inFile(err, p.src.Name())
	}
	p.Sizes = w.Predict(func(i int) int64 { return streams[i] + p.Tensors[i].IndexSize() })
	for i := range p.Tensors {
		p.Tensors[i].OutputBytes = p.Sizes.Tensors[i]
	}
	return nil
}
