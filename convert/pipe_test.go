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
	"github.com/qinsconv/qinsconv/fixtures"
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

	// A manifest may be one as well, or stand beside one.
	source, whole := filepath.Join(dir, "in.safetensors"), filepath.Join(dir, "whole.qins")
	if err := os.WriteFile(source, fixtures.Small(fixtures.TieOffset), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := convert.Convert(t.Context(), source, whole, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(convert.ManifestPath(whole))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(convert.ManifestPath(pipe), manifest, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(convert.ManifestPath(whole)); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(pipe, convert.ManifestPath(whole)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, whole} {
		r, err := convert.Verify(t.Context(), path, convert.VerifyOptions{})
		if err != nil || len(r.Findings) == 0 || !strings.Contains(r.Findings[0].Message, "this is no regular file") {
			t.Errorf("%s: %v, %v", path, r.Findings, err)
		}
	}
}
