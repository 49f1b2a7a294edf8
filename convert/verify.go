package convert

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// A Severity says what kind of finding it is.
type Severity string

const (
	// Unreadable is a file that is not what it should be: truncated, malformed,
	// or a manifest that does not add up.
	Unreadable Severity = "unreadable"
	// Differs is something that is not what it once was or is said to be.
	Differs Severity = "differs"
)

// A Finding is one thing that verification found wrong.
type Finding struct {
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Tensor   string   `json:"tensor,omitzero"`
	Message  string   `json:"message"`
}

// A Report lists what verification looked at and found.
type Report struct {
	File     string // the .qins file, or the folder
	Manifest string // its manifest, empty where there is none
	// Manifests counts those that were checked: of a folder that is no model,
	// but holds some, each has its own.
	Manifests int
	Against   string    // the source that it was compared with, if any
	Files     int       // that were checked, .qins files and others
	Tensors   int       // that were checked
	Findings  []Finding // none where all is well
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

// Worst returns Unreadable where there is such a finding, else Differs, and ""
// where there is none.
func (r *Report) Worst() Severity {
	worst := Severity("")
	for _, f := range r.Findings {
		if worst = f.Severity; worst == Unreadable {
			break
		}
	}
	return worst
}

// VerifyOptions says how to verify.
type VerifyOptions struct {
	Against string // a source to compare with; none where empty
	Jobs    int
	Events  func(Event)
}

// Verify checks a .qins file, named by its own path or its manifest's: that it
// can be read, that all data matches its checksums, and, where there is a
// manifest, that every number in that is true. With a source to compare with, the
// tensors must be what a conversion makes of its own, and the errors those of the
// manifest. Of a folder it checks every file, and all converted models below a
// folder that is none itself. The error is of the kind that keeps it from looking;
// what it finds wrong is in the report.
func Verify(ctx context.Context, path string, opts VerifyOptions) (*Report, error) {
	o, err := Options{Jobs: opts.Jobs, Events: opts.Events}.normalize()
	if err != nil {
		return nil, err
	}
	v := &verification{opts: o, report: &Report{File: path, Against: opts.Against}}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		err = v.folder(ctx, path, opts.Against)
	case err == nil && filepath.Base(path) == DirManifestName:
		v.report.File = filepath.Dir(path)
		err = v.folder(ctx, v.report.File, opts.Against)
	default:
		err = v.alone(ctx, path, opts.Against)
	}
	slices.SortStableFunc(v.report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Tensor, b.Tensor))
	})
	return v.report, err
}

// verification is a running verification.
type verification struct {
	opts   Options
	mu     sync.Mutex
	report *Report
	// Bytes of data, for progress.
	total, done int64
}

// alone checks a file that is named by itself, or by its manifest.
func (v *verification) alone(ctx context.Context, path, against string) error {
	c := &fileCheck{verification: v, path: path, against: against, jobs: v.opts.Jobs, alone: true}
	if strings.HasSuffix(path, manifestSuffix) {
		c.path, c.manifest = strings.TrimSuffix(path, manifestSuffix), path
	} else if _, err := os.Stat(ManifestPath(path)); err == nil {
		c.manifest = ManifestPath(path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	v.report.File, v.report.Manifest = c.path, c.manifest
	if info, err := os.Stat(c.path); err == nil {
		v.total = info.Size()
	}
	return c.run(ctx)
}

func (v *verification) find(s Severity, file, tensor, message string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f := Finding{s, file, tensor, fmt.Sprintf(message, args...)}
	if slices.Contains(v.report.Findings, f) {
		return // what is wrong can be met more than once
	}
	v.report.Findings = append(v.report.Findings, f)
}

// findError turns an error about a file's content into a finding and returns
// every other one.
func (v *verification) findError(err error) error {
	var sum *qins.ChecksumError
	var bad *format.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &sum):
		v.find(Differs, sum.Bad.File, sum.Bad.Tensor, "%s", messageOf(sum.Bad))
	case errors.As(err, &bad):
		v.find(Unreadable, bad.File, bad.Tensor, "%s", messageOf(bad))
	default:
		return err
	}
	return nil
}

