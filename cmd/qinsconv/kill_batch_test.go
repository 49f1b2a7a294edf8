//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// kills is how many processes to kill: QINSCONV_KILLS, or few.
func kills(t *testing.T, few int) int {
	t.Helper()
	if s := os.Getenv("QINSCONV_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return few
}

func mustTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree, err := fixtures.Tree(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// treeOrNone is mustTree of a folder that may not be there.
func treeOrNone(t *testing.T, dir string) map[string]string {
	t.Helper()
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return mustTree(t, dir)
}

// sameTree compares what is below a folder with what should be.
func sameTree(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	for name, about := range want {
		if got[name] != about {
			t.Errorf("%s: %s is %q, expected %q", what, name, got[name], about)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: there is also %s", what, name)
		}
	}
}

// writeBatch writes 20 files of weights: a model directory, the snapshot of a
// hub cache and loose files. They have about so many bytes each.
func writeBatch(t *testing.T, dir string, hidden int) {
	t.Helper()
	llama := fixtures.LlamaModel{Layers: 3, Hidden: hidden, Intermediate: 2 * hidden, Vocab: 4 * hidden, KVDim: hidden, DType: format.BF16}
	if err := fixtures.WriteModelDir(filepath.Join(dir, "model"), fixtures.ModelDir{LlamaModel: llama, Shards: 9, Tied: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := fixtures.WriteHubCache(filepath.Join(dir, "hub"), "acme", "toy", fixtures.ModelDir{LlamaModel: llama, Shards: 6}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "loose", "below"), 0o777); err != nil {
		t.Fatal(err)
	}
	llama.Layers = 1
	for _, name := range []string{"a.safetensors", "below/b.safetensors", "below/c-00001-of-00002.safetensors", "d.safetensors"} {
		if err := fixtures.WriteLlama(filepath.Join(dir, "loose", name), llama); err != nil {
			t.Fatal(err)
		}
	}
	if err := fixtures.WriteTensors(filepath.Join(dir, "loose", "below", "c-00002-of-00002.safetensors"), nil, fixtures.Many(format.F32, 4, uint64(4*hidden*hidden))); err != nil {
		t.Fatal(err)
	}
}

// A fileEvent is what --json says of a finished file.
type fileEvent struct{ Event, Out, Status string }

// fileEvents lists them. The last line may be cut off.
func fileEvents(t *testing.T, stdout []byte) []fileEvent {
	t.Helper()
	var list []fileEvent
	for line := range bytes.Lines(stdout) {
		var e fileEvent
		if err := json.Unmarshal(line, &e); err != nil {
			if bytes.HasSuffix(line, []byte("\n")) {
				t.Fatalf("%v: %s", err, line)
			}
			continue
		}
		if e.Event == "file" {
			list = append(list, e)
		}
	}
	return list
}

// TestKillBatch ends batches that are under way at random moments, several times
// over, and lets them go on: files that were finished are not converted again,
// and the result is that of one that was not disturbed.
func TestKillBatch(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts many processes")
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	hidden := 64
	if os.Getenv("QINSCONV_KILLS") != "" {
		hidden = 192
	}
	writeBatch(t, src, hidden)
	before := mustTree(t, src)
	run := func(dst string) (start func() (wait func() (status int, events []fileEvent), kill func(os.Signal)), stderr *bytes.Buffer) {
		stderr = new(bytes.Buffer)
		return func() (func() (int, []fileEvent), func(os.Signal)) {
			cmd := selfCommand(t, "batch", src, dst, "--json", "--jobs", "2")
			var stdout bytes.Buffer
			stderr.Reset()
			cmd.Stdout, cmd.Stderr = &stdout, stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() (int, []fileEvent) { return exitStatus(t, cmd), fileEvents(t, stdout.Bytes()) },
				func(s os.Signal) {
					if err := cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
						t.Fatal(err)
					}
				}
		}, stderr
	}
	whole := filepath.Join(dir, "whole")
	start, stderr := run(whole)
	began := time.Now()
	wait, _ := start()
	status, events := wait()
	if status != exitDone || len(events) != 20 {
		t.Fatalf("status %d, %d files: %s", status, len(events), stderr)
	}
	takes := time.Since(began)
	want := mustTree(t, whole)
	if status, _, stderr := command(t, "verify", "--quiet", "--against", src, whole); status != exitDone {
		t.Fatal(stderr)
	}

	random := rand.New(rand.NewPCG(5, 6))
	signals := []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL, syscall.SIGINT, syscall.SIGKILL, syscall.SIGTERM}
	ended, redone, most := 0, 0, kills(t, 6)
	for round := 0; ended < most; round++ {
		if round > 5*most {
			t.Fatalf("only %d of %d runs were still under way", ended, round)
		}
		dst := filepath.Join(dir, "dst")
		start, stderr := run(dst)
		finished := map[string]bool{}
		check := func(events []fileEvent) {
			t.Helper()
			for _, e := range events {
				if finished[e.Out] && e.Status != string(convert.Unchanged) {
					redone++
					t.Errorf("%s was finished, and is %s in the next run", e.Out, e.Status)
				}
			}
			for _, e := range events {
				finished[e.Out] = true
			}
		}
		killed := false // once, so that there may be what it left
		for range 1 + random.IntN(3) {
			found := treeOrNone(t, dst)
			wait, kill := start()
			signal := signals[random.IntN(len(signals))]
			time.Sleep(time.Duration(random.Int64N(int64(takes))))
			kill(signal)
			status, events := wait()
			check(events)
			if status != exitDone {
				ended++
			}
			switch text := stderr.String(); {
			case status <= 0:
			case status == exitFailed && strings.Contains(text, "interrupted; finished files stay, and the same command goes on from there"):
			case status == exitFailed && strings.Contains(text, "interrupted; nothing was written"): // it was looking for models yet
				sameTree(t, "where nothing was written", treeOrNone(t, dst), found)
			default:
				t.Errorf("%v: status %d: %s", signal, status, text)
			}
			killed = killed || signal == syscall.SIGKILL
			expectSome(t, dst, want, killed)
		}
		wait, _ := start()
		status, events := wait()
		check(events)
		if status != exitDone || len(events) != 20 {
			t.Fatalf("the last run: status %d, %d files: %s", status, len(events), stderr)
		}
		sameTree(t, "after the last run", mustTree(t, dst), want)
		if t.Failed() {
			t.FailNow()
		}
		if err := os.RemoveAll(dst); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d runs were ended, a whole one takes %v", ended, takes)
	sameTree(t, "the source", mustTree(t, src), before)
}

// expectSome holds that what stands under a final name is what will be there in
// the end, and that beside it there is but the state of the conversion, and, of
// a process that had no chance to remove them, temporary files.
func expectSome(t *testing.T, dst string, want map[string]string, leftovers bool) {
	t.Helper()
	for name, about := range treeOrNone(t, dst) {
		switch base := path.Base(name); {
		case strings.HasPrefix(about, "d") || want[name] == about:
		case want[name] != "":
			t.Errorf("%s is %q, expected %q", name, about, want[name])
		case strings.HasSuffix(base, ".qinsconv-tmp"):
			if !leftovers {
				t.Errorf("%s was left behind", name)
			}
		case slices.Contains(strings.Split(name, "/"), ".qinsconv"):
		default:
			t.Errorf("there is also %s", name)
		}
	}
}

// TestKillDecodeDir ends the decoding of a folder at random moments. The output
// is not there until it is whole, and the next run needs no help.
func TestKillDecodeDir(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts many processes")
	}
	dir := t.TempDir()
	in, mid, out := filepath.Join(dir, "in"), filepath.Join(dir, "mid"), filepath.Join(dir, "places", "out")
	if err := os.Mkdir(filepath.Dir(out), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := fixtures.WriteManyShards(in, 8, 2, 200_000); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{in, mid, "--quiet"}, {"decode", mid, out, "--quiet"}} {
		if status, _, stderr := command(t, args...); status != exitDone {
			t.Fatal(stderr)
		}
	}
	want := mustTree(t, out)
	began := time.Now()
	cmd, stderr := startCommand(t, "decode", mid, out, "--quiet", "--force")
	if status := exitStatus(t, cmd); status != exitDone {
		t.Fatal(stderr)
	}
	takes := time.Since(began)
	random := rand.New(rand.NewPCG(7, 8))
	for i := range max(kills(t, 4)/4, 4) {
		if err := os.RemoveAll(out); err != nil {
			t.Fatal(err)
		}
		signal := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[i%2]
		cmd, stderr := startCommand(t, "decode", mid, out, "--quiet")
		time.Sleep(time.Duration(random.Int64N(int64(takes))))
		if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		status := exitStatus(t, cmd)
		if status > 0 && (status != exitFailed || !strings.Contains(stderr.String(), "interrupted; nothing was written")) {
			t.Errorf("%v: status %d: %s", signal, status, stderr)
		}
		if _, err := os.Lstat(out); err == nil {
			sameTree(t, "what is there", mustTree(t, out), want)
		} else if status == exitDone {
			t.Error("it is done and nothing is there")
		}
		if signal != syscall.SIGKILL && status != exitDone {
			expectFiles(t, filepath.Dir(out))
		}
		cmd, stderr = startCommand(t, "decode", mid, out, "--quiet", "--force")
		if status := exitStatus(t, cmd); status != exitDone {
			t.Fatalf("the next run: %s", stderr)
		}
		sameTree(t, "the next run's", mustTree(t, out), want)
		expectFiles(t, filepath.Dir(out), "out")
	}
}

// TestBatchProcesses converts by several processes at once.
func TestBatchProcesses(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	writeBatch(t, src, 64)
	whole := filepath.Join(dir, "whole")
	if status, _, stderr := command(t, "batch", src, whole, "--quiet"); status != exitDone {
		t.Fatal(stderr)
	}
	want := mustTree(t, whole)

	t.Run("parts", func(t *testing.T) {
		// 64 shards of a model, by four.
		in, alone, out := filepath.Join(dir, "shards"), filepath.Join(dir, "alone"), filepath.Join(dir, "parts")
		if err := fixtures.WriteManyShards(in, 64, 2, 2048); err != nil {
			t.Fatal(err)
		}
		if status, _, stderr := command(t, in, alone, "--quiet"); status != exitDone {
			t.Fatal(stderr)
		}
		files := partProcesses(t, 4, in, out)
		if len(files) != 64 {
			t.Errorf("%d files were converted", len(files))
		}
		sameTree(t, "by four", mustTree(t, out), mustTree(t, alone))
	})
	t.Run("parts of what is finished", func(t *testing.T) {
		// An array that is submitted again, with files damaged or all to be made anew.
		in, alone := filepath.Join(dir, "shards"), filepath.Join(dir, "alone")
		want := mustTree(t, alone)
		random := rand.New(rand.NewPCG(9, 10))
		for round := range 12 {
			out := filepath.Join(t.TempDir(), "out")
			if err := os.CopyFS(out, os.DirFS(alone)); err != nil {
				t.Fatal(err)
			}
			args := []string{in, out, "--quiet", "--jobs", "1"}
			if round%2 == 0 {
				args = append(args, "--force")
			}
			for range 10 {
				if err := os.Truncate(filepath.Join(out, fmt.Sprintf("model-%05d-of-00064.qins", 1+random.IntN(64))), 100); err != nil {
					t.Fatal(err)
				}
			}
			var running []func() (int, *bytes.Buffer)
			for i := range 3 {
				cmd, stderr := startCommand(t, append(args, "--part", fmt.Sprintf("%d/3", i+1))...)
				running = append(running, func() (int, *bytes.Buffer) { return exitStatus(t, cmd), stderr })
				time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
			}
			for i, wait := range running {
				if status, stderr := wait(); status != exitDone {
					t.Errorf("round %d, part %d: status %d: %s", round, i+1, status, stderr)
				}
			}
			sameTree(t, fmt.Sprint("round ", round), mustTree(t, out), want)
		}
	})
	t.Run("parts of a batch", func(t *testing.T) {
		dst := filepath.Join(dir, "batch parts")
		if files := partProcesses(t, 4, "batch", src, dst); len(files) != 20 {
			t.Errorf("%d files were converted", len(files))
		}
		sameTree(t, "by four", mustTree(t, dst), want)
	})
	// Without parts one refuses, or comes when the other is done.
	model := filepath.Join(whole, "model")
	decoded := filepath.Join(dir, "decoded")
	if status, _, stderr := command(t, "decode", model, decoded, "--quiet"); status != exitDone {
		t.Fatal(stderr)
	}
	for name, k := range map[string]struct {
		args []string
		want map[string]string
	}{
		"batch":     {[]string{"batch", src}, want},
		"directory": {[]string{filepath.Join(src, "model")}, mustTree(t, model)},
		"decode":    {[]string{"decode", model, "--force"}, mustTree(t, decoded)},
	} {
		t.Run("twice/"+name, func(t *testing.T) {
			for round := range 3 {
				places := t.TempDir()
				out := filepath.Join(places, "out")
				args := append(k.args, out, "--quiet")
				a, errA := startCommand(t, args...)
				time.Sleep(time.Duration(round) * 10 * time.Millisecond)
				b, errB := startCommand(t, args...)
				statuses := []int{exitStatus(t, a), exitStatus(t, b)}
				if !slices.Contains(statuses, exitDone) {
					t.Errorf("both failed: %s%s", errA, errB)
				}
				for i, stderr := range []string{errA.String(), errB.String()} {
					if statuses[i] != exitDone && (statuses[i] != exitFailed || !strings.Contains(stderr, "another process is writing to this folder")) {
						t.Errorf("status %d: %s", statuses[i], stderr)
					}
				}
				sameTree(t, name, mustTree(t, out), k.want)
				expectFiles(t, places, "out")
			}
		})
	}
}

// partProcesses runs a command as n processes with --part at once, and lists the
// files that they converted, none of which two did.
func partProcesses(t *testing.T, n int, args ...string) map[string]int {
	t.Helper()
	type process struct {
		wait   func() int
		stdout *bytes.Buffer
		stderr *bytes.Buffer
	}
	var list []process
	for i := range n {
		cmd := selfCommand(t, append(args, "--json", "--jobs", "1", "--part", fmt.Sprintf("%d/%d", i+1, n))...)
		p := process{func() int { return exitStatus(t, cmd) }, new(bytes.Buffer), new(bytes.Buffer)}
		cmd.Stdout, cmd.Stderr = p.stdout, p.stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	files := map[string]int{}
	for i, p := range list {
		if status := p.wait(); status != exitDone {
			t.Errorf("part %d: status %d: %s%s", i+1, status, p.stderr, p.stdout)
		}
		for _, e := range fileEvents(t, p.stdout.Bytes()) {
			if other, taken := files[e.Out]; taken || e.Status != string(convert.Converted) {
				t.Errorf("%s was %s by part %d, and by part %d before", e.Out, e.Status, i+1, other)
			}
			files[e.Out] = i + 1
		}
	}
	return files
}

// TestFewHandles converts, plans, verifies and decodes a model of more files
// than may be open, which are one set or as many as there are files.
func TestFewHandles(t *testing.T) {
	t.Run("one set", func(t *testing.T) {
		in := filepath.Join(t.TempDir(), "in")
		if err := fixtures.WriteManyShards(in, 200, 2, 1024); err != nil {
			t.Fatal(err)
		}
		fewHandles(t, in)
	})
	t.Run("a set each", func(t *testing.T) {
		in := filepath.Join(t.TempDir(), "in")
		for i := range 200 {
			folder := filepath.Join(in, strconv.Itoa(i))
			if err := os.MkdirAll(folder, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, "adapter.safetensors"), fixtures.Small(fixtures.TieContent), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		fewHandles(t, in)
	})
}

func fewHandles(t *testing.T, in string) {
	dir := t.TempDir()
	out, back := filepath.Join(dir, "out"), filepath.Join(dir, "back")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "qinsconv") // TestMain goes by the name
	if err := os.Symlink(exe, link); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"plan", in, "--quiet"},
		{in, out, "--quiet", "--jobs", "8"},
		{in, out, "--quiet", "--jobs", "8"}, // again
		{"verify", out, "--quiet", "--against", in, "--jobs", "8"},
		{"decode", out, back, "--quiet", "--jobs", "8"},
	} {
		var stderr bytes.Buffer
		cmd := &exec.Cmd{Path: "/bin/sh", Args: append([]string{"sh", "-c", `ulimit -n 48 && exec "$0" "$@"`, link}, args...), Stderr: &stderr}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if status := exitStatus(t, cmd); status != exitDone {
			t.Errorf("%s: status %d: %s", args, status, stderr.String())
		}
	}
}
