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

	"golang.org/x/sync/errgroup"

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
	made, err := vacantFolder(out, opts.Force)
	if err != nil {
		return nil, err
	}
	defer func() {
		if made && err != nil {
			os.Remove(out) // if nothing came of it
		}
	}()
	lock, err := lockFolder(out, opts.shares())
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
	if info.IsDir() {
		return readModel(ctx, in, opts.Weights)
	}
	return readSplit(in)
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
	entries, err := os.ReadDir(out)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(out, 0o777); errors.Is(err, fs.ErrExist) && isFolder(out) {
			return false, nil // another part was quicker
		}
		return err == nil, err
	}
	if err != nil || len(entries) == 0 || force {
		return false, err
	}
	for _, name := range []string{stateFolder, DirManifestName} {
		if _, err := os.Lstat(filepath.Join(out, name)); err == nil {
			return false, nil
		}
	}
	return false, &ExistsError{out}
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// withdraw removes the state of a conversion that failed before anything was
// finished. Where there are other parts, those may be about to use it.
func withdraw(out string, opts Options) {
	if !opts.shares() {
		removeEmpty(filepath.Join(out, stateFolder))
	}
}

// removeEmpty removes a folder in which there are only folders, and those of its
// folders of which that is true.
func removeEmpty(folder string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeEmpty(filepath.Join(folder, e.Name()))
		}
	}
	os.Remove(folder)
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

// record is where the manifest of a finished file is kept until all are.
func (d *dirConversion) record(outName string) string {
	if d.loose {
		return ManifestPath(filepath.Join(d.out, filepath.FromSlash(outName)))
	}
	return filepath.Join(d.out, stateFolder, recordsFolder, filepath.FromSlash(outName)+manifestSuffix)
}

