package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize/english"
	"github.com/urfave/cli/v2"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/qins"
)

const description = `QINS stores linear weights as 8-bit logarithmic codes. Everything else is kept
without loss, tied tensors are stored once, and a manifest beside the output
gives its true size.

   qinsconv model.safetensors model.qins          convert
   qinsconv MODEL-DIR OUT-DIR                     convert all shards, carry over the rest
   qinsconv batch MODELS OUT-DIR                  convert every model below a folder
   qinsconv plan model.safetensors                what would be done, and the size
   qinsconv verify model.qins                     check the file and its manifest
   qinsconv decode model.qins back.safetensors    turn it back

Exit status: 0 done, 1 failed, 2 wrong usage, 3 bad input file, 4 verification
found a difference.`

// defaultCommand is what paths alone are for.
const defaultCommand = "convert"

// newApp builds the command.
func newApp(ui *ui) *cli.App {
	cli.VersionPrinter = func(c *cli.Context) { fmt.Fprintln(c.App.Writer, convert.Tool) }
	rules := &ruleList{}
	commands := []*cli.Command{
		{
			Name:      defaultCommand,
			Usage:     "convert a checkpoint to a .qins file, or a model directory (the default command)",
			ArgsUsage: "IN OUT",
			Flags:     join(conversionFlags(rules), modelFlags(), partFlags(), jobsFlags(), forceFlags(), outputFlags()),
			Action:    func(c *cli.Context) error { return convertCommand(c, ui, rules) },
		},
		{
			Name:      "batch",
			Usage:     "convert every model below a folder; go on where an earlier run stopped",
			ArgsUsage: "SRC DST",
			Flags:     join(conversionFlags(rules), modelFlags(), partFlags(), jobsFlags(), forceFlags(), outputFlags()),
			Action:    func(c *cli.Context) error { return batchCommand(c, ui, rules) },
		},
		{
			Name:      "plan",
			Usage:     "say what would be encoded, kept and tied, by which rule, and the size",
			ArgsUsage: "IN",
			Flags:     join(conversionFlags(rules), modelFlags(), jobsFlags(), outputFlags()),
			Action:    func(c *cli.Context) error { return planCommand(c, ui, rules) },
		},
		{
			Name:      "decode",
			Usage:     "turn a .qins file or a converted folder back into the source's format",
			ArgsUsage: "IN OUT",
			Flags:     join(jobsFlags(), forceFlags(), outputFlags()),
			Action:    func(c *cli.Context) error { return decodeCommand(c, ui) },
		},
		{
			Name:      "inspect",
			Usage:     "list the header and tensors of a file of any known format",
			ArgsUsage: "FILE",
			Flags:     outputFlags(),
			Action:    func(c *cli.Context) error { return inspectCommand(c, ui) },
		},
		{
			Name:      "verify",
			Usage:     "check a .qins file, what a manifest belongs to, or all of a folder",
			ArgsUsage: "PATH",
			Flags: join([]cli.Flag{&cli.StringFlag{
				Name: "against", Usage: "also compare with the `SOURCE` that was converted"}},
				jobsFlags(), outputFlags()),
			Action: func(c *cli.Context) error { return verifyCommand(c, ui) },
		},
		{
			Name:      "completion",
			Usage:     "print a script that completes commands and options in a shell",
			ArgsUsage: "bash|zsh|fish",
			Action:    completionCommand,
		},
		{
			Name:      "help",
			Usage:     "show what a command does, and its options",
			ArgsUsage: "[COMMAND]",
			Action:    helpCommand,
		},
	}
	for _, c := range commands {
		c.OnUsageError = onUsageError
		c.HideHelpCommand = true
	}
	return &cli.App{
		Name:                  "qinsconv",
		Usage:                 "make model checkpoints smaller on disk, and say truly how much smaller",
		UsageText:             "qinsconv [options] IN OUT\nqinsconv COMMAND [options] ...",
		Description:           description,
		Version:               convert.Version,
		Writer:                ui.stdout,
		ErrWriter:             ui.stderr,
		Commands:              commands,
		Flags:                 join(conversionFlags(rules), modelFlags(), partFlags(), jobsFlags(), forceFlags(), outputFlags(), []cli.Flag{cli.HelpFlag}),
		Action:                func(c *cli.Context) error { return convertCommand(c, ui, rules) },
		HideHelpCommand:       true,
		CustomAppHelpTemplate: strings.ReplaceAll(cli.AppHelpTemplate, "GLOBAL OPTIONS", "OPTIONS OF "+strings.ToUpper(defaultCommand)),
		OnUsageError:          onUsageError,
		ExitErrHandler:        func(*cli.Context, error) {},
	}
}

// onUsageError says what the flag parser found in the words of the rest.
func onUsageError(c *cli.Context, err error, _ bool) error {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		return usage(c, "unknown option %s", dashed(name))
	}
	if before, rest, ok := strings.Cut(text, " for flag -"); ok {
		name, why, _ := strings.Cut(rest, ": ")
		return usage(c, "%s for %s: %s", before, dashed(name), why)
	}
	return usage(c, "%s", text)
}