// messageOf is an error without the file and tensor that a finding names apart.
func messageOf(e *format.Error) string {
	short := *e
	short.File, short.Tensor = "", ""
	return short.Error()
}

// A fileCheck is the verification of one file.
type fileCheck struct {
	*verification
	path     string
	manifest string    // the path of what describes it, empty where nothing does
	m        *Manifest // what that says, where it was read already
	name     string    // of the output in m, where that is not the file's own
	against  string    // the source, empty where it is not compared
	jobs     int
	alone    bool // no other file is checked

	size int64  // of the file
	sum  string // its SHA-256, once it is known
}

func (v *fileCheck) run(ctx context.Context) error {
	if v.m == nil && v.manifest != "" {
		v.countManifest()
		var err error
		v.m, err = ReadManifest(v.manifest)
		if err := v.findError(err); err != nil {
			return err
		}
	}
	f, err := openQINS(v.path)
	if err := v.findError(err); err != nil {
		return err
	}
	if f != nil {
		defer f.Close()
		if v.alone {
			v.opts.Events(Start{In: v.path, Size: f.Size(), Tensors: len(f.Tensors())})
		}
		v.count(len(f.Tensors()))
		if err := v.checkFile(ctx, f); err != nil {
			return err
		}
	} else {
		v.count(0)
	}
	if v.m != nil {
		if err := v.checkManifest(ctx, v.m, f); err != nil {
			return err
		}
	}
	if v.against != "" && f != nil {
		return v.compare(ctx, f, v.m)
	}
	return nil
}

// count counts a file that was looked at.
func (v *verification) count(tensors int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Files++
	v.report.Tensors += tensors
}

// countManifest counts a manifest that was looked at.
func (v *verification) countManifest() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Manifests++
}

// progress says that so many bytes more were checked.
func (v *verification) progress(size int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done += size
	v.opts.Events(Progress{Phase: "verify", Done: v.done, Total: v.total})
}

// checkFile checks that the file can be decoded.
func (v *fileCheck) checkFile(ctx context.Context, f *qins.File) error {
	d, err := newDecoding(f, v.options())
	if err := v.findError(err); err != nil {
		return err
	}
	if d != nil {
		defer d.close()
		if f.Header().Source.Container != nil {
			_, err := d.head()
			if err := v.findError(inFile(err, v.path)); err != nil {
				return err
			}
		}
	}
	return v.checkData(ctx, f)
}

// options are those for work on this file.
func (v *fileCheck) options() Options {
	o := v.opts
	o.Jobs = v.jobs
	return o
}

