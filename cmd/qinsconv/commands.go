package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/qinsconv/qinsconv/convert"
)

func convertCommand(c *cli.Context, ui *ui, rules *ruleList) error {
	args, err := paths(c, "IN", "OUT")
	if err != nil {
		return err
	}
	p := ui.printer(c, "convert")
	opts, err := conversionOptions(c, rules, p.event)
	if err != nil {
		return err
	}
	if convert.IsModel(args[0]) {
		r, err := convert.ConvertDir(c.Context, args[0], args[1], opts)
		p.close()
		if err != nil {
			return err
		}
		return p.model(args[0], args[1], r)
	}
	for _, name := range []string{"weights", "part", "finish"} {
		if c.IsSet(name) {
			return &usageError{fmt.Sprintf("--%s is for model directories, and %s is a file", name, args[0])}
		}
	}
	m, err := convert.Convert(c.Context, args[0], args[1], opts)
	p.close()
	if err != nil {
		return err
	}
	return p.manifest(args[1], m)
}

func batchCommand(c *cli.Context, ui *ui, rules *ruleList) error {
	args, err := paths(c, "SRC", "DST")
	if err != nil {
		return err
	}
	p := ui.printer(c, "batch")
	opts, err := conversionOptions(c, rules, p.event)
	if err != nil {
		return err
	}
	r, err := convert.Batch(c.Context, args[0], args[1], opts)
	p.close()
	if err != nil {
		return err
	}
	if err := p.batch(r); err != nil {
		return err
	}
	if r.Failed > 0 {
		return fmt.Errorf("%w: %d of %d models failed", errReported, r.Failed, len(r.Models))
	}
	return nil
}

func planCommand(c *cli.Context, ui *ui, rules *ruleList) error {
	args, err := paths(c, "IN")
	if err != nil {
		return err
	}
	p := ui.printer(c, "plan")
	opts, err := conversionOptions(c, rules, p.event)
	if err != nil {
		return err
	}
	var plans convert.Plans
	if convert.IsModel(args[0]) {
		plans, err = convert.PlanDir(c.Context, args[0], opts)
	} else {
		plans = make(convert.Plans, 1)
		plans[0], err = convert.NewPlan(c.Context, args[0], opts)
	}
	p.close()
	if err != nil {
		return err
	}
	return p.plan(args[0], plans)
}

func decodeCommand(c *cli.Context, ui *ui) error {
	args, err := paths(c, "IN", "OUT")
	if err != nil {
		return err
	}
	n, err := jobs(c)
	if err != nil {
		return err
	}
	p := ui.printer(c, "decode")
	decode := convert.Decode
	if info, err := os.Stat(args[0]); err == nil && info.IsDir() {
		decode = convert.DecodeDir
	}
	err = decode(c.Context, args[0], args[1], convert.Options{Jobs: n, Force: c.Bool("force"), Events: p.event})
	p.close()
	return err
}

func verifyCommand(c *cli.Context, ui *ui) error {
	args, err := paths(c, "PATH")
	if err != nil {
		return err
	}
	n, err := jobs(c)
	if err != nil {
		return err
	}
	if c.IsSet("against") {
		if err := checkPath("--against", c.String("against")); err != nil {
			return err
		}
	}
	p := ui.printer(c, "verify")
	report, err := convert.Verify(c.Context, args[0], convert.VerifyOptions{Against: c.String("against"), Jobs: n, Events: p.event})
	p.close()
	if err != nil {
		return err
	}
	if err := p.report(report); err != nil {
		return err
	}
	if !report.OK() {
		return verdict{report.Worst()}
	}
	return nil
}

func inspectCommand(c *cli.Context, ui *ui) error {
	args, err := paths(c, "FILE")
	if err != nil {
		return err
	}
	list, err := convert.Inspect(args[0])
	if err != nil {
		return err
	}
	return ui.printer(c, "inspect").inspection(list)
}

func completionCommand(c *cli.Context) error {
	args, err := paths(c, "bash|zsh|fish")
	if err != nil {
		return err
	}
	switch args[0] {
	case "bash":
		_, err = fmt.Fprint(c.App.Writer, bashCompletion)
	case "zsh":
		_, err = fmt.Fprint(c.App.Writer, zshCompletion)
	case "fish":
		var script string
		if script, err = c.App.ToFishCompletion(); err == nil {
			_, err = fmt.Fprint(c.App.Writer, script)
		}
	default:
		return &usageError{fmt.Sprintf("completion: found %q, expected bash, zsh or fish", args[0])}
	}
	return err
}

// The scripts ask the program itself, as urfave/cli documents.
const bashCompletion = `# bash completion for qinsconv: source <(qinsconv completion bash)
_qinsconv() {
    local cur="${COMP_WORDS[COMP_CWORD]}"
    local words=("${COMP_WORDS[@]:0:$COMP_CWORD}")
    if [[ "$cur" == -* ]]; then
        words+=("$cur")
    fi
    COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur") $(compgen -f -- "$cur"))
}
complete -o filenames -F _qinsconv qinsconv
`

const zshCompletion = `#compdef qinsconv
# zsh completion for qinsconv: source <(qinsconv completion zsh)
_qinsconv() {
    local -a opts
    local cur=${words[-1]}
    if [[ "$cur" == -* ]]; then
        opts=("${(@f)$(${words[@]:0:#words[@]-1} ${cur} --generate-bash-completion 2>/dev/null)}")
    else
        opts=("${(@f)$(${words[@]:0:#words[@]-1} --generate-bash-completion 2>/dev/null)}")
    fi
    [[ -n "${opts[1]}" ]] && _describe 'values' opts
    _files
}
compdef _qinsconv qinsconv
`
