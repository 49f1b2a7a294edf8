package convert_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
)

// A moment is an event during a job, by its kind and phase.
type moment struct{ kind, phase string }

func (m moment) is(e convert.Event) bool {
	p, _ := e.(convert.Progress)
	return e.Kind() == m.kind && p.Phase == m.phase
}

// moments of a conversion, before the last of which all has been read.
var moments = []moment{{"start", ""}, {"progress", "survey"}, {"progress", "convert"}, {"tensor", ""}, {"progress", "hash"}}

// disturb runs a job and does something at the first event of a kind.
func disturb(at moment, what func(), job func(events func(convert.Event)) error) (err error, happened bool) {
	err = job(func(e convert.Event) {
		if !happened && at.is(e) {
			happened = true
			what()
		}
	})
	return err, happened
}

func expectEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// many is a model of many chunks, so that at every moment some are still to
// come.
func many(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "many")
	model := fixtures.LlamaModel{Layers: 4, Hidden: 256, Intermediate: 600, Vocab: 1000, KVDim: 256, DType: format.BF16}
	if err := fixtures.WriteLlama(path, model); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSourceShrinks cuts the source at different moments of a conversion.
func TestSourceShrinks(t *testing.T) {
	source := many(t)
	for _, at := range moments {
		for _, size := range []int64{0, 5000, int64(len(source)) - 1} {
			in := filepath.Join(t.TempDir(), "in.safetensors")
			if err := os.WriteFile(in, source, 0o666); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			err, happened := disturb(at, func() { os.Truncate(in, size) }, func(events func(convert.Event)) error {
				_, err := convert.Convert(t.Context(), in, filepath.Join(dir, "m.qins"), convert.Options{Jobs: 2, Events: events})
				return err
			})
			var bad *format.Error
			if !happened || !errors.As(err, &bad) || bad.File != in {
				t.Errorf("cut to %d at %v: %v (%v)", size, at, err, happened)
			}
			expectEmpty(t, dir)
		}
	}
}

// TestSourceChanges writes to the source, its size staying the same, and puts
// another file in its place.
func TestSourceChanges(t *testing.T) {
	source := many(t)
	for _, at := range moments {
		for name, change := range map[string]func(in string) error{
			"written to": func(in string) error {
				f, err := os.OpenFile(in, os.O_RDWR, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				if _, err := f.WriteAt([]byte{1}, int64(len(source)-1)); err != nil {
					return err
				}
				return os.Chtimes(in, time.Now(), time.Now().Add(time.Second))
			},
			"longer": func(in string) error {
				return os.WriteFile(in, append(bytes.Clone(source), 0), 0o666)
			},
			"removed": os.Remove,
		} {
			in := filepath.Join(t.TempDir(), "in.safetensors")
			if err := os.WriteFile(in, source, 0o666); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			err, happened := disturb(at, func() {
				if err := change(in); err != nil {
					t.Error(err)
				}
			}, func(events func(convert.Event)) error {
				_, err := convert.Convert(t.Context(), in, filepath.Join(dir, "m.qins"), convert.Options{Jobs: 2, Events: events})
				return err
			})
			var bad *format.Error
			if !happened || err == nil || !errors.As(err, &bad) && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s at %v: %v (%v)", name, at, err, happened)
			}
			expectEmpty(t, dir)
		}
	}
}

// TestCancel cancels conversion, decoding, planning and verifying at each kind
// of event.
func TestCancel(t *testing.T) {
	in := filepath.Join(t.TempDir(), "in.safetensors")
	if err := os.WriteFile(in, many(t), 0o666); err != nil {
		t.Fatal(err)
	}
	qins := filepath.Join(t.TempDir(), "m.qins")
	if _, err := convert.Convert(t.Context(), in, qins, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	jobs := map[string]func(ctx context.Context, events func(convert.Event)) error{
		"convert": func(ctx context.Context, events func(convert.Event)) error {
			_, err := convert.Convert(ctx, in, out, convert.Options{Jobs: 2, Events: events})
			return err
		},
		"decode": func(ctx context.Context, events func(convert.Event)) error {
			return convert.Decode(ctx, qins, out, convert.Options{Jobs: 2, Events: events})
		},
		"plan": func(ctx context.Context, events func(convert.Event)) error {
			_, err := convert.NewPlan(ctx, in, convert.Options{Jobs: 2, Events: events})
			return err
		},
		"verify": func(ctx context.Context, events func(convert.Event)) error {
			_, err := convert.Verify(ctx, qins, convert.VerifyOptions{Jobs: 2, Events: events, Against: in})
			return err
		},
	}
	for name, job := range jobs {
		happened := 0
		for _, at := range append(moments, moment{"progress", "decode"}, moment{"progress", "estimate"}, moment{"progress", "verify"}) {
			ctx, cancel := context.WithCancel(t.Context())
			err, ok := disturb(at, cancel, func(events func(convert.Event)) error { return job(ctx, events) })
			cancel()
			if !ok {
				// Nothing of this kind is told of, so that it ran through.
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				os.Remove(out)
				os.Remove(convert.ManifestPath(out))
				continue
			}
			happened++
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s cancelled at %v: %v", name, at, err)
			}
			expectEmpty(t, dir)
		}
		if happened < 2 {
			t.Errorf("%s: only %d kinds of events", name, happened)
		}
	}
	// Cancelled before it begins.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, job := range jobs {
		if err := job(ctx, func(convert.Event) {}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		expectEmpty(t, dir)
	}
}

