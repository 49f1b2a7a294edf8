package format_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/format"
)

func TestElements(t *testing.T) {
	const most = math.MaxUint64
	for _, c := range []struct {
		shape format.Shape
		n     uint64
		ok    bool
	}{
		{nil, 1, true},
		{format.Shape{}, 1, true},
		{format.Shape{0}, 0, true},
		{format.Shape{7}, 7, true},
		{format.Shape{768, 256}, 196_608, true},
		{format.Shape{most}, most, true},
		{format.Shape{most, 1}, most, true},
		{format.Shape{1 << 32, 1<<32 - 1}, 1<<64 - 1<<32, true},
		{format.Shape{1 << 32, 1 << 32}, 0, false},
		{format.Shape{most, 2}, 0, false},
		{format.Shape{most, 2, 0}, 0, false}, // on the way
		{format.Shape{0, most, 2}, 0, true},
		{format.Shape{1 << 40, 0}, 0, true},
		{format.Shape{1<<63 + 2, 2}, 0, false}, // 4 in 64 bits
	} {
		if n, ok := c.shape.Elements(); n != c.n || ok != c.ok {
			t.Errorf("%v has %d elements, %v, expected %d, %v", c.shape, n, ok, c.n, c.ok)
		}
	}
}

func TestBytes(t *testing.T) {
	for _, c := range []struct {
		shape format.Shape
		dtype format.DType
		size  uint64
		ok    bool
	}{
		{format.Shape{}, format.F32, 4, true},
		{format.Shape{5000, 256}, format.F32, 5_120_000, true},
		{format.Shape{3}, format.F4, 0, false},
		{format.Shape{3, 2}, format.F4, 3, true},
		{format.Shape{2, 2}, format.F6_E2M3, 3, true},
		{format.Shape{2}, format.F6_E2M3, 0, false},
		{format.Shape{0}, format.F6_E3M2, 0, true},
		{format.Shape{256}, format.Q4_K, 144, true},
		{format.Shape{128, 2}, format.Q4_K, 144, true},
		{format.Shape{255}, format.Q4_K, 0, false},
		{format.Shape{1 << 61}, format.F64, 0, false},
		{format.Shape{1<<61 - 1}, format.F64, 1<<64 - 8, true},
		{format.Shape{1 << 63, 2}, format.U8, 0, false},
	} {
		size, ok := c.shape.Bytes(c.dtype)
		if ok != c.ok || ok && size != c.size {
			t.Errorf("%v %v takes %d bytes, %v, expected %d, %v", c.dtype, c.shape, size, ok, c.size, c.ok)
		}
	}
}

func TestShapeString(t *testing.T) {
	for want, shape := range map[string]format.Shape{
		"[]": {}, "[4]": {4}, "[768,256]": {768, 256}, "[0,18446744073709551615]": {0, math.MaxUint64},
	} {
		if got := shape.String(); got != want {
			t.Errorf("wrote %s, expected %s", got, want)
		}
	}
}

