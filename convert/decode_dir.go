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

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// DecodeDir writes a converted model directory back as what it was: files of
// the source's names and formats, its indices and its configuration. The folder
// appears when all of it is there. Of the options, Jobs, Force and Events have a
// meaning.
func DecodeDir(ctx context.Context, in, out string, opts Options) error {
	opts, err := opts.normalize()
	if err != nil {
		return err
	}
	if info, err := os.Stat(in); err != nil {
		return err
	} else if !info.IsDir() {
		return &format.Error{File: in, Problem: "this is a file, expected the folder of a converted model"}
	}
	if err := separateFolders(in, out); err != nil {
		return err
	}
	d := &dirDecoding{in: in, opts: opts, names: map[string]string{}, listed: map[string]bool{}}
	if err := d.list(ctx); err != nil {
		return err
	}
	if err := d.vacant(out); err != nil {
		return err
	}
	w, err := d.workIn(ctx, out)
	if err != nil {
		return err
	}
	defer w.end()
	opts.Events(Start{In: in, Out: out, Size: d.size, Files: len(d.weights), Tensors: d.tensors})
	if err := d.run(ctx, w.folder); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.vacant(out); err != nil {
		return err
	}
	if err := w.publish(out); err != nil {
		return err
	}
	opts.Events(Done{In: in, Out: out, Size: d.written})
	return nil
}

// A workplace is where a folder is made that is to appear whole: in a hidden
// folder beside its place, or inside of it where there is such a folder already,
// which may be one that cannot be moved.
type workplace struct {
	temp   string // the hidden folder
	folder string // in that, what is made
	lock   *folderLock
	inside bool
}

// workIn makes and locks the workplace for an output. What a killed run left
// there is taken over.
func (d *dirDecoding) workIn(ctx context.Context, out string) (*workplace, error) {
	w := &workplace{temp: tempName(out), inside: isFolder(out)}
	var err error
	if w.inside {
		w.temp = filepath.Join(out, stateFolder)
		w.lock, err = lockFolder(ctx, out, false)
	} else if w.lock, err = lockTemp(ctx, w.temp); errors.Is(err, errLocked) {
		err = fmt.Errorf("%s: another process is writing to this folder (%w)", out, err)
	}
	if err != nil {
		return nil, err
	}
	w.folder = filepath.Join(w.temp, "folder")
	return w, nil
}

// lockTemp makes and locks a hidden folder.
func lockTemp(ctx context.Context, temp string) (*folderLock, error) {
	for {
		if err := os.Mkdir(temp, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if info, err := os.Lstat(temp); err == nil && !info.IsDir() {
			return nil, fmt.Errorf("%s: is in the way of a temporary folder", temp)
		}
		lock, err := lockState(ctx, temp, "lock", lockMode{})
		if !errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
			return lock, err // else another run ended just now and removed the folder
		}
	}
}

// end removes the workplace.
func (w *workplace) end() {
	os.RemoveAll(w.folder)
	w.lock.release()
	os.Remove(w.temp) // if it is empty: another run may have it now
}

// publish gives what was made its place. What is there in the same place goes
// when all of the new is there.
func (w *workplace) publish(out string) error {
	if !w.inside {
		if err := os.Rename(w.folder, out); err != nil {
			return err
		}
		return syncDir(filepath.Dir(out))
	}
	old := filepath.Join(w.temp, "replaced")
	// What a killed run put there was to be replaced by the same files.
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Mkdir(old, 0o777); err != nil {
		return err
	}
	if err := moveAll(out, old, stateFolder); err != nil {
		return errors.Join(err, moveAll(old, out, ""), os.Remove(old))
	}
	if err := moveAll(w.folder, out, ""); err != nil {
		return errors.Join(err, moveAll(out, w.folder, stateFolder), moveAll(old, out, ""), os.Remove(old))
	}
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	return syncDir(out)
}

