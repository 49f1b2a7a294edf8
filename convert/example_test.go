package convert_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/qins"
)

// example writes a small model to a folder of its own.
func example() (path string, remove func()) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	path = filepath.Join(dir, "model.safetensors")
	if err := os.WriteFile(path, fixtures.Small(fixtures.TieOffset), 0o666); err != nil {
		log.Fatal(err)
	}
	return path, func() { os.RemoveAll(dir) }
}

// Convert a file and follow what happens.
func ExampleConvert() {
	in, remove := example()
	defer remove()
	out := filepath.Join(filepath.Dir(in), "model.qins")

	keep, err := convert.NewRule(false, `^g\.`) // --exclude
	if err != nil {
		log.Fatal(err)
	}
	m, err := convert.Convert(context.Background(), in, out, convert.Options{
		Layout: qins.Packed,
		Rules:  []convert.Rule{keep},
		Events: func(e convert.Event) {
			switch e := e.(type) {
			case convert.TensorDone:
				fmt.Printf("%d/%d %s: %s\n", e.Index, e.Of, e.Name, e.Action)
			case convert.Warning:
				fmt.Println("warning:", e.Tensor, e.Message)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Source.Size, "bytes became", m.Output.Size)
	// Output:
	// 1/10 a.counts: kept
	// 2/10 b.weight: encoded
	// 3/10 c.bias: kept
	// 4/10 d.weight: encoded
	// 5/10 e.mask: kept
	// 6/10 embed.weight: kept
	// 7/10 g.weight: kept
	// 8/10 step: kept
	// 9/10 f.empty: kept
	// 10/10 lm_head.weight: tied
	// 23293 bytes became 20334
}

// Verify a file with its manifest and its source, then turn it back.
func ExampleVerify() {
	in, remove := example()
	defer remove()
	out := filepath.Join(filepath.Dir(in), "model.qins")
	ctx := context.Background()
	if _, err := convert.Convert(ctx, in, out, convert.Options{}); err != nil {
		log.Fatal(err)
	}

	report, err := convert.Verify(ctx, out, convert.VerifyOptions{Against: in})
	if err != nil {
		log.Fatal(err) // it could not be looked at
	}
	for _, f := range report.Findings {
		fmt.Println(f.Severity, f.File, f.Tensor, f.Message)
	}
	fmt.Println(report.Tensors, "tensors, all well:", report.OK())

	if err := convert.Decode(ctx, out, in+".back", convert.Options{}); err != nil {
		log.Fatal(err)
	}
	// Output: 10 tensors, all well: true
}

// See what a conversion would do.
func ExampleNewPlan() {
	in, remove := example()
	defer remove()

	plan, err := convert.NewPlan(context.Background(), in, convert.Options{Layout: qins.Packed})
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range plan.Tensors {
		fmt.Println(t.Name, t.Action, t.Rule)
	}
	// Output:
	// a.counts kept default: dtype I8
	// b.weight encoded default: 2-D weight
	// c.bias kept default: 1-D
	// d.weight encoded default: 2-D weight
	// e.mask kept default: dtype BOOL
	// embed.weight kept default: embedding or head
	// f.empty kept default: not named as a weight
	// g.weight encoded default: 2-D weight
	// step kept default: dtype I64
	// lm_head.weight tied
}
