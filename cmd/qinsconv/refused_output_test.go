//go:build unix

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// TestDiskFull lets the file system refuse to grow a file, as a full disk does.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.safetensors")
	model := fixtures.LlamaModel{Layers: 1, Hidden: 256, Intermediate: 512, Vocab: 100, KVDim: 256, DType: format.F32}
	if err := fixtures.WriteLlama(in, model); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.qins")
	if status, _, stderr := command(t, in, good, "--quiet"); status != exitDone {
		t.Fatal(stderr)
	}
	folder := filepath.Join(dir, "out")
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"convert", in, filepath.Join(folder, "m.qins"), "--layout", "compact"},
		{"convert", in, filepath.Join(folder, "m.qins"), "--layout", "plain"},
		{"decode", good, filepath.Join(folder, "back")},
	} {
		// The shell's limit counts blocks of 512 or 1,024 bytes.
		cmd := &exec.Cmd{Path: "/bin/sh", Args: append([]string{"sh", "-c", `trap '' XFSZ; ulimit -f 200 && exec "$0" "$@"`, exe}, args...)}
		// TestMain goes by the last element of the name.
		link := filepath.Join(dir, "qinsconv")
		if err := os.Symlink(exe, link); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
		cmd.Args[3] = link
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if status := exitStatus(t, cmd); status != exitFailed || !strings.Contains(stderr.String(), args[2]+": file too large") {
			t.Errorf("%s: status %d, expected %d: %s", args, status, exitFailed, stderr.String())
		}
		expectFiles(t, folder)
	}
}

// TestReadOnlyFolder converts and decodes, as somebody who may not write there.
func TestReadOnlyFolder(t *testing.T) {
	dir := t.TempDir()
	models, good, folder := filepath.Join(dir, "models"), filepath.Join(dir, "good.qins"), filepath.Join(dir, "out")
	if err := os.Mkdir(models, 0o755); err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(models, "in.safetensors")
	if err := os.WriteFile(in, fixtures.Small(fixtures.TieContent), 0o644); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := command(t, in, good, "--quiet"); status != exitDone {
		t.Fatal(stderr)
	}
	if err := os.Mkdir(folder, 0o555); err != nil {
		t.Fatal(err)
	}
	exe := selfCommand(t).Path
	var nobody *syscall.SysProcAttr
	if os.Geteuid() == 0 { // who may write anywhere
		nobody = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		exe = copyProgram(t, exe, filepath.Join(dir, "qinsconv"))
		for _, open := range []string{filepath.Dir(dir), dir} {
			if err := os.Chmod(open, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, args := range [][]string{
		{"convert", in, filepath.Join(folder, "m.qins")},
		{"decode", good, filepath.Join(folder, "back")},
		{"convert", "--force", in, filepath.Join(folder, "m.qins")},
		{"batch", models, filepath.Join(folder, "models")},
	} {
		var stderr bytes.Buffer
		cmd := &exec.Cmd{Path: exe, Args: append([]string{"qinsconv"}, args...), SysProcAttr: nobody, Stderr: &stderr}
		err := cmd.Start()
		if nobody != nil && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL)) {
			t.Skip("this root may not become another user, as in a container that knows but one")
		}
		if err != nil {
			t.Fatal(err)
		}
		if status := exitStatus(t, cmd); status != exitFailed || !strings.Contains(stderr.String(), args[len(args)-1]+": permission denied") {
			t.Errorf("%s: status %d, expected %d: %s", args, status, exitFailed, stderr.String())
		}
		expectFiles(t, folder)
	}
}

// copyProgram puts a program where others can run it.
func copyProgram(t *testing.T, from, to string) string {
	t.Helper()
	r, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, r); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return to
}
