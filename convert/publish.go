package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// An ExistsError says that an output is already there.
type ExistsError struct{ Path string }

// Error implements error.
func (e *ExistsError) Error() string {
	return e.Path + ": the output exists already (use --force to replace it)"
}

// An output is a file that appears under its name whole or not at all. Until
// then it is a hidden file in the same folder, locked, so that two processes
// with the same output do not meet, and that what a killed one left is taken
// over by the next.
type output struct {
	*os.File
	final, temp string
	force       bool
	closed      bool
}

const tempSuffix = ".qinsconv-tmp"

// tempName is the name that a file or folder has until it is finished.
func tempName(path string) string {
	dir, base := filepath.Split(filepath.Clean(path))
	const longest = 200 // with the rest, file systems take 255 bytes
	if len(base) > longest {
		base = sumOf([]byte(base))
	}
	return filepath.Join(dir, "."+base+tempSuffix)
}

// isTemp reports whether the name is one that tempName gives.
func isTemp(base string) bool {
	return strings.HasPrefix(base, ".") && strings.HasSuffix(base, tempSuffix)
}

// create opens the temporary file for an output, with no more than those
// permissions but what it takes to write it.
func create(path string, force bool, perm fs.FileMode) (*output, error) {
	dir, _ := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("output folder: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("output folder: %s: not a directory", dir)
	}
	o := &output{final: path, temp: tempName(path), force: force}
	if err := o.vacant(); err != nil {
		return nil, err
	}
	for {
		if err := o.open(perm | 0o600); err != nil {
			return nil, err
		}
		if o.File != nil {
			break
		}
	}
	if err := o.File.Truncate(0); err != nil {
		o.discard()
		return nil, err
	}
	restrict(o.temp, perm|0o600) // which a killed run left
	return o, nil
}

// open opens and locks the temporary file: a new one, or what a killed run left.
// It leaves File nil where another run ended just now and took that away.
func (o *output) open(perm fs.FileMode) error {
	inTheWay := func(why any) error {
		return fmt.Errorf("%s: is in the way of a temporary file: %v", o.temp, why)
	}
	f, err := os.OpenFile(o.temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	made := err == nil
	if errors.Is(err, fs.ErrExist) {
		info, err := os.Lstat(o.temp)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !info.Mode().IsRegular() {
			return inTheWay("it is no regular file")
		}
		if f, err = os.OpenFile(o.temp, os.O_RDWR, 0); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return inTheWay(err)
		}
	} else if err != nil {
		return o.named(err)
	}
	if err := lockFile(f, false); err != nil {
		if errors.Is(err, errLocked) {
			f.Close()
			return fmt.Errorf("%s: another process is writing this output (%w)", o.final, err)
		}
		if made {
			_ = removeLocked(f, o.temp)
		}
		f.Close()
		return fmt.Errorf("%s: cannot be locked: %w", o.temp, err)
	}
	// The file may have been published or removed before it was locked.
	same, err := stillThere(f, o.temp)
	if err == nil && same && !made && !isOnlyOurs(f) {
		// Whoever it belongs to, or whatever other name it has, could change what is
		// published.
		if err := removeLocked(f, o.temp); err != nil {
			return inTheWay(err)
		}
		return nil
	}
	if err != nil || !same {
		f.Close()
		return err
	}
	o.File = f
	return nil
}

// vacant returns an error where the output may not be written.
func (o *output) vacant() error {
	info, err := os.Lstat(o.final)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		// A link is replaced, but not one to what is there for a purpose.
		if info, err = os.Stat(o.final); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	switch {
	case info != nil && info.IsDir():
		return fmt.Errorf("%s: is a directory, expected the name of a file", o.final)
	case info != nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s: is no regular file, expected the name of one", o.final)
	case !o.force:
		return &ExistsError{o.final}
	}
	return nil
}

// WriteAt implements io.WriterAt.
func (o *output) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.File.WriteAt(p, off)
	return n, o.named(err)
}

// Sync has the file reach the disk.
func (o *output) Sync() error { return o.named(o.File.Sync()) }

// named gives an error about the temporary file the name that was asked for.
func (o *output) named(err error) error {
	if at, ok := err.(*fs.PathError); ok {
		return &fs.PathError{Op: at.Op, Path: o.final, Err: at.Err}
	}
	return err
}

// discard removes the temporary file, unless it was published.
func (o *output) discard() {
	if o.closed {
		return
	}
	o.closed = true
	_ = removeLocked(o.File, o.temp)
}

// rename gives the finished file its name.
func (o *output) rename() error {
	if err := o.vacant(); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		o.Close() // an open file cannot be renamed there
	}
	if err := os.Rename(o.temp, o.final); err != nil {
		return err
	}
	o.closed = true
	if runtime.GOOS != "windows" {
		o.Close()
	}
	return nil
}

// publish gives finished and synced files their names, the first one's being
// what the others describe. A file never stands beside an older description:
// those are removed first.
func publish(first *output, others ...*output) error {
	if err := first.vacant(); err != nil {
		return err
	}
	for _, o := range others {
		if err := o.vacant(); err != nil {
			return err
		}
		if err := os.Remove(o.final); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for i, o := range append([]*output{first}, others...) {
		if err := o.rename(); err != nil {
			if i > 0 {
				os.Remove(first.final) // it is whole, but not described
			}
			return err
		}
	}
	var synced []string
	for _, o := range append([]*output{first}, others...) {
		if dir := filepath.Dir(o.final); !slices.Contains(synced, dir) {
			if err := syncDir(dir); err != nil {
				return err
			}
			synced = append(synced, dir)
		}
	}
	return nil
}
