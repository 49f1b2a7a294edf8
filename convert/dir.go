package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// A DirResult says what converting a model directory came to.
type DirResult struct {
	// Manifest is nil while files are missing that other parts convert.
	Manifest             *DirManifest
	Converted, Unchanged int      // files that this run took up
	Missing              []string // files of the output that are not there yet

	sourceSize, outputSize int64 // of the files that this run took up
}

// ConvertDir converts a model directory, or the split GGUF file whose first
// part in is, to the folder out. It takes up what an earlier run with the same
// options left: files that are finished, and whole, are not converted again.
//
// Until all files are there the folder has no manifest, and is no model.
func ConvertDir(ctx context.Context, in, out string, opts Options) (r *DirResult, err error) {
	opts, err = opts.normalize()
	if err != nil {
		return nil, err
	}
	m, err := openModel(ctx, in, opts)
	if err != nil {
		return nil, err
	}
	// A folder beside the parts of a split file is not inside of anything.
	if isFolder(in) {
		if err := separateFolders(in, out); err != nil {
			return nil, err
		}
	}
	if opts.Finish && !isFolder(out) {
		return nil, &UnfinishedError{out, m.outputs()}
	}
	made, err := vacantFolder(out, opts.Force)
	if err != nil {
		return nil, err
	}
	defer func() {
		if made && err != nil {
			os.Remove(out) // if nothing came of it
		}
	}()
	lock, err := lockFolder(ctx, out, opts.shares())
	if err != nil {
		return nil, err
	}
	defer lock.release()
	defer func() {
		if err != nil {
			withdraw(out, opts)
		}
	}()
	units := m.units()
	mine := opts.Part.share(units)
	size := sizeOf(units, mine)
	opts.Events(Start{In: in, Out: out, Size: size, Files: len(mine)})
	d, err := newDirConversion(ctx, m, out, false, opts)
	if err != nil {
		return nil, stopped(ctx, out, err)
	}
	r, err = d.run(ctx, mine, newOverall(opts.Events, size))
	if err != nil {
		return nil, stopped(ctx, out, err)
	}
	if opts.Finish && len(r.Missing) > 0 {
		return nil, &UnfinishedError{out, r.Missing}
	}
	if r.Manifest != nil {
		opts.Events(Done{In: in, Out: out, Size: int64(r.Manifest.OutputSize())})
	}
	return r, nil
}

// A StoppedError says that work on a folder was interrupted.
type StoppedError struct {
	Out string
	Err error
}

// Error implements error.
func (e *StoppedError) Error() string {
	return e.Out + ": interrupted; finished files stay, and the same command goes on from there"
}

// Unwrap returns the cause.
func (e *StoppedError) Unwrap() error { return e.Err }

// stopped tells errors that only say that the context ended what to do next.
func stopped(ctx context.Context, out string, err error) error {
	if err != nil && ctx.Err() != nil {
		return &StoppedError{out, ctx.Err()}
	}
	return err
}

// openModel reads a model directory, or a split file by its first part.
func openModel(ctx context.Context, in string, opts Options) (*model, error) {
	info, err := os.Stat(in)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return readSplit(in)
	}
	if isHubCache(in) {
		return nil, hubCacheError(in)
	}
	return readModel(ctx, in, opts.Weights)
}

// isHubCache reports whether a folder is that of a repository in a hub cache.
func isHubCache(folder string) bool {
	return isFolder(filepath.Join(folder, "blobs")) && isFolder(filepath.Join(folder, "snapshots"))
}

func hubCacheError(folder string) error {
	return &format.Error{File: folder, Problem: "this is a hub cache, which holds each file of a model under two names",
		Hint: "name one of the folders in " + filepath.Join(folder, "snapshots") + ", or use qinsconv batch"}
}

// IsModel reports whether ConvertDir and not Convert is for what is at path:
// it is a folder, or the first part of a split GGUF file.
func IsModel(path string) bool {
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return err == nil
	}
	return isSplit(path)
}

