package format

import "fmt"

// A DType says how the elements of a tensor are stored. The zero value is no
// dtype at all.
type DType uint8

// Every dtype that safetensors and GGUF can store. The plain ones are spelled
// as both formats spell them; the block formats are ggml's.
const (
	_ DType = iota
	F4
	F6_E2M3
	F6_E3M2
	Bool
	U8
	I8
	F8_E5M2
	F8_E4M3
	F8_E8M0
	F8_E4M3FNUZ
	F8_E5M2FNUZ
	I16
	U16
	F16
	BF16
	I32
	U32
	F32
	C64
	F64
	I64
	U64
	Q4_0
	Q4_1
	Q5_0
	Q5_1
	Q8_0
	Q8_1
	Q2_K
	Q3_K
	Q4_K
	Q5_K
	Q6_K
	Q8_K
	IQ2_XXS
	IQ2_XS
	IQ3_XXS
	IQ1_S
	IQ4_NL
	IQ3_S
	IQ2_S
	IQ4_XS
	IQ1_M
	TQ1_0
	TQ2_0
	MXFP4
	NVFP4
	Q1_0
	Q2_0
)

// dtypes is the one table of dtypes: block elements take bytes bytes. A block
// is the smallest run of elements that fills whole bytes.
var dtypes = [...]struct {
	name         string
	block, bytes uint64
}{
	F4:          {"F4", 2, 1},
	F6_E2M3:     {"F6_E2M3", 4, 3},
	F6_E3M2:     {"F6_E3M2", 4, 3},
	Bool:        {"BOOL", 1, 1},
	U8:          {"U8", 1, 1},
	I8:          {"I8", 1, 1},
	F8_E5M2:     {"F8_E5M2", 1, 1},
	F8_E4M3:     {"F8_E4M3", 1, 1},
	F8_E8M0:     {"F8_E8M0", 1, 1},
	F8_E4M3FNUZ: {"F8_E4M3FNUZ", 1, 1},
	F8_E5M2FNUZ: {"F8_E5M2FNUZ", 1, 1},
	I16:         {"I16", 1, 2},
	U16:         {"U16", 1, 2},
	F16:         {"F16", 1, 2},
	BF16:        {"BF16", 1, 2},
	I32:         {"I32", 1, 4},
	U32:         {"U32", 1, 4},
	F32:         {"F32", 1, 4},
	C64:         {"C64", 1, 8},
	F64:         {"F64", 1, 8},
	I64:         {"I64", 1, 8},
	U64:         {"U64", 1, 8},
	Q4_0:        {"Q4_0", 32, 18},
	Q4_1:        {"Q4_1", 32, 20},
	Q5_0:        {"Q5_0", 32, 22},
	Q5_1:        {"Q5_1", 32, 24},
	Q8_0:        {"Q8_0", 32, 34},
	Q8_1:        {"Q8_1", 32, 36},
	Q2_K:        {"Q2_K", 256, 84},
	Q3_K:        {"Q3_K", 256, 110},
	Q4_K:        {"Q4_K", 256, 144},
	Q5_K:        {"Q5_K", 256, 176},
	Q6_K:        {"Q6_K", 256, 210},
	Q8_K:        {"Q8_K", 256, 292},
	IQ2_XXS:     {"IQ2_XXS", 256, 66},
	IQ2_XS:      {"IQ2_XS", 256, 74},
	IQ3_XXS:     {"IQ3_XXS", 256, 98},
	IQ1_S:       {"IQ1_S", 256, 50},
	IQ4_NL:      {"IQ4_NL", 32, 18},
	IQ3_S:       {"IQ3_S", 256, 110},
	IQ2_S:       {"IQ2_S", 256, 82},
	IQ4_XS:      {"IQ4_XS", 256, 136},
	IQ1_M:       {"IQ1_M", 256, 56},
	TQ1_0:       {"TQ1_0", 256, 54},
	TQ2_0:       {"TQ2_0", 256, 66},
	MXFP4:       {"MXFP4", 32, 17},
	NVFP4:       {"NVFP4", 64, 36},
	Q1_0:        {"Q1_0", 128, 18},
	Q2_0:        {"Q2_0", 64, 18},
}

var dtypeByName = func() map[string]DType {
	m := make(map[string]DType, len(dtypes))
	for d := DType(1); int(d) < len(dtypes); d++ {
		m[dtypes[d].name] = d
	}
	return m
}()

// ParseDType returns the dtype with that exact name.
func ParseDType(name string) (DType, bool) {
	d, ok := dtypeByName[name]
	return d, ok
}

// Valid reports whether d is one of the constants above.
func (d DType) Valid() bool { return d > 0 && int(d) < len(dtypes) }

// String returns the name that files use.
func (d DType) String() string {
	if !d.Valid() {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return dtypes[d].name
}

// Block returns how many elements make up one block and how many bytes that
// block takes. Types of a byte or more an element have blocks of one.
func (d DType) Block() (elements, bytes uint64) {
	return dtypes[d].block, dtypes[d].bytes
}

// Align returns the offset alignment that readers viewing bytes in place need:
// the element's size for plain types, 1 for packed and block types.
func (d DType) Align() int64 {
	if dtypes[d].block != 1 {
		return 1
	}
	return int64(dtypes[d].bytes)
}

// MarshalText writes the name.
func (d DType) MarshalText() ([]byte, error) { return d.AppendText(nil) }

// AppendText appends the name.
func (d DType) AppendText(b []byte) ([]byte, error) {
	if !d.Valid() {
		return b, fmt.Errorf("no such dtype: %d", uint8(d))
	}
	return append(b, d.String()...), nil
}

// UnmarshalText reads a name that MarshalText writes.
func (d *DType) UnmarshalText(text []byte) error {
	got, ok := ParseDType(string(text))
	if !ok {
		return fmt.Errorf("unknown dtype %s", Quote(string(text)))
	}
	*d = got
	return nil
}
