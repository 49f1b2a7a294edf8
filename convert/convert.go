// Package convert turns checkpoints into .qins files and back, and verifies
// what it made.
//
// A conversion surveys the source, decides for each tensor by which rule it is
// encoded, kept or tied, writes the file in chunks through a pool of workers,
// measures the finished file and publishes it with its manifest, whole or not
// at all. The bytes do not depend on the number of workers. Sources are only
// read.
//
// Bad input is reported as a [format.Error] and wrong options as an [OptionError].
// An output that is in the way is an [ExistsError], or an [OptionsDifferError]
// where the same source was converted to it in another way; a folder of which
// files are missing is an [UnfinishedError], and one whose conversion its context
// ended a [StoppedError]. Everything else is of the operating system, or says in
// words what is wrong with the paths.
package convert

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// Options says how to convert. The zero value converts with the defaults.
type Options struct {
	Layout qins.Layout // qins.DefaultLayout where empty
	Codec  string      // the id of a codec, "log" where empty
	Rules  []Rule      // before the default rules, the first that matches wins
	Jobs   int         // processors to keep busy, at most 256; all where 0
	Force  bool        // replace an output that exists
	Events func(Event) // may be nil

	// Of model directories only:

	Weights []string // patterns of the names of files to convert; all where empty
	Part    Part     // a share of the files; all where zero
	Finish  bool     // convert nothing, only complete what all parts have converted

	limit limit // of Jobs; set by normalize and shared by all that a job does
}

// shares reports whether other runs may write to the same folder.
func (o Options) shares() bool { return !o.Part.isAll() || o.Finish }

// An OptionError says that the options are wrong.
type OptionError struct{ Err error }

// Error implements error.
func (e *OptionError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *OptionError) Unwrap() error { return e.Err }

// Codecs lists the ids of the codecs that there are, the default first.
func Codecs() []string { return codec.IDs() }

// maxJobs bounds the workers, as each has memory of its own. Disks are busy long
// before there are that many.
const maxJobs = 256

// normalize fills in the defaults.
func (o Options) normalize() (Options, error) {
	if o.Layout == "" {
		o.Layout = qins.DefaultLayout
	}
	if _, err := qins.ParseLayout(string(o.Layout)); err != nil {
		return o, &OptionError{err}
	}
	if o.Codec == "" {
		o.Codec = codec.IDs()[0]
	}
	if _, err := codec.ByID(o.Codec); err != nil {
		return o, &OptionError{err}
	}
	if o.Jobs < 0 {
		return o, &OptionError{fmt.Errorf("jobs: found %d, expected 1 or more, or 0 for all processors", o.Jobs)}
	}
	for i, r := range o.Rules {
		if r.Pattern == nil {
			return o, &OptionError{fmt.Errorf("rule %d has no pattern", i+1)}
		}
	}
	if err := o.Part.check(); err != nil {
		return o, &OptionError{err}
	}
	if o.Jobs == 0 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	o.Jobs = min(o.Jobs, maxJobs)
	if o.limit == nil {
		o.limit = make(limit, o.Jobs)
	}
	if o.Events == nil {
		o.Events = func(Event) {}
	}
	return o, nil
}

// ofFile returns an error where there are options that a single file has no use
// for.
func (o Options) ofFile(in string) error {
	if len(o.Weights) > 0 || o.shares() {
		return &OptionError{fmt.Errorf("%s: is a file, and choosing weights, parts and finishing them are for model directories", in)}
	}
	return nil
}

