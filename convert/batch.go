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
	"time"

	"github.com/qinsconv/qinsconv/format"
)

// A ModelStatus says what a batch did about a model.
type ModelStatus string

const (
	ModelConverted ModelStatus = "converted"
	ModelUnchanged ModelStatus = "unchanged" // an earlier run had finished it
	ModelPartial   ModelStatus = "partial"   // files are missing that other parts convert
	ModelFailed    ModelStatus = "failed"
)

// ModelDone says what became of one model of a batch.
type ModelDone struct {
	Model      string      `json:"model"` // below the batch's source
	In         string      `json:"in"`
	Out        string      `json:"out"`
	Status     ModelStatus `json:"status"`
	Error      string      `json:"error,omitempty"`
	Index      int         `json:"index"` // from 1
	Of         int         `json:"of"`
	Files      int         `json:"files"`
	SourceSize int64       `json:"source_size"` // of the weights, in bytes
	OutputSize int64       `json:"output_size"`
	Ratio      Figure      `json:"ratio"`
	Seconds    float64     `json:"seconds"`
}

// Kind implements [Event].
func (ModelDone) Kind() string { return "model" }

// A BatchResult lists what became of each model.
type BatchResult struct {
	Models []ModelDone
	Failed int
}

// Batch converts every model below the folder src to the same place below dst:
// model directories, the snapshots of a hub cache, split GGUF files and loose
// files. It goes on after a model that fails. What an earlier run finished is
// not converted again.
func Batch(ctx context.Context, src, dst string, opts Options) (*BatchResult, error) {
	opts, err := opts.normalize()
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(src); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, &OptionError{fmt.Errorf("%s: is a file, expected a folder with models", src)}
	}
	if err := separateFolders(src, dst); err != nil {
		return nil, err
	}
	if err := noFile(dst); err != nil {
		return nil, err
	}
	items, err := findModels(ctx, src, opts)
	if err != nil {
		return nil, err
	}
	b := &batchJob{src: src, dst: dst, opts: opts}
	made := absent(dst)
	if b.bare = opts.Finish && len(made) > 0; !b.bare {
		defer func() {
			for _, folder := range made {
				if opts.shares() || os.Remove(folder) != nil {
					break // another part may be about to use it, or there is something in it
				}
			}
		}()
		if err := os.MkdirAll(dst, 0o777); err != nil {
			return nil, err
		}
		lock, err := lockFolder(ctx, dst, opts.shares())
		if err != nil {
			return nil, err
		}
		defer lock.release()
	}
	b.share(items)
	opts.Events(Start{In: src, Out: dst, Size: b.progress.total, Models: len(b.items), Files: b.files})
	for i := range b.items {
		b.convert(ctx, i)
		if err := ctx.Err(); err != nil {
			return nil, stopped(ctx, dst, err)
		}
	}
	return &b.result, nil
}

// A batchItem is one model of a batch.
type batchItem struct {
	name  string // slash-separated, below the batch's source
	model *model
	loose bool  // files without a folder of their own
	err   error // why it cannot be converted
	mine  map[string]bool
	size  int64 // of the files that are mine
}

// out is the folder for the outputs of the item's files.
func (b *batchItem) out(dst string) string {
	if b.loose {
		return filepath.Join(dst, filepath.FromSlash(path.Dir(b.name)))
	}
	return filepath.Join(dst, filepath.FromSlash(b.name))
}

// A batchJob is a running batch.
type batchJob struct {
	src, dst string
	opts     Options
	items    []*batchItem
	bare     bool // there is no dst, in which to finish anything
	files    int  // that are mine
	progress *overall
	result   BatchResult
}

// share finds the files that fall to this part, over all models together.
func (b *batchJob) share(items []*batchItem) {
	var units []unit
	var owners []*batchItem
	var outs []string
	for _, it := range items {
		it.mine = map[string]bool{}
		if it.model == nil {
			continue
		}
		for _, s := range it.model.sets {
			for _, f := range s.files {
				units = append(units, unit{path.Join(it.name, f.name), f.size})
				owners = append(owners, it)
				outs = append(outs, outputName(f.name))
			}
		}
	}
	total := int64(0)
	for _, i := range b.opts.Part.share(units) {
		owners[i].mine[outs[i]] = true
		owners[i].size += units[i].size
		total += units[i].size
		b.files++
	}
	for i, it := range items {
		// A model that cannot be converted is told of by one part.
		if len(it.mine) > 0 || it.model == nil && (b.opts.Part.isAll() || i%b.opts.Part.Count == b.opts.Part.Index-1) {
			b.items = append(b.items, it)
		}
	}
	b.progress = newOverall(b.opts.Events, total)
}

