package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"qinsconv": main})
}

// TestScripts runs the scripts in testdata, each in a folder of its own. Beside
// testscript's commands they have those of scriptCommands.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Cmds: scriptCommands, RequireUniqueNames: true})
}

var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){
	"status": statusCommand,
	"model":  modelCommand,
	"flip":   flipCommand,
	"files":  filesCommand,
	"events": eventsCommand,
	"untold": untoldCommand,
}

// status N CMD ARG… runs a command that must exit with status N.
func statusCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N cmd args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, expected %d", got, want)
	}
}

// model small|toy TIE FILE and model vector NAME FILE write a file of fixtures,
// model dir|hub|split NAME FOLDER a folder of them.
func modelCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: model small|toy|vector|dir|hub|split TIE|NAME FILE")
	}
	path := ts.MkAbs(args[2])
	small := fixtures.SmallDir(format.BF16)
	switch args[0] {
	case "dir":
		small.Tied = args[1] == "tied"
		ts.Check(fixtures.WriteModelDir(path, small))
		return
	case "hub":
		_, err := fixtures.WriteHubCache(path, "acme", args[1], small)
		ts.Check(err)
		return
	case "split":
		ts.Check(os.MkdirAll(path, 0o777))
		ts.Check(fixtures.WriteSplitGGUF(path, args[1], 3, small.LlamaModel))
		return
	}
	if args[0] == "vector" {
		for _, v := range fixtures.Vectors() {
			if v.Name == args[1] {
				ts.Check(os.WriteFile(path, v.File, 0o666))
				return
			}
		}
		ts.Fatalf("no such vector: %s", args[1])
	}
	tie, err := fixtures.ParseTie(args[1])
	ts.Check(err)
	if args[0] == "toy" {
		ts.Check(fixtures.WriteToy(path, tie))
		return
	}
	ts.Check(os.WriteFile(path, fixtures.Small(tie), 0o666))
}

// flip FILE N inverts byte N of a file, counted from its end where N is
// negative.
func flipCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE N")
	}
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(data)
	}
	data[at] ^= 0xff
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o666))
}

// files DIR NAME… asserts that a folder holds these files, hidden ones counted,
// and no others.
func filesCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: files DIR NAME...")
	}
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	want := map[string]bool{}
	for _, name := range args[1:] {
		want[name] = true
	}
	for _, e := range entries {
		if !want[e.Name()] {
			ts.Fatalf("%s was left behind", filepath.Join(args[0], e.Name()))
		}
		delete(want, e.Name())
	}
	for name := range want {
		ts.Fatalf("%s is missing", filepath.Join(args[0], name))
	}
}

// events KIND… asserts that every line of standard output is a JSON object that
// names its event, and that these are among them.
func eventsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: events KIND...")
	}
	seen := map[string]bool{}
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		var e struct{ Event string }
		d := json.NewDecoder(bytes.NewReader([]byte(line)))
		if err := d.Decode(&e); err != nil || d.More() || e.Event == "" || !strings.HasSuffix(line, "}\n") {
			ts.Fatalf("not one event on a line: %s (%v)", line, err)
		}
		seen[e.Event] = true
	}
	for _, kind := range args {
		if !seen[kind] {
			ts.Fatalf("no event %q among %v", kind, seen)
		}
	}
}

// untold asserts that standard output and error are empty.
func untoldCommand(ts *testscript.TestScript, neg bool, args []string) {
	if out := ts.ReadFile("stdout") + ts.ReadFile("stderr"); neg || len(args) > 0 || out != "" {
		ts.Fatalf("unexpected output: %s", out)
	}
}
