package convert

import (
	"io"
	"sync"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// An Event tells of a job's progress. Events come one at a time, in an order
// that does not depend on the number of workers, but for Progress, which is
// sent whenever there is some.
type Event interface {
	// Kind names the event in logs: "start", "progress", "tensor", "file",
	// "model", "warning" or "done".
	Kind() string
}

// Start is the first event of a job.
type Start struct {
	In      string `json:"in"`
	Out     string `json:"out,omitempty"`
	Size    int64  `json:"size"`             // of the input, in bytes
	Models  int    `json:"models,omitzero"`  // of a batch
	Files   int    `json:"files,omitzero"`   // of a model directory or a batch
	Tensors int    `json:"tensors,omitzero"` // of a file
}

// Progress says how far a phase of a job has come, in bytes. A conversion
// passes through the phases "survey", "convert" and "hash".
type Progress struct {
	Phase string `json:"phase"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
}

// A meter sends the progress of a phase, in a few hundred steps at most, so that
// events cost nothing that grows with the data.
type meter struct {
	events func(Event)
	now    Progress
	next   int64
}

func (o Options) meter(phase string, total int64) *meter {
	return &meter{events: o.Events, now: Progress{Phase: phase, Total: total}}
}

// add says that so many bytes more are done.
func (m *meter) add(n int) {
	m.now.Done += int64(n)
	if m.now.Done >= m.next || m.now.Done == m.now.Total {
		m.next = m.now.Done + m.now.Total/256
		m.events(m.now)
	}
}

// A hashMeter sends the progress of hashing a source and its output, once that is
// all that is left to do.
type hashMeter struct {
	mu    sync.Mutex
	early int64  // bytes that were hashed before
	phase *meter // nil until then
}

// begin begins the phase in which the rest of so many bytes is hashed.
func (h *hashMeter) begin(o Options, total int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase = o.meter("hash", total-h.early)
	h.phase.add(0)
}

// of returns a reader of what is hashed.
func (h *hashMeter) of(r io.ReaderAt) io.ReaderAt { return hashed{r, h} }

type hashed struct {
	io.ReaderAt
	meter *hashMeter
}

// ReadAt implements io.ReaderAt.
func (r hashed) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	r.meter.mu.Lock()
	defer r.meter.mu.Unlock()
	if r.meter.phase == nil {
		r.meter.early += int64(n)
	} else {
		r.meter.phase.add(n)
	}
	return n, err
}

// TensorDone says that a tensor is finished.
type TensorDone struct {
	Index       int          `json:"index"` // from 1, in the order of being finished
	Of          int          `json:"of"`
	Name        string       `json:"name"`
	DType       format.DType `json:"dtype"`
	Shape       format.Shape `json:"shape"`
	Action      qins.Action  `json:"action"`
	Rule        string       `json:"rule,omitempty"`
	TiedTo      string       `json:"tied_to,omitempty"`
	TiedIn      string       `json:"tied_in,omitempty"`
	SourceBytes int64        `json:"source_bytes"`
	OutputBytes int64        `json:"output_bytes"`
}

// Warning tells of something that a user should know and that is no error,
// such as a weight that could not be encoded.
type Warning struct {
	File    string `json:"file,omitempty"` // of the tensor
	Tensor  string `json:"tensor,omitempty"`
	Message string `json:"message"`
}

// Done is the last event of a job that made a whole output. Manifest is nil for
// jobs that make none.
type Done struct {
	In       string    `json:"in"`
	Out      string    `json:"out"`
	Size     int64     `json:"size"` // of the output, in bytes
	Manifest *Manifest `json:"-"`
}

// A FileStatus says what a run did about a file.
type FileStatus string

const (
	Converted FileStatus = "converted"
	Decoded   FileStatus = "decoded"
	Unchanged FileStatus = "unchanged" // an earlier run had finished it
)

// FileDone says that a file of a model directory is finished.
type FileDone struct {
	In          string     `json:"in"`
	Out         string     `json:"out"`
	Status      FileStatus `json:"status"`
	Index       int        `json:"index"` // from 1, in the order of being finished
	Of          int        `json:"of"`
	Tensors     int        `json:"tensors"`
	SourceBytes int64      `json:"source_bytes"`
	OutputBytes int64      `json:"output_bytes"`
}

// Kind implements [Event].
func (FileDone) Kind() string { return "file" }

// Kind implements [Event].
func (Start) Kind() string { return "start" }

// Kind implements [Event].
func (Progress) Kind() string { return "progress" }

// Kind implements [Event].
func (TensorDone) Kind() string { return "tensor" }

// Kind implements [Event].
func (Warning) Kind() string { return "warning" }

// Kind implements [Event].
func (Done) Kind() string { return "done" }
