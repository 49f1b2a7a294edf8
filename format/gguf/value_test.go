package gguf_test

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
)

// vector returns the parsed file of a vector that is accepted.
func vector(t *testing.T, name string) *gguf.File {
	t.Helper()
	list := fixtures.GGUFVectors()
	i := slices.IndexFunc(list, func(v fixtures.Vector) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("no vector %s", name)
	}
	f, err := parse(list[i].File)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// equal checks a value of the file of every value type, and that no other type
// can be read from it.
func equal[T gguf.Scalar](t *testing.T, key string, want T) {
	t.Helper()
	f := vector(t, "every-value-type")
	if got, err := gguf.Get[T](f, key); err != nil || got != want {
		t.Errorf("%s: %v, %v", key, got, err)
	}
	if _, err := gguf.GetArray[T](f, key); err == nil {
		t.Errorf("%s: read as an array", key)
	}
	for _, kv := range f.KeyValues() {
		if kv.Key != key {
			if got, err := gguf.As[T](kv.Value); err == nil {
				t.Errorf("%s: read as %T: %v", kv.Key, got, got)
			}
		}
	}
}

func TestValues(t *testing.T) {
	equal(t, "u8", uint8(200))
	equal(t, "i8", int8(-128))
	equal(t, "u16", uint16(0xff01))
	equal(t, "i16", int16(-255))
	equal(t, "u32", uint32(0xfffffffe))
	equal(t, "i32", int32(-2))
	equal(t, "f32", float32(1.5))
	equal(t, "bool", true)
	equal(t, "str", "grüße")
	equal(t, "u64", uint64(math.MaxUint64))
	equal(t, "i64", int64(math.MinInt64))
	equal(t, "f64", -0.1)
}

func equalArray[T gguf.Scalar](t *testing.T, key string, want ...T) {
	t.Helper()
	f := vector(t, "every-array-type")
	if got, err := gguf.GetArray[T](f, key); err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: %v, %v", key, got, err)
	}
	if _, err := gguf.Get[T](f, key); err == nil {
		t.Errorf("%s: read as a scalar", key)
	}
	for _, kv := range f.KeyValues() {
		if kv.Key != key {
			if got, err := gguf.Elements[T](kv.Value); err == nil {
				t.Errorf("%s: read as %T: %v", kv.Key, got, got)
			}
		}
	}
}

func TestArrays(t *testing.T) {
	equalArray(t, "u8", uint8(1), 2, 200)
	equalArray(t, "i8", int8(1), -1)
	equalArray(t, "u16", uint16(0x201))
	equalArray(t, "i16", int16(0x201), -1)
	equalArray(t, "u32", uint32(1), 1<<31)
	equalArray(t, "i32", int32(math.MinInt32))
	equalArray(t, "bool", false, true, true)
	equalArray(t, "str", "a", "", "\xff", "bc")
	equalArray(t, "u64", uint64(1<<63))
	equalArray(t, "i64", int64(math.MinInt64))
	equalArray(t, "f64", 0.1)
	f := vector(t, "every-array-type")
	if got, err := gguf.GetArray[float32](f, "f32"); err != nil || len(got) != 2 || got[0] != 0.25 || math.Float32bits(got[1]) != 0x7fc00001 {
		t.Errorf("f32: %v, %v", got, err)
	}
	empty := vector(t, "arrays-empty")
	if got, err := gguf.GetArray[uint32](empty, "a"); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := gguf.GetArray[uint32](empty, "b"); err == nil {
		t.Error("an empty array of strings read as one of u32")
	}
}

func TestIntegers(t *testing.T) {
	for _, c := range []struct {
		v           gguf.Value
		u           uint64
		i           int64
		noUint, bad bool
		noInt       bool
	}{
		{v: gguf.Of(uint8(200)), u: 200, i: 200},
		{v: gguf.Of(int8(-1)), i: -1, noUint: true},
		{v: gguf.Of(uint16(65535)), u: 65535, i: 65535},
		{v: gguf.Of(int16(-32768)), i: -32768, noUint: true},
		{v: gguf.Of(uint32(math.MaxUint32)), u: math.MaxUint32, i: math.MaxUint32},
		{v: gguf.Of(int32(7)), u: 7, i: 7},
		{v: gguf.Of(int32(-7)), i: -7, noUint: true},
		{v: gguf.Of(uint64(1 << 63)), u: 1 << 63, noInt: true},
		{v: gguf.Of(int64(math.MinInt64)), i: math.MinInt64, noUint: true},
		{v: gguf.Of(int64(math.MaxInt64)), u: math.MaxInt64, i: math.MaxInt64},
		{v: gguf.Of(float32(1)), bad: true},
		{v: gguf.Of(1.0), bad: true},
		{v: gguf.Of(true), bad: true},
		{v: gguf.Of("1"), bad: true},
		{v: gguf.ArrayOf([]uint32{1}), bad: true},
		{v: gguf.Value{}, bad: true},
	} {
		u, err := c.v.Uint()
		if wrong := c.bad || c.noUint; (err != nil) != wrong || u != c.u {
			t.Errorf("%v: Uint %d, %v", c.v, u, err)
		}
		i, err := c.v.Int()
		if wrong := c.bad || c.noInt; (err != nil) != wrong || i != c.i {
			t.Errorf("%v: Int %d, %v", c.v, i, err)
		}
	}
}

