package convert

import (
	"bytes"
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
	"github.com/qinsconv/qinsconv/format/safetensors"
)

// folder checks a converted model directory, or all that are below a folder,
// and loose files there. against is the folder with their sources, in the same
// places; empty where they are not compared.
func (v *verification) folder(ctx context.Context, root, against string) error {
	if against != "" {
		if info, err := os.Stat(against); err != nil {
			return err
		} else if !info.IsDir() {
			return fmt.Errorf("%s: is a file, expected the folder of the sources of %s", against, root)
		}
	}
	walk, err := listFolder(ctx, root)
	if err != nil {
		return v.findError(err)
	}
	list, files := walk.files, 0
	for _, f := range list {
		if path.Ext(f.name) == qinsExt {
			files++
			v.total += f.size
		}
	}
	models := map[string][]folderFile{} // the files of each folder with a manifest
	for _, f := range list {
		if path.Base(f.name) == DirManifestName {
			models[path.Dir(f.name)] = nil
		}
	}
	var loose, indices []folderFile
	for _, f := range list {
		folder := path.Dir(f.name)
		for folder != "." && !has(models, folder) {
			folder = path.Dir(folder)
		}
		if has(models, folder) {
			models[folder] = append(models[folder], f)
		} else if path.Ext(f.name) == qinsExt {
			loose = append(loose, f)
		} else if strings.HasSuffix(f.name, qinsIndex) {
			indices = append(indices, f)
		}
	}
	if len(models) == 0 && len(loose) == 0 {
		return &format.Error{File: root, Problem: "there is nothing converted in this folder", Expected: "a " + DirManifestName + " or .qins files"}
	}
	if has(models, ".") {
		v.report.Manifest = filepath.Join(root, DirManifestName)
	}
	v.opts.Events(Start{In: root, Size: v.total, Files: files})
	join := func(folder, name string) string { return filepath.Join(folder, filepath.FromSlash(name)) }
	var checks []*fileCheck
	for folder, files := range models {
		source := ""
		if against != "" {
			source = join(against, folder)
		}
		list, err := v.model(ctx, join(root, folder), source, folder, files)
		if err != nil {
			return err
		}
		checks = append(checks, list...)
	}
	for _, folder := range walk.unfinished {
		v.find(Differs, join(root, folder), "", "a conversion to this folder is under way or was interrupted: run it again")
	}
	for _, f := range loose {
		c := &fileCheck{verification: v, path: join(root, f.name)}
		if _, err := os.Stat(ManifestPath(c.path)); err == nil {
			c.manifest = ManifestPath(c.path)
		}
		if against != "" {
			c.against = sourceOf(join(against, f.name))
		}
		checks = append(checks, c)
	}
	for _, f := range indices { // without a manifest they say which files there are
		x, err := safetensors.ReadIndex(join(root, f.name))
		if err := v.findError(err); err != nil {
			return err
		}
		if x == nil {
			continue
		}
		for _, file := range x.Files() {
			if _, err := os.Stat(join(root, sibling(f.name, file))); errors.Is(err, fs.ErrNotExist) {
				v.find(Unreadable, x.Name, "", "a file that the index names is missing: %s", file)
			}
		}
	}
	return v.all(ctx, checks)
}

func has(m map[string][]folderFile, folder string) bool {
	_, ok := m[folder]
	return ok
}

// sourceOf is the path of the source of a .qins file, where it has the same name.
func sourceOf(path string) string {
	stem := strings.TrimSuffix(path, qinsExt)
	if _, err := os.Stat(stem + ggufExt); err == nil {
		return stem + ggufExt
	}
	return stem + safetensorsExt
}

// all carries out the checks: several small files at once, a large one by all
// workers.
func (v *verification) all(ctx context.Context, checks []*fileCheck) error {
	slices.SortFunc(checks, func(a, b *fileCheck) int { return strings.Compare(a.path, b.path) })
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(min(v.opts.Jobs, max(len(checks), 1)))
	for _, c := range checks {
		c.jobs = max(v.opts.Jobs/len(checks), 1)
		group.Go(func() error {
			err := c.run(ctx)
			if errors.Is(err, fs.ErrNotExist) {
				v.find(Unreadable, c.path, "", "%v", err)
				return nil
			}
			return err
		})
	}
	return group.Wait()
}

