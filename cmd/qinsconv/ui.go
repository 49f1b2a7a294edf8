package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/go-json-experiment/json"
	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/qins"
)

// A ui is where the command prints.
type ui struct{ stdout, stderr io.Writer }

// A printer turns the events and results of one command into words, or into
// JSON.
type printer interface {
	event(convert.Event)
	// close ends what moves on the screen, before results are printed.
	close()
	manifest(out string, m *convert.Manifest) error
	plan(in string, p *convert.Plan) error
	report(r *convert.Report) error
	inspection(i *convert.Inspection) error
}

func (u *ui) printer(c *cli.Context, command string) printer {
	if c.Bool("json") {
		return &jsonPrinter{out: u.stdout}
	}
	p := &textPrinter{out: u.stdout, warn: u.stderr, command: command, quiet: c.Bool("quiet")}
	if f, ok := u.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) && !p.quiet {
		p.terminal = f
	}
	return p
}

// A jsonPrinter writes an object for each event, on a line of its own.
type jsonPrinter struct {
	out  io.Writer
	last time.Time // of progress
	err  error
}

// progressEvery bounds how often progress is told.
const progressEvery = 100 * time.Millisecond

func (p *jsonPrinter) event(e convert.Event) {
	if progress, ok := e.(convert.Progress); ok && progress.Done < progress.Total {
		if time.Since(p.last) < progressEvery {
			return
		}
		p.last = time.Now()
	}
	p.object(e.Kind(), e)
}

// object writes the members of v after one that names the event.
func (p *jsonPrinter) object(event string, v any) {
	text, err := json.Marshal(v)
	if err == nil {
		line := fmt.Appendf(nil, `{"event":%q`, event)
		if len(text) > len("{}") {
			line = append(append(line, ','), text[1:]...)
		} else {
			line = append(line, '}')
		}
		_, err = p.out.Write(append(line, '\n'))
	}
	if p.err == nil {
		p.err = err
	}
}

func (p *jsonPrinter) close() {}

func (p *jsonPrinter) manifest(out string, m *convert.Manifest) error {
	p.object("summary", struct {
		Manifest   string         `json:"manifest"`
		SourceSize uint64         `json:"source_size"`
		OutputSize uint64         `json:"output_size"`
		Totals     convert.Totals `json:"totals"`
	}{convert.ManifestPath(out), m.Source.Size, m.Output.Size, m.Totals})
	return p.err
}

func (p *jsonPrinter) plan(in string, plan *convert.Plan) error {
	for _, t := range plan.Tensors {
		p.object("planned", struct {
			Name        string      `json:"name"`
			DType       any         `json:"dtype"`
			Shape       any         `json:"shape"`
			Action      qins.Action `json:"action"`
			Rule        string      `json:"rule,omitzero"`
			TiedTo      string      `json:"tied_to,omitzero"`
			Tie         qins.Tie    `json:"tie,omitzero"`
			SourceBytes int64       `json:"source_bytes"`
			OutputBytes int64       `json:"output_bytes"`
		}{t.Name, t.DType, t.Shape, t.Action, t.Rule, t.TiedTo, t.Tie, t.SourceBytes, t.OutputBytes})
	}
	p.object("summary", struct {
		SourceSize int64                    `json:"source_size"`
		OutputSize int64                    `json:"output_size"`
		Rules      map[string]convert.Group `json:"rules"`
	}{plan.SourceSize(), plan.Sizes.Total(), plan.ByRule()})
	return p.err
}

func (p *jsonPrinter) report(r *convert.Report) error {
	for _, f := range r.Findings {
		p.object("finding", f)
	}
	p.object("verified", struct {
		File     string `json:"file"`
		Manifest string `json:"manifest,omitzero"`
		Against  string `json:"against,omitzero"`
		Tensors  int    `json:"tensors"`
		Findings int    `json:"findings"`
		OK       bool   `json:"ok"`
	}{r.File, r.Manifest, r.Against, r.Tensors, len(r.Findings), r.OK()})
	return p.err
}

func (p *jsonPrinter) inspection(i *convert.Inspection) error {
	p.object("inspection", i)
	return p.err
}

// A textPrinter writes for people: a progress bar on a terminal, else a line
// for each tensor.
type textPrinter struct {
	out, warn io.Writer
	command   string
	quiet     bool
	terminal  io.Writer // nil where there is none
	bar       *progressbar.ProgressBar
	phase     string
}