// convert converts one model and records what became of it.
func (b *batchJob) convert(ctx context.Context, i int) {
	it := b.items[i]
	done := ModelDone{Model: it.name, In: filepath.Join(b.src, filepath.FromSlash(it.name)), Out: it.out(b.dst), Index: i + 1, Of: len(b.items), Files: len(it.mine)}
	before := b.progress.done
	start := time.Now()
	r, err := b.run(ctx, it)
	done.Seconds = time.Since(start).Seconds()
	if err == nil && b.opts.Finish && len(r.Missing) > 0 {
		err = &UnfinishedError{done.Out, r.Missing}
	}
	switch {
	case err != nil:
		done.Status, done.Error = ModelFailed, err.Error()
		b.result.Failed++
		b.progress.advance(before + it.size - b.progress.done)
	case len(r.Missing) > 0:
		done.Status = ModelPartial
	case r.Converted == 0:
		done.Status = ModelUnchanged
	default:
		done.Status = ModelConverted
	}
	if err == nil {
		done.SourceSize, done.OutputSize = r.sourceSize, r.outputSize
		done.Ratio = quotient(float64(done.SourceSize), float64(done.OutputSize))
	}
	b.result.Models = append(b.result.Models, done)
	if ctx.Err() == nil {
		b.opts.Events(done)
	}
}

func (b *batchJob) run(ctx context.Context, it *batchItem) (r *DirResult, err error) {
	if it.err != nil {
		return nil, it.err
	}
	out := it.out(b.dst)
	if b.bare || b.opts.Finish && !isFolder(out) {
		return &DirResult{Missing: it.model.outputs()}, nil
	}
	defer func() {
		for folder := out; err != nil && folder != filepath.Clean(b.dst) && !b.opts.shares(); folder = filepath.Dir(folder) {
			if os.Remove(folder) != nil {
				break // there is something in it
			}
		}
	}()
	if rel, err := filepath.Rel(b.dst, out); err != nil {
		return nil, err
	} else if err := makeFolder(b.dst, filepath.ToSlash(rel)); err != nil {
		return nil, err
	}
	if !it.loose {
		if _, err := vacantFolder(out, b.opts.Force); err != nil {
			return nil, err
		}
		if out != filepath.Clean(b.dst) { // which is locked
			lock, err := lockFolder(ctx, out, b.opts.shares())
			if err != nil {
				return nil, err
			}
			defer lock.release()
		}
		defer func() {
			if err != nil {
				withdraw(out, b.opts)
			}
		}()
	}
	d, err := newDirConversion(ctx, it.model, out, it.loose, b.opts)
	if err != nil {
		return nil, err
	}
	var mine []int
	for i, s := range d.shards {
		if it.mine[s.outName] {
			mine = append(mine, i)
		}
	}
	return d.run(ctx, mine, b.progress)
}

// An UnfinishedError says that files of an output are not there yet.
type UnfinishedError struct {
	Path    string
	Missing []string
}

// Error implements error.
func (e *UnfinishedError) Error() string {
	if len(e.Missing) == 1 {
		return fmt.Sprintf("%s: %s is missing or not up to date: run the part that converts it", e.Path, e.Missing[0])
	}
	return fmt.Sprintf("%s: %d files are missing or not up to date, the first %s: run the parts that convert them", e.Path, len(e.Missing), e.Missing[0])
}

// findModels finds the models below a folder, in the order of their names.
func findModels(ctx context.Context, src string, opts Options) ([]*batchItem, error) {
	f := &finder{src: src, opts: opts}
	real, err := resolve(src)
	if err != nil {
		return nil, err
	}
	if err := f.folder(ctx, ".", []string{real}); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err // which models may have failed by
	}
	if len(f.items) == 0 {
		return nil, fmt.Errorf("%s: there are no models below this folder", src)
	}
	return f.items, nil
}

// A finder looks for models.
type finder struct {
	src   string
	opts  Options
	items []*batchItem
	links linkCounter
}

