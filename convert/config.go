package convert

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/qinsconv/qinsconv/format"
)

// quantizationKey is the member of a config.json that says how the weights are
// stored.
const quantizationKey = "quantization_config"

// quantMethod names what this program does to weights.
const quantMethod = "qins"

// A modelConfig is what matters of a model's config.json.
type modelConfig struct {
	vocabSize         uint64 // 0 where it is not known
	tieWordEmbeddings *bool  // nil where it is not said
	hasQuantization   bool   // there is a quantization_config that is not null
	quantMethod       string // empty where it is not said
}

// method is the name of the method in brackets, where it is known.
func (c modelConfig) method() string {
	if c.quantMethod == "" {
		return ""
	}
	return " (" + c.quantMethod + ")"
}

// A quantizationConfig is what is added to the config.json of a model that has
// been converted.
type quantizationConfig struct {
	QuantMethod string `json:"quant_method"`
	Version     int    `json:"version"`
	Layout      string `json:"layout"`
	Codec       string `json:"codec"`
	// Replaces is the value that stood in its place, null; absent where there
	// was none.
	Replaces jsontext.Value `json:"replaces,omitzero"`
}

// parseConfig reads a config.json. Members of a type that is not expected are
// passed over: what a config says beside that is the business of others.
func parseConfig(text []byte) (modelConfig, error) {
	o, err := parseObject(text)
	if err != nil {
		return modelConfig{}, err
	}
	c := modelConfig{vocabSize: o.vocabSize()}
	for _, part := range []string{"text_config", "llm_config"} {
		if c.vocabSize == 0 {
			c.vocabSize = o.object(part).vocabSize()
		}
	}
	switch tie := o.value("tie_word_embeddings"); tie.Kind() {
	case 't', 'f':
		tied := tie.Kind() == 't'
		c.tieWordEmbeddings = &tied
	}
	c.hasQuantization = o.quantized()
	c.quantMethod = o.object(quantizationKey).text("quant_method")
	return c, nil
}

// addQuantization adds a quantization_config behind the last member, or in the
// place of one that is null, in the way in which the text is indented. All other
// bytes stay, so that [removeQuantization] gives the text back.
func addQuantization(text []byte, c quantizationConfig) ([]byte, error) {
	o, err := parseObject(text)
	if err != nil {
		return nil, err
	}
	if o.quantized() {
		return nil, &format.Error{Problem: "the configuration has a " + quantizationKey + " already"}
	}
	// The member goes to at, on a line that begins as the last one's does.
	at, space, comma := o.open, o.source[o.open:o.close], ""
	if n := len(o.members); n > 0 {
		at, space, comma = o.members[n-1].end, o.space(n-1), ","
	}
	null := o.find(quantizationKey)
	if null >= 0 {
		space, c.Replaces = o.space(null), o.value(quantizationKey)
	}
	newline, indent := lineStart(string(space))
	if len(o.members) == 0 && newline != "" {
		indent += "  " // what there is belongs to the closing brace
	}
	style := json.JoinOptions(jsontext.WithIndentPrefix(indent), jsontext.WithIndent(indent))
	if newline == "" {
		style = jsontext.SpaceAfterComma(true)
		if comma != "" {
			indent = " "
		}
	}
	value, err := json.Marshal(c, style, jsontext.SpaceAfterColon(true))
	if err != nil {
		return nil, err
	}
	value = bytes.ReplaceAll(value, []byte("\n"), []byte(newline))
	if null >= 0 {
		m := o.members[null]
		return slices.Concat(text[:m.value], value, text[m.end:]), nil
	}
	return slices.Concat(text[:at], []byte(comma+newline+indent+`"`+quantizationKey+`": `), value, text[at:]), nil
}

// lineStart splits white space into the end of a line, "\n" or "\r\n", and the
// indentation of the next. Both are empty where there is but one line.
func lineStart(space string) (newline, indent string) {
	at := strings.LastIndexByte(space, '\n')
	if at < 0 || strings.Contains(space[at:], "\r") {
		return "", ""
	}
	newline, indent = "\n", space[at+1:]
	if strings.HasSuffix(space[:at], "\r") {
		newline = "\r\n"
	}
	return newline, indent
}

// removeQuantization takes out the quantization_config that [addQuantization]
// added, wherever it stands now. That of another method stays.
func removeQuantization(text []byte) (out []byte, removed bool, err error) {
	o, err := parseObject(text)
	if err != nil {
		return nil, false, err
	}
	i := o.find(quantizationKey)
	if i < 0 || o.object(quantizationKey).text("quant_method") != quantMethod {
		return text, false, nil
	}
	if old := o.object(quantizationKey).value("replaces"); old.Kind() == 'n' {
		return slices.Concat(text[:o.members[i].value], old, text[o.members[i].end:]), true, nil
	}
	// With the comma before it, or behind it where it comes first.
	from, to := o.before(i), o.members[i].end
	switch {
	case i > 0:
		from = o.members[i-1].end
	case len(o.members) > 1:
		from, to = o.members[0].start, o.members[1].start
	}
	return slices.Concat(text[:from], text[to:]), true, nil
}