func (p *textPrinter) event(e convert.Event) {
	switch e := e.(type) {
	case convert.Warning:
		p.clear()
		if e.Tensor != "" {
			fmt.Fprintf(p.warn, "qinsconv: warning: tensor %q: %s\n", e.Tensor, e.Message)
		} else {
			fmt.Fprintf(p.warn, "qinsconv: warning: %s\n", e.Message)
		}
	case convert.Progress:
		p.progress(e)
	case convert.TensorDone:
		if p.quiet || p.terminal != nil {
			return
		}
		width := len(fmt.Sprint(e.Of))
		fmt.Fprintf(p.out, "[%*d/%*d] %s - %s, type = %s, %s\n", width, e.Index, width, e.Of, printable(e.Name), e.Shape, e.DType, change(e))
	case convert.Done:
		if p.command == "decode" && !p.quiet {
			p.close()
			fmt.Fprintf(p.out, "%s: %s\n", e.Out, size(e.Size))
		}
	}
}

func change(e convert.TensorDone) string {
	if e.Action == qins.Tied && e.OutputBytes == 0 {
		return "tied to " + printable(e.TiedTo)
	}
	return fmt.Sprintf("size = %s -> %s, %s", humanize.IBytes(uint64(e.SourceBytes)), humanize.IBytes(uint64(e.OutputBytes)), e.Action)
}

// printable escapes what a hostile name could do to a terminal.
func printable(name string) string {
	quoted := fmt.Sprintf("%q", name)
	if quoted[1:len(quoted)-1] == name && name != "" {
		return name
	}
	return quoted
}

// shorten cuts a long metadata value.
func shorten(s string) string {
	const most = 200
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

func (p *textPrinter) progress(e convert.Progress) {
	if p.terminal == nil {
		return
	}
	if p.bar == nil || p.phase != e.Phase {
		p.clear()
		p.phase = e.Phase
		p.bar = progressbar.NewOptions64(max(e.Total, 1),
			progressbar.OptionSetWriter(p.terminal),
			progressbar.OptionSetDescription(fmt.Sprintf("%-8s", e.Phase)),
			progressbar.OptionShowBytes(true),
			progressbar.OptionShowCount(),
			progressbar.OptionUseIECUnits(true),
			progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(progressEvery),
			progressbar.OptionFullWidth(),
			progressbar.OptionClearOnFinish())
	}
	// A bar that cannot be drawn is no reason to stop.
	_ = p.bar.Set64(e.Done)
}

func (p *textPrinter) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}

func (p *textPrinter) close() { p.clear() }

func size(n int64) string {
	return fmt.Sprintf("%s (%s bytes)", humanize.IBytes(uint64(n)), humanize.Comma(n))
}

func (p *textPrinter) manifest(out string, m *convert.Manifest) error {
	if p.quiet {
		return nil
	}
	t := &m.Totals
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "source\t%s\t%s\n", m.Source.Name, size(int64(m.Source.Size)))
	fmt.Fprintf(w, "output\t%s\t%s\n", out, size(int64(m.Output.Size)))
	fmt.Fprintf(w, "ratio\t%.2f×\t%.2f bits per weight", t.Ratio, t.BitsPerWeight)
	if t.Encoded.Parameters > 0 {
		fmt.Fprintf(w, ", %.2f per encoded weight", t.BitsPerEncodedWeight)
	}
	fmt.Fprintf(w, "\ntensors\t%d\t%d encoded, %d kept, %d tied\n", len(m.Tensors), t.Encoded.Tensors, t.Kept.Tensors, t.Tied.Tensors)
	if n := t.Tied.SourceBytes; n > 0 {
		once := float64(m.Source.Size-n) / float64(m.Output.Size)
		fmt.Fprintf(w, "copies\t%s\tthat the source stored twice; without them the ratio is %.2f×\n", humanize.IBytes(n), once)
	}
	for i := range m.Tensors {
		if t := &m.Tensors[i]; t.Refused() {
			fmt.Fprintf(w, "kept\t%s\t%s\n", printable(t.Name), printable(t.Rule))
		}
	}
	if worst := worstError(m); worst != nil {
		fmt.Fprintf(w, "worst\t%s\tSNR %.2f dB, largest relative error %.2f %%\n", printable(worst.Name), worst.Error.SNR, 100*worst.Error.MaxRel)
	}
	fmt.Fprintf(w, "manifest\t%s\n", convert.ManifestPath(out))
	return w.Flush()
}