// modelMarks are files that make a folder with weights a model directory.
var modelMarks = []string{configName, "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}

// folder looks into one folder. open are the folders that lead to it, without
// links.
func (f *finder) folder(ctx context.Context, name string, open []string) error {
	full := filepath.Join(f.src, filepath.FromSlash(name))
	entries, err := os.ReadDir(full)
	if err != nil && name != "." {
		f.items = append(f.items, &batchItem{name: name, err: err}) // the others can be converted
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.links.add(ctx, name, open, len(entries)); err != nil {
		return err
	}
	var weights []string
	isModel, left := false, false
	for _, e := range entries {
		switch {
		case e.Name() == "model_index.json":
			isModel = true // of several models in folders of their own
		case isWeights(e.Name()) && !e.IsDir():
			chosen, err := matches(e.Name(), f.opts.Weights)
			if err != nil {
				return err
			}
			if chosen {
				weights = append(weights, e.Name())
			} else {
				left = true
			}
		}
	}
	for _, e := range entries {
		switch {
		case len(weights) > 0 && slices.Contains(modelMarks, e.Name()):
			isModel = true
		case strings.HasSuffix(e.Name(), indexSuffix) && (len(weights) > 0 || !left):
			isModel = true // its files may be in other folders, or missing
		}
	}
	base := filepath.Base(open[len(open)-1])
	parents := strings.Split(filepath.ToSlash(open[len(open)-1]), "/")
	inSnapshots := len(parents) > 2 && parents[len(parents)-2] == "snapshots" && strings.HasPrefix(parents[len(parents)-3], "models--")
	if isModel || inSnapshots && hasWeights(full, f.opts.Weights) {
		m, err := readModel(ctx, full, f.opts.Weights)
		f.items = append(f.items, &batchItem{name: name, model: m, err: err})
		return nil
	}
	f.loose(name, full, weights)
	for _, e := range entries {
		child := path.Join(name, e.Name())
		info, err := os.Stat(filepath.Join(full, e.Name()))
		if err != nil || !info.IsDir() || ignored(child) || strings.HasPrefix(base, "models--") && e.Name() != "snapshots" {
			continue
		}
		inner, err := enter(filepath.Join(full, e.Name()), e, open)
		if err != nil {
			f.opts.Events(Warning{Message: fmt.Sprintf("passed over: %v", err)})
			continue
		}
		if err := f.folder(ctx, child, inner); err != nil {
			return err
		}
	}
	return nil
}

// loose adds the weights of a folder that is no model directory: each file by
// itself, or with the others of its numbered set.
func (f *finder) loose(name, full string, weights []string) {
	taken := map[string]bool{}
	made := map[string]string{} // the first item that makes each output
	whole := slices.DeleteFunc(slices.Clone(weights), func(w string) bool {
		return path.Ext(w) != safetensorsExt || !strings.HasPrefix(w, consolidatedStem) && !strings.HasPrefix(w, modelStem)
	})
	if err := twice(full, whole); err != nil {
		f.items = append(f.items, &batchItem{name: name, err: err})
		for _, w := range whole {
			taken[w] = true
		}
	}
	for _, w := range weights {
		if taken[w] {
			continue
		}
		names := []string{w}
		if p, ok := part(w); ok {
			names = p.names(full)
			for _, other := range weights {
				if o, ok := part(other); ok && o.fileSet == p.fileSet && !slices.Contains(names, other) {
					names = append(names, other) // whose number is wrong
				}
			}
		}
		m, err := readFiles(full, names)
		for _, n := range names {
			taken[n] = true
			if other, ok := made[outputName(n)]; ok && err == nil {
				m, err = nil, &format.Error{File: filepath.Join(full, n), Problem: "two files would both become " + format.Quote(outputName(n)), Found: other,
					Hint: "choose one of them with --weights GLOB"}
			}
			made[outputName(n)] = n
		}
		f.items = append(f.items, &batchItem{name: path.Join(name, w), model: m, err: err, loose: true})
	}
}

// hasWeights reports whether there are weights anywhere below a folder that the
// patterns choose.
func hasWeights(folder string, patterns []string) bool {
	found := errors.New("found")
	err := filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && isWeights(e.Name()) {
			if chosen, err := matches(e.Name(), patterns); chosen || err != nil {
				return found // or for the patterns to be refused
			}
		}
		return nil
	})
	return err == found
}
