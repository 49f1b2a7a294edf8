package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBashCompletion has bash complete command lines, of which the last word is
// being typed. Paths are left to the shell: there are no words for them.
func TestBashCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("there is no bash to run the script")
	}
	_, script, _ := command(t, "completion", "bash")
	const (
		commands = "convert batch plan decode inspect verify completion help"
		decode   = "--help -h --jobs -j --force -f --json --quiet -q"
	)
	for _, c := range []struct{ line, want string }{
		{"qinsconv ", commands},
		{"qinsconv ver", "verify"},
		{"qinsconv --json ver", "verify"},
		{"qinsconv --layout plain ba", "batch"},
		{"qinsconv --exclude ver ba", "batch"},
		{"qinsconv --js", "--json"},
		{"qinsconv toy.safetensors --js", "--json"},
		{"qinsconv toy.safetensors pl", ""},
		{"qinsconv decode -", decode},
		{"qinsconv decode x.qins -", decode},
		{"qinsconv verify --ag", "--against"},
		{"qinsconv verify --against ", ""},
		{"qinsconv --layout ", "plain packed compact"},
		{"qinsconv plan --layout pl", "plain"},
		{"qinsconv --layout = pl", "plain"}, // as bash takes it apart
		{"qinsconv --layout =", "plain packed compact"},
		{"qinsconv completion ", "bash zsh fish"},
		{"qinsconv help ver", "verify"},
		{"qinsconv batch models ", ""},
		{"qinsconv -- ver", ""},
	} {
		dir := t.TempDir()
		run := exec.Command(bash, "-c", script+`
			COMP_WORDS=("$@")
			COMP_CWORD=$(($# - 1))
			_qinsconv
			echo "${COMPREPLY[*]}"`, "bash")
		run.Args = append(run.Args, strings.Split(c.line, " ")...)
		run.Dir = dir
		out, err := run.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != c.want {
			t.Errorf("%q: %s, %v, expected %s", c.line, out, err, c.want)
		}
		expectFiles(t, dir)
	}
}

// TestCompletionScripts holds that every script knows each command and option.
func TestCompletionScripts(t *testing.T) {
	app := newApp(newUI(t.Context(), nil, nil))
	for _, shell := range shells {
		_, script, _ := command(t, "completion", shell)
		for _, c := range app.Commands {
			if !strings.Contains(script, c.Name) {
				t.Errorf("%s: no command %s", shell, c.Name)
			}
			for _, o := range optionsOf(c) {
				if name := strings.TrimPrefix(o.names[0], "--"); !strings.Contains(script, name) {
					t.Errorf("%s: no option %s", shell, name)
				}
			}
		}
		if path, err := exec.LookPath(shell); err == nil {
			file := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(file, []byte(script), 0o666); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(path, "-n", file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", shell, err, out)
			}
		}
	}
}
