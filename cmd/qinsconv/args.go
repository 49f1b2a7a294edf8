package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/xrash/smetrics"
)

// optionsFirst moves the options that follow a path to where the flag parser
// finds them, one to an argument, and names the command where none is. An
// argument "--" ends the options.
func optionsFirst(app *cli.App, args []string) ([]string, error) {
	if len(args) == 0 {
		return args, nil
	}
	flags := takesValue(app.Flags)
	certain := false // that the first path is one, and no command
	asks := false    // for help or the version, whatever else there is
	var command, options, paths []string
	rest := args[1:]
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			certain = certain || len(paths) == 0
			paths = append(paths, rest...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			if c := app.Command(arg); c != nil && command == nil && len(paths) == 0 {
				command = []string{arg}
				for name, value := range takesValue(c.Flags) {
					flags[name] = value
				}
				continue
			}
			paths = append(paths, arg)
			continue
		}
		options = append(options, apart(arg, flags)...)
		name, _, hasValue := strings.Cut(strings.TrimLeft(options[len(options)-1], "-"), "=")
		value, known := flags[name]
		asks = asks || slices.Contains([]string{"help", "h", "version", "v"}, name)
		certain = certain || !known // what follows may belong to it
		if !hasValue && value {
			if len(rest) == 0 {
				return nil, &usageError{message: "option " + arg + " needs a value"}
			}
			options = append(options, rest[0])
			rest = rest[1:]
		}
	}
	if command == nil && asks {
		paths = nil
	}
	if command == nil && len(paths) > 0 {
		if !certain && misspelt(app, paths[0]) != "" {
			return nil, unknownCommand(app, paths[0])
		}
		command = []string{defaultCommand}
	}
	out := append([]string{args[0]}, command...)
	out = append(out, options...)
	if len(paths) > 0 {
		out = append(append(out, "--"), paths...)
	}
	return out, nil
}

// apart takes options of one letter apart that share a dash, and the value that
// may follow the last: -fq is -f -q, and -j8 is --jobs=8.
func apart(arg string, flags map[string]bool) []string {
	letters := strings.TrimPrefix(arg, "-")
	name, _, _ := strings.Cut(letters, "=")
	if _, known := flags[name]; known || len(letters) < 2 || strings.HasPrefix(letters, "-") {
		return []string{arg}
	}
	var list []string
	for i, letter := range letters {
		value, known := flags[string(letter)]
		switch {
		case !known:
			return []string{arg} // for the parser to refuse
		case value && i+1 < len(letters):
			return append(list, "-"+string(letter)+"="+strings.TrimPrefix(letters[i+1:], "="))
		}
		list = append(list, "-"+string(letter))
	}
	return list
}

// misspelt returns the command that a word seems to mean, empty where it is a
// path, or like none.
func misspelt(app *cli.App, word string) string {
	if strings.ContainsAny(word, `./\`) {
		return ""
	}
	if _, err := os.Lstat(word); err == nil {
		return ""
	}
	best, nearest := "", 0.85
	for _, name := range commandNames(app) {
		if near := smetrics.JaroWinkler(word, name, 0.7, 4); near > nearest {
			best, nearest = name, near
		}
	}
	return best
}

func unknownCommand(app *cli.App, word string) error {
	text := fmt.Sprintf("there is no command %q", word)
	if meant := misspelt(app, word); meant != "" {
		text += fmt.Sprintf(", did you mean %q?", meant)
	}
	return &usageError{message: text}
}

// takesValue says for each name of the flags whether a value follows it.
func takesValue(flags []cli.Flag) map[string]bool {
	m := map[string]bool{}
	for _, f := range flags {
		_, isBool := f.(*cli.BoolFlag)
		for _, name := range f.Names() {
			m[name] = !isBool
		}
	}
	return m
}