// TestDTypes holds the whole table: name, elements and bytes of a block,
// alignment.
func TestDTypes(t *testing.T) {
	table := []struct {
		dtype           format.DType
		name            string
		elements, bytes uint64
		align           int64
	}{
		{format.F4, "F4", 2, 1, 1}, {format.F6_E2M3, "F6_E2M3", 4, 3, 1}, {format.F6_E3M2, "F6_E3M2", 4, 3, 1},
		{format.Bool, "BOOL", 1, 1, 1}, {format.U8, "U8", 1, 1, 1}, {format.I8, "I8", 1, 1, 1},
		{format.F8_E5M2, "F8_E5M2", 1, 1, 1}, {format.F8_E4M3, "F8_E4M3", 1, 1, 1}, {format.F8_E8M0, "F8_E8M0", 1, 1, 1},
		{format.F8_E4M3FNUZ, "F8_E4M3FNUZ", 1, 1, 1}, {format.F8_E5M2FNUZ, "F8_E5M2FNUZ", 1, 1, 1},
		{format.I16, "I16", 1, 2, 2}, {format.U16, "U16", 1, 2, 2}, {format.F16, "F16", 1, 2, 2}, {format.BF16, "BF16", 1, 2, 2},
		{format.I32, "I32", 1, 4, 4}, {format.U32, "U32", 1, 4, 4}, {format.F32, "F32", 1, 4, 4},
		{format.C64, "C64", 1, 8, 8}, {format.F64, "F64", 1, 8, 8}, {format.I64, "I64", 1, 8, 8}, {format.U64, "U64", 1, 8, 8},
		{format.Q4_0, "Q4_0", 32, 18, 1}, {format.Q4_1, "Q4_1", 32, 20, 1}, {format.Q5_0, "Q5_0", 32, 22, 1},
		{format.Q5_1, "Q5_1", 32, 24, 1}, {format.Q8_0, "Q8_0", 32, 34, 1}, {format.Q8_1, "Q8_1", 32, 36, 1},
		{format.Q2_K, "Q2_K", 256, 84, 1}, {format.Q3_K, "Q3_K", 256, 110, 1}, {format.Q4_K, "Q4_K", 256, 144, 1},
		{format.Q5_K, "Q5_K", 256, 176, 1}, {format.Q6_K, "Q6_K", 256, 210, 1}, {format.Q8_K, "Q8_K", 256, 292, 1},
		{format.IQ2_XXS, "IQ2_XXS", 256, 66, 1}, {format.IQ2_XS, "IQ2_XS", 256, 74, 1}, {format.IQ3_XXS, "IQ3_XXS", 256, 98, 1},
		{format.IQ1_S, "IQ1_S", 256, 50, 1}, {format.IQ4_NL, "IQ4_NL", 32, 18, 1}, {format.IQ3_S, "IQ3_S", 256, 110, 1},
		{format.IQ2_S, "IQ2_S", 256, 82, 1}, {format.IQ4_XS, "IQ4_XS", 256, 136, 1}, {format.IQ1_M, "IQ1_M", 256, 56, 1},
		{format.TQ1_0, "TQ1_0", 256, 54, 1}, {format.TQ2_0, "TQ2_0", 256, 66, 1}, {format.MXFP4, "MXFP4", 32, 17, 1},
		{format.NVFP4, "NVFP4", 64, 36, 1}, {format.Q1_0, "Q1_0", 128, 18, 1}, {format.Q2_0, "Q2_0", 64, 18, 1},
	}
	listed := map[format.DType]bool{}
	for _, c := range table {
		listed[c.dtype] = true
		elements, bytes := c.dtype.Block()
		if c.dtype.String() != c.name || elements != c.elements || bytes != c.bytes || c.dtype.Align() != c.align {
			t.Errorf("%v has blocks of %d in %d bytes, alignment %d, expected %+v", c.dtype, elements, bytes, c.dtype.Align(), c)
		}
		if got, ok := format.ParseDType(c.name); !ok || got != c.dtype {
			t.Errorf("%s parses to %v, %v", c.name, got, ok)
		}
		if got, ok := format.ParseDType(strings.ToLower(c.name)); ok {
			t.Errorf("%s parses to %v", strings.ToLower(c.name), got)
		}
	}
	for d := range 256 {
		if d := format.DType(d); d.Valid() != listed[d] {
			t.Errorf("%v is valid: %v", d, d.Valid())
		}
	}
	for _, name := range []string{"", "F", "FP32", "F32 ", "DType(0)"} {
		if got, ok := format.ParseDType(name); ok {
			t.Errorf("%q parses to %v", name, got)
		}
	}
}

