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
	"strings"
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // so that a second signal ends the process at once
	os.Exit(run(ctx, os.Args, os.Stdout, os.Stderr))
}

// run is main without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	args, err := optionsFirst(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	if err != nil && !errors.Is(err, errReported) {
		fmt.Fprintf(stderr, "qinsconv: %s\n", visible(message(err)))
	}
	return status(err)
}

// A usageError says that the command line is wrong.
type usageError struct{ message string }

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
	if errors.As(err, &usage) && !strings.Contains(text, "--help") {
		text += " (see qinsconv --help)"
	}
	return text
}
