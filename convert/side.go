package convert

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// A carried file is a side file and where it comes from.
type carried struct {
	SideFile
	in   string // path
	text []byte // what it holds; nil where that is what the source holds
}

// sideFiles lists what holds no weights as it will be carried over, sorted by
// name.
func (d *dirConversion) sideFiles(ctx context.Context) ([]carried, error) {
	var list []carried
	for _, f := range d.m.side {
		name, ok := d.sideName(f.name)
		if !ok {
			continue
		}
		text, err := d.sideText(f.name)
		if err != nil {
			return nil, err
		}
		side := carried{SideFile{Name: name, Size: uint64(len(text)), SHA256: sumOf(text)}, d.m.path(f.name), text}
		if text == nil {
			if side.Size, side.SHA256, err = hashPath(ctx, side.in); err != nil {
				return nil, err
			}
		}
		list = append(list, side)
	}
	slices.SortFunc(list, func(a, b carried) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// described lists side files as a manifest has them.
func described(sides []carried) []SideFile {
	list := make([]SideFile, len(sides))
	for i := range sides {
		list[i] = sides[i].SideFile
	}
	return list
}

// hashPath returns the size and SHA-256 of a file.
func hashPath(ctx context.Context, path string) (uint64, string, error) {
	file, err := openFile(path)
	if err != nil {
		return 0, "", err
	}
	defer file.Close()
	size := file.info.Size()
	sum, err := hashFile(ctx, file, size, path)
	return uint64(size), sum, err
}

// hold reports whether all these files are there. Of those, permissions are taken
// that the originals do not give.
func (d *dirConversion) hold(ctx context.Context, sides []carried) (bool, error) {
	for _, f := range sides {
		full := filepath.Join(d.out, filepath.FromSlash(f.Name))
		if same, err := holds(ctx, full, f.SideFile); !same || err != nil {
			return false, err
		}
		info, err := os.Stat(f.in)
		if err != nil {
			return false, err
		}
		restrict(full, info.Mode().Perm()|0o400)
	}
	return true, nil
}

// carry carries side files over.
func (d *dirConversion) carry(ctx context.Context, sides []carried) error {
	for _, f := range sides {
		if err := makeFolder(d.out, path.Dir(f.Name)); err != nil {
			return err
		}
		made, err := carry(ctx, filepath.Join(d.out, filepath.FromSlash(f.Name)), f.in, f.text)
		if err != nil {
			return err
		}
		if made.Size != f.Size || made.SHA256 != f.SHA256 {
			return &format.Error{File: f.in, Problem: "the file changed while it was read"}
		}
	}
	return nil
}

// carry publishes a copy of a file at out, or the text where there is one. It has
// the permissions of the file.
func carry(ctx context.Context, out, in string, text []byte) (SideFile, error) {
	if text != nil {
		info, err := os.Stat(in)
		if err != nil {
			return SideFile{}, err
		}
		return copyFile(ctx, out, bytes.NewReader(text), int64(len(text)), in, info.Mode())
	}
	file, err := openFile(in)
	if err != nil {
		return SideFile{}, err
	}
	defer file.Close()
	side, err := copyFile(ctx, out, file, file.info.Size(), in, file.info.Mode())
	if err != nil {
		return SideFile{}, err
	}
	info, err := os.Stat(in)
	if err != nil {
		return SideFile{}, err
	}
	return side, file.same(info)
}

// sideName returns the name of a side file in the output. ok is false where it
// has no place there: an index of weights that were not chosen.
func (d *dirConversion) sideName(name string) (out string, ok bool) {
	stem, isIndex := strings.CutSuffix(name, indexSuffix)
	if !isIndex {
		return name, true
	}
	return stem + qinsIndex, d.index(name) != nil
}

// index returns the index of that name of the weights that are converted, nil
// where there is none.
func (d *dirConversion) index(name string) *safetensors.Index {
	for _, s := range d.m.sets {
		for _, x := range s.indices {
			if x.Name == d.m.path(name) {
				return x
			}
		}
	}
	return nil
}

// sideText returns what a side file becomes, nil where it stays what it is.
func (d *dirConversion) sideText(name string) ([]byte, error) {
	if x := d.index(name); x != nil {
		return x.Rename(outputName).Marshal()
	}
	for _, s := range d.m.sets {
		if s.gguf || name != path.Join(s.folder, configName) || s.config.hasQuantization || s.unread != nil {
			continue
		}
		text, err := readConfigText(d.m.path(name))
		if err != nil {
			return nil, err
		}
		text, err = addQuantization(text, quantizationConfig{QuantMethod: quantMethod, Version: qins.Version, Layout: string(d.opts.Layout), Codec: d.opts.Codec})
		return text, inFile(err, d.m.path(name))
	}
	return nil, nil
}

// writeFile publishes a file with the given bytes, unless it is there already.
func writeFile(path string, text []byte) error {
	_, err := copyFile(context.Background(), path, bytes.NewReader(text), int64(len(text)), path, 0o666)
	return err
}

// copyFile publishes a copy of what from holds, unless it is there already.
// Errors give what is read that name. Those who may not read or write the
// original may not do so with the copy.
func copyFile(ctx context.Context, path string, from io.ReaderAt, size int64, name string, mode fs.FileMode) (SideFile, error) {
	perm := mode.Perm() | 0o400 // so that it can be read again
	sum, err := hashFile(ctx, from, size, name)
	if err != nil {
		return SideFile{}, err
	}
	copied := SideFile{Size: uint64(size), SHA256: sum}
	if same, err := holds(ctx, path, copied); same || err != nil {
		if same {
			restrict(path, perm)
		}
		return copied, err
	}
	o, err := create(path, true, perm)
	if err != nil {
		return SideFile{}, err
	}
	defer o.discard()
	if _, err := io.Copy(io.NewOffsetWriter(o, 0), stoppable{ctx, io.NewSectionReader(from, 0, size)}); err != nil {
		return SideFile{}, err
	}
	if err := o.Sync(); err != nil {
		return SideFile{}, err
	}
	if err := publish(o); err != nil {
		return SideFile{}, err
	}
	restrict(path, perm) // it could be written to until now
	return copied, nil
}

// restrict takes permissions from a file that are not among those. A file system
// that refuses has its own idea of them, and Windows knows but one.
func restrict(path string, perm fs.FileMode) {
	if runtime.GOOS == "windows" {
		return
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&^perm != 0 {
		_ = os.Chmod(path, info.Mode().Perm()&perm)
	}
}

// A stoppable reader ends with its context.
type stoppable struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (s stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}

// holds reports whether there is a file at path with that size and sum.
func holds(ctx context.Context, path string, want SideFile) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || uint64(info.Size()) != want.Size) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	sum, err := hashFile(ctx, f, info.Size(), path)
	var bad *format.Error
	if errors.As(err, &bad) {
		return false, nil // it has become shorter
	}
	return err == nil && sum == want.SHA256, err
}
