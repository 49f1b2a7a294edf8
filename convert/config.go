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
	hasQuantization   bool   // there is a quantization_config, be it null
	quantMethod       string
}

// A quantizationConfig is what is added to the config.json of a model that has
// been converted.
type quantizationConfig struct {
	QuantMethod string `json:"quant_method"`
	Version     int    `json:"version"`
	Layout      string `json:"layout"`
	Codec       string `json:"codec"`
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
	c.hasQuantization = o.find(quantizationKey) >= 0
	c.quantMethod = o.object(quantizationKey).text("quant_method")
	return c, nil
}

// addQuantization adds a quantization_config behind the last member, in the way
// in which the text is indented. All other bytes stay, so that
// [removeQuantization] gives the text back.
func addQuantization(text []byte, c quantizationConfig) ([]byte, error) {
	o, err := parseObject(text)
	if err != nil {
		return nil, err
	}
	if o.find(quantizationKey) >= 0 {
		return nil, &format.Error{Problem: "the configuration has a " + quantizationKey + " already"}
	}
	// The member goes to at, on a line that begins as the last one's does.
	at, space, comma := o.open, o.source[o.open:o.close], ""
	if n := len(o.members); n > 0 {
		at, space, comma = o.members[n-1].end, o.source[o.before(n-1):o.members[n-1].start], ","
	}
	newline, indent := lineStart(string(space))
	if comma == "" && newline != "" {
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

// parseObject reads a JSON object. Names given twice at any level are an error.
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
	dec := jsontext.NewDecoder(bytes.NewBuffer(o.source))
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
		unquoted, err := jsontext.AppendUnquote(nil, name)
		if err != nil {
			return err
		}
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

// find returns the place of the member with that name, or -1.
func (o jsonObject) find(name string) int {
	return slices.IndexFunc(o.members, func(m jsonMember) bool { return m.name == name })
}

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
