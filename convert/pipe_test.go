//go:build unix

package convert_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
)

// TestPipe names a pipe as a file. Whoever opens one waits for its writer, as
// long as that takes.
func TestPipe(t *testing.T) {
	dir := t.TempDir()
	pipe, out := filepath.Join(dir, "pipe"), filepath.Join(dir, "out")
	if err := syscall.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(pipe, os.O_RDWR, 0) // so that a failing test does not wait
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for what, job := range map[string]func() error{
		"convert": func() error {
			_, err := convert.Convert(t.Context(), pipe, out, convert.Options{})
			return err
		},
		"plan": func() error {
			_, err := convert.NewPlan(t.Context(), pipe, convert.Options{})
			return err
		},
		"decode": func() error { return convert.Decode(t.Context(), pipe, out, convert.Options{}) },
		"inspect": func() error {
			_, err := convert.Inspect(pipe)
			return err
		},
		"verify": func() error {
			r, err := convert.Verify(t.Context(), pipe, convert.VerifyOptions{})
			if err == nil && len(r.Findings) == 1 {
				err = errors.New(r.Findings[0].Message)
			}
			return err
		},
	} {
		if err := job(); err == nil || !strings.Contains(err.Error(), "this is no regular file") {
			t.Errorf("%s: %v", what, err)
		}
	}
	expectFiles(t, dir, "pipe")
}
