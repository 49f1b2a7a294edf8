package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/qinsconv/qinsconv/convert"
)

// The scripts that complete the command line list all commands and options.
// They never run the program: it would take the words that are there so far for
// work to do.

var completions = map[string]func(*cli.App) string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}

// shells are those that there is a completion for.
var shells = []string{"bash", "zsh", "fish"}

func completionCommand(c *cli.Context) error {
	args, err := paths(c, strings.Join(shells, "|"))
	if err != nil {
		return err
	}
	script := completions[args[0]]
	if script == nil {
		return usage(c, "completion: found %q, expected bash, zsh or fish", args[0])
	}
	_, err = fmt.Fprint(c.App.Writer, script(c.App))
	return err
}

// An option is a flag as a shell completes it.
type option struct {
	names   []string // with dashes, the long one first
	usage   string
	value   string   // what follows it is called; empty where nothing does
	choices []string // of values
}

// isPath reports whether the value is a path.
func (o option) isPath() bool { return o.value == "SOURCE" }

// optionsOf lists the options of a command.
func optionsOf(c *cli.Command) []option {
	list := []option{{names: []string{"--help", "-h"}, usage: "show help"}}
	for _, f := range c.Flags {
		doc := f.(cli.DocGenerationFlag)
		var o option
		for _, name := range f.Names() {
			o.names = append(o.names, dashed(name))
		}
		if doc.TakesValue() {
			o.value, o.choices = "VALUE", choices(f.Names()[0])
			if parts := strings.Split(doc.GetUsage(), "`"); len(parts) == 3 {
				o.value = parts[1]
			}
		}
		o.usage = strings.ReplaceAll(doc.GetUsage(), "`", "")
		list = append(list, o)
	}
	return list
}

// dashed is the name of an option as it is given.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// choices lists the values that an option can have, where they are few.
func choices(flag string) []string {
	switch flag {
	case "layout":
		return layouts()
	case "codec":
		return convert.Codecs()
	}
	return nil
}

// words lists what the first argument of a command can be, where that is no
// path.
func words(app *cli.App, command string) []string {
	switch command {
	case "completion":
		return shells
	case "help":
		return commandNames(app)
	}
	return nil
}

func commandNames(app *cli.App) []string {
	var names []string
	for _, c := range app.Commands {
		names = append(names, c.Name)
	}
	return names
}

// pattern matches a command's name in the case of a shell, and none at all where
// it is the default.
func pattern(c *cli.Command) string {
	if c.Name == defaultCommand {
		return c.Name + "|''"
	}
	return c.Name
}

// quoted quotes a word for a shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func bashCompletion(app *cli.App) string {
	var values, choice, commands, firsts strings.Builder
	seen := map[string]bool{}
	for _, c := range app.Commands {
		var names []string
		for _, o := range optionsOf(c) {
			names = append(names, o.names...)
			if o.value == "" || seen[o.names[0]] {
				continue
			}
			seen[o.names[0]] = true
			fmt.Fprintf(&values, "|%s", strings.Join(o.names, "|"))
			if o.choices != nil {
				fmt.Fprintf(&choice, "    %s) list=%s ;;\n", strings.Join(o.names, "|"), quoted(strings.Join(o.choices, " ")))
			}
		}
		fmt.Fprintf(&commands, "        %s) list=%s ;;\n", pattern(c), quoted(strings.Join(names, " ")))
		if w := words(app, c.Name); w != nil {
			fmt.Fprintf(&firsts, "        %s) list=%s ;;\n", c.Name, quoted(strings.Join(w, " ")))
		}
	}
	names := commandNames(app)
	return strings.NewReplacer("VALUES", strings.TrimPrefix(values.String(), "|"), "CHOICES\n", choice.String(), "OPTIONS\n", commands.String(),
		"FIRSTS\n", firsts.String(), "PATTERN", strings.Join(names, "|"), "NAMES", strings.Join(names, " ")).Replace(
		`# bash completion for qinsconv: source <(qinsconv completion bash)
_qinsconv() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local command='' list='' i paths=0
    # The "=" of --layout=plain is a word of its own.
    if [[ $cur == = ]]; then
        cur=''
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i-1]} in
        VALUES|=) continue ;;
        esac
        case ${COMP_WORDS[i]} in
        --) return ;;
        -*|=) ;;
        PATTERN) ((paths++)) || command=${COMP_WORDS[i]} ;;
        *) ((paths++)) ;;
        esac
    done
    case $prev in
CHOICES
    VALUES) return ;;
    *)
        case $cur:$command in
        -*)
            case $command in
OPTIONS
            esac ;;
        *:) ((paths)) || list='NAMES' ;;
        *)
            case $command in
FIRSTS
            esac ;;
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$list" -- "$cur"))
}
complete -o default -F _qinsconv qinsconv
`)
}