// A jsonObject is a JSON object of which the places of members are known.
type jsonObject struct {
	source      []byte
	open, close int // behind the opening brace, at the closing one
	members     []jsonMember
}

// A jsonMember is source[start:end], its value from value on.
type jsonMember struct {
	name              string
	start, value, end int
}

// parseObject reads a JSON object as Python does, which writes most
// configurations: with NaN and infinities, and names given twice, of which the
// last counts. A byte order mark and bytes that are not UTF-8 do no harm either.
func parseObject(text []byte) (jsonObject, error) {
	o := jsonObject{source: text}
	if err := o.parse(); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return jsonObject{}, &format.Error{Problem: "the configuration is not a JSON object", Err: err}
	}
	return o, nil
}

func (o *jsonObject) parse() error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(plainJSON(o.source)), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if k := dec.PeekKind(); k != '{' && k != jsontext.KindInvalid {
		return errors.New("it is " + k.String())
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	o.open = int(dec.InputOffset())
	for dec.PeekKind() == '"' {
		name, err := dec.ReadValue()
		if err != nil {
			return err
		}
		m := jsonMember{start: int(dec.InputOffset()) - len(name)}
		unquoted, _ := jsontext.AppendUnquote(nil, name) // the error is that it is not UTF-8
		m.name = string(unquoted)
		value, err := dec.ReadValue()
		if err != nil {
			return err
		}
		m.end = int(dec.InputOffset())
		m.value = m.end - len(value)
		o.members = append(o.members, m)
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	o.close = int(dec.InputOffset()) - 1
	if _, err := dec.ReadToken(); err != io.EOF {
		if err == nil {
			err = errors.New("there is more behind it")
		}
		return err
	}
	return nil
}

// byteOrderMark is how some editors of Windows begin a file.
const byteOrderMark = "\ufeff"

// plainJSON returns a text of the same length in which stands a number for each
// NaN, Infinity and -Infinity, and white space for a byte order mark. So the
// places of all else are those of the text.
func plainJSON(text []byte) []byte {
	plain := bytes.Clone(text)
	if bytes.HasPrefix(plain, []byte(byteOrderMark)) {
		copy(plain, "   ")
	}
	inString := false
	for i := 0; i < len(plain); i++ {
		switch c := plain[i]; {
		case inString && c == '\\':
			i++ // what follows does not end the string
		case c == '"':
			inString = !inString
		case inString:
		case c == 'N' || c == 'I':
			n := notFinite(plain[i:])
			from := i
			if c == 'I' && i > 0 && plain[i-1] == '-' {
				from--
			}
			if n == 0 || from > 0 && !strings.ContainsRune(" \t\r\n,:[", rune(plain[from-1])) {
				continue
			}
			copy(plain[i:], strings.Repeat("1", n))
			i += n - 1
		}
	}
	return plain
}

// notFinite is the length of the NaN or Infinity that a text begins with, 0 where
// it does not.
func notFinite(text []byte) int {
	for _, word := range []string{"NaN", "Infinity"} {
		if rest, ok := bytes.CutPrefix(text, []byte(word)); ok && (len(rest) == 0 || strings.ContainsRune(" \t\r\n,]}", rune(rest[0]))) {
			return len(word)
		}
	}
	return 0
}

// find returns the place of the last member with that name, or -1.
func (o jsonObject) find(name string) int {
	for i := len(o.members) - 1; i >= 0; i-- {
		if o.members[i].name == name {
			return i
		}
	}
	return -1
}

// quantized reports whether there is a quantization_config. Null is none.
func (o jsonObject) quantized() bool {
	return o.find(quantizationKey) >= 0 && o.value(quantizationKey).Kind() != 'n'
}

// space is the white space before a member.
func (o jsonObject) space(i int) []byte { return o.source[o.before(i):o.members[i].start] }

// before returns where the white space before a member begins.
func (o jsonObject) before(i int) int {
	if i == 0 {
		return o.open
	}
	return o.members[i-1].end + bytes.IndexByte(o.source[o.members[i-1].end:], ',') + 1
}

// value returns the value of a member, nil where there is none.
func (o jsonObject) value(name string) jsontext.Value {
	i := o.find(name)
	if i < 0 {
		return nil
	}
	return o.source[o.members[i].value:o.members[i].end]
}

// object returns the value of a member, empty where it is none.
func (o jsonObject) object(name string) jsonObject {
	inner, err := parseObject(o.value(name))
	if err != nil {
		return jsonObject{}
	}
	return inner
}

// text returns the string of a member, empty where it is none.
func (o jsonObject) text(name string) string {
	s, err := jsontext.AppendUnquote(nil, o.value(name))
	if err != nil {
		return ""
	}
	return string(s)
}

func (o jsonObject) vocabSize() uint64 {
	n, err := strconv.ParseUint(string(o.value("vocab_size")), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