// Convert converts the file in to the .qins file out and writes its manifest
// beside it.
func Convert(ctx context.Context, in, out string, opts Options) (*Manifest, error) {
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
	if err := differentFiles(in, out, ManifestPath(out), tempName(out), tempName(ManifestPath(out))); err != nil {
		return nil, err
	}
	if err := utf8Name(in, filepath.Base(in)); err != nil {
		return nil, err
	}
	if utf8Name(out, filepath.Base(out)) != nil {
		return nil, fmt.Errorf("%s: the name is not UTF-8, expected one that a manifest can hold", out)
	}
	file, manifest, err := createBoth(out, ManifestPath(out), opts.Force, src.file.info.Mode())
	if err != nil {
		return nil, err
	}
	defer file.discard()
	defer manifest.discard()
	opts.Events(Start{In: in, Out: out, Size: src.Size(), Tensors: len(src.Tensors())})
	if p, ok := part(filepath.Base(in)); ok && p.ext == ggufExt && p.count > 1 && p.number != 1 {
		opts.Events(Warning{Message: fmt.Sprintf("%s is one of %d files, and converted by itself: name %s, or the folder, to convert them all", in, p.count, p.name(1))})
	}

	plan, err := planFile(ctx, src, opts)
	if err != nil {
		return nil, err
	}
	m, err := plan.convert(ctx, file, manifest, filepath.Base(in), filepath.Base(out), opts)
	if err != nil {
		return nil, err
	}
	opts.Events(Done{In: in, Out: out, Size: int64(m.Output.Size), Manifest: m})
	return m, nil
}

// createBoth opens an output and its manifest, for those who may read and write
// the source.
func createBoth(out, manifest string, force bool, source fs.FileMode) (file, manifestFile *output, err error) {
	if file, err = create(out, force, source&0o666); err != nil {
		return nil, nil, err
	}
	if manifestFile, err = create(manifest, force, source&0o666); err != nil {
		file.discard()
		return nil, nil, err
	}
	return file, manifestFile, nil
}