func zshCompletion(app *cli.App) string {
	var commands, options strings.Builder
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `[`, `\[`, `]`, `\]`)
	for _, c := range app.Commands {
		fmt.Fprintf(&commands, "        %s\n", quoted(c.Name+":"+escape.Replace(c.Usage)))
		fmt.Fprintf(&options, "    %s)\n        options=(\n", pattern(c))
		for _, o := range optionsOf(c) {
			for _, name := range o.names {
				spec := "(" + strings.Join(o.names, " ") + ")" + name
				if o.value != "" {
					spec = "*" + name // of some there may be several
					if strings.HasPrefix(name, "--") {
						spec += "="
					}
				}
				spec += "[" + escape.Replace(o.usage) + "]"
				switch {
				case o.choices != nil:
					spec += ":" + o.value + ":(" + strings.Join(o.choices, " ") + ")"
				case o.isPath():
					spec += ":" + o.value + ":_files"
				case o.value != "":
					spec += ":" + o.value + ": "
				}
				fmt.Fprintf(&options, "            %s\n", quoted(spec))
			}
		}
		switch w := words(app, c.Name); {
		case w != nil:
			fmt.Fprintf(&options, "            '2:argument:(%s)'\n", strings.Join(w, " "))
		default:
			options.WriteString("            '*:file:_files'\n")
		}
		options.WriteString("        ) ;;\n")
	}
	return strings.NewReplacer("COMMANDS\n", commands.String(), "OPTIONS\n", options.String(), "PATTERN", strings.Join(commandNames(app), "|")).Replace(
		`#compdef qinsconv
# zsh completion for qinsconv: source <(qinsconv completion zsh)
_qinsconv_first() {
    local -a commands
    commands=(
COMMANDS
    )
    _describe -t commands command commands
    _files
}
_qinsconv() {
    local command='' word
    local -a options
    for word in ${words[2,CURRENT-1]}; do
        case $word in
        PATTERN) command=$word; break ;;
        esac
    done
    case $command in
OPTIONS
    esac
    _arguments -s -S : '1:command or file:_qinsconv_first' $options
}
if [[ $funcstack[1] == _qinsconv ]]; then
    _qinsconv "$@"
else
    compdef _qinsconv qinsconv
fi
`)
}

func fishCompletion(app *cli.App) string {
	var b strings.Builder
	names := commandNames(app)
	fmt.Fprintf(&b, "# fish completion for qinsconv: qinsconv completion fish | source\n")
	none := "not __fish_seen_subcommand_from " + strings.Join(names, " ")
	for _, c := range app.Commands {
		fmt.Fprintf(&b, "complete -c qinsconv -n %s -a %s -d %s\n", quoted(none), c.Name, quoted(c.Usage))
	}
	for _, c := range app.Commands {
		when := "__fish_seen_subcommand_from " + c.Name
		if c.Name == defaultCommand {
			others := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == defaultCommand })
			when = "not __fish_seen_subcommand_from " + strings.Join(others, " ")
		}
		if w := words(app, c.Name); w != nil {
			fmt.Fprintf(&b, "complete -c qinsconv -n %s -f -a %s\n", quoted(when), quoted(strings.Join(w, " ")))
		}
		for _, o := range optionsOf(c) {
			fmt.Fprintf(&b, "complete -c qinsconv -n %s", quoted(when))
			for _, name := range o.names {
				if long, ok := strings.CutPrefix(name, "--"); ok {
					fmt.Fprintf(&b, " -l %s", long)
				} else {
					fmt.Fprintf(&b, " -s %s", name[1:])
				}
			}
			switch {
			case o.choices != nil:
				fmt.Fprintf(&b, " -x -a %s", quoted(strings.Join(o.choices, " ")))
			case o.isPath():
				b.WriteString(" -r")
			case o.value != "":
				b.WriteString(" -x")
			}
			fmt.Fprintf(&b, " -d %s\n", quoted(o.usage))
		}
	}
	return b.String()
}
