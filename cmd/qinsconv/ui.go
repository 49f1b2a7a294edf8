package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/qinsconv/qinsconv/convert"
)

// A ui is where the command prints.
type ui struct {
	stdout *outlet
	stderr io.Writer
}

func newUI(ctx context.Context, stdout, stderr io.Writer) *ui {
	return &ui{&outlet{ctx: ctx, w: stdout}, stderr}
}

// An outlet writes to standard output, until that fails. It keeps the error, so
// that not everything that is printed has to be looked after. A run that is
// interrupted does not wait for who reads it.
type outlet struct {
	ctx context.Context
	w   io.Writer
	err error
}

// errUnread says nothing about the work, which may be done.
var errUnread = errors.New("interrupted before all was printed")

// Write implements io.Writer.
func (o *outlet) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	written := make(chan error, 1)
	text := bytes.Clone(p) // which may still be written when this returns
	go func() {
		_, err := o.w.Write(text)
		written <- err
	}()
	select {
	case o.err = <-written:
	case <-o.ctx.Done():
		select {
		case o.err = <-written:
		case <-time.After(100 * time.Millisecond):
			o.err = errUnread
		}
	}
	if o.err != nil {
		return 0, o.err
	}
	return len(p), nil
}

// A printer turns the events and results of one command into words, or into
// JSON. What cannot be written is for the outlet to know.
type printer interface {
	event(convert.Event)
	// close ends what moves on the screen, before results are printed.
	close()
	manifest(out string, m *convert.Manifest)
	model(in, out string, r *convert.DirResult)
	batch(r *convert.BatchResult)
	plan(in string, plans convert.Plans)
	report(r *convert.Report)
	inspection(i *convert.Inspection)
}

func (u *ui) printer(c *cli.Context, command string) printer {
	if c.Bool("json") {
		return &jsonPrinter{out: u.stdout}
	}
	p := &textPrinter{out: u.stdout, warn: u.stderr, command: command, quiet: c.Bool("quiet")}
	if f, ok := u.stderr.(*os.File); ok && showsBar(f) && !p.quiet {
		p.terminal = f
	}
	return p
}

// barWidth is what a progress bar needs with the figures beside it. In a
// narrower terminal each would take two lines, and stay.
const barWidth = 60

// showsBar reports whether f is a terminal that can show a progress bar.
func showsBar(f *os.File) bool {
	if !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	return err != nil || width == 0 || width >= barWidth
}