// moveAll moves what is in one folder, but for one name, to another.
func moveAll(from, to, but string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == but {
			continue
		}
		if err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// dirDecoding is a running decode of a model directory.
type dirDecoding struct {
	in      string
	opts    Options
	weights []decodedFile
	names   map[string]string // of the files that .qins files become
	listed  map[string]bool   // side files of manifests
	side    []string          // slash-separated
	size    int64             // of the .qins files
	tensors int
	written int64 // of decoded weights
}

// A decodedFile is a .qins file and what it becomes.
type decodedFile struct {
	name, out string // slash-separated
	size      int64
	tensors   int
}

func (d *dirDecoding) path(name string) string { return filepath.Join(d.in, filepath.FromSlash(name)) }

// list finds the files of the model, and checks that all are there.
func (d *dirDecoding) list(ctx context.Context) error {
	walk, err := listFolder(ctx, d.in)
	if err != nil {
		return err
	}
	if len(walk.unfinished) > 0 {
		return &format.Error{File: d.path(walk.unfinished[0]), Problem: "its conversion is not finished", Hint: "run it again, or qinsconv batch --finish"}
	}
	files := walk.files
	there := map[string]bool{}
	for _, f := range files {
		there[f.name] = true
	}
	for _, f := range files {
		if path.Base(f.name) == DirManifestName {
			m, err := ReadDirManifest(d.path(f.name))
			if err != nil {
				return err
			}
			if err := d.complete(m, path.Dir(f.name), there); err != nil {
				return err
			}
		}
	}
	for _, f := range files {
		switch base := path.Base(f.name); {
		case path.Ext(base) == qinsExt:
			q, err := qins.Open(d.path(f.name))
			if err != nil {
				return err
			}
			if d.names[f.name] == "" {
				ext := safetensorsExt
				if q.Header().Source.Format == "gguf" {
					ext = ggufExt
				}
				d.names[f.name] = strings.TrimSuffix(f.name, qinsExt) + ext
			}
			d.weights = append(d.weights, decodedFile{f.name, d.names[f.name], f.size, len(q.Tensors())})
			d.tensors += len(q.Tensors())
			d.size += f.size
			q.Close()
		case base == DirManifestName:
		case strings.HasSuffix(base, qinsExt+manifestSuffix) && there[strings.TrimSuffix(f.name, manifestSuffix)] && !d.listed[f.name]:
		default:
			d.side = append(d.side, f.name)
		}
	}
	from := map[string]string{}
	becomes := func(out, name string) error {
		if other, ok := from[out]; ok {
			return &format.Error{File: d.path(name), Problem: path.Base(other) + " becomes a file of the same name", Found: format.Quote(out), Hint: "move one of them elsewhere"}
		}
		from[out] = name
		return nil
	}
	for _, f := range d.weights {
		if err := becomes(f.out, f.name); err != nil {
			return err
		}
	}
	for _, name := range d.side {
		if err := becomes(sideOutput(name), name); err != nil {
			return err
		}
	}
	if len(d.weights) == 0 {
		return &format.Error{File: d.in, Problem: "there are no .qins files"}
	}
	for _, name := range d.side {
		if strings.HasSuffix(name, qinsIndex) {
			x, err := safetensors.ReadIndex(d.path(name))
			if err != nil {
				return err
			}
			for _, file := range x.Files() {
				if !there[sibling(name, file)] {
					return &format.Error{File: x.Name, Problem: "a file that the index names is missing", Found: "no " + file}
				}
			}
		}
	}
	return nil
}

// complete checks that each file is there that a manifest lists, and takes over
// the names that the sources had.
func (d *dirDecoding) complete(m *DirManifest, folder string, there map[string]bool) error {
	names := make([]string, 0, len(m.Files)+len(m.SideFiles))
	for i := range m.Files {
		f := &m.Files[i]
		names = append(names, f.Output.Name)
		d.names[path.Join(folder, f.Output.Name)] = path.Join(folder, f.Source.Name)
	}
	for i := range m.SideFiles {
		names = append(names, m.SideFiles[i].Name)
		d.listed[path.Join(folder, m.SideFiles[i].Name)] = true
	}
	for _, name := range names {
		if !there[path.Join(folder, name)] {
			return &format.Error{File: d.path(path.Join(folder, name)), Problem: "a file that the manifest lists is missing"}
		}
	}
	return nil
}

// outputs returns the names that decoding makes.
func (d *dirDecoding) outputs() map[string]bool {
	names := map[string]bool{}
	for _, f := range d.weights {
		names[f.out] = true
	}
	for _, name := range d.side {
		names[sideOutput(name)] = true
	}
	return names
}

// sideOutput is the decoded name of a side file.
func sideOutput(name string) string {
	if stem, ok := strings.CutSuffix(name, qinsIndex); ok {
		return stem + indexSuffix
	}
	return name
}

// vacant returns an error where the output may not be made. With force a folder
// is replaced that has nothing in it but what will be in the new one.
func (d *dirDecoding) vacant(out string) error {
	if _, err := os.Lstat(out); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	info, err := os.Stat(out)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s: is a file, expected the name of a folder", out)
	}
	if out, err = filepath.EvalSymlinks(out); err != nil { // a walk does not follow them
		return err
	}
	if empty, err := isEmpty(out); empty || err != nil {
		return err
	}
	if !d.opts.Force {
		return &ExistsError{out}
	}
	names := d.outputs()
	return filepath.WalkDir(out, func(full string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			if err == nil && full == filepath.Join(out, stateFolder) {
				return fs.SkipDir
			}
			return err
		}
		name, err := filepath.Rel(out, full)
		if err == nil && (!names[filepath.ToSlash(name)] || !e.Type().IsRegular()) {
			err = fmt.Errorf("%s: the folder has a file that would be lost: %s", out, name)
		}
		return err
	})
}