// TestQINSShrinks cuts a .qins file while it is decoded and verified.
func TestQINSShrinks(t *testing.T) {
	in := filepath.Join(t.TempDir(), "in.safetensors")
	if err := os.WriteFile(in, many(t), 0o666); err != nil {
		t.Fatal(err)
	}
	whole := filepath.Join(t.TempDir(), "m.qins")
	if _, err := convert.Convert(t.Context(), in, whole, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m.qins")
	for _, at := range []moment{{"start", ""}, {"progress", "decode"}, {"progress", "verify"}} {
		if err := os.WriteFile(path, file, 0o666); err != nil {
			t.Fatal(err)
		}
		cut := func() { os.Truncate(path, int64(len(file))/8) }
		dir := t.TempDir()
		if at.phase != "verify" {
			err, happened := disturb(at, cut, func(events func(convert.Event)) error {
				return convert.Decode(t.Context(), path, filepath.Join(dir, "back"), convert.Options{Jobs: 1, Events: events})
			})
			var bad *format.Error
			if !happened || !errors.As(err, &bad) || !strings.Contains(err.Error(), "became shorter") {
				t.Errorf("decode, cut at %v: %v (%v)", at, err, happened)
			}
			expectEmpty(t, dir)
		}
		if at.phase != "decode" {
			if err := os.WriteFile(path, file, 0o666); err != nil {
				t.Fatal(err)
			}
			var report *convert.Report
			_, happened := disturb(at, cut, func(events func(convert.Event)) (err error) {
				report, err = convert.Verify(t.Context(), path, convert.VerifyOptions{Jobs: 1, Events: events})
				return err
			})
			if !happened || report.OK() {
				t.Errorf("verify, cut at %v: found nothing (%v)", at, happened)
			}
		}
	}
}

// TestAppears puts something under the output's name while it is written.
func TestAppears(t *testing.T) {
	in := filepath.Join(t.TempDir(), "in.safetensors")
	if err := os.WriteFile(in, fixtures.Small(fixtures.TieOffset), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, manifest := range []bool{false, true} {
		dir := t.TempDir()
		out := filepath.Join(dir, "m.qins")
		path := out
		if manifest {
			path = convert.ManifestPath(out)
		}
		err, happened := disturb(moments[4], func() { os.WriteFile(path, []byte("mine"), 0o666) }, func(events func(convert.Event)) error {
			_, err := convert.Convert(t.Context(), in, out, convert.Options{Events: events})
			return err
		})
		var exists *convert.ExistsError
		if !happened || !errors.As(err, &exists) || exists.Path != path {
			t.Errorf("%v (%v)", err, happened)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("left behind: %v %v", entries, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// TestTwoWriters has two jobs write the same output at once.
func TestTwoWriters(t *testing.T) {
	in := filepath.Join(t.TempDir(), "in.safetensors")
	if err := os.WriteFile(in, fixtures.Small(fixtures.TieOffset), 0o666); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "m.qins")
	var second error
	err, happened := disturb(moments[2], func() {
		_, second = convert.Convert(t.Context(), in, out, convert.Options{Force: true})
	}, func(events func(convert.Event)) error {
		_, err := convert.Convert(t.Context(), in, out, convert.Options{Events: events})
		return err
	})
	if err != nil || !happened || second == nil || !strings.Contains(second.Error(), "another process is writing this output") {
		t.Errorf("the first one: %v; the second one: %v (%v)", err, second, happened)
	}
	report, err := convert.Verify(t.Context(), out, convert.VerifyOptions{Against: in})
	if err != nil || !report.OK() {
		t.Errorf("%v, %v", report.Findings, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}
