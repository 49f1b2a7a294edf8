// Command qinsconv makes model checkpoints smaller on disk, tells truly how
// much smaller, and turns them back.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/format"
)

// Exit status of the command.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitInput   = 3
	exitDiffers = 4
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), interrupts()...)
	defer stop()
	context.AfterFunc(ctx, stop) // so that a second signal ends the process at once
	// Who reads the output may leave. That is an error of writing to it, and not
	// the end of a conversion.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args, os.Stdout, os.Stderr))
}

// interrupts are the signals that end a run in good order. One that it was
// started to ignore, as nohup and shells do, stays ignored.
func interrupts() []os.Signal {
	return slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}, signal.Ignored)
}

// run is main without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ui := newUI(ctx, stdout, stderr)
	app := newApp(ui)
	args, err := optionsFirst(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	if err == nil {
		err = ui.stdout.err // what was done is done, but could not be told
	}
	if err != nil && !errors.Is(err, errReported) && !errors.Is(err, syscall.EPIPE) {
		fmt.Fprintf(stderr, "qinsconv: %s\n", visible(message(err)))
	}
	return status(err)
}

// A usageError says that the command line is wrong.
type usageError struct {
	message string
	command string // whose help says more; empty for that of the program
}

func (e *usageError) Error() string { return e.message }

// errReported is wrapped by errors that the user has been told of.
var errReported = errors.New("reported")

// A verdict is what verification came to, once its findings are printed.
type verdict struct{ worst convert.Severity }

func (v verdict) Error() string { return string(v.worst) }
func (v verdict) Unwrap() error { return errReported }

// status is the one place where errors become exit statuses.
func status(err error) int {
	var usage *usageError
	var option *convert.OptionError
	var bad *format.Error
	var v verdict
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), errors.As(err, &option):
		return exitUsage
	case errors.As(err, &v) && v.worst == convert.Differs:
		return exitDiffers
	case errors.As(err, &v), errors.As(err, &bad):
		return exitInput
	}
	return exitFailed
}

func message(err error) string {
	text := err.Error()
	var stopped *convert.StoppedError
	if errors.Is(err, context.Canceled) && !errors.As(err, &stopped) {
		return "interrupted; nothing was written"
	}
	var usage *usageError
	var option *convert.OptionError
	switch {
	case errors.As(err, &usage) && usage.command != "":
		text += " (see qinsconv " + usage.command + " --help)"
	case errors.As(err, &usage), errors.As(err, &option):
		text += " (see qinsconv --help)"
	}
	return text
}
