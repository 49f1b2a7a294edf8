package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/qins"
)

// A jsonPrinter writes an object for each event, on a line of its own.
type jsonPrinter struct {
	out  *outlet
	last time.Time // of progress
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
	text, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true)) // which names of files may be
	if err != nil {
		p.out.err = err
		return
	}
	line := fmt.Appendf(nil, `{"event":%q`, event)
	if len(text) > len("{}") {
		line = append(append(line, ','), text[1:]...)
	} else {
		line = append(line, '}')
	}
	p.out.Write(append(line, '\n'))
}

func (p *jsonPrinter) close() {}

func (p *jsonPrinter) manifest(out string, m *convert.Manifest) {
	p.object("summary", struct {
		Manifest   string         `json:"manifest"`
		SourceSize uint64         `json:"source_size"`
		OutputSize uint64         `json:"output_size"`
		Totals     convert.Totals `json:"totals"`
	}{convert.ManifestPath(out), m.Source.Size, m.Output.Size, m.Totals})
}

func (p *jsonPrinter) model(_, out string, r *convert.DirResult) {
	s := dirSummary{Out: out, Converted: r.Converted, Unchanged: r.Unchanged, Missing: r.Missing}
	if m := r.Manifest; m != nil {
		s.Manifest = filepath.Join(out, convert.DirManifestName)
		s.SourceSize, s.OutputSize, s.SideFiles, s.SideSize, s.Totals = m.SourceSize(), m.OutputSize(), len(m.SideFiles), m.SideSize(), &m.Totals
	}
	p.object("summary", s)
}

// A dirSummary is what the summary event of a model directory says.
type dirSummary struct {
	Out        string          `json:"out"`
	Manifest   string          `json:"manifest,omitzero"`
	Converted  int             `json:"converted"`
	Unchanged  int             `json:"unchanged"`
	Missing    []string        `json:"missing,omitempty"`
	SourceSize uint64          `json:"source_size,omitzero"`
	OutputSize uint64          `json:"output_size,omitzero"`
	SideFiles  int             `json:"side_files,omitzero"`
	SideSize   uint64          `json:"side_size,omitzero"`
	Totals     *convert.Totals `json:"totals,omitzero"`
}

func (p *jsonPrinter) batch(r *convert.BatchResult) {
	p.object("summary", struct {
		Models int `json:"models"`
		Failed int `json:"failed"`
	}{len(r.Models), r.Failed})
}

func (p *jsonPrinter) plan(in string, plans convert.Plans) {
	for _, plan := range plans {
		p.planned(plan, len(plans) > 1)
	}
	p.object("summary", struct {
		SourceSize int64                    `json:"source_size"`
		OutputSize int64                    `json:"output_size"`
		Rules      map[string]convert.Group `json:"rules"`
	}{plans.SourceSize(), plans.OutputSize(), plans.ByRule()})
}

func (p *jsonPrinter) planned(plan *convert.Plan, several bool) {
	file := ""
	if several {
		file = plan.Name()
	}
	for _, t := range plan.Tensors {
		p.object("planned", struct {
			File        string      `json:"file,omitzero"`
			Name        string      `json:"name"`
			DType       any         `json:"dtype"`
			Shape       any         `json:"shape"`
			Action      qins.Action `json:"action"`
			Rule        string      `json:"rule,omitzero"`
			TiedTo      string      `json:"tied_to,omitzero"`
			TiedIn      string      `json:"tied_in,omitzero"`
			Tie         qins.Tie    `json:"tie,omitzero"`
			SourceBytes int64       `json:"source_bytes"`
			OutputBytes int64       `json:"output_bytes"`
		}{file, t.Name, t.DType, t.Shape, t.Action, t.Rule, t.TiedTo, t.TiedIn, t.Tie, t.SourceBytes, t.OutputBytes})
	}
}

func (p *jsonPrinter) report(r *convert.Report) {
	for _, f := range r.Findings {
		p.object("finding", f)
	}
	p.object("verified", struct {
		File     string `json:"file"`
		Manifest string `json:"manifest,omitzero"`
		Against  string `json:"against,omitzero"`
		Files    int    `json:"files"`
		Tensors  int    `json:"tensors"`
		Findings int    `json:"findings"`
		OK       bool   `json:"ok"`
	}{r.File, r.Manifest, r.Against, r.Files, r.Tensors, len(r.Findings), r.OK()})
}

func (p *jsonPrinter) inspection(i *convert.Inspection) {
	p.object("inspection", i)
}
