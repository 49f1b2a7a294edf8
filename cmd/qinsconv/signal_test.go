//go:build unix

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// fullPipe returns a pipe that has no room and is not read.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	fill := make([]byte, 1<<20)
	if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = w.Write(fill)
	}
	return w
}

// TestSecondSignal ends a run that does not end by itself: it waits for the
// reader of a warning.
func TestSecondSignal(t *testing.T) {
	in := filepath.Join(t.TempDir(), "in.safetensors")
	at := slices.IndexFunc(fixtures.Vectors(), func(v fixtures.Vector) bool { return v.Name == "weight with a nan" })
	if at < 0 {
		t.Fatal("there is no such vector")
	}
	if err := os.WriteFile(in, fixtures.Vectors()[at].File, 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := selfCommand(t, "plan", in)
	cmd.Stderr = fullPipe(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for signals := 0; ; signals++ {
		select {
		case <-ended:
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || signals < 2 {
				t.Errorf("ended with %v after %d signals", cmd.ProcessState, signals)
			}
			return
		case <-time.After(time.Second):
		}
		if signals == 5 {
			_ = cmd.Process.Kill()
			t.Fatal("it goes on after five signals")
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNobodyReads ends a run that waits for the reader of a pipe. It leaves
// nothing behind.
func TestNobodyReads(t *testing.T) {
	dir, folder := t.TempDir(), t.TempDir()
	in := filepath.Join(dir, "in.safetensors")
	if err := os.WriteFile(in, fixtures.Small(fixtures.TieContent), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"plan", in}, {in, filepath.Join(folder, "out.qins")}, {"inspect", in}} {
		var stderr bytes.Buffer
		cmd := selfCommand(t, args...)
		cmd.Stdout, cmd.Stderr = fullPipe(t), &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		ended := make(chan int, 1)
		go func() { ended <- exitStatus(t, cmd) }()
		select {
		case status := <-ended:
			if status != exitFailed || !strings.Contains(stderr.String(), "interrupted") {
				t.Errorf("%s: status %d: %s", args, status, &stderr)
			}
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			t.Fatalf("%s: it goes on", args)
		}
		expectFiles(t, folder)
	}
}

// TestReaderLeaves has nobody read what commands print. They do what they were
// asked to, and fail without a word, as there is nobody to tell.
func TestReaderLeaves(t *testing.T) {
	dir := t.TempDir()
	in, out, back := filepath.Join(dir, "in.safetensors"), filepath.Join(dir, "out.qins"), filepath.Join(dir, "back.safetensors")
	if err := os.WriteFile(in, fixtures.Small(fixtures.TieContent), 0o666); err != nil {
		t.Fatal(err)
	}
	made := []string{"in.safetensors"}
	for _, c := range []struct {
		args []string
		made []string
	}{
		{[]string{"plan", in}, nil},
		{[]string{"--json", in, out}, []string{"out.qins", "out.qins.manifest.json"}},
		{[]string{"--force", in, out}, nil},
		{[]string{"decode", out, back}, []string{"back.safetensors"}},
		{[]string{"verify", out}, nil},
		{[]string{"inspect", out}, nil},
		{[]string{"completion", "bash"}, nil},
		{[]string{"--help"}, nil},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		var stderr bytes.Buffer
		cmd := selfCommand(t, c.args...)
		cmd.Stdout, cmd.Stderr = w, &stderr
		err = cmd.Start()
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		if status := exitStatus(t, cmd); status != exitFailed || stderr.Len() > 0 {
			t.Errorf("%s: status %d, expected %d: %s", c.args, status, exitFailed, &stderr)
		}
		made = append(made, c.made...)
		expectFiles(t, dir, made...)
	}
}

// TestFullOutput writes what commands print to where there is no room, which is
// said.
func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("this system has no /dev/full")
	}
	defer full.Close()
	dir := t.TempDir()
	in, out, back := filepath.Join(dir, "in.safetensors"), filepath.Join(dir, "out.qins"), filepath.Join(dir, "back")
	if err := os.WriteFile(in, fixtures.Small(fixtures.TieContent), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{in, out}, {"--json", "--force", in, out}, {"decode", out, back + "1"}, {"decode", "--json", out, back + "2"}, {"batch", dir, filepath.Join(t.TempDir(), "out")}, {"plan", in},
		{"verify", out}, {"inspect", out}, {"completion", "zsh"}, {"--version"},
	} {
		var stderr strings.Builder
		if got := run(t.Context(), append([]string{"qinsconv"}, args...), full, &stderr); got != exitFailed || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%s: status %d, expected %d: %s", args, got, exitFailed, &stderr)
		}
	}
}

// TestNohup holds that a run which is to outlive its terminal does.
func TestNohup(t *testing.T) {
	dir := t.TempDir()
	in, program := filepath.Join(dir, "in.safetensors"), filepath.Join(dir, "qinsconv") // TestMain goes by the name
	model := fixtures.LlamaModel{Layers: 2, Hidden: 768, Intermediate: 2048, Vocab: 1000, KVDim: 256, DType: format.F32}
	if err := fixtures.WriteLlama(in, model); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(selfCommand(t).Path, program); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", `trap '' HUP; echo ready; exec "$0" "$@"`, program, in, filepath.Join(dir, "out.qins"), "--quiet")
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	status := make(chan int, 1)
	go func() { status <- exitStatus(t, cmd) }()
	for signals := 0; ; signals++ {
		select {
		case got := <-status:
			if got != exitDone || signals == 0 {
				t.Errorf("status %d after %d signals: %s", got, signals, &stderr)
			}
			return
		case <-time.After(2 * time.Millisecond):
			_ = cmd.Process.Signal(syscall.SIGHUP)
		}
	}
}
