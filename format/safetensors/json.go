package safetensors

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/qinsconv/qinsconv/format"
)

// A reader reads the JSON of a header or an index token by token. Names given
// twice, text that is not UTF-8 and nesting without end are errors of its
// decoder.
type reader struct {
	file string
	what string // "header" or "index", for errors
	dec  *jsontext.Decoder
}

func newReader(file, what string, text []byte) reader {
	return reader{file: file, what: what, dec: jsontext.NewDecoder(bytes.NewBuffer(text))}
}

// bad makes any error of reading one that names the file.
func (r *reader) bad(err error) error {
	var bad *format.Error
	if errors.As(err, &bad) {
		return bad
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &format.Error{File: r.file, Problem: "the " + r.what + " is not valid JSON of the expected form", Err: err}
}

// str reads the string that PeekKind announced.
func (r *reader) str() (string, error) {
	t, err := r.dec.ReadToken()
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

func (r *reader) expect(kind jsontext.Kind, what string) error {
	if k := r.dec.PeekKind(); k != kind && k != jsontext.KindInvalid {
		return r.unexpected("the "+r.what+" is malformed: expected "+what, k)
	}
	_, err := r.dec.ReadToken()
	return err
}

func (r *reader) unexpected(problem string, k jsontext.Kind) error {
	return &format.Error{File: r.file, Problem: problem, Found: kindName(k)}
}

// end makes anything but white space behind the object an error.
func (r *reader) end() error {
	_, err := r.dec.ReadToken()
	switch err {
	case io.EOF:
		return nil
	case nil:
		return errors.New("more text after the " + r.what + "'s object")
	}
	return err
}

func kindName(k jsontext.Kind) string {
	switch k {
	case '{', '}':
		return "an object"
	case '[', ']':
		return "an array"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "no JSON value"
}