// convert carries out a plan that was made, and publishes the output with its
// manifest, in which the files have the given names.
func (p *Plan) convert(ctx context.Context, file, manifest *output, inName, outName string, opts Options) (*Manifest, error) {
	// The source is hashed beside all that, from its file: what stands for it may
	// change once its header has been taken over.
	from, pace, sums := p.src.file, newPace(), &hashMeter{}
	if opts.Jobs > 1 {
		pace.free()
	}
	group, groupCtx := errgroup.WithContext(ctx)
	var sourceSum string
	group.Go(func() (err error) {
		sourceSum, err = hashPaced(groupCtx, sums.of(from), from.info.Size(), from.path, pace, opts.limit)
		return err
	})
	var m *Manifest
	group.Go(func() (err error) {
		if err := p.prepare(groupCtx, opts); err != nil {
			return err
		}
		m, err = write(groupCtx, p, file, pace, sums, opts)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := p.src.unchanged(); err != nil {
		return nil, err
	}

	m.Source.Name, m.Source.SHA256 = inName, sourceSum
	m.Output.Name = outName
	text, err := m.seal()
	if err != nil {
		return nil, err
	}
	if _, err := manifest.WriteAt(text, 0); err != nil {
		return nil, err
	}
	if err := manifest.Sync(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// As gzip does. A later run sees by it that the output is of this source;
	// where a file system refuses, that run compares hashes.
	_ = os.Chtimes(file.temp, time.Time{}, p.src.modTime())
	return m, publish(file, manifest)
}

// write writes the file that a plan describes and measures it. The source is hashed
// at pace meanwhile, and sums tells how far.
func write(ctx context.Context, p *Plan, file *output, pace *pace, sums *hashMeter, opts Options) (*Manifest, error) {
	defer pace.free()
	pace.converted(0, 0)
	w, err := qins.NewWriter(file, &p.header, p.src.metadata())
	if err != nil {
		return nil, inFile(err, p.src.Name())
	}
	job := &encoding{plan: p, writer: w, pace: pace, opts: opts, tensors: make([]encodingTensor, len(p.Tensors))}
	if err := job.run(ctx); err != nil {
		return nil, err
	}
	sizes, tensors, err := w.Finish()
	if err != nil {
		return nil, err
	}
	sums.begin(opts, p.src.Size()+sizes.Total())
	pace.free()

	group, ctx := errgroup.WithContext(ctx)
	group.Go(file.Sync)
	var hash string
	group.Go(func() (err error) {
		hash, err = hashPaced(ctx, sums.of(file), sizes.Total(), file.final, nil, opts.limit)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != sizes.Total() {
		return nil, fmt.Errorf("%s: the file has %d bytes, its parts %d", file.final, info.Size(), sizes.Total())
	}
	for i := range p.Tensors {
		p.Tensors[i].Tensor = tensors[i]
		p.Tensors[i].OutputBytes = sizes.Tensors[i]
	}
	m := newManifest(p, job.errors())
	m.Output = Output{Size: uint64(info.Size()), SHA256: hash, HeaderBytes: uint64(sizes.Header), PayloadBytes: uint64(sizes.Payload), PaddingBytes: uint64(sizes.Padding)}
	m.Totals = m.total()
	return m, nil
}

// encodingTensor is the state of one tensor while it is converted.
type encodingTensor struct {
	weights lazyWeights
	errs    codec.Errors
}

// encoding is a running conversion.
type encoding struct {
	plan    *Plan
	writer  *qins.Writer
	pace    *pace
	opts    Options
	tensors []encodingTensor
}

// encodingResult is what a worker makes of a piece.
type encodingResult struct {
	chunk qins.Chunk
	sums  codec.Sums
}

func (e *encoding) run(ctx context.Context) error {
	meter := e.opts.meter("convert", e.plan.bytes(e.plan.isStored))
	stored := int64(0)
	finished := 0
	packers := make([]*qins.Packer, e.opts.Jobs)
	for i := range packers {
		packers[i] = qins.NewPacker()
	}
	report := func(i int) {
		finished++
		t := &e.plan.Tensors[i]
		e.opts.Events(TensorDone{Index: finished, Of: len(e.plan.Tensors), Name: t.Name, DType: t.DType, Shape: t.Shape,
			Action: t.Action, Rule: t.Rule, TiedTo: t.TiedTo, TiedIn: t.TiedIn, SourceBytes: t.SourceBytes, OutputBytes: e.writer.Stored(i)})
	}
	src, begun := &timedSource{Source: e.plan.src}, time.Now()
	process := func(worker int, pc piece, data []byte, r *encodingResult) error {
		t := &e.plan.Tensors[pc.tensor]
		r.sums = codec.Sums{}
		if t.Action == qins.Kept {
			return packers[worker].Keep(&r.chunk, &t.Tensor, data)
		}
		weights, err := e.tensors[pc.tensor].weights.get(&t.Tensor)
		if err != nil {
			return err
		}
		packers[worker].Encode(&r.chunk, &t.Tensor, weights, data, &r.sums)
		return nil
	}
	commit := func(pc piece, r *encodingResult) error {
		if err := e.writer.Append(pc.tensor, &r.chunk); err != nil {
			return err
		}
		t := &e.tensors[pc.tensor]
		t.errs.Add(&r.sums)
		meter.add(pc.size)
		stored += r.chunk.Size()
		left := stored
		if src.isSlow(time.Since(begun), e.opts.Jobs) {
			left = 0 // reading it again from a disk would take longer than hashing
		}
		e.pace.converted(meter.now.Done, left)
		if pc.last {
			t.weights.drop()
			report(pc.tensor)
		}
		return nil
	}
	err := runPieces(ctx, src, e.opts, e.plan.pieces(e.plan.isStored), process, commit)
	if err != nil {
		return err
	}
	for i := range e.plan.Tensors {
		if e.plan.Tensors[i].Action == qins.Tied || e.plan.Tensors[i].Size() == 0 {
			report(i)
		}
	}
	return nil
}

// errors returns the errors of each encoded tensor.
func (e *encoding) errors() []*codec.Errors {
	list := make([]*codec.Errors, len(e.tensors))
	for i := range e.tensors {
		if e.plan.Tensors[i].Action == qins.Encoded {
			list[i] = &e.tensors[i].errs
		}
	}
	return list
}

// inFile names the file in an error that could not know it.
func inFile(err error, name string) error {
	if bad, ok := err.(*format.Error); ok && bad.File == "" {
		named := *bad
		named.File = name
		return &named
	}
	return err
}