// model checks what a model directory's manifest says of it, and returns the
// checks of its .qins files. files are those that are there, named below the
// folder that verification began with.
func (v *verification) model(ctx context.Context, root, against, folder string, files []folderFile) ([]*fileCheck, error) {
	manifest := filepath.Join(root, DirManifestName)
	v.countManifest()
	m, err := ReadDirManifest(manifest)
	if err != nil {
		return nil, v.findError(err)
	}
	there := map[string]bool{}
	for _, f := range files {
		name := f.name
		if folder != "." {
			name = strings.TrimPrefix(name, folder+"/")
		}
		there[name] = true
	}
	delete(there, DirManifestName)
	var checks []*fileCheck
	for i := range m.Files {
		f := &m.Files[i]
		if !there[f.Output.Name] {
			v.find(Unreadable, filepath.Join(root, filepath.FromSlash(f.Output.Name)), "", "the file is missing")
			continue
		}
		delete(there, f.Output.Name)
		c := &fileCheck{verification: v, path: filepath.Join(root, filepath.FromSlash(f.Output.Name)), manifest: manifest, m: m.file(i), name: f.Output.Name}
		if against != "" {
			c.against = filepath.Join(against, filepath.FromSlash(f.Source.Name))
		}
		checks = append(checks, c)
	}
	for _, f := range m.SideFiles {
		full := filepath.Join(root, filepath.FromSlash(f.Name))
		v.count(0)
		if !there[f.Name] {
			v.find(Unreadable, full, "", "the file is missing")
			continue
		}
		delete(there, f.Name)
		same, err := holds(ctx, full, f)
		if err != nil {
			return nil, err
		}
		if !same {
			v.find(Differs, full, "", "the file is not what the manifest says: %d bytes with SHA-256 %s", f.Size, f.SHA256)
		}
		if strings.HasSuffix(f.Name, qinsIndex) {
			if err := v.index(m, f.Name, full); err != nil {
				return nil, err
			}
		}
	}
	for name := range there {
		v.find(Differs, filepath.Join(root, filepath.FromSlash(name)), "", "the manifest does not list this file")
	}
	if against != "" {
		return checks, v.compareSides(ctx, m, root, against)
	}
	return checks, nil
}

// index checks that the tensors are in the files that an index names.
func (v *verification) index(m *DirManifest, name, full string) error {
	x, err := safetensors.ReadIndex(full)
	if err != nil {
		return v.findError(err)
	}
	// Several models of a folder may have tensors of the same name.
	type tensor struct{ file, name string }
	in := map[tensor]bool{}
	for i := range m.Files {
		for _, t := range m.Files[i].Tensors {
			in[tensor{m.Files[i].Output.Name, t.Name}] = true
		}
	}
	for _, e := range x.Entries {
		if file := path.Join(path.Dir(name), e.Value); !in[tensor{file, e.Key}] {
			v.find(Differs, full, e.Key, "the index says that it is in %s, the manifest does not", format.Quote(file))
		}
	}
	return nil
}

// compareSides compares the files that hold no weights with those of the source.
func (v *verification) compareSides(ctx context.Context, m *DirManifest, root, against string) error {
	walk, err := listFolder(ctx, against)
	if err != nil {
		return v.findError(err)
	}
	carried, converted := map[string]bool{}, map[string]bool{}
	for _, f := range m.SideFiles {
		carried[f.Name] = true
	}
	for i := range m.Files {
		converted[m.Files[i].Source.Name] = true
	}
	for _, f := range walk.files {
		name := f.name
		if strings.HasSuffix(name, indexSuffix) {
			name = strings.TrimSuffix(name, indexSuffix) + qinsIndex
		}
		if isWeights(name) || converted[name] || isTemp(path.Base(name)) {
			continue
		}
		full := filepath.Join(root, filepath.FromSlash(name))
		if !carried[name] {
			if strings.HasSuffix(f.name, indexSuffix) {
				x, err := safetensors.ReadIndex(filepath.Join(against, filepath.FromSlash(f.name)))
				if err != nil {
					return v.findError(err)
				}
				if !slices.ContainsFunc(x.Files(), func(file string) bool { return converted[sibling(f.name, file)] }) {
					continue // of weights that were not chosen
				}
			}
			v.find(Differs, full, "", "the source's %s is not here", f.name)
			continue
		}
		same, err := sameSide(ctx, full, filepath.Join(against, filepath.FromSlash(f.name)))
		if err := v.findError(err); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue // which is found elsewhere
		}
		if !same {
			v.find(Differs, full, "", "the file is not what the source's %s becomes", f.name)
		}
	}
	return nil
}

// sameSide reports whether a side file is what decoding makes the source's of.
func sameSide(ctx context.Context, out, in string) (bool, error) {
	a, err := openFile(out)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := openFile(in)
	if err != nil {
		return false, err
	}
	defer b.Close()
	switch {
	case strings.HasSuffix(out, qinsIndex):
		x, err := safetensors.ReadIndex(out)
		if err != nil {
			return false, err
		}
		y, err := safetensors.ReadIndex(in)
		if err != nil {
			return false, err
		}
		want, err := y.Rename(outputName).Marshal()
		if err != nil {
			return false, err
		}
		got, err := x.Marshal()
		return bytes.Equal(got, want), err
	case filepath.Base(out) == configName:
		got, err := readConfigText(out)
		if err != nil {
			return false, err
		}
		want, err := readConfigText(in)
		if err != nil || bytes.Equal(got, want) {
			return err == nil, err
		}
		got, _, err = removeQuantization(got)
		return bytes.Equal(got, want), inFile(err, out)
	}
	return sameContent(ctx, a, b)
}

func sameContent(ctx context.Context, a, b *reopened) (bool, error) {
	if a.info.Size() != b.info.Size() {
		return false, nil
	}
	const step = 1 << 20
	x, y := make([]byte, step), make([]byte, step)
	for at := int64(0); at < a.info.Size(); at += step {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n := min(step, a.info.Size()-at)
		if _, err := a.ReadAt(x[:n], at); err != nil {
			return false, err
		}
		if _, err := b.ReadAt(y[:n], at); err != nil {
			return false, err
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
	}
	return true, nil
}
