package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/qinsconv/qinsconv/format"
)

// A KeyValue is one entry of a file's key-value section.
type KeyValue struct {
	Key   string
	Value Value
}

// A Value is the typed value of a key. It is held as the bytes that files
// store, so that it is written back exactly as it was read. The zero Value is
// none, and nothing can be read from it.
type Value struct {
	// raw is what follows the type in a file: a number, a string with its
	// length, or the element type, the count and the elements of an array. It
	// is well-formed for every Value but the zero one, where it is nil.
	raw []byte
	typ Type
}

// Scalar lists the Go types that stand for the types of values, one each.
type Scalar interface {
	uint8 | int8 | uint16 | int16 | uint32 | int32 | uint64 | int64 |
		float32 | float64 | bool | string
}

func typeOf[T Scalar]() Type {
	var v T
	switch any(v).(type) {
	case uint8:
		return Uint8
	case int8:
		return Int8
	case uint16:
		return Uint16
	case int16:
		return Int16
	case uint32:
		return Uint32
	case int32:
		return Int32
	case uint64:
		return Uint64
	case int64:
		return Int64
	case float32:
		return Float32
	case float64:
		return Float64
	case bool:
		return Bool
	}
	return String
}

// arrayPrefix is the element type and the count before an array's elements.
const arrayPrefix = 4 + 8

// Of returns a value of the type that T stands for.
func Of[T Scalar](v T) Value {
	return Value{typ: typeOf[T](), raw: appendElements(nil, []T{v})}
}

// ArrayOf returns an array with the element type that T stands for.
func ArrayOf[T Scalar](v []T) Value {
	raw := binary.LittleEndian.AppendUint32(nil, uint32(typeOf[T]()))
	raw = binary.LittleEndian.AppendUint64(raw, uint64(len(v)))
	return Value{typ: Array, raw: appendElements(raw, v)}
}

func appendElements[T Scalar](dst []byte, v []T) []byte {
	if list, ok := any(v).([]string); ok {
		for _, s := range list {
			dst = binary.LittleEndian.AppendUint64(dst, uint64(len(s)))
			dst = append(dst, s...)
		}
		return dst
	}
	// Every other T has a fixed size, for which Append does not fail.
	dst, _ = binary.Append(dst, binary.LittleEndian, v)
	return dst
}

// Type returns the type. It reports false for the zero Value.
func (v Value) Type() (Type, bool) { return v.typ, v.raw != nil }

// Array returns the element type and the number of elements of an array. It
// reports false for everything else.
func (v Value) Array() (elem Type, n int, ok bool) {
	if v.typ != Array || v.raw == nil {
		return 0, 0, false
	}
	// The elements are there, so their number fits an int.
	return Type(binary.LittleEndian.Uint32(v.raw)), int(binary.LittleEndian.Uint64(v.raw[4:])), true
}

// describe says what the value is, for errors.
func (v Value) describe() string {
	if v.raw == nil {
		return "no value"
	}
	if elem, _, ok := v.Array(); ok {
		return "an array of " + elem.String()
	}
	return v.typ.String()
}

// As returns a value that has exactly the type T.
func As[T Scalar](v Value) (T, error) {
	var got [1]T
	if want := typeOf[T](); v.raw == nil || v.typ != want {
		return got[0], &format.Error{Problem: "the value has another type", Found: v.describe(), Expected: want.String()}
	}
	decode(got[:], v.raw)
	return got[0], nil
}

// Elements returns the elements of an array that has exactly the element type
// T.
func Elements[T Scalar](v Value) ([]T, error) {
	elem, n, ok := v.Array()
	if want := typeOf[T](); !ok || elem != want {
		return nil, &format.Error{Problem: "the value has another type", Found: v.describe(), Expected: "an array of " + want.String()}
	}
	list := make([]T, n)
	decode(list, v.raw[arrayPrefix:])
	return list, nil
}

// decode reads elements of well-formed bytes.
func decode[T Scalar](dst []T, raw []byte) {
	list, ok := any(dst).([]string)
	if !ok {
		// The length fits, the one thing that Decode can fail for.
		_, _ = binary.Decode(raw, binary.LittleEndian, dst)
		return
	}
	// All strings are cut from one copy: one allocation for all of them.
	all := string(raw)
	at := 0
	for i := range list {
		n := int(binary.LittleEndian.Uint64(raw[at:]))
		list[i] = all[at+8 : at+8+n]
		at += 8 + n
	}
}

// Uint returns an integer of any type that is not negative.
func (v Value) Uint() (uint64, error) {
	bits, signed, err := v.integer()
	if err != nil {
		return 0, err
	}
	if signed && int64(bits) < 0 {
		return 0, &format.Error{Problem: "the value is negative", Found: strconv.FormatInt(int64(bits), 10), Expected: "an unsigned integer"}
	}
	return bits, nil
}

// Int returns an integer of any type that fits 64 bits with sign.
func (v Value) Int() (int64, error) {
	bits, signed, err := v.integer()
	if err != nil {
		return 0, err
	}
	if !signed && bits > math.MaxInt64 {
		return 0, &format.Error{Problem: "the value is too large", Found: strconv.FormatUint(bits, 10), Expected: "at most 2^63-1"}
	}
	return int64(bits), nil
}

// integer returns the 64 bits of an integer, its sign extended.
func (v Value) integer() (bits uint64, signed bool, err error) {
	if v.raw != nil {
		switch v.typ {
		case Uint8:
			return uint64(v.raw[0]), false, nil
		case Int8:
			return uint64(int8(v.raw[0])), true, nil
		case Uint16:
			return uint64(binary.LittleEndian.Uint16(v.raw)), false, nil
		case Int16:
			return uint64(int16(binary.LittleEndian.Uint16(v.raw))), true, nil
		case Uint32:
			return uint64(binary.LittleEndian.Uint32(v.raw)), false, nil
		case Int32:
			return uint64(int32(binary.LittleEndian.Uint32(v.raw))), true, nil
		case Uint64:
			return binary.LittleEndian.Uint64(v.raw), false, nil
		case Int64:
			return binary.LittleEndian.Uint64(v.raw), true, nil
		}
	}
	return 0, false, &format.Error{Problem: "the value has another type", Found: v.describe(), Expected: "an integer"}
}

// String writes the value for people to read: strings quoted and cut, arrays
// as their element type and count.
func (v Value) String() string {
	if elem, n, ok := v.Array(); ok {
		return fmt.Sprintf("%s[%d]", elem, n)
	}
	if s, err := As[string](v); err == nil {
		return format.Quote(s)
	}
	if bits, signed, err := v.integer(); err == nil {
		if signed {
			return strconv.FormatInt(int64(bits), 10)
		}
		return strconv.FormatUint(bits, 10)
	}
	if b, err := As[bool](v); err == nil {
		return strconv.FormatBool(b)
	}
	if x, err := As[float32](v); err == nil {
		return strconv.FormatFloat(float64(x), 'g', -1, 32)
	}
	if x, err := As[float64](v); err == nil {
		return strconv.FormatFloat(x, 'g', -1, 64)
	}
	return v.describe()
}