// usage makes an error that says where the help of the command is.
func usage(c *cli.Context, format string, args ...any) error {
	e := &usageError{message: fmt.Sprintf(format, args...)}
	if name := c.Command.Name; name != c.App.Name && name != defaultCommand {
		e.command = name
	}
	return e
}

func helpCommand(c *cli.Context) error {
	switch c.NArg() {
	case 0:
		return cli.ShowAppHelp(c)
	case 1:
		if c.App.Command(c.Args().First()) == nil {
			return unknownCommand(c.App, c.Args().First())
		}
		return cli.ShowCommandHelp(c, c.Args().First())
	}
	return usage(c, "help: found %d arguments, expected COMMAND", c.NArg())
}

func join(lists ...[]cli.Flag) []cli.Flag {
	var all []cli.Flag
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func conversionFlags(rules *ruleList) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "layout", Value: string(qins.DefaultLayout), Usage: "how to store codes and signs: `LAYOUT` is " + strings.Join(layouts(), ", ")},
		&cli.StringFlag{Name: "codec", Value: convert.Codecs()[0], Usage: "the `CODEC` of weights: " + strings.Join(convert.Codecs(), ", ")},
		&cli.GenericFlag{Name: "include", Value: ruleFlag{rules, true}, Usage: "encode tensors whose name matches `RE`; repeatable"},
		&cli.GenericFlag{Name: "exclude", Value: ruleFlag{rules, false}, Usage: "keep tensors whose name matches `RE`; the first of all rules that matches wins"},
	}
}

func modelFlags() []cli.Flag {
	return []cli.Flag{&cli.StringSliceFlag{Name: "weights", Usage: "of a model directory, convert the files whose name matches `GLOB`; repeatable"}}
}

func partFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "part", Usage: "convert share `I/N` of a model directory's files, on one of N machines"},
		&cli.BoolFlag{Name: "finish", Usage: "convert nothing, only complete what all parts have converted", DisableDefaultText: true},
	}
}

func layouts() []string {
	var names []string
	for _, l := range qins.Layouts() {
		names = append(names, string(l))
	}
	return names
}

func jobsFlags() []cli.Flag {
	return []cli.Flag{&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Usage: "keep `N` processors busy, at most 256", DefaultText: "all"}}
}

func forceFlags() []cli.Flag {
	return []cli.Flag{&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "replace an output that exists", DisableDefaultText: true}}
}

func outputFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "write one JSON object for each event, and nothing else, to standard output", DisableDefaultText: true},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "write errors and warnings only", DisableDefaultText: true},
	}
}

// A ruleList gathers --include and --exclude in the order in which they stand.
type ruleList struct{ rules []convert.Rule }

// A ruleFlag is one of the two flags.
type ruleFlag struct {
	list    *ruleList
	include bool
}

// Set implements cli.Generic.
func (f ruleFlag) Set(pattern string) error {
	r, err := convert.NewRule(f.include, pattern)
	if err != nil {
		return err
	}
	f.list.rules = append(f.list.rules, r)
	return nil
}

// String implements cli.Generic.
func (f ruleFlag) String() string { return "" }

// paths returns the arguments of a command, which must be as many as the names.
func paths(c *cli.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	if len(args) != len(names) {
		command := ""
		if name := c.Command.Name; name != c.App.Name && name != defaultCommand {
			command = name + ": "
		}
		return nil, usage(c, "%sfound %s, expected %s", command, english.Plural(len(args), "argument", ""), strings.Join(names, " "))
	}
	for i, arg := range args {
		if err := checkPath(c, names[i], arg); err != nil {
			return nil, err
		}
	}
	return args, nil
}

// checkPath returns an error where an argument is no path: it is empty, as that
// of a variable which was not set, or means standard input or output, which have
// no places to read from and write to.
func checkPath(c *cli.Context, name, arg string) error {
	switch arg {
	case "":
		return usage(c, "%s: found an empty argument, expected a path", name)
	case "-":
		return usage(c, "%s: found \"-\", expected the path of a file or folder, ./- where that is its name", name)
	}
	return nil
}

func conversionOptions(c *cli.Context, rules *ruleList, events func(convert.Event)) (convert.Options, error) {
	for _, name := range []string{"layout", "codec"} {
		if found := c.String(name); !slices.Contains(choices(name), found) {
			return convert.Options{}, usage(c, "--%s: found %q, expected %s", name, found, strings.Join(choices(name), ", "))
		}
	}
	jobs, err := jobs(c)
	if err != nil {
		return convert.Options{}, err
	}
	o := convert.Options{Layout: qins.Layout(c.String("layout")), Codec: c.String("codec"), Rules: rules.rules, Jobs: jobs, Force: c.Bool("force"), Events: events,
		Weights: c.StringSlice("weights"), Finish: c.Bool("finish")}
	if c.IsSet("part") {
		if o.Part, err = convert.ParsePart(c.String("part")); err != nil {
			return o, err
		}
		if o.Finish {
			return o, usage(c, "--part and --finish exclude each other")
		}
	}
	return o, nil
}

func jobs(c *cli.Context) (int, error) {
	n := c.Int("jobs")
	if c.IsSet("jobs") && n < 1 {
		return 0, usage(c, "--jobs: found %d, expected 1 or more", n)
	}
	return n, nil
}
