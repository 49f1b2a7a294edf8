package convert

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLockFolder(t *testing.T) {
	folder := t.TempDir()
	one, err := lockFolder(t.Context(), folder, true)
	if err != nil {
		t.Fatal(err)
	}
	two, err := lockFolder(t.Context(), folder, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFolder(t.Context(), folder, false); err == nil || !strings.Contains(err.Error(), "another process is writing") {
		t.Errorf("locked alone although others have it: %v", err)
	}
	one.release()
	two.release()
	if entries, err := os.ReadDir(folder); err != nil || len(entries) > 0 {
		t.Errorf("found %v after the last lock, expected nothing (%v)", entries, err)
	}

	// What is no lock of another process is not said to be one.
	if err := os.WriteFile(filepath.Join(folder, stateFolder), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := lockFolder(t.Context(), folder, false); err == nil || strings.Contains(err.Error(), "another process") {
		t.Errorf("with a file in its way: %v", err)
	}
}

// TestReleaseBesideTheNext gives up the lock of a finished folder while another
// run waits for it, whose lock and records it must not take for its own.
func TestReleaseBesideTheNext(t *testing.T) {
	for range 10 {
		dir := t.TempDir()
		records := filepath.Join(dir, recordsPath)
		if err := os.WriteFile(filepath.Join(dir, DirManifestName), nil, 0o666); err != nil {
			t.Fatal(err)
		}
		first, err := lockFolder(t.Context(), dir, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(records, 0o777); err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			if err := os.WriteFile(filepath.Join(records, fmt.Sprint(i)), nil, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		released := make(chan bool)
		go func() {
			first.release()
			close(released)
		}()
		var next *folderLock
		for next == nil {
			if next, err = lockFolder(t.Context(), dir, false); err != nil && !errors.Is(err, errLocked) {
				t.Fatal(err)
			}
		}
		mine := filepath.Join(records, "mine")
		if err := os.MkdirAll(records, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(mine, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		<-released
		for _, path := range []string{mine, next.path} {
			if _, err := os.Lstat(path); err != nil {
				t.Error(err)
			}
		}
		next.release()
		if _, err := os.Lstat(filepath.Join(dir, stateFolder)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the state stays: %v", err)
		}
	}
}
