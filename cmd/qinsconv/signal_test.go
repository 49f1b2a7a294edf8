//go:build unix

package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/qinsconv/qinsconv/fixtures"
)

// TestSecondSignal ends a run that does not end by itself: it waits for the
// reader of a pipe.
func TestSecondSignal(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.safetensors")
	if err := os.WriteFile(in, fixtures.Small(fixtures.TieContent), 0o666); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fill := make([]byte, 1<<20)
	if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = w.Write(fill)
	}
	cmd := selfCommand(t, "plan", in)
	cmd.Stdout = w
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
