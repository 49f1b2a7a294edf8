package convert

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/qinsconv/qinsconv/format"
)

// A folderFile is a file below a folder.
type folderFile struct {
	name string // slash-separated, below the folder
	size int64
}

// A folderWalk lists what is below a folder. Links to files are followed
// wherever they lead, as the snapshots of a hub cache have them; links to
// folders only inside of the folder.
type folderWalk struct {
	root  string
	files []folderFile
	// unfinished are folders in which the state of a conversion is kept.
	unfinished []string
	visit      func(name string) error
	links      linkCounter
}

// maxLinked is how many files and folders may be listed through links to
// folders. A few folders with links to each other have more ways through them
// than anyone could go.
const maxLinked = 10_000

// A linkCounter bounds the work that listing folders is.
type linkCounter int

// add counts the entries of one more folder, name below the first of open,
// which are the folders that lead to it, without links.
func (c *linkCounter) add(ctx context.Context, name string, open []string, entries int) error {
	if real := open[len(open)-1]; real != filepath.Join(open[0], filepath.FromSlash(name)) {
		if *c += linkCounter(entries); *c > maxLinked {
			return &format.Error{File: open[0], Problem: fmt.Sprintf("links to folders lead to more than %d files and folders", maxLinked), Found: "the last below " + format.Quote(name)}
		}
	}
	return ctx.Err()
}

// listFolder lists the files below a folder, sorted by name within each of its
// folders. What version control and download tools keep there is left out.
func listFolder(ctx context.Context, root string) (*folderWalk, error) {
	return listFolders(ctx, root, func(string) error { return nil })
}

// listFolders is listFolder with a say in which folders there may be.
func listFolders(ctx context.Context, root string, visit func(name string) error) (*folderWalk, error) {
	real, err := resolve(root)
	if err != nil {
		return nil, err
	}
	w := &folderWalk{root: root, visit: visit}
	return w, w.walk(ctx, ".", []string{real})
}

// ignored reports whether a folder holds nothing of a model.
func ignored(name string) bool {
	switch base := path.Base(name); base {
	case ".git", ".cache", stateFolder:
		return true
	default:
		return isTemp(base) // what a killed run left
	}
}

// walk lists one folder. open are the folders that lead to it, without links.
func (w *folderWalk) walk(ctx context.Context, folder string, open []string) error {
	entries, err := os.ReadDir(w.path(folder))
	if err != nil {
		return err
	}
	if err := w.links.add(ctx, folder, open, len(entries)); err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(folder, e.Name())
		full := w.path(name)
		if err := utf8Name(full, name); err != nil {
			return err
		}
		info, err := os.Stat(full)
		if err != nil {
			if to, linkErr := os.Readlink(full); linkErr == nil {
				return &format.Error{File: full, Problem: "the link leads to no file", Found: format.Quote(to), Err: err}
			}
			return err
		}
		switch {
		case info.Mode().IsRegular():
			w.files = append(w.files, folderFile{name, info.Size()})
		case !info.IsDir():
			return &format.Error{File: full, Problem: "this is neither a file nor a folder", Found: info.Mode().Type().String()}
		case path.Base(name) == stateFolder:
			w.unfinished = append(w.unfinished, folder)
		case ignored(name):
		default:
			if err := w.visit(name); err != nil {
				return err
			}
			inner, err := enter(full, e, open)
			if err != nil {
				return err
			}
			if err := w.walk(ctx, name, inner); err != nil {
				return err
			}
		}
	}
	return nil
}

// utf8Name returns an error where a manifest could not hold the name of the file
// at path.
func utf8Name(path, name string) error {
	if !utf8.ValidString(name) {
		return &format.Error{File: path, Problem: "the name is not UTF-8, which a manifest could not hold"}
	}
	return nil
}

// enter adds the folder at full, an entry of the last of the open ones, to
// those. A link must not lead out of the first of them, nor in a circle.
func enter(full string, e fs.DirEntry, open []string) ([]string, error) {
	real := filepath.Join(open[len(open)-1], e.Name())
	if e.Type()&fs.ModeSymlink != 0 {
		var err error
		if real, err = resolve(full); err != nil {
			return nil, err
		}
		if !within(real, open[0]) {
			return nil, &format.Error{File: full, Problem: "the link leads to a folder outside", Found: format.Quote(real), Expected: "a folder below " + format.Quote(open[0])}
		}
		if slices.Contains(open, real) {
			return nil, &format.Error{File: full, Problem: "the link leads to a folder that it is in", Found: format.Quote(real)}
		}
	}
	return append(slices.Clip(open), real), nil
}

func (w *folderWalk) path(name string) string { return filepath.Join(w.root, filepath.FromSlash(name)) }

// within reports whether a clean path is that of a folder or of something
// below it.
func within(path, folder string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// resolve returns a path without links, of which the end need not exist.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for head, tail := path, ""; ; {
		real, err := filepath.EvalSymlinks(head)
		if err == nil {
			return filepath.Join(real, tail), nil
		}
		if parent := filepath.Dir(head); !os.IsNotExist(err) || parent == head {
			return "", err
		} else {
			head, tail = parent, filepath.Join(filepath.Base(head), tail)
		}
	}
}

// separateFolders returns an error where one folder is inside the other, or
// both are one.
func separateFolders(in, out string) error {
	from, err := resolve(in)
	if err != nil {
		return err
	}
	to, err := resolve(out)
	if err != nil {
		return err
	}
	switch {
	case from == to:
		return fmt.Errorf("%s: the output is the input", out)
	case within(to, from):
		return fmt.Errorf("%s: the output is inside the input %s", out, in)
	case within(from, to):
		return fmt.Errorf("%s: the input %s is inside the output", out, in)
	}
	return nil
}

// noFile returns an error where a file stands in the place of an output folder.
func noFile(out string) error {
	if info, err := os.Stat(out); err == nil && !info.IsDir() {
		return fmt.Errorf("%s: is a file, expected the name of a folder", out)
	}
	return nil
}

// absent lists the folders of a path that are not there, the innermost first.
func absent(path string) []string {
	var list []string
	for path = filepath.Clean(path); path != filepath.Dir(path); path = filepath.Dir(path) {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			break
		}
		list = append(list, path)
	}
	return list
}

// makeFolder makes the folder name below root, and those that lead to it. What
// stands in its way, a link included, is an error.
func makeFolder(root, name string) error {
	err := makeFolders(root, name)
	for range 10 {
		if !os.IsNotExist(err) {
			break
		}
		err = makeFolders(root, name) // another run ended just now and removed one
	}
	return err
}

func makeFolders(root, name string) error {
	full := root
	for part := range strings.SplitSeq(name, "/") {
		full = filepath.Join(full, part)
		info, err := os.Lstat(full)
		if os.IsNotExist(err) {
			if err = os.Mkdir(full, 0o777); os.IsExist(err) {
				info, err = os.Lstat(full)
			} else if err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("%s: is in the way of a folder", full)
		}
	}
	return nil
}