// checkData checks every stored tensor.
func (v *fileCheck) checkData(ctx context.Context, f *qins.File) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(v.jobs)
	if v.m != nil {
		group.Go(func() error { return v.hash(groupCtx) })
	}
	for i := range f.Tensors() {
		if f.Tensors()[i].Action == qins.Tied {
			continue
		}
		if groupCtx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := v.findError(f.Check(groupCtx, i)); err != nil {
				return err
			}
			v.progress(f.StoredSize(i))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// hash sets the size and the SHA-256 of the file.
func (v *fileCheck) hash(ctx context.Context) error {
	file, err := openFile(v.path)
	if err != nil {
		return v.findError(err)
	}
	defer file.Close()
	v.size = file.info.Size()
	v.sum, err = hashFile(ctx, file, v.size, v.path)
	return v.findError(err)
}

// checkManifest compares a manifest, which adds up, with the file. f is nil
// where the file cannot be read as a .qins file.
func (v *fileCheck) checkManifest(ctx context.Context, m *Manifest, f *qins.File) error {
	path := v.manifest
	differs := func(tensor, what string, manifest, file any) {
		if fmt.Sprint(manifest) != fmt.Sprint(file) {
			if v.name != "" { // one of several
				what = v.name + ": " + what
			}
			v.find(Differs, path, tensor, "%s: the manifest says %v, the file %v", what, manifest, file)
		}
	}
	if v.name == "" {
		differs("", "output name", m.Output.Name, filepath.Base(v.path))
	}
	if v.sum == "" {
		if err := v.hash(ctx); err != nil {
			return err
		}
	}
	if v.sum != "" {
		differs("", "output size", m.Output.Size, v.size)
		differs("", "output sha256", m.Output.SHA256, v.sum)
	}
	if f == nil {
		return nil
	}
	h := f.Header()
	differs("", "layout", m.Options.Layout, h.Layout)
	differs("", "source format", m.Source.Format, h.Source.Format)
	differs("", "header_bytes", m.Output.HeaderBytes, f.HeaderSize()-f.PaddingSize())
	differs("", "padding_bytes", m.Output.PaddingBytes, f.PaddingSize())
	differs("", "number of tensors", len(m.Tensors), len(h.Tensors))
	for i := range min(len(m.Tensors), len(h.Tensors)) {
		a, b := &m.Tensors[i], &h.Tensors[i]
		differs(b.Name, "name", format.Quote(a.Name), format.Quote(b.Name))
		differs(b.Name, "dtype", a.DType, b.DType)
		differs(b.Name, "shape", a.Shape, b.Shape)
		differs(b.Name, "action", a.Action, b.Action)
		differs(b.Name, "tied_to", a.TiedTo, b.TiedTo)
		differs(b.Name, "tied_in", a.TiedIn, b.TiedIn)
		differs(b.Name, "tie", a.Tie, b.Tie)
		differs(b.Name, "crc32c", a.CRC, b.CRC)
		differs(b.Name, "output_bytes", a.OutputBytes, f.StoredSize(i))
		differs(b.Name, "codec", codecString(a.Codec), codecString(b.Codec))
	}
	return nil
}

func codecString(c *qins.Codec) string {
	if c == nil {
		return "none"
	}
	return fmt.Sprint(c.ID, c.Params)
}

// compare compares the file with a source: names, dtypes and shapes, what stands
// beside the tensors, and what these decode to. Kept ones must be the same,
// encoded ones what the source's become, with the errors that the manifest says.
func (v *fileCheck) compare(ctx context.Context, f *qins.File, m *Manifest) error {
	src, err := openSource(v.against)
	if err != nil {
		return err
	}
	defer src.Close()
	if want := f.Header().Source.Format; src.Format() != want {
		v.find(Differs, src.Name(), "", "this is not the source: found a %s file, expected a %s file", src.Format(), want)
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	if m != nil {
		group.Go(func() error {
			from := src.file // what stands for it may change
			size := from.info.Size()
			hash, err := hashPaced(ctx, from, size, from.path, nil, v.opts.limit)
			if err != nil {
				return err
			}
			if uint64(size) != m.Source.Size || hash != m.Source.SHA256 {
				v.find(Differs, from.path, "", "this is not the source of the manifest: found %d bytes with SHA-256 %s, expected %d with %s",
					size, hash, m.Source.Size, m.Source.SHA256)
			}
			return nil
		})
	}
	group.Go(func() error {
		if err := v.compareRest(f, src); err != nil {
			return err
		}
		return v.compareTensors(ctx, f, src, m)
	})
	return group.Wait()
}

// compareRest compares what the source's file has beside tensors.
func (v *fileCheck) compareRest(f *qins.File, src *source) error {
	if !slices.Equal(f.Metadata(), src.metadata()) {
		v.find(Differs, v.path, "", "the metadata is not the source's")
	}
	made, err := src.container()
	if err != nil {
		return v.findError(err)
	}
	there := f.Header().Source.Container
	if made == nil || there == nil {
		return nil
	}
	a, err := made.RawHead()
	if err != nil {
		return err
	}
	b, err := there.RawHead() // an error of which was found already
	if err == nil && !(bytes.Equal(a, b) && made.Size == there.Size &&
		slices.EqualFunc(made.Gaps, there.Gaps, func(g, h qins.Gap) bool { return g.Offset == h.Offset && bytes.Equal(g.Data, h.Data) })) {
		v.find(Differs, v.path, "", "what stands beside the tensors is not the source's")
	}
	return nil
}

func (v *fileCheck) compareTensors(ctx context.Context, f *qins.File, src *source, m *Manifest) error {
	byName := make(map[string]*format.Tensor, len(src.Tensors()))
	for i := range src.Tensors() {
		byName[src.Tensors()[i].Name] = &src.Tensors()[i]
	}
	d, err := newDecoding(f, v.options())
	if err != nil {
		return v.findError(err)
	}
	defer d.close()
	for i := range d.targets {
		t := &d.targets[i]
		s := byName[t.Name]
		delete(byName, t.Name)
		switch {
		case s == nil:
			v.find(Differs, src.Name(), t.Name, "the source has no such tensor")
		case s.DType != t.DType || s.Shape.String() != t.Shape.String():
			v.find(Differs, src.Name(), t.Name, "the source has %s %s, the file %s %s", s.DType, s.Shape, t.DType, t.Shape)
		default:
			t.Offset = s.Offset // where the pieces are read
			continue
		}
		t.Size = 0 // nothing to compare
	}
	for name := range byName {
		v.find(Differs, v.path, name, "the file lacks this tensor of the source")
	}
	return v.compareData(ctx, src, d, m)
}

// compared is what a worker finds out about a piece.
type compared struct {
	decoded
	want []byte // what the source's weights decode to
	sums codec.Sums
	same bool
	bad  error // why it cannot be decoded; nil where it can
}

func (v *fileCheck) compareData(ctx context.Context, src *source, d *decoding, m *Manifest) error {
	f := d.f
	readers := d.readers()
	packers := make([]*qins.Packer, v.jobs)
	for i := range packers {
		packers[i] = qins.NewPacker()
	}
	weights := make([]lazyWeights, len(d.targets))
	encoded := func(i int) bool { return d.stored(i).Action == qins.Encoded }
	process := func(worker int, pc piece, data []byte, r *compared) error {
		r.data = slices.Grow(r.data[:0], pc.size)[:pc.size]
		_, r.bad = readers[worker].read(r.data, pc.tensor, pc.chunk)
		if bad := (*format.Error)(nil); r.bad != nil && !errors.As(r.bad, &bad) {
			return r.bad
		}
		if r.bad != nil {
			return nil
		}
		if !encoded(pc.tensor) {
			r.same = bytes.Equal(data, r.data)
			return nil
		}
		w, err := weights[pc.tensor].get(d.stored(pc.tensor))
		if err != nil {
			return &format.Error{File: v.path, Tensor: d.targets[pc.tensor].Name, Problem: "the codec's parameters are those of no weights", Err: err}
		}
		r.sums = codec.Sums{}
		r.want = slices.Grow(r.want[:0], pc.size)[:pc.size]
		packers[worker].Roundtrip(r.want, data, w, &r.sums)
		r.same = bytes.Equal(r.want, r.data)
		return nil
	}
	var errs codec.Errors
	same, whole := true, true
	commit := func(pc piece, r *compared) error {
		if pc.chunk == 0 {
			errs, same, whole = codec.Errors{}, true, true
		}
		if r.bad != nil {
			whole = false
			if err := v.findError(r.bad); err != nil {
				return err
			}
		}
		errs.Add(&r.sums)
		same = same && r.same
		if !pc.last {
			return nil
		}
		weights[pc.tensor].drop()
		i := d.sources[pc.tensor]
		t := &f.Tensors()[i]
		if !whole {
			return nil // which was said
		}
		if !same {
			v.find(Differs, v.path, t.Name, "the %s tensor differs from the source's", t.Action)
		} else if encoded(pc.tensor) && m != nil && i < len(m.Tensors) && m.Tensors[i].Error != nil {
			if got, want := errorString(newTensorError(&errs)), errorString(m.Tensors[i].Error); got != want {
				v.find(Differs, v.path, t.Name, "its errors are %s, the manifest says %s", got, want)
			}
		}
		return nil
	}
	return v.findError(runPieces(ctx, src, v.options(), d.pieces(), process, commit))
}

func errorString(e *TensorError) string {
	return fmt.Sprintf("SNR %.6f dB, max_abs %.6e, max_rel %.6e, cosine %.6f", e.SNR, e.MaxAbs, e.MaxRel, e.Cosine)
}
