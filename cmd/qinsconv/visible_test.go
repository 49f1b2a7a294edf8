package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"github.com/qinsconv/qinsconv/fixtures"
)

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"": "", `a "b" c:\d ×é漢`: `a "b" c:\d ×é漢`, "\x1b[31m": `\x1b[31m`, "a\nb\r\t": `a\nb\r\t`, "\x7f\u0080\u009b": `\x7f\u0080\u009b`,
		"\u202egpj.exe\u2066\u200b\ufeff": `\u202egpj.exe\u2066\u200b\ufeff`, "\xff\u009b\xfe\ufffd": `\xff\u009b\xfe` + "\ufffd", "\U000e0001": `\U000e0001`,
	} {
		if got := visible(text); got != want {
			t.Errorf("%q: %s, expected %s", text, got, want)
		}
	}
}

// TestHostileNames has commands print names that would do something to a
// terminal.
func TestHostileNames(t *testing.T) {
	dir := t.TempDir()
	const evil = "\x1b]0;evil\a\u202e\u009b2J"
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(at(evil), 0o777); errors.Is(err, syscall.EILSEQ) || runtime.GOOS == "windows" {
		t.Skip("the file system has no such names")
	} else if err != nil {
		t.Fatal(err)
	}
	good, bad := at(evil+"/good.safetensors"), at(evil+"/bad.safetensors")
	model := at(evil + "/model/m.safetensors")
	if err := os.Mkdir(filepath.Dir(model), 0o777); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{good: fixtures.Small(fixtures.TieContent), model: fixtures.Small(fixtures.TieContent), bad: []byte("bad"),
		at(evil + "/model/config.json"): []byte("[")} {
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args   []string
		status int
	}{
		{[]string{bad, at("x")}, exitInput},
		{[]string{evil}, exitUsage},
		{[]string{"--codec", evil, good, at("x")}, exitUsage},
		{[]string{"--" + evil, good, at("x")}, exitUsage},
		{[]string{"completion", evil}, exitUsage},
		{[]string{good, at(evil + "/good.qins")}, exitDone},
		{[]string{"plan", good}, exitDone},
		{[]string{"inspect", good}, exitDone},
		{[]string{"inspect", at(evil + "/good.qins")}, exitDone},
		{[]string{"verify", at(evil + "/good.qins"), "--against", good}, exitDone},
		{[]string{"decode", at(evil + "/good.qins"), at(evil + "/back.safetensors")}, exitDone},
		{[]string{filepath.Dir(model), at(evil + "/out")}, exitDone},
		{[]string{"plan", filepath.Dir(model)}, exitDone},
		{[]string{"verify", at(evil + "/out")}, exitDone},
		{[]string{"batch", at(evil), at("batch")}, exitFailed},
	} {
		status, stdout, stderr := command(t, c.args...)
		if status != c.status {
			t.Errorf("%q: status %d: %q", c.args, status, stderr)
		}
		for line := range strings.Lines(stdout + stderr) {
			if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q printed %q", c.args, line)
			}
		}
	}
}