func TestErrorText(t *testing.T) {
	cause := errors.New("cause")
	for want, e := range map[string]*format.Error{
		"P": {Problem: "P"},
		`f: tensor "a\n": P: found 1, expected 2: cause (do X)`: {File: "f", Tensor: "a\n", Problem: "P", Found: "1", Expected: "2", Err: cause, Hint: "do X"},
		"f: P: found 1":       {File: "f", Problem: "P", Found: "1"},
		"f: P: expected 2":    {File: "f", Problem: "P", Expected: "2"},
		"f: P: cause (do X)":  {File: "f", Problem: "P", Err: cause, Hint: "do X"},
		`tensor "\x1b[2J": P`: {Tensor: "\x1b[2J", Problem: "P"},
		"P: found " + strings.Repeat("1,", 500) + "… (2000002 bytes), expected x": {Problem: "P", Found: strings.Repeat("1,", 1_000_001), Expected: "x"},
	} {
		if got := e.Error(); got != want {
			t.Errorf("wrote %s, expected %s", got, want)
		}
		if errors.Is(e, cause) != (e.Err != nil) {
			t.Errorf("%v does not unwrap to its cause", e)
		}
	}
}

// TestQuote goes through every length around the one from which names are cut.
func TestQuote(t *testing.T) {
	for n := range 300 {
		name := strings.Repeat("n", n)
		got := format.Quote(name)
		if n <= 120 && got != `"`+name+`"` {
			t.Errorf("a name of %d bytes is written %s", n, got)
		}
		if n > 120 && (len(got) > 160 || !strings.Contains(got, "bytes")) {
			t.Errorf("a name of %d bytes is written %s", n, got)
		}
	}
	// Cut inside a character, and nothing but control characters.
	for _, name := range []string{strings.Repeat("重", 100), strings.Repeat("\x1b", 200), "\u202e\u2028\x7f\x00", "\xff\xfe"} {
		got := format.Quote(name)
		if strings.ContainsAny(got, "\x1b\u202e\u2028\x7f\x00") || strings.ToValidUTF8(got, "") != got {
			t.Errorf("%q is written %q", name, got)
		}
	}
}

// source is a Source of which ReadAt is what a test says.
type source struct {
	format.Source
	size   int64
	readAt func(p []byte, off int64) (int, error)
}

func (s source) Name() string                            { return "in" }
func (s source) Size() int64                             { return s.size }
func (s source) ReadAt(p []byte, off int64) (int, error) { return s.readAt(p, off) }

func TestReadFull(t *testing.T) {
	data := []byte("0123456789")
	reader := bytes.NewReader(data)
	for n := range len(data) + 1 {
		for off := range len(data) + 2 {
			p := make([]byte, n)
			err := format.ReadFull(source{size: 12, readAt: reader.ReadAt}, p, int64(off))
			if n == 0 || off+n <= len(data) {
				if err != nil || string(p) != string(data[min(off, len(data)):][:n]) {
					t.Errorf("%d bytes at %d: %q, %v", n, off, p, err)
				}
				continue
			}
			var bad *format.Error
			if !errors.As(err, &bad) || bad.File != "in" || bad.Expected != "12 bytes" {
				t.Errorf("%d bytes at %d: %v", n, off, err)
			}
		}
	}
	broken := errors.New("broken disk")
	for _, c := range []struct {
		n     int
		err   error
		fault bool // of the file
	}{{2, nil, true}, {2, io.EOF, true}, {0, io.ErrUnexpectedEOF, true}, {2, broken, false}} {
		err := format.ReadFull(source{size: 12, readAt: func([]byte, int64) (int, error) { return c.n, c.err }}, make([]byte, 4), 0)
		var bad *format.Error
		if err == nil || errors.As(err, &bad) != c.fault || !c.fault && !errors.Is(err, c.err) {
			t.Errorf("after %d bytes and %v: %v", c.n, c.err, err)
		}
	}
	// All bytes and the end at once is no error.
	all := source{size: 4, readAt: func(p []byte, _ int64) (int, error) { return len(p), io.EOF }}
	if err := format.ReadFull(all, make([]byte, 4), 0); err != nil {
		t.Error(err)
	}
}
