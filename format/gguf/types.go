package gguf

import (
	"fmt"

	"github.com/qinsconv/qinsconv/format"
)

// tensorTypes gives the dtype for each number that ggml uses in files. Those
// left out were removed from ggml or never assigned.
var tensorTypes = [...]format.DType{
	0:  format.F32,
	1:  format.F16,
	2:  format.Q4_0,
	3:  format.Q4_1,
	6:  format.Q5_0,
	7:  format.Q5_1,
	8:  format.Q8_0,
	9:  format.Q8_1,
	10: format.Q2_K,
	11: format.Q3_K,
	12: format.Q4_K,
	13: format.Q5_K,
	14: format.Q6_K,
	15: format.Q8_K,
	16: format.IQ2_XXS,
	17: format.IQ2_XS,
	18: format.IQ3_XXS,
	19: format.IQ1_S,
	20: format.IQ4_NL,
	21: format.IQ3_S,
	22: format.IQ2_S,
	23: format.IQ4_XS,
	24: format.I8,
	25: format.I16,
	26: format.I32,
	27: format.I64,
	28: format.F64,
	29: format.IQ1_M,
	30: format.BF16,
	34: format.TQ1_0,
	35: format.TQ2_0,
	39: format.MXFP4,
	40: format.NVFP4,
	41: format.Q1_0,
	42: format.Q2_0,
}

// removedTypes names the numbers that older files may use.
var removedTypes = map[uint32]string{
	4:  "Q4_2",
	5:  "Q4_3",
	31: "Q4_0_4_4",
	32: "Q4_0_4_8",
	33: "Q4_0_8_8",
	36: "IQ4_NL_4_4",
	37: "IQ4_NL_4_8",
	38: "IQ4_NL_8_8",
}

// DType returns the dtype for ggml's number of a tensor type.
func DType(id uint32) (format.DType, bool) {
	if id >= uint32(len(tensorTypes)) {
		return 0, false
	}
	d := tensorTypes[id]
	return d, d.Valid()
}

// TypeID returns ggml's number for a dtype. Not every dtype has one.
func TypeID(d format.DType) (uint32, bool) {
	for id, t := range tensorTypes {
		if t == d && d.Valid() {
			return uint32(id), true
		}
	}
	return 0, false
}

// A Type is the type of a key-value, by its number in files.
type Type uint32

// The types of key-values.
const (
	Uint8 Type = iota
	Int8
	Uint16
	Int16
	Uint32
	Int32
	Float32
	Bool
	String
	Array
	Uint64
	Int64
	Float64
)

// types gives names as ggml prints them, and sizes of those that have one.
var types = [...]struct {
	name string
	size uint64
}{
	Uint8:   {"u8", 1},
	Int8:    {"i8", 1},
	Uint16:  {"u16", 2},
	Int16:   {"i16", 2},
	Uint32:  {"u32", 4},
	Int32:   {"i32", 4},
	Float32: {"f32", 4},
	Bool:    {"bool", 1},
	String:  {"str", 0},
	Array:   {"arr", 0},
	Uint64:  {"u64", 8},
	Int64:   {"i64", 8},
	Float64: {"f64", 8},
}

// Valid reports whether t is one of the constants above.
func (t Type) Valid() bool { return uint64(t) < uint64(len(types)) }

// String returns the name that ggml's tools print.
func (t Type) String() string {
	if !t.Valid() {
		return fmt.Sprintf("Type(%d)", uint32(t))
	}
	return types[t].name
}
