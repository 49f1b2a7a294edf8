package gguf_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
)

// FuzzHeader: a file is either refused with an error that names it, or its
// parts sum to its size, its header is written again as it was, and the whole
// is restored from header, tensors and gaps. Memory follows the file's size.
func FuzzHeader(f *testing.F) {
	for _, v := range fixtures.GGUFVectors() {
		if len(v.File) < 10000 {
			f.Add(v.File)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		g, err := parse(b)
		runtime.ReadMemStats(&after)
		// The factor leaves room for what the test machinery allocates.
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+32*len(b)); got > most {
			t.Errorf("%d bytes allocated for a file of %d", got, len(b))
		}
		if err != nil {
			var bad *format.Error
			if !errors.As(err, &bad) || bad.File != "in.gguf" || bad.Problem == "" {
				t.Fatalf("%v is a %T", err, err)
			}
			return
		}
		checkAccepted(t, g, b)
		for _, kv := range g.KeyValues() {
			if err := readAll(kv.Value); err != nil {
				t.Errorf("key %q: %v", kv.Key, err)
			}
		}
	})
}

// readAll reads a value as every type: exactly one must do.
func readAll(v gguf.Value) error {
	n := count[uint8](v) + count[int8](v) + count[uint16](v) + count[int16](v) + count[uint32](v) + count[int32](v) +
		count[uint64](v) + count[int64](v) + count[float32](v) + count[float64](v) + count[bool](v) + count[string](v)
	if n != 1 {
		return fmt.Errorf("%v can be read as %d types", v, n)
	}
	return nil
}

func count[T gguf.Scalar](v gguf.Value) (n int) {
	if _, err := gguf.As[T](v); err == nil {
		n++
	}
	if list, err := gguf.Elements[T](v); err == nil {
		n++
		// Written again, the values are the same. A NaN may be another in
		// theory and a bool of 2 is 1, so that bytes are not compared.
		if again, err := gguf.Elements[T](gguf.ArrayOf(list)); err != nil || len(again) != len(list) {
			n += 100
		}
	}
	return n
}

// FuzzRestorer gives the writer a header that was not checked before, as a
// stored one is.
func FuzzRestorer(f *testing.F) {
	for _, v := range fixtures.GGUFVectors() {
		if len(v.File) < 10000 {
			f.Add(v.File, uint32(len(v.File)))
		}
	}
	f.Fuzz(func(t *testing.T, header []byte, size uint32) {
		var out memory
		w, err := gguf.NewRestorer(&out, header, int64(size%(1<<20)))
		if err != nil {
			if len(out) != 0 {
				t.Error("wrote something before it failed")
			}
			return
		}
		for i, x := range w.Tensors() {
			if err := w.WriteAt(make([]byte, x.Size), i, 0); err != nil {
				t.Error(err)
			}
		}
		if int64(len(out)) != w.Size() {
			t.Errorf("%d bytes written of %d", len(out), w.Size())
		}
		g, err := parse(out)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(g.RawHeader(), header) {
			t.Error("the header has changed")
		}
	})
}