func TestNoValue(t *testing.T) {
	var none gguf.Value
	if _, ok := none.Type(); ok {
		t.Error("the zero value has a type")
	}
	if _, _, ok := none.Array(); ok {
		t.Error("the zero value is an array")
	}
	if v, err := gguf.As[uint8](none); err == nil {
		t.Errorf("the zero value is %d", v)
	}
	f := vector(t, "every-value-type")
	if _, ok := f.Lookup("U8"); ok {
		t.Error("a key found in another case")
	}
	_, err := gguf.Get[uint8](f, "none")
	var bad *format.Error
	if !errors.Is(err, gguf.ErrNoKey) || !errors.As(err, &bad) || bad.File != "in.gguf" {
		t.Errorf("%v", err)
	}
	if _, err := gguf.Get[uint8](f, "i8"); err == nil || err.Error() != `in.gguf: key "i8": the value has another type: found i8, expected u8` {
		t.Errorf("%v", err)
	}
}

// TestConstructors builds by hand what the vectors hold.
func TestConstructors(t *testing.T) {
	kvs := []gguf.KeyValue{
		{Key: "u8", Value: gguf.ArrayOf([]uint8{1, 2, 200})},
		{Key: "i8", Value: gguf.ArrayOf([]int8{1, -1})},
		{Key: "u16", Value: gguf.ArrayOf([]uint16{0x201})},
		{Key: "i16", Value: gguf.ArrayOf([]int16{0x201, -1})},
		{Key: "u32", Value: gguf.ArrayOf([]uint32{1, 1 << 31})},
		{Key: "i32", Value: gguf.ArrayOf([]int32{math.MinInt32})},
		{Key: "f32", Value: gguf.ArrayOf([]float32{0.25, math.Float32frombits(0x7fc00001)})},
		{Key: "bool", Value: gguf.ArrayOf([]bool{false, true, true})},
		{Key: "str", Value: gguf.ArrayOf([]string{"a", "", "\xff", "bc"})},
		{Key: "u64", Value: gguf.ArrayOf([]uint64{1 << 63})},
		{Key: "i64", Value: gguf.ArrayOf([]int64{math.MinInt64})},
		{Key: "f64", Value: gguf.ArrayOf([]float64{0.1})},
	}
	b, err := gguf.AppendHeader([]byte("before"), 3, kvs, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(vector(t, "every-array-type").RawHeader())
	// The vector has a bool of 7, which a Go bool cannot hold.
	want[bytes.Index(want, []byte{0, 1, 7})+2] = 1
	if !bytes.Equal(b, append([]byte("before"), want...)) {
		t.Errorf("%x\n%x", b, want)
	}
	scalars := []gguf.KeyValue{
		{Key: "u8", Value: gguf.Of(uint8(200))},
		{Key: "i8", Value: gguf.Of(int8(-128))},
		{Key: "u16", Value: gguf.Of(uint16(0xff01))},
		{Key: "i16", Value: gguf.Of(int16(-255))},
		{Key: "u32", Value: gguf.Of(uint32(0xfffffffe))},
		{Key: "i32", Value: gguf.Of(int32(-2))},
		{Key: "f32", Value: gguf.Of(float32(1.5))},
		{Key: "bool", Value: gguf.Of(true)},
		{Key: "str", Value: gguf.Of("grüße")},
		{Key: "u64", Value: gguf.Of(uint64(math.MaxUint64))},
		{Key: "i64", Value: gguf.Of(int64(math.MinInt64))},
		{Key: "f64", Value: gguf.Of(-0.1)},
	}
	b, err = gguf.AppendHeader(nil, 3, scalars, nil)
	if want := vector(t, "every-value-type").RawHeader(); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%v\n%x\n%x", err, b, want)
	}
}

func TestMetadata(t *testing.T) {
	got := vector(t, "every-value-type").Metadata()
	if want := []format.Entry{{Key: "str", Value: "grüße"}}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestValueString(t *testing.T) {
	want := map[string]string{
		"u8": "200", "i8": "-128", "u16": "65281", "i16": "-255", "u32": "4294967294", "i32": "-2", "f32": "1.5",
		"bool": "true", "str": `"grüße"`, "u64": "18446744073709551615", "i64": "-9223372036854775808", "f64": "-0.1",
	}
	for _, kv := range vector(t, "every-value-type").KeyValues() {
		if got := kv.Value.String(); got != want[kv.Key] {
			t.Errorf("%s: %s", kv.Key, got)
		}
	}
	if got := gguf.ArrayOf([]string{"a", "b"}).String(); got != "str[2]" {
		t.Error(got)
	}
	if got := (gguf.Value{}).String(); got != "no value" {
		t.Error(got)
	}
}