// vacantFolder makes the output folder where there is none, or returns an error
// where it holds what no conversion to it left.
func vacantFolder(out string, force bool) (made bool, err error) {
	if err := noFile(out); err != nil {
		return false, err
	}
	err = os.Mkdir(out, 0o777)
	if err == nil || !errors.Is(err, fs.ErrExist) || !isFolder(out) {
		return err == nil, err
	}
	if force {
		return false, nil
	}
	if empty, err := isEmpty(out); empty || err != nil {
		return false, err
	}
	// Records are there before any file is. A run that ends or begins turns
	// records into a manifest, or a manifest into records: what was not there
	// may be there now.
	for _, name := range []string{recordsPath, waitingPath, DirManifestName, waitingPath, recordsPath} {
		if _, err := os.Lstat(filepath.Join(out, name)); err == nil {
			return false, nil
		}
	}
	return false, &ExistsError{out}
}

// isEmpty reports whether there is no file below a folder, its state apart:
// folders without files are what an interrupted run may leave.
func isEmpty(folder string) (bool, error) {
	entries, err := os.ReadDir(folder)
	for _, e := range entries {
		if e.Name() == stateFolder {
			continue
		}
		if !e.IsDir() {
			return false, nil
		}
		if empty, err := isEmpty(filepath.Join(folder, e.Name())); !empty || err != nil {
			return false, err
		}
	}
	return err == nil, err
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// A dirConversion is a running conversion of a model directory.
type dirConversion struct {
	m      *model
	out    string
	opts   Options
	shards []*shard
	// loose is set where the files have manifests of their own, and the folder
	// has none.
	loose  bool
	warned bool // that there is a manifest which cannot be believed
	// reopened is set where this run has turned the manifest into records.
	reopened bool
}

// newDirConversion decides about all tensors of a model.
func newDirConversion(ctx context.Context, m *model, out string, loose bool, opts Options) (*dirConversion, error) {
	d := &dirConversion{m: m, out: out, opts: opts, loose: loose}
	for _, w := range m.warnings() {
		opts.Events(w)
	}
	for _, s := range m.sets {
		plans, err := planSet(ctx, m, s, opts)
		if err != nil {
			return nil, err
		}
		for i, p := range plans {
			d.shards = append(d.shards, &shard{plan: p, in: m.path(s.files[i].name), out: filepath.Join(out, filepath.FromSlash(p.out)),
				record: d.record(p.out), inName: s.files[i].name, outName: p.out})
		}
		m.warn(s, plans, opts)
	}
	slices.SortFunc(d.shards, func(a, b *shard) int { return strings.Compare(a.outName, b.outName) })
	return d, nil
}

// warn tells of what a user should know about a set.
func (m *model) warn(s *weightSet, plans []*Plan, opts Options) {
	if s.config.hasQuantization {
		opts.Events(Warning{Message: fmt.Sprintf("%s says that the model is quantized already%s; that is left as it is", path.Join(s.folder, configName), s.config.method())})
	}
	if tie := s.config.tieWordEmbeddings; tie == nil || !*tie {
		return
	}
	for _, p := range plans {
		for i := range p.Tensors {
			if t := &p.Tensors[i]; t.Name == "lm_head.weight" && t.Action != qins.Tied && !slices.ContainsFunc(plans, func(q *Plan) bool { return q.tiesTo(t.Name) }) {
				opts.Events(Warning{File: p.src.Name(), Tensor: t.Name, Message: "the configuration ties it to the embedding, but its bytes are others: both are stored"})
			}
		}
	}
}

func (p *Plan) tiesTo(name string) bool {
	return slices.ContainsFunc(p.Tensors, func(t PlannedTensor) bool { return t.TiedTo == name })
}

// run converts the shards that are mine and not finished, and ends the whole
// where all are.
func (d *dirConversion) run(ctx context.Context, mine []int, progress *overall) (*DirResult, error) {
	done := make([]*Manifest, len(d.shards))
	if d.opts.Finish {
		mine = nil
	}
	var whole *DirManifest
	if !d.opts.Force {
		var err error
		if whole, err = d.recall(ctx, mine, done); err != nil {
			return nil, err
		}
	}
	r := &DirResult{}
	finished := 0
	report := func(i int, status FileStatus) {
		finished++
		m := done[i]
		r.sourceSize += int64(m.Source.Size)
		r.outputSize += int64(m.Output.Size)
		d.opts.Events(FileDone{In: d.shards[i].in, Out: d.shards[i].out, Status: status, Index: finished, Of: len(mine), Tensors: len(m.Tensors),
			SourceBytes: int64(m.Source.Size), OutputBytes: int64(m.Output.Size)})
		progress.advance(d.shards[i].size())
	}
	if !d.opts.Force {
		if err := d.another(whole); err != nil {
			return nil, err
		}
	}
	var todo []int
	for _, i := range mine {
		if done[i] == nil {
			todo = append(todo, i)
			continue
		}
		r.Unchanged++
		report(i, Unchanged)
	}
	if err := d.unobstructed(mine); err != nil {
		return nil, err
	}
	if len(todo) > 0 {
		whole = nil
		if err := d.reopen(ctx); err != nil {
			return nil, err
		}
	}
	for _, i := range todo {
		s := d.shards[i]
		if d.loose && !d.opts.Force && !s.isOurs() {
			return nil, &ExistsError{s.out}
		}
		if err := d.makeFolders(s.outName); err != nil {
			return nil, err
		}
		opts := d.opts
		opts.Events = progress.of(s.size())
		m, err := s.convert(ctx, opts)
		if err != nil {
			return nil, err
		}
		done[i] = m
		r.Converted++
		report(i, Converted)
	}
	return r, d.end(ctx, r, done, whole)
}

// makeFolders makes the folders for an output and its record. That of the state
// comes first: it tells other parts whose folder this is.
func (d *dirConversion) makeFolders(outName string) error {
	folder := path.Dir(outName)
	if !d.loose {
		if err := makeFolder(d.out, path.Join(stateFolder, recordsFolder, folder)); err != nil {
			return err
		}
	}
	return makeFolder(d.out, folder)
}

// end writes what belongs to the whole model, once every file is there. whole is
// the folder's manifest, where that was read already. Until all that it describes
// is there, the manifest waits in the state.
func (d *dirConversion) end(ctx context.Context, r *DirResult, done []*Manifest, whole *DirManifest) error {
	if d.loose {
		return d.missing(ctx, r, done, nil)
	}
	lock, err := lockState(ctx, d.out, "state.lock", lockMode{wait: true})
	if err != nil {
		return err
	}
	defer lock.release()
	if whole == nil || d.opts.shares() { // others may have changed it
		if whole, err = d.whole(); err != nil {
			return err
		}
	}
	if err := d.missing(ctx, r, done, whole.byOutput()); err != nil {
		return err
	}
	if len(r.Missing) > 0 {
		return nil
	}
	m := &DirManifest{Schema: ManifestSchema, Tool: Tool, Files: make([]ManifestFile, len(d.shards))}
	for i, f := range done {
		m.Files[i] = f.ManifestFile
	}
	m.Totals = m.total()
	sides, err := d.sideFiles(ctx)
	if err != nil {
		return err
	}
	m.SideFiles = described(sides)
	text, err := m.seal()
	if err != nil {
		return err
	}
	if whole != nil && m.SelfSHA256 == whole.SelfSHA256 {
		same, err := d.hold(ctx, sides)
		if err != nil {
			return err
		}
		if same {
			if err := d.removeStale(ctx, whole); err != nil {
				return err
			}
			r.Manifest = m
			return nil
		}
	}
	if err := d.removeManifest(ctx, whole); err != nil {
		return err
	}
	if err := d.removeStale(ctx, whole); err != nil {
		return err
	}
	waiting := filepath.Join(d.out, waitingPath)
	if err := writeFile(waiting, text); err != nil {
		return err
	}
	if err := d.carry(ctx, sides); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.Rename(waiting, filepath.Join(d.out, DirManifestName)); err != nil {
		return err
	}
	r.Manifest = m
	return syncDir(d.out)
}
