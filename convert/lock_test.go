package convert

import (
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
