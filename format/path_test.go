package format_test

import (
	"testing"

	"github.com/qinsconv/qinsconv/format"
)

func TestIsLocal(t *testing.T) {
	for _, name := range []string{"a", "a/b.safetensors", "...", "..a/b..", "a b", "é"} {
		if !format.IsLocal(name) {
			t.Errorf("%q is not local", name)
		}
	}
	for _, name := range []string{"", ".", "..", "/", "/a", "a/", "a//b", "./a", "a/..", "a/../b", "../a", `a\b`, `\a`, "C:a", "C:/a", "a:b", "a\x00b", "a\nb", "\u009bA"} {
		if format.IsLocal(name) {
			t.Errorf("%q is local", name)
		}
	}
}
