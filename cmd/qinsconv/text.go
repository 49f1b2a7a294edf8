package main

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/schollz/progressbar/v3"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/qins"
)

// A textPrinter writes for people: a progress bar on a terminal, else a line
// for each tensor.
type textPrinter struct {
	out, warn io.Writer
	command   string
	quiet     bool
	terminal  io.Writer // nil where there is none
	bar       *progressbar.ProgressBar
	phase     string
	several   bool // files, so that their tensors are not told of one by one
}

func (p *textPrinter) event(e convert.Event) {
	switch e := e.(type) {
	case convert.Warning:
		p.clear()
		if e.Tensor != "" {
			fmt.Fprintf(p.warn, "qinsconv: warning: %s: tensor %q: %s\n", visible(e.File), e.Tensor, visible(e.Message))
		} else {
			fmt.Fprintf(p.warn, "qinsconv: warning: %s\n", visible(e.Message))
		}
	case convert.Progress:
		p.progress(e)
	case convert.Start:
		p.several = p.several || e.Files > 0 || e.Models > 0
	case convert.FileDone:
		if p.quiet || p.terminal != nil {
			return
		}
		width := len(fmt.Sprint(e.Of))
		fmt.Fprintf(p.out, "[%*d/%*d] %s - %s, size = %s -> %s, %s\n", width, e.Index, width, e.Of, printable(e.Out), english.Plural(e.Tensors, "tensor", ""),
			humanize.IBytes(uint64(e.SourceBytes)), humanize.IBytes(uint64(e.OutputBytes)), e.Status)
	case convert.ModelDone:
		p.clear()
		if e.Status == convert.ModelFailed {
			name := printable(e.Model) + ": "
			if e.Model == "." {
				name = "" // the batch's source itself
			}
			fmt.Fprintf(p.warn, "qinsconv: %s%s\n", name, visible(e.Error))
		}
	case convert.TensorDone:
		if p.quiet || p.terminal != nil || p.several {
			return
		}
		width := len(fmt.Sprint(e.Of))
		fmt.Fprintf(p.out, "[%*d/%*d] %s - %s, type = %s, %s\n", width, e.Index, width, e.Of, printable(e.Name), e.Shape, e.DType, change(e))
	case convert.Done:
		if p.command == "decode" && !p.quiet {
			p.close()
			fmt.Fprintf(p.out, "%s: %s\n", visible(e.Out), size(e.Size))
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

// visible escapes what is not to be seen in a text: a name in it could do
// something to the terminal, or make the text look like another.
func visible(text string) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
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

func (p *textPrinter) manifest(out string, m *convert.Manifest) {
	if p.quiet {
		return
	}
	t := &m.Totals
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "source\t%s\t%s\n", visible(m.Source.Name), size(int64(m.Source.Size)))
	fmt.Fprintf(w, "output\t%s\t%s\n", visible(out), size(int64(m.Output.Size)))
	p.totals(w, t, m.Source.Size, m.Output.Size)
	refusals(w, m.Tensors)
	fmt.Fprintf(w, "manifest\t%s\n", visible(convert.ManifestPath(out)))
	w.Flush()
}

// worstError returns the tensor with the lowest SNR, nil where nothing was lost.
func worstError(tensors []convert.ManifestTensor) *convert.ManifestTensor {
	var worst *convert.ManifestTensor
	lowest := math.Inf(1)
	for i := range tensors {
		if t := &tensors[i]; t.Error != nil && float64(t.Error.SNR) < lowest {
			worst, lowest = t, float64(t.Error.SNR)
		}
	}
	return worst
}

func (p *textPrinter) model(in, out string, r *convert.DirResult) {
	if p.quiet {
		return
	}
	m := r.Manifest
	if m == nil {
		fmt.Fprintf(p.out, "%s: %s converted, %d unchanged, %d still missing that other parts convert\n", visible(out), english.Plural(r.Converted, "file", ""), r.Unchanged, len(r.Missing))
		return
	}
	t := &m.Totals
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "source\t%s\t%s of weights in %s\n", visible(in), size(int64(m.SourceSize())), english.Plural(len(m.Files), "file", ""))
	fmt.Fprintf(w, "output\t%s\t%s\n", visible(out), size(int64(m.OutputSize())))
	p.totals(w, t, m.SourceSize(), m.OutputSize())
	fmt.Fprintf(w, "files\t%d\t%d converted, %d unchanged since an earlier run\n", len(m.Files), r.Converted, r.Unchanged)
	fmt.Fprintf(w, "beside\t%d\tother files, %s, carried over and not counted above\n", len(m.SideFiles), humanize.IBytes(m.SideSize()))
	var tensors []convert.ManifestTensor
	for i := range m.Files {
		tensors = append(tensors, m.Files[i].Tensors...)
	}
	refusals(w, tensors)
	fmt.Fprintf(w, "manifest\t%s\n", visible(filepath.Join(out, convert.DirManifestName)))
	w.Flush()
}

// totals prints the lines about sizes and tensors that every summary has.
func (p *textPrinter) totals(w io.Writer, t *convert.Totals, source, output uint64) {
	fmt.Fprintf(w, "ratio\t%.2f×\t%.2f bits per weight", t.Ratio, t.BitsPerWeight)
	if t.Encoded.Parameters > 0 {
		fmt.Fprintf(w, ", %.2f per encoded weight", t.BitsPerEncodedWeight)
	}
	fmt.Fprintf(w, "\ntensors\t%d\t%d encoded, %d kept, %d tied\n", t.Encoded.Tensors+t.Kept.Tensors+t.Tied.Tensors, t.Encoded.Tensors, t.Kept.Tensors, t.Tied.Tensors)
	if n := t.Tied.SourceBytes; n > 0 {
		once := float64(source-n) / float64(output)
		fmt.Fprintf(w, "copies\t%s\tthat the source stored twice; without them the ratio is %.2f×\n", humanize.IBytes(n), once)
	}
}

// refusals prints the weights that could not be encoded, and the worst of those
// that were.
func refusals(w io.Writer, tensors []convert.ManifestTensor) {
	for i := range tensors {
		if t := &tensors[i]; t.Refused() {
			fmt.Fprintf(w, "kept\t%s\t%s\n", printable(t.Name), printable(t.Rule))
		}
	}
	if worst := worstError(tensors); worst != nil {
		fmt.Fprintf(w, "worst\t%s\tSNR %.2f dB, its largest relative error %.2f %%\n", printable(worst.Name), worst.Error.SNR, 100*worst.Error.MaxRel)
	}
}

func (p *textPrinter) batch(r *convert.BatchResult) {
	if p.quiet {
		return
	}
	row := func(before, after, ratio string, seconds float64, status, model string) {
		fmt.Fprintf(p.out, "%10s  %10s  %7s  %9.1f s  %-9s  %s\n", before, after, ratio, seconds, status, model)
	}
	fmt.Fprintf(p.out, "%10s  %10s  %7s  %11s  %-9s  %s\n", "before", "after", "ratio", "time", "", "model")
	var before, after int64
	var seconds float64
	for _, m := range r.Models {
		before, after, seconds = before+m.SourceSize, after+m.OutputSize, seconds+m.Seconds
		if m.Status == convert.ModelFailed {
			row("-", "-", "-", m.Seconds, string(m.Status), printable(m.Model))
			continue
		}
		row(humanize.IBytes(uint64(m.SourceSize)), humanize.IBytes(uint64(m.OutputSize)), fmt.Sprintf("%.2f×", m.Ratio), m.Seconds, string(m.Status), printable(m.Model))
	}
	ratio := "-"
	if after > 0 {
		ratio = fmt.Sprintf("%.2f×", float64(before)/float64(after))
	}
	row(humanize.IBytes(uint64(before)), humanize.IBytes(uint64(after)), ratio, seconds, fmt.Sprintf("%d failed", r.Failed), english.Plural(len(r.Models), "model", ""))
}

func (p *textPrinter) plan(in string, plans convert.Plans) {
	if p.quiet {
		return
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	for _, plan := range plans {
		if len(plans) > 1 {
			fmt.Fprintf(w, "FILE %s\n", printable(plan.Name()))
		}
		fmt.Fprintln(w, "TENSOR\tTYPE\tSHAPE\tACTION\tSIZE\tSTORED\tRULE")
		for i := range plan.Tensors {
			t := &plan.Tensors[i]
			rule := t.Rule
			if t.Action == qins.Tied {
				rule = fmt.Sprintf("tied to %s by %s", printable(t.TiedTo), t.Tie)
				if t.TiedIn != "" {
					rule += " in " + printable(t.TiedIn)
				}
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(t.Name), t.DType, t.Shape, t.Action,
				humanize.IBytes(uint64(t.SourceBytes)), humanize.IBytes(uint64(t.OutputBytes)), printable(rule))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "RULE\tTENSORS\tPARAMETERS\tSIZE\tSTORED")
	groups := plans.ByRule()
	for _, rule := range plans.RuleNames() {
		g := groups[rule]
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", printable(rule), g.Tensors, humanize.Comma(int64(g.Parameters)),
			humanize.IBytes(g.SourceBytes), humanize.IBytes(g.OutputBytes))
	}
	w.Flush()
	total := plans.OutputSize()
	about := ""
	if plans[0].Layout == qins.Compact {
		about = "about "
	}
	fmt.Fprintf(p.out, "\n%s: %s -> %s%s, %.2f×\n", visible(in), size(plans.SourceSize()), about, size(total), float64(plans.SourceSize())/float64(total))
}

func (p *textPrinter) report(r *convert.Report) {
	for _, f := range r.Findings {
		if f.Tensor != "" {
			fmt.Fprintf(p.warn, "qinsconv: %s: tensor %q: %s\n", visible(f.File), f.Tensor, visible(f.Message))
		} else {
			fmt.Fprintf(p.warn, "qinsconv: %s: %s\n", visible(f.File), visible(f.Message))
		}
	}
	if p.quiet {
		return
	}
	against := []string{english.Plural(r.Tensors, "tensor", "")}
	if r.Files > 1 {
		against = append([]string{english.Plural(r.Files, "file", "")}, against...)
	}
	switch {
	case r.Manifest != "":
		against = append(against, "the manifest")
	case r.Manifests > 0:
		against = append(against, english.Plural(r.Manifests, "manifest", ""))
	default:
		against = append(against, "no manifest")
	}
	if r.Against != "" {
		against = append(against, "the source "+visible(r.Against))
	}
	verdict := "OK"
	if !r.OK() {
		verdict = english.Plural(len(r.Findings), "finding", "")
	}
	fmt.Fprintf(p.out, "%s: %s (%s)\n", visible(r.File), verdict, strings.Join(against, ", "))
}

func (p *textPrinter) inspection(i *convert.Inspection) {
	if p.quiet {
		return
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "file\t%s\n", visible(i.File))
	fmt.Fprintf(w, "format\t%s\n", i.Format)
	if i.Layout != "" {
		fmt.Fprintf(w, "layout\t%s\n", i.Layout)
	}
	fmt.Fprintf(w, "size\t%s\n", size(i.Size))
	fmt.Fprintf(w, "header\t%s bytes\n", humanize.Comma(i.HeaderBytes))
	for _, e := range i.Metadata {
		fmt.Fprintf(w, "metadata\t%s = %s\n", printable(e.Key), printable(shorten(e.Value)))
	}
	w.Flush()
	fmt.Fprintln(p.out)
	w = tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	if i.Layout == "" {
		fmt.Fprintln(w, "TENSOR\tTYPE\tSHAPE\tOFFSET\tBYTES")
		for _, t := range i.Tensors {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\n", printable(t.Name), t.DType, t.Shape, t.Offset, t.Size)
		}
		w.Flush()
		return
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
	w.Flush()
}
