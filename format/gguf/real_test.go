package gguf_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/qinsconv/qinsconv/format/gguf"
)

// realFile reads a file that llama.cpp wrote. The project does not carry them:
// they lie in a folder beside it, and where that is absent the test is skipped.
func realFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "data", name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("../shared/data/%s is not here", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRealFiles(t *testing.T) {
	for _, want := range []struct {
		name, arch string
		keyValues  int
		tokens     int
		token      string // number 100
	}{
		{"ggml-vocab-gpt-2.gguf", "gpt2", 16, 50257, "§"},
		{"ggml-vocab-bert-bge.gguf", "bert", 20, 30522, "[UNK]"},
	} {
		t.Run(want.name, func(t *testing.T) {
			b := realFile(t, want.name)
			f, err := gguf.New(bytes.NewReader(b), int64(len(b)), want.name)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := gguf.Get[string](f, "general.architecture"); err != nil || got != want.arch {
				t.Errorf("architecture %q, %v", got, err)
			}
			if got := len(f.KeyValues()); got != want.keyValues {
				t.Errorf("%d key-values", got)
			}
			tokens, err := gguf.GetArray[string](f, "tokenizer.ggml.tokens")
			if err != nil || len(tokens) != want.tokens {
				t.Fatalf("%d tokens, %v", len(tokens), err)
			}
			if tokens[100] != want.token {
				t.Errorf("token 100 is %q", tokens[100])
			}
			if f.Version() != 3 || f.Alignment() != 32 || len(f.Tensors()) != 0 {
				t.Errorf("version %d, alignment %d, %d tensors", f.Version(), f.Alignment(), len(f.Tensors()))
			}
			if f.HeaderSize() != int64(len(b)) || len(f.Gaps()) != 0 {
				t.Errorf("header of %d bytes and gaps %v in a file of %d", f.HeaderSize(), f.Gaps(), len(b))
			}
			again, err := gguf.AppendHeader(nil, f.Version(), f.KeyValues(), f.Tensors())
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("encoding it again gives other bytes: %v", err)
			}
		})
	}
}
