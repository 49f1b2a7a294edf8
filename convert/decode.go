package convert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// Decode writes the .qins file in back as a file of its source's format. It
// gives the names, dtypes and shapes that the source had, in its order. Tied
// tensors that the source listed are written under each of their names, so that
// every reader finds them. Of the options, Jobs, Force and Events have a meaning.
func Decode(ctx context.Context, in, out string, opts Options) error {
	opts, err := opts.normalize()
	if err != nil {
		return err
	}
	f, err := openQINS(in)
	if err != nil {
		return notQINS(in, err)
	}
	defer f.Close()
	d, err := newDecoding(f, opts)
	if err != nil {
		return err
	}
	defer d.close()
	for _, from := range d.files {
		if err := differentFiles(from.Name(), out, tempName(out)); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(ManifestPath(out)); err == nil {
		return fmt.Errorf("%s: describes a .qins file, which %s would not be: choose another name, or remove it", ManifestPath(out), out)
	}
	info, err := os.Stat(in)
	if err != nil {
		return err
	}
	file, err := create(out, opts.Force, info.Mode()&0o666)
	if err != nil {
		return err
	}
	defer file.discard()
	opts.Events(Start{In: in, Out: out, Size: f.Size(), Tensors: len(d.targets)})
	w, err := d.begin(file)
	if err != nil {
		return inFile(err, in)
	}
	if err := d.run(ctx, w); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if info, err = file.Stat(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := publish(file); err != nil {
		return err
	}
	opts.Events(Done{In: in, Out: out, Size: info.Size()})
	return nil
}

// decoding is a running decode.
type decoding struct {
	f       *qins.File
	opts    Options
	targets []format.Tensor // that the output lists, placed in the source's order of data
	sources []int           // the tensor of the file for each target
	holders []holder        // of the data for each target
	order   []int           // of the targets' data
	files   []*qins.File    // f first, then those of the same folder that hold data of it
}

// A holder says which tensor of which file holds a target's data.
type holder struct{ file, tensor int }

// newDecoding opens the files that hold data of f and are not f.
func newDecoding(f *qins.File, opts Options) (*decoding, error) {
	d := &decoding{f: f, opts: opts, files: []*qins.File{f}}
	at := make([]int, len(f.Tensors())) // a tensor's place among the targets
	for i, t := range f.Tensors() {
		at[i] = -1
		if t.Tie != qins.TieMetadata { // the source did not list those
			at[i] = len(d.targets)
			d.targets = append(d.targets, format.Tensor{Name: t.Name, DType: t.DType, Shape: t.Shape, Size: t.Size()})
			d.sources = append(d.sources, i)
		}
	}
	end := int64(0)
	for _, i := range f.Header().Order() {
		if at[i] >= 0 {
			t := &d.targets[at[i]]
			t.Offset = end
			end += t.Size
			d.order = append(d.order, at[i])
		}
	}
	others := map[string]int{}
	for _, i := range d.sources {
		h := holder{0, f.Stored(i)}
		if t := &f.Tensors()[i]; t.TiedIn != "" {
			if others[t.TiedIn] == 0 {
				other, err := openQINS(filepath.Join(filepath.Dir(f.Name()), t.TiedIn))
				if err != nil {
					d.close()
					if errors.Is(err, fs.ErrNotExist) {
						err = &format.Error{File: f.Name(), Tensor: t.Name, Problem: "its data is in another file of the model, which is missing",
							Found: "a tie to " + format.Quote(t.TiedTo) + " in " + format.Quote(t.TiedIn)}
					}
					return nil, err
				}
				others[t.TiedIn] = len(d.files)
				d.files = append(d.files, other)
			}
			h.file = others[t.TiedIn]
			at, err := holderIn(d.files[h.file], t)
			if err != nil {
				d.close()
				return nil, err
			}
			h.tensor = at
		}
		d.holders = append(d.holders, h)
	}
	return d, nil
}

// holderIn finds the tensor of another file that t is tied to.
func holderIn(f *qins.File, t *qins.Tensor) (int, error) {
	i, ok := f.Lookup(t.TiedTo)
	if !ok || f.Tensors()[i].Action == qins.Tied {
		return 0, &format.Error{File: f.Name(), Tensor: t.TiedTo, Problem: format.Quote(t.Name) + " of another file is tied to this tensor, which is not stored here"}
	}
	to := &f.Tensors()[i]
	if to.Size() != t.Size() || to.Action == qins.Encoded && to.DType != t.DType {
		return 0, &format.Error{File: f.Name(), Tensor: to.Name, Problem: format.Quote(t.Name) + " of another file is tied to this tensor, which does not fit it",
			Found: fmt.Sprintf("%s %s", to.DType, to.Shape), Expected: fmt.Sprintf("%s %s", t.DType, t.Shape)}
	}
	return i, nil
}

// close closes the files that newDecoding opened.
func (d *decoding) close() {
	for _, f := range d.files[1:] {
		f.Close()
	}
}

// stored is the tensor that holds target i's data.
func (d *decoding) stored(i int) *qins.Tensor {
	h := d.holders[i]
	return &d.files[h.file].Tensors()[h.tensor]
}

// A chunkReader reads chunks of the targets. Each worker has its own.
type chunkReader struct {
	d     *decoding
	files []*qins.ChunkReader
}

func (d *decoding) readers() []chunkReader {
	list := make([]chunkReader, d.opts.Jobs)
	for i := range list {
		list[i] = chunkReader{d, make([]*qins.ChunkReader, len(d.files))}
		for j, f := range d.files {
			list[i].files[j] = f.NewChunkReader()
		}
	}
	return list
}

func (r *chunkReader) read(dst []byte, target, chunk int) (qins.ChunkSum, error) {
	h := r.d.holders[target]
	sum, _, err := r.files[h.file].Read(dst, h.tensor, chunk)
	return sum, err
}

// checkSum compares the sums of all chunks of a target with its CRC-32C.
func (d *decoding) checkSum(target int, sums *qins.TensorSum) error {
	h := d.holders[target]
	return d.files[h.file].CheckSum(h.tensor, sums)
}

// pieces lists the chunks of the targets in the order of their data.
func (d *decoding) pieces() iter.Seq[piece] {
	return func(yield func(piece) bool) {
		for _, i := range d.order {
			t := d.targets[i]
			t.DType = d.stored(i).DType // whose chunks are read, where this is a view
			if !pieces(i, t, yield) {
				return
			}
		}
	}
}

// A tensorWriter takes the bytes of the tensors of a file whose header is
// written.
type tensorWriter interface {
	WriteAt(p []byte, tensor int, off int64) error
}

// begin writes what the source's file had beside its tensors.
func (d *decoding) begin(file io.WriterAt) (tensorWriter, error) {
	c := d.f.Header().Source.Container
	if c == nil {
		return safetensors.NewWriter(file, d.f.Metadata(), d.targets)
	}
	head, err := d.head()
	if err != nil {
		return nil, err
	}
	w, err := gguf.NewRestorer(file, head, c.Size)
	if err != nil {
		return nil, err
	}
	for _, gap := range c.Gaps {
		if err := w.WriteGap(gap.Data, gapAt(w.Gaps(), gap.Offset), 0); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// gapAt returns the index of the gap that begins at an offset, -1 where there
// is none. The gaps are in the order of their offsets.
func gapAt(gaps []gguf.Span, offset int64) int {
	at, ok := slices.BinarySearchFunc(gaps, offset, func(s gguf.Span, offset int64) int { return cmp.Compare(s.Offset, offset) })
	if !ok {
		return -1
	}
	return at
}

// head returns the header of the GGUF file that the container is of, after
// checking that the container fits it and the tensors.
func (d *decoding) head() ([]byte, error) {
	c := d.f.Header().Source.Container
	head, err := c.RawHead()
	if err != nil {
		return nil, &format.Error{Problem: "bad container", Err: err}
	}
	g, err := gguf.New(zeroExtended(head), c.Size, "the container's GGUF header")
	if err != nil {
		return nil, err
	}
	for i, t := range g.Tensors() {
		if i >= len(d.targets) || t.Name != d.targets[i].Name || t.DType != d.targets[i].DType || t.Shape.String() != d.targets[i].Shape.String() {
			return nil, &format.Error{Tensor: t.Name, Problem: "the container's GGUF header does not list the tensors of the file"}
		}
	}
	if len(g.Tensors()) != len(d.targets) {
		return nil, &format.Error{Problem: "the container's GGUF header does not list the tensors of the file"}
	}
	gaps := g.Gaps()
	for _, gap := range gaps {
		if gap.Size > max(qins.MaxGaps, g.Alignment()) {
			return nil, &format.Error{Problem: "the container claims more bytes than there are tensors for", Found: fmt.Sprint(c.Size)}
		}
	}
	for _, gap := range c.Gaps {
		at := gapAt(gaps, gap.Offset)
		if at < 0 || int64(len(gap.Data)) > gaps[at].Size {
			return nil, &format.Error{Problem: "the container has bytes where there is no gap", Found: fmt.Sprintf("%d at offset %d", len(gap.Data), gap.Offset)}
		}
	}
	return head, nil
}

// zeroExtended reads as bytes with zeros behind them, without end.
type zeroExtended []byte

// ReadAt implements io.ReaderAt.
func (z zeroExtended) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(z)) {
		n = copy(p, z[off:])
	}
	clear(p[n:])
	return len(p), nil
}

func (d *decoding) run(ctx context.Context, w tensorWriter) error {
	readers := d.readers()
	total := int64(0)
	for _, t := range d.targets {
		total += t.Size
	}
	meter := d.opts.meter("decode", total)
	finished := 0
	report := func(i int) {
		finished++
		t := d.f.Tensors()[d.sources[i]]
		d.opts.Events(TensorDone{Index: finished, Of: len(d.targets), Name: t.Name, DType: t.DType, Shape: t.Shape, Action: t.Action,
			TiedTo: t.TiedTo, TiedIn: t.TiedIn, SourceBytes: d.f.StoredSize(d.sources[i]), OutputBytes: d.targets[i].Size})
	}
	var sums qins.TensorSum
	process := func(worker int, pc piece, _ []byte, r *decoded) error {
		if cap(r.data) < pc.size {
			r.data = make([]byte, pc.size)
		}
		r.data = r.data[:pc.size]
		var err error
		r.sum, err = readers[worker].read(r.data, pc.tensor, pc.chunk)
		return err
	}
	commit := func(pc piece, r *decoded) error {
		if pc.chunk == 0 {
			sums = qins.TensorSum{}
		}
		sums.Add(r.sum)
		t := &d.targets[pc.tensor]
		if err := w.WriteAt(r.data, pc.tensor, pc.off-t.Offset); err != nil {
			return err
		}
		meter.add(pc.size)
		if pc.last {
			report(pc.tensor)
			return d.checkSum(pc.tensor, &sums)
		}
		return nil
	}
	if err := runPieces(ctx, nil, d.opts, d.pieces(), process, commit); err != nil {
		return err
	}
	for _, i := range d.order {
		if d.targets[i].Size == 0 {
			report(i)
			if err := d.checkSum(i, new(qins.TensorSum)); err != nil {
				return err
			}
		}
	}
	return nil
}

// decoded is what a worker makes of a piece.
type decoded struct {
	data []byte
	sum  qins.ChunkSum
}

// notQINS tells errors of a GGUF file, which looks like a broken .qins file,
// what it is.
func notQINS(path string, err error) error {
	f, openErr := openFile(path)
	if openErr != nil {
		return err
	}
	defer f.Close()
	if isGGUF(f) {
		return &format.Error{File: path, Problem: "this is no .qins file", Found: "a GGUF file"}
	}
	return err
}
