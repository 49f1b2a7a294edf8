package gguf_test

import (
	"fmt"
	"testing"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
)

// vocabulary is a header with an array of n strings.
func vocabulary(b *testing.B, n int) []byte {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = fmt.Sprintf("token %d", i)
	}
	header, err := gguf.AppendHeader(nil, 3, []gguf.KeyValue{{Key: "tokenizer.ggml.tokens", Value: gguf.ArrayOf(tokens)}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	return header
}

func benchParse(b *testing.B, file []byte) {
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(file); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	b.Run("gpt-2", func(b *testing.B) { benchParse(b, realFile(b, "ggml-vocab-gpt-2.gguf")) })
	b.Run("strings-100000", func(b *testing.B) { benchParse(b, vocabulary(b, 100_000)) })
	b.Run("tensors-10000", func(b *testing.B) {
		tensors := make([]format.Tensor, 10_000)
		for i := range tensors {
			tensors[i] = format.Tensor{Name: fmt.Sprintf("blk.%d.weight", i), DType: format.BF16, Shape: format.Shape{0, 16}}
		}
		header, err := gguf.AppendHeader(nil, 3, nil, tensors)
		if err != nil {
			b.Fatal(err)
		}
		benchParse(b, header)
	})
}

func BenchmarkElements(b *testing.B) {
	f, err := parse(vocabulary(b, 100_000))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(f.Size())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := gguf.GetArray[string](f, "tokenizer.ggml.tokens"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestParseAllocations: the number of allocations does not follow the number
// of strings.
func TestParseAllocations(t *testing.T) {
	header, err := gguf.AppendHeader(nil, 3, []gguf.KeyValue{{Key: "a", Value: gguf.ArrayOf(make([]string, 100_000))}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := testing.AllocsPerRun(5, func() {
		f, err := parse(header)
		if err != nil {
			t.Fatal(err)
		}
		if list, err := gguf.GetArray[string](f, "a"); err != nil || len(list) != 100_000 {
			t.Fatal(err)
		}
	})
	if got > 40 {
		t.Errorf("%v allocations", got)
	}
}
