package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
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
	m, err := convert.Convert(c.Context, args[0], args[1], opts)
	p.close()
	if err != nil {
		return err
	}
	return p.manifest(args[1], m)
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
	plan, err := convert.NewPlan(c.Context, args[0], opts)
	p.close()
	if err != nil {
		return err
	}
	return p.plan(args[0], plan)
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
	err = convert.Decode(c.Context, args[0], args[1], convert.Options{Jobs: n, Force: c.Bool("force"), Events: p.event})
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
	list, err := inspect(args[0])
	if err != nil {
		return err
	}
	return ui.printer(c, "inspect").inspection(list)
}

// An inspection is what a file's header says.
type inspection struct {
	File        string         `json:"file"`
	Format      string         `json:"format"`
	Size        int64          `json:"size"`
	HeaderBytes int64          `json:"header_bytes"`
	Metadata    []format.Entry `json:"metadata"`
	Layout      qins.Layout    `json:"layout,omitzero"`
	Tensors     []inspected    `json:"tensors"`
}

// An inspected is one tensor of an inspection. Those of a .qins file are the
// source's.
type inspected struct {
	Name   string       `json:"name"`
	DType  format.DType `json:"dtype"`
	Shape  format.Shape `json:"shape"`
	Offset int64        `json:"offset"` // in the file; of a .qins file's tensors see planes
	Size   int64        `json:"size"`   // that it takes in the file
	Action qins.Action  `json:"action,omitzero"`
	TiedTo string       `json:"tied_to,omitzero"`
	Bits   float64      `json:"bits_per_weight,omitzero"`
	Planes []inspected  `json:"planes,omitzero"`
}

func inspect(path string) (*inspection, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	magic := make([]byte, 4)
	if n, _ := f.ReadAt(magic, 0); bytes.Equal(magic[:n], []byte("GGUF")) {
		return inspectGGUF(f, info.Size(), path)
	}
	st, err := safetensors.New(f, info.Size(), path)
	if err != nil {
		return nil, err
	}
	list := &inspection{File: path, Format: "safetensors", Size: st.Size(), HeaderBytes: st.HeaderSize(), Metadata: st.Metadata()}
	if !qins.IsQINS(st) {
		list.Tensors = inspectTensors(st.Tensors())
		return list, nil
	}
	q, err := qins.New(st)
	if err != nil {
		return nil, err
	}
	list.Format, list.Layout, list.Metadata = "qins", q.Header().Layout, q.Metadata()
	for i, t := range q.Tensors() {
		it := inspected{Name: t.Name, DType: t.DType, Shape: t.Shape, Size: q.StoredSize(i), Action: t.Action, TiedTo: t.TiedTo,
			Planes: inspectTensors(q.PlanesOf(i))}
		if n := t.Elements(); n > 0 {
			it.Bits = 8 * float64(it.Size) / float64(n)
		}
		if len(it.Planes) > 0 {
			it.Offset = it.Planes[0].Offset
		}
		list.Tensors = append(list.Tensors, it)
	}
	return list, nil
}

func inspectGGUF(f *os.File, size int64, path string) (*inspection, error) {
	g, err := gguf.New(f, size, path)
	if err != nil {
		return nil, err
	}
	list := &inspection{File: path, Format: "gguf", Size: g.Size(), HeaderBytes: g.HeaderSize(), Tensors: inspectTensors(g.Tensors())}
	for _, kv := range g.KeyValues() {
		// Strings in GGUF files need not be valid UTF-8, those in JSON do.
		list.Metadata = append(list.Metadata, format.Entry{Key: kv.Key, Value: strings.ToValidUTF8(kv.Value.String(), "\uFFFD")})
	}
	return list, nil
}

func inspectTensors(tensors []format.Tensor) []inspected {
	var list []inspected
	for _, t := range tensors {
		list = append(list, inspected{Name: t.Name, DType: t.DType, Shape: t.Shape, Offset: t.Offset, Size: t.Size})
	}
	return list
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
