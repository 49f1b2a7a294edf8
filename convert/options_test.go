package convert

import (
	"errors"
	"path/filepath"
	"testing"
)

func TestJobsAreBounded(t *testing.T) {
	for given, want := range map[int]int{1: 1, 255: 255, 256: 256, 257: 256, 20000: 256} {
		if o, err := (Options{Jobs: given}).normalize(); err != nil || o.Jobs != want || cap(o.limit) != want {
			t.Errorf("%d jobs became %d, %d at a time, expected %d (%v)", given, o.Jobs, cap(o.limit), want, err)
		}
	}
}

// TestWrongOptions gives options that mean nothing, which is said before
// anything is read.
func TestWrongOptions(t *testing.T) {
	missing, out := filepath.Join(t.TempDir(), "missing"), filepath.Join(t.TempDir(), "out")
	for name, o := range map[string]Options{
		"layout":                  {Layout: "dense"},
		"codec":                   {Codec: "mu-law"},
		"rule without a pattern":  {Rules: []Rule{{}}},
		"jobs":                    {Jobs: -1},
		"part":                    {Part: Part{3, 2}},
		"part of a file":          {Part: Part{1, 2}},
		"weights of a file":       {Weights: []string{"*"}},
		"finishing a single file": {Finish: true},
	} {
		_, converted := Convert(t.Context(), missing, out, o)
		_, planned := NewPlan(t.Context(), missing, o)
		for _, err := range []error{converted, planned} {
			if option := (*OptionError)(nil); !errors.As(err, &option) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