// recordsFolder is where, in the state, the manifests of finished files are.
const recordsFolder = "files"

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
				opts.Events(Warning{Tensor: t.Name, Message: "the configuration ties it to the embedding, but its bytes are others: both are stored"})
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
	var todo []int
	for _, i := range mine {
		if done[i] == nil {
			todo = append(todo, i)
			continue
		}
		r.Unchanged++
		report(i, Unchanged)
	}
	if len(todo) > 0 {
		whole = nil
		if err := d.reopen(ctx); err != nil {
			return nil, err
		}
	}
	for _, i := range todo {
		s := d.shards[i]
		if d.loose && !d.opts.Force {
			if _, err := os.Lstat(s.out); err == nil && !isQINSFile(s.out) {
				return nil, &ExistsError{s.out} // it is not what an earlier run left
			}
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

// recall finds out which shards an earlier run finished, and returns the
// folder's manifest.
func (d *dirConversion) recall(ctx context.Context, mine []int, done []*Manifest) (*DirManifest, error) {
	manifest, err := d.whole()
	if err != nil {
		return nil, err
	}
	whole := manifest.byOutput()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(d.opts.Jobs)
	for _, i := range mine {
		s := d.shards[i]
		m := whole[s.outName]
		group.Go(func() error {
			if m == nil {
				var err error
				if m, err = s.recorded(); m == nil || err != nil {
					return err
				}
			}
			ok, err := s.finished(ctx, m, false)
			if ok {
				done[i] = m
			}
			return err
		})
	}
	return manifest, group.Wait()
}

// whole returns the folder's manifest, nil where there is none, or none that can
// be believed.
func (d *dirConversion) whole() (*DirManifest, error) {
	if d.loose {
		return nil, nil
	}
	whole, err := ReadDirManifest(filepath.Join(d.out, DirManifestName))
	var bad *format.Error
	switch {
	case errors.As(err, &bad):
		if !d.warned {
			d.warned = true
			d.opts.Events(Warning{Message: fmt.Sprintf("%v: all files are converted again", bad)})
		}
		return nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return whole, nil
}

// byOutput returns what a manifest, which may be nil, says of each output.
func (m *DirManifest) byOutput() map[string]*Manifest {
	if m == nil {
		return nil
	}
	files := make(map[string]*Manifest, len(m.Files))
	for i := range m.Files {
		files[m.Files[i].Output.Name] = m.file(i)
	}
	return files
}

// reopen makes a folder that was finished one that is not: it has no manifest,
// but what that says of each file.
func (d *dirConversion) reopen(ctx context.Context) error {
	if d.loose {
		return nil
	}
	lock, err := lockState(d.out, "state.lock", lockMode{wait: true})
	if err != nil {
		return err
	}
	defer lock.release()
	path := filepath.Join(d.out, DirManifestName)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	whole, err := d.whole()
	if err != nil {
		return err
	}
	files := whole.byOutput()
	for _, s := range d.shards {
		m := files[s.outName]
		if m == nil {
			continue
		}
		if err := d.makeFolders(s.outName); err != nil {
			return err
		}
		text, err := m.seal()
		if err != nil {
			return err
		}
		if err := writeFile(s.record, text); err != nil {
			return err
		}
	}
	if err := d.removeStale(ctx, whole); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return syncDir(d.out)
}

// removeStale removes what earlier runs made of files that the source has no
// longer: what a manifest lists, which may be nil, and what was finished without
// one.
func (d *dirConversion) removeStale(ctx context.Context, whole *DirManifest) error {
	made := map[string]bool{DirManifestName: true}
	for _, s := range d.shards {
		made[s.outName] = true
	}
	for _, f := range d.m.side {
		name, _, err := d.sideFile(f.name)
		if err != nil {
			return err
		}
		made[name] = true
	}
	var stale []string
	if whole != nil {
		for i := range whole.Files {
			stale = append(stale, whole.Files[i].Output.Name)
		}
		for _, f := range whole.SideFiles {
			// What somebody changed since then stays.
			if made[f.Name] {
				continue
			}
			same, err := holds(ctx, filepath.Join(d.out, filepath.FromSlash(f.Name)), f)
			if err != nil {
				return err
			}
			if same {
				stale = append(stale, f.Name)
			}
		}
	}
	records := filepath.Join(d.out, stateFolder, recordsFolder)
	err := filepath.WalkDir(records, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(records, path)
		if err != nil {
			return err
		}
		if name, ok := strings.CutSuffix(filepath.ToSlash(name), manifestSuffix); ok {
			stale = append(stale, name)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range stale {
		if !made[name] {
			if err := removeFile(d.out, name); err != nil {
				return err
			}
		}
	}
	return d.removeTemps(made)
}

// removeTemps removes temporary files that killed runs left and that this one
// had no need to take over.
func (d *dirConversion) removeTemps(made map[string]bool) error {
	return filepath.WalkDir(d.out, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && e.Name() == stateFolder {
			return fs.SkipDir
		}
		if !e.Type().IsRegular() || !strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), tempSuffix) {
			return nil
		}
		name, err := filepath.Rel(d.out, path)
		if err != nil || made[filepath.ToSlash(name)] {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another part has given it its name
		}
		if err != nil {
			return err
		}
		defer f.Close()
		if lockFile(f, lockMode{}) != nil {
			return nil // another part writes it
		}
		if same, err := stillThere(f, path); !same || err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// removeFile removes a file below a folder, and the folders that become empty by
// it. It does not follow links.
func removeFile(root, name string) error {
	for folder := path.Dir(name); folder != "."; folder = path.Dir(folder) {
		if info, err := os.Lstat(filepath.Join(root, filepath.FromSlash(folder))); err != nil || !info.IsDir() {
			return nil // it is not there
		}
	}
	full := filepath.Join(root, filepath.FromSlash(name))
	if info, err := os.Lstat(full); err != nil || info.IsDir() {
		return nil
	}
	if err := os.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for folder := path.Dir(name); folder != "."; folder = path.Dir(folder) {
		if os.Remove(filepath.Join(root, filepath.FromSlash(folder))) != nil {
			break // there is something in it
		}
	}
	return nil
}

// end writes what belongs to the whole model, once every file is there. whole is
// the folder's manifest, where that was read already.
func (d *dirConversion) end(ctx context.Context, r *DirResult, done []*Manifest, whole *DirManifest) error {
	if d.loose {
		return d.missing(ctx, r, done, nil)
	}
	lock, err := lockState(d.out, "state.lock", lockMode{wait: true})
	if err != nil {
		return err
	}
	defer lock.release()
	if whole == nil {
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
	if err := d.removeStale(ctx, whole); err != nil {
		return err
	}
	m := &DirManifest{Schema: ManifestSchema, Tool: Tool, Files: make([]ManifestFile, len(d.shards)), SideFiles: []SideFile{}}
	for i, f := range done {
		m.Files[i] = f.ManifestFile
	}
	if m.SideFiles, err = d.sideFiles(ctx); err != nil {
		return err
	}
	m.Totals = m.total()
	text, err := m.seal()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(d.out, DirManifestName), text); err != nil {
		return err
	}
	r.Manifest = m
	return d.clear()
}

// missing finds the manifests of files that other parts finished, of which whole
// may have some, and lists the files that are not finished.
func (d *dirConversion) missing(ctx context.Context, r *DirResult, done []*Manifest, files map[string]*Manifest) error {
	for i, s := range d.shards {
		if done[i] != nil {
			continue
		}
		m := files[s.outName]
		if m == nil {
			var err error
			if m, err = s.recorded(); err != nil {
				return err
			}
		}
		if m != nil {
			ok, err := s.finished(ctx, m, true)
			if other := (*OptionsDifferError)(nil); err != nil && !(d.opts.Force && errors.As(err, &other)) {
				return err
			}
			if ok {
				done[i] = m
				if d.opts.Finish {
					r.sourceSize += int64(m.Source.Size)
					r.outputSize += int64(m.Output.Size)
				}
				continue
			}
		}
		r.Missing = append(r.Missing, s.outName)
	}
	return nil
}

// clear removes what only an unfinished conversion needs.
func (d *dirConversion) clear() error {
	return os.RemoveAll(filepath.Join(d.out, stateFolder, recordsFolder))
}