// run writes all files to a folder, in the place of what a killed run left.
func (d *dirDecoding) run(ctx context.Context, temp string) error {
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := os.Mkdir(temp, 0o777); err != nil {
		return err
	}
	progress := newOverall(d.opts.Events, d.size)
	for i, f := range d.weights {
		if err := makeFolder(temp, path.Dir(f.out)); err != nil {
			return err
		}
		opts := d.opts
		inner := progress.of(f.size)
		var size int64
		opts.Events = func(e Event) {
			if done, ok := e.(Done); ok {
				size = done.Size
			} else if _, ok := e.(Start); !ok {
				inner(e)
			}
		}
		if err := Decode(ctx, d.path(f.name), filepath.Join(temp, filepath.FromSlash(f.out)), opts); err != nil {
			return err
		}
		d.written += size
		d.opts.Events(FileDone{In: d.path(f.name), Out: f.out, Status: Decoded, Index: i + 1, Of: len(d.weights), Tensors: f.tensors, SourceBytes: f.size, OutputBytes: size})
		progress.advance(f.size)
	}
	for _, name := range d.side {
		out := sideOutput(name)
		text, err := d.sideText(name)
		if err != nil {
			return err
		}
		if err := makeFolder(temp, path.Dir(out)); err != nil {
			return err
		}
		if _, err := carry(ctx, filepath.Join(temp, filepath.FromSlash(out)), d.path(name), text); err != nil {
			return err
		}
	}
	return nil
}

// sideText returns what a side file becomes, nil where it stays what it is.
func (d *dirDecoding) sideText(name string) ([]byte, error) {
	switch {
	case strings.HasSuffix(name, qinsIndex):
		x, err := safetensors.ReadIndex(d.path(name))
		if err != nil {
			return nil, err
		}
		text, err := x.Rename(func(file string) string { return d.below(path.Dir(name), d.names[sibling(name, file)]) }).Marshal()
		return text, inFile(err, x.Name)
	case path.Base(name) == configName:
		text, err := readConfigText(d.path(name))
		if err != nil {
			return nil, err
		}
		if out, removed, err := removeQuantization(text); err == nil && removed {
			return out, nil
		}
		// It is none that was changed, whatever it is.
	}
	return nil, nil
}

// below is a name as a folder that it is below has it.
func (d *dirDecoding) below(folder, name string) string {
	if folder == "." {
		return name
	}
	return strings.TrimPrefix(name, folder+"/")
}