// worstError returns the tensor with the lowest SNR, nil where nothing was lost.
func worstError(m *convert.Manifest) *convert.ManifestTensor {
	var worst *convert.ManifestTensor
	lowest := math.Inf(1)
	for i := range m.Tensors {
		if t := &m.Tensors[i]; t.Error != nil && float64(t.Error.SNR) < lowest {
			worst, lowest = t, float64(t.Error.SNR)
		}
	}
	return worst
}

func (p *textPrinter) plan(in string, plan *convert.Plan) error {
	if p.quiet {
		return nil
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TENSOR\tTYPE\tSHAPE\tACTION\tSIZE\tSTORED\tRULE")
	for _, t := range plan.Tensors {
		rule := t.Rule
		if t.Action == qins.Tied {
			rule = fmt.Sprintf("tied to %s by %s", printable(t.TiedTo), t.Tie)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(t.Name), t.DType, t.Shape, t.Action,
			humanize.IBytes(uint64(t.SourceBytes)), humanize.IBytes(uint64(t.OutputBytes)), printable(rule))
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "RULE\tTENSORS\tPARAMETERS\tSIZE\tSTORED")
	groups := plan.ByRule()
	for _, rule := range plan.RuleNames() {
		g := groups[rule]
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", printable(rule), g.Tensors, humanize.Comma(int64(g.Parameters)),
			humanize.IBytes(g.SourceBytes), humanize.IBytes(g.OutputBytes))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	total := plan.Sizes.Total()
	about := ""
	if plan.Layout == qins.Compact {
		about = "about "
	}
	_, err := fmt.Fprintf(p.out, "\n%s: %s -> %s%s, %.2f×\n", in, size(plan.SourceSize()), about, size(total), float64(plan.SourceSize())/float64(total))
	return err
}

func (p *textPrinter) report(r *convert.Report) error {
	for _, f := range r.Findings {
		if f.Tensor != "" {
			fmt.Fprintf(p.warn, "qinsconv: %s: tensor %q: %s\n", f.File, f.Tensor, f.Message)
		} else {
			fmt.Fprintf(p.warn, "qinsconv: %s: %s\n", f.File, f.Message)
		}
	}
	if p.quiet {
		return nil
	}
	against := []string{fmt.Sprintf("%d tensors", r.Tensors)}
	if r.Manifest != "" {
		against = append(against, "the manifest")
	} else {
		against = append(against, "no manifest")
	}
	if r.Against != "" {
		against = append(against, "the source "+r.Against)
	}
	verdict := "OK"
	if !r.OK() {
		verdict = fmt.Sprintf("%d findings", len(r.Findings))
	}
	_, err := fmt.Fprintf(p.out, "%s: %s (%s)\n", r.File, verdict, strings.Join(against, ", "))
	return err
}

func (p *textPrinter) inspection(i *convert.Inspection) error {
	if p.quiet {
		return nil
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "file\t%s\n", i.File)
	fmt.Fprintf(w, "format\t%s\n", i.Format)
	if i.Layout != "" {
		fmt.Fprintf(w, "layout\t%s\n", i.Layout)
	}
	fmt.Fprintf(w, "size\t%s\n", size(i.Size))
	fmt.Fprintf(w, "header\t%s bytes\n", humanize.Comma(i.HeaderBytes))
	for _, e := range i.Metadata {
		fmt.Fprintf(w, "metadata\t%s = %s\n", printable(e.Key), printable(shorten(e.Value)))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(p.out)
	w = tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	if i.Layout == "" {
		fmt.Fprintln(w, "TENSOR\tTYPE\tSHAPE\tOFFSET\tBYTES")
		for _, t := range i.Tensors {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\n", printable(t.Name), t.DType, t.Shape, t.Offset, t.Size)
		}
		return w.Flush()
	}
	fmt.Fprintln(w, "TENSOR\tTYPE\tSHAPE\tACTION\tBYTES\tBITS/WEIGHT\tPLANES (offset+bytes)")
	for _, t := range i.Tensors {
		var planes []string
		for _, q := range t.Planes {
			planes = append(planes, fmt.Sprintf("%s %d+%d", printable(q.Name), q.Offset, q.Size))
		}
		bits := fmt.Sprintf("%.3f", t.Bits)
		if t.TiedTo != "" {
			planes, bits = []string{"tied to " + printable(t.TiedTo)}, "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", printable(t.Name), t.DType, t.Shape, t.Action, t.Size, bits, strings.Join(planes, ", "))
	}
	return w.Flush()
}
