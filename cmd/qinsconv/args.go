package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// optionsFirst moves the options that follow a path to where the flag parser
// finds them. An argument "--" ends the options.
func optionsFirst(app *cli.App, args []string) ([]string, error) {
	if len(args) == 0 {
		return args, nil
	}
	flags := takesValue(app.Flags)
	var command, options, paths []string
	rest := args[1:]
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
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
		options = append(options, arg)
		name, _, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !hasValue && flags[name] {
			if len(rest) == 0 {
				return nil, &usageError{"option " + arg + " needs a value"}
			}
			options = append(options, rest[0])
			rest = rest[1:]
		}
	}
	out := append([]string{args[0]}, command...)
	out = append(out, options...)
	if len(paths) > 0 {
		out = append(append(out, "--"), paths...)
	}
	return out, nil
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
