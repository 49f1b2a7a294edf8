package qins_test

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

// example makes a small .qins file in a folder of its own.
func example() (path string, remove func()) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	in, out := filepath.Join(dir, "in.safetensors"), filepath.Join(dir, "model.qins")
	if err := os.WriteFile(in, fixtures.Small(fixtures.TieOffset), 0o666); err != nil {
		log.Fatal(err)
	}
	if _, err := convert.Convert(context.Background(), in, out, convert.Options{}); err != nil {
		log.Fatal(err)
	}
	return out, func() { os.RemoveAll(dir) }
}

// Open a file and read one tensor as float32.
func Example() {
	path, remove := example()
	defer remove()

	f, err := qins.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	weights, err := f.Float32("b.weight")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(weights), "weights, the first two are", weights[:2])

	// One row: of a large tensor, only the chunks that hold it are read.
	row, err := f.Float32Range("b.weight", 3*40, 40)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("row 3 begins with", row[:2])
	// Output:
	// 1280 weights, the first two are [-0.017973818 -0.009464785]
	// row 3 begins with [0.0043354216 0.019542057]
}

// List the tensors and what the file stores for each.
func ExampleFile_Tensors() {
	path, remove := example()
	defer remove()

	f, err := qins.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	for i, t := range f.Tensors() {
		fmt.Println(t.Name, t.DType, t.Shape, t.Action)
		for _, p := range f.PlanesOf(i) {
			fmt.Println("-", p.Name, p.DType)
		}
	}
	// Output:
	// a.counts I8 [4200] kept
	// - a.counts.planes U8
	// b.weight F32 [32,40] encoded
	// - b.stored U8
	// - b.sign U8
	// - b.log_min F32
	// - b.log_max F32
	// c.bias F32 [1050] kept
	// - c.bias.planes U8
	// d.weight BF16 [33,41] encoded
	// - d.stored U8
	// - d.sign U8
	// - d.log_min F32
	// - d.log_max F32
	// e.mask BOOL [3] kept
	// - e.mask BOOL
	// embed.weight BF16 [41,52] kept
	// - embed.weight.planes U8
	// f.empty F32 [0,4] kept
	// - f.empty F32
	// g.weight F16 [32,32] encoded
	// - g.stored U8
	// - g.sign U8
	// - g.log_min F32
	// - g.log_max F32
	// step I64 [] kept
	// - step I64
	// lm_head.weight BF16 [41,52] tied
}

// Check every tensor against its checksum.
func ExampleFile_Check() {
	path, remove := example()
	defer remove()

	f, err := qins.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	for i, t := range f.Tensors() {
		if t.Action == qins.Tied {
			continue // it has no data of its own
		}
		if err := f.Check(context.Background(), i); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("all is well")
	// Output: all is well
}
