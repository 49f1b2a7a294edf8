package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// documented reads which members of which events docs/events.md knows.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "events.md"))
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	members := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		kind := strings.Trim(cells[1], " `")
		members[kind] = append(members[kind], "event")
		for _, m := range quoted.FindAllStringSubmatch(cells[3], -1) {
			members[kind] = append(members[kind], m[1])
		}
	}
	return members
}

// TestEventsAreDocumented holds every event of every command, with its members,
// to the document.
func TestEventsAreDocumented(t *testing.T) {
	known := documented(t)
	if len(known) < 10 {
		t.Fatalf("the document has %d events", len(known))
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	small := fixtures.SmallDir(format.F32)
	if err := fixtures.WriteModelDir(at("models/model"), small); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("models/small.safetensors"), fixtures.Small(fixtures.TieOffset), 0o666); err != nil {
		t.Fatal(err)
	}
	bad := at("models/bad.safetensors")
	if err := os.WriteFile(bad, []byte("no weights"), 0o666); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, args := range [][]string{
		{at("models/model"), at("out")},
		{at("models/model"), at("out")},
		{at("models/model"), at("part"), "--part", "1/2"},
		{"plan", at("models/model")},
		{"verify", at("out"), "--against", at("models/model")},
		{"decode", at("out"), at("back")},
		{"batch", at("models"), at("batch")},
		{"verify", at("batch")},
		{"inspect", at("out/model-00001-of-00003.qins")},
		{"inspect", at("models/small.safetensors")},
		{at("models/small.safetensors"), at("small.qins")},
		{"plan", at("models/small.safetensors")},
		{"decode", at("small.qins"), at("small.back")},
		{"verify", at("small.qins")},
		{"truncate"},
		{"verify", at("out")},
	} {
		if args[0] == "truncate" {
			if err := os.Truncate(at("out/model-00002-of-00003.qins"), 1000); err != nil {
				t.Fatal(err)
			}
			continue
		}
		_, stdout, _ := command(t, append(args, "--json")...)
		n := 0
		for line := range strings.Lines(stdout) {
			var e map[string]any
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%s: %v: %s", args, err, line)
			}
			kind, _ := e["event"].(string)
			seen[kind]++
			n++
			for member := range e {
				if !slices.Contains(known[kind], member) {
					t.Errorf("%s: the document does not know the member %q of the event %q", args, member, kind)
				}
			}
		}
		if n == 0 {
			t.Errorf("%s: there are no events", args)
		}
	}
	for kind := range known {
		if seen[kind] == 0 && kind != "warning" {
			t.Errorf("no command told of the event %q", kind)
		}
	}
}

// TestEscapeVectors runs folders whose paths and links lead elsewhere through
// the command.
func TestEscapeVectors(t *testing.T) {
	for _, v := range fixtures.EscapeVectors() {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			dir, outs := t.TempDir(), t.TempDir()
			if err := v.Build(dir); errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			before, err := fixtures.Tree(dir)
			if err != nil {
				t.Fatal(err)
			}
			model := filepath.Join(dir, fixtures.EscapeModel)
			convert, plan, batch := exitInput, exitInput, exitFailed
			if v.Verdict == fixtures.Accept {
				convert, plan, batch = exitDone, exitDone, exitDone
			}
			for _, c := range []struct {
				status int
				args   []string
			}{
				{plan, []string{"plan", model}},
				{convert, []string{model, filepath.Join(outs, "out")}},
				{batch, []string{"batch", model, filepath.Join(outs, "batch")}},
			} {
				status, _, stderr := command(t, append(c.args, "--quiet")...)
				if status != c.status || v.Verdict == fixtures.Reject && !strings.Contains(stderr, v.Contains) {
					t.Errorf("%s: status %d, expected %d: %s", c.args, status, c.status, stderr)
				}
			}
			if v.Verdict == fixtures.Accept {
				if status, _, stderr := command(t, "verify", "--quiet", "--against", model, filepath.Join(outs, "out")); status != exitDone {
					t.Errorf("verify: %s", stderr)
				}
			}
			after, err := fixtures.Tree(dir)
			if err != nil {
				t.Fatal(err)
			}
			for name, about := range after {
				if before[name] != about {
					t.Errorf("%s became %s", name, about)
				}
			}
			if len(after) != len(before) {
				t.Errorf("there were %d files and links, and there are %d", len(before), len(after))
			}
		})
	}
}

// TestEventsOfOddNames has a file whose name is not UTF-8, as JSON must be.
func TestEventsOfOddNames(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "a\xff.safetensors"), fixtures.Small(fixtures.TieOffset), 0o666); errors.Is(err, syscall.EILSEQ) || runtime.GOOS == "windows" {
		t.Skip("the file system has no such names")
	} else if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	if got := run(t.Context(), []string{"qinsconv", "batch", "--json", src, filepath.Join(dir, "out")}, &stdout, &stderr); got != exitFailed {
		t.Errorf("exit status %d", got)
	}
	for _, want := range []string{`"model":"a` + "\ufffd" + `.safetensors"`, `"event":"summary","models":1,"failed":1`} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("found %s, expected %s", stdout.String(), want)
		}
	}
	if stderr.Len() > 0 {
		t.Errorf("on standard error: %s", stderr.String())
	}
}
