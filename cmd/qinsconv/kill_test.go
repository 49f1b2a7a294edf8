//go:build unix

package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// startCommand starts the command in a process of its own. TestMain turns the
// test's binary into it by its name.
func startCommand(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	var stderr bytes.Buffer
	cmd := selfCommand(t, args...)
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &stderr
}

func selfCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &exec.Cmd{Path: exe, Args: append([]string{"qinsconv"}, args...)}
}

// exitStatus waits for a process; -1 is one that a signal ended.
func exitStatus(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// TestKill ends conversions that are under way at random moments: 5 by each
// signal, or as many as QINSCONV_KILLS says.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("it converts 60 MB many times")
	}
	kills, layers := 5, 2
	if s := os.Getenv("QINSCONV_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		kills, layers = n, 12 // 300 MB
	}
	dir := t.TempDir()
	in := filepath.Join(dir, "in.safetensors")
	model := fixtures.LlamaModel{Layers: layers, Hidden: 768, Intermediate: 2048, Vocab: 1000, KVDim: 256, DType: format.F32}
	if err := fixtures.WriteLlama(in, model); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(in)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "out")
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(folder, "m.qins")
	args := []string{in, out, "--quiet", "--force"}

	start := time.Now()
	cmd, stderr := startCommand(t, args...)
	if status := exitStatus(t, cmd); status != exitDone {
		t.Fatalf("status %d: %s", status, stderr)
	}
	whole := time.Since(start)

	random := rand.New(rand.NewPCG(1, 2))
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGKILL} {
		ended, done := 0, 0
		for ended < kills {
			if done > 5*kills {
				t.Fatalf("%v: only %d of %d runs were still under way", signal, ended, ended+done)
			}
			for _, path := range []string{out, convert.ManifestPath(out)} {
				if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
			start := time.Now()
			cmd, stderr := startCommand(t, args...)
			moment := time.Duration(random.Int64N(int64(whole)))
			time.Sleep(moment)
			if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			status := exitStatus(t, cmd)
			if status == exitDone {
				done++
				whole = min(whole, time.Since(start))
			} else {
				ended++
			}
			if status > 0 && (status != exitFailed || !strings.Contains(stderr.String(), "interrupted; nothing was written")) {
				t.Errorf("%v after %v: status %d: %s", signal, moment, status, stderr)
			}
			expectWhole(t, folder, out, signal == syscall.SIGKILL, status == exitDone)
		}
		t.Logf("%v: %d ended, %d were done before; a whole one takes %v", signal, ended, done, whole)

		// A later run succeeds, whatever was left.
		cmd, stderr := startCommand(t, args...)
		if status := exitStatus(t, cmd); status != exitDone {
			t.Errorf("after %v: status %d: %s", signal, status, stderr)
		}
		expectWhole(t, folder, out, false, true)
	}
	after, err := os.Stat(in)
	if err != nil || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the input changed: %v", err)
	}
}

// expectWhole looks for files under final names, which must be whole, and for
// others, which must not be there unless the process had no chance to remove
// them.
func expectWhole(t *testing.T, folder, out string, leftovers, done bool) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range entries {
		found[e.Name()] = true
	}
	base := filepath.Base(out)
	manifest := filepath.Base(convert.ManifestPath(out))
	if found[base] {
		if status, _, stderr := command(t, "verify", "--quiet", out); status != exitDone {
			t.Errorf("there is a file that does not verify: %s", stderr)
		}
	} else if found[manifest] || done {
		t.Errorf("the file is missing (manifest %v, done %v)", found[manifest], done)
	}
	if done && !found[manifest] {
		t.Error("the manifest is missing")
	}
	delete(found, base)
	delete(found, manifest)
	if !leftovers {
		for name := range found {
			t.Errorf("%s was left behind", name)
		}
	}
}
