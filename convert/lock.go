package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// stateFolder is where an unfinished conversion of a folder keeps, in the
// output, what its parts have come to.
const stateFolder = ".qinsconv"

// A folderLock is held while a folder is written to.
type folderLock struct {
	file *os.File
	path string
	// folder is that of whose state this is the lock, empty where it is but of
	// a part of that.
	folder string
}

// lockFolder locks an output folder against other runs: alone, or together with
// those that convert other parts of the same input.
func lockFolder(ctx context.Context, folder string, shared bool) (*folderLock, error) {
	for try := 0; ; try++ {
		l, err := lockState(ctx, folder, "lock", lockMode{shared: shared})
		switch {
		case err == nil:
			l.folder = folder
			return l, nil
		case !errors.Is(err, errLocked):
			return nil, fmt.Errorf("%s: cannot be locked: %w", folder, err)
		case !shared || try == 100:
			return nil, fmt.Errorf("%s: another process is writing to this folder (%w)", folder, err)
		}
		// Another part that ends may have it for itself for a moment.
		time.Sleep(10 * time.Millisecond)
	}
}

// A lockMode says how to take a lock.
type lockMode struct{ shared, wait bool }

// lockState locks a file of the folder's state. Where it is to wait, it waits
// until the context ends.
func lockState(ctx context.Context, folder, name string, mode lockMode) (*folderLock, error) {
	l := &folderLock{path: filepath.Join(folder, stateFolder, name)}
	for {
		if err := makeFolder(folder, stateFolder); err != nil {
			return nil, err
		}
		ok, err := l.try(mode.shared)
		if ok {
			return l, nil
		}
		if err != nil && !(mode.wait && errors.Is(err, errLocked)) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// try takes the lock. It reports false and no error where another run ended
// just now and removed what the lock is on.
func (l *folderLock) try(shared bool) (bool, error) {
	if info, err := os.Lstat(l.path); err == nil && !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s: is in the way of a lock", l.path)
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o666)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	same := false
	if err = lockFile(f, shared); err == nil {
		same, err = stillThere(f, l.path)
	}
	if !same {
		f.Close()
		return false, err
	}
	l.file = f
	return true, nil
}

// stillThere reports whether an open file has its name yet.
func stillThere(f *os.File, path string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, there), err
}

// release gives the lock up and removes what it needed, where nobody else
// holds it. Of a folder that is finished, the whole state goes.
func (l *folderLock) release() {
	if lockFile(l.file, false) != nil {
		l.file.Close()
		return
	}
	state := filepath.Dir(l.path)
	if _, err := os.Lstat(filepath.Join(l.folder, DirManifestName)); err == nil && l.folder != "" {
		entries, _ := os.ReadDir(state)
		for _, e := range entries {
			// The lock goes last: who makes it anew has the folder.
			if path := filepath.Join(state, e.Name()); path != l.path {
				os.RemoveAll(path)
			}
		}
	}
	_ = removeLocked(l.file, l.path)
	os.Remove(state) // if it is empty
}

// removeLocked removes a file that is open and locked, and closes it.
func removeLocked(f *os.File, path string) error {
	if runtime.GOOS == "windows" {
		f.Close() // an open file cannot be removed there
	}
	err := os.Remove(path)
	f.Close()
	return err
}
