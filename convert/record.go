package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/qinsconv/qinsconv/format"
)

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

// record is where the manifest of a finished file is kept until all are.
func (d *dirConversion) record(outName string) string {
	if d.loose {
		return ManifestPath(filepath.Join(d.out, filepath.FromSlash(outName)))
	}
	return filepath.Join(d.out, recordsPath, filepath.FromSlash(outName)+manifestSuffix)
}

// recordsFolder is where, in the state, the manifests of finished files are.
const recordsFolder = "files"

// recordsPath is that folder in an output.
var recordsPath = filepath.Join(stateFolder, recordsFolder)

// waitingPath is where, in an output, a folder's manifest is while the folder is
// not, or no longer, what it says.
var waitingPath = filepath.Join(stateFolder, DirManifestName)

// recall finds out which shards an earlier run finished, and returns the
// folder's manifest.
func (d *dirConversion) recall(ctx context.Context, mine []int, done []*Manifest) (*DirManifest, error) {
	manifest, err := d.whole()
	if err != nil {
		return nil, err
	}
	whole := manifest.byOutput()
	var total, read int64
	for _, i := range mine {
		total += d.shards[i].size()
	}
	var mu sync.Mutex
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
			mu.Lock()
			defer mu.Unlock()
			read += s.size()
			d.opts.Events(Progress{Phase: "resume", Done: read, Total: total})
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

// another returns an error where the folder holds another model, or what is
// finished of one: one none of whose files has the name of one of this.
func (d *dirConversion) another(whole *DirManifest) error {
	from := map[string]string{} // the source of each output, empty where only that is known
	if whole != nil {
		for i := range whole.Files {
			from[whole.Files[i].Output.Name] = whole.Files[i].Source.Name
		}
	} else if !d.loose {
		names, err := d.recordedNames()
		if err != nil {
			return err
		}
		for _, name := range names {
			from[name] = ""
		}
	}
	for _, s := range d.shards {
		if in, ok := from[s.outName]; ok && (in == "" || in == s.inName) {
			return nil
		}
	}
	if len(from) == 0 {
		return nil
	}
	return &ExistsError{d.out}
}

// unobstructed returns an error where a folder is in the way of a file of the
// output, before any work is done.
func (d *dirConversion) unobstructed(mine []int) error {
	var names []string
	for _, i := range mine {
		names = append(names, d.shards[i].outName)
	}
	for _, f := range d.m.side {
		if name, ok := d.sideName(f.name); ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		full := filepath.Join(d.out, filepath.FromSlash(name))
		if info, err := os.Lstat(full); err == nil && info.IsDir() {
			return fmt.Errorf("%s: is a directory, expected the name of a file", full)
		}
	}
	return nil
}

// reopen makes a folder that was finished one that is not: it has no manifest,
// but what that says of each file.
func (d *dirConversion) reopen(ctx context.Context) error {
	if d.loose {
		return nil
	}
	lock, err := lockState(ctx, d.out, "state.lock", lockMode{wait: true})
	if err != nil {
		return err
	}
	defer lock.release()
	if _, err := os.Lstat(filepath.Join(d.out, DirManifestName)); errors.Is(err, fs.ErrNotExist) {
		return nil // other parts may be at work already
	}
	whole, err := d.whole()
	if err != nil {
		return err
	}
	if err := d.removeManifest(ctx, whole); err != nil {
		return err
	}
	d.reopened = whole != nil
	return d.removeStale(ctx, whole)
}

// removeManifest turns the folder's manifest, if there is one, into records. It
// is nil where it cannot be believed. What it says of other files waits in the
// state, for removeStale.
func (d *dirConversion) removeManifest(ctx context.Context, whole *DirManifest) error {
	manifest := filepath.Join(d.out, DirManifestName)
	if _, err := os.Lstat(manifest); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for name, m := range whole.byOutput() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.makeFolders(name); err != nil {
			return err
		}
		text, err := m.seal()
		if err != nil {
			return err
		}
		// One that another part is writing is that of a file which it converts again.
		if err := writeFile(d.record(name), text); err != nil && !errors.Is(err, errLocked) {
			return err
		}
	}
	if err := makeFolder(d.out, stateFolder); err != nil {
		return err
	}
	if err := os.Rename(manifest, filepath.Join(d.out, waitingPath)); err != nil {
		return err
	}
	return syncDir(d.out)
}

// removeStale removes what earlier runs made of files that the source has no
// longer: what a manifest lists, which may be nil, or one that waits, and what was
// finished without one.
func (d *dirConversion) removeStale(ctx context.Context, whole *DirManifest) error {
	if whole == nil && !d.reopened { // or it was looked at then
		waiting, err := ReadDirManifest(filepath.Join(d.out, waitingPath))
		var bad *format.Error
		switch {
		case err == nil:
			whole = waiting
		case !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &bad):
			return err
		}
	}
	made := map[string]bool{DirManifestName: true}
	for _, s := range d.shards {
		made[s.outName] = true
	}
	for _, f := range d.m.side {
		if name, ok := d.sideName(f.name); ok {
			made[name] = true
		}
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
	names, err := d.recordedNames()
	if err != nil {
		return err
	}
	stale = append(stale, names...)
	for _, name := range stale {
		if !made[name] {
			if err := removeFile(d.out, name); err != nil {
				return err
			}
		}
	}
	return d.removeTemps(made)
}

// recordedNames lists the outputs that there are records of.
func (d *dirConversion) recordedNames() ([]string, error) {
	var names []string
	records := filepath.Join(d.out, recordsPath)
	err := filepath.WalkDir(records, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // there are none
		}
		if err != nil || !e.Type().IsRegular() || isTemp(e.Name()) {
			return err
		}
		name, err := filepath.Rel(records, path)
		if name, ok := strings.CutSuffix(filepath.ToSlash(name), manifestSuffix); ok {
			names = append(names, name)
		}
		return err
	})
	return names, err
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
		if !e.Type().IsRegular() || !isTemp(e.Name()) {
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
		if lockFile(f, false) != nil {
			return nil // another part writes it
		}
		if same, err := stillThere(f, path); !same || err != nil {
			return err
		}
		if err := removeLocked(f, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// missing finds the manifests of files that other parts finished, of which
// files may have some, and lists the outputs that are not finished. Whoever
// only finishes reads all outputs.
func (d *dirConversion) missing(ctx context.Context, r *DirResult, done []*Manifest, files map[string]*Manifest) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(d.opts.Jobs)
	for i, s := range d.shards {
		if done[i] != nil {
			continue
		}
		group.Go(func() (err error) {
			m := files[s.outName]
			if m == nil {
				if m, err = s.recorded(); m == nil || err != nil {
					return err
				}
			}
			ok, err := s.finished(ctx, m, !d.opts.Finish)
			if other := (*OptionsDifferError)(nil); d.opts.Force && errors.As(err, &other) {
				return nil
			}
			if ok {
				done[i] = m
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, s := range d.shards {
		if m := done[i]; m == nil {
			r.Missing = append(r.Missing, s.outName)
		} else if d.opts.Finish {
			r.sourceSize += int64(m.Source.Size)
			r.outputSize += int64(m.Output.Size)
		}
	}
	return nil
}
