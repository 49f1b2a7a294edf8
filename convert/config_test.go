package convert

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/format"
)

var testQuantization = quantizationConfig{QuantMethod: quantMethod, Version: 1, Layout: "compact", Codec: "log"}

func TestParseConfig(t *testing.T) {
	yes, no := true, false
	for text, want := range map[string]modelConfig{
		`{}`:                                  {},
		`{"vocab_size": 32000}`:               {vocabSize: 32000},
		`{"vocab_size":18446744073709551615}`: {vocabSize: 1<<64 - 1},
		`{"vocab_size":18446744073709551616}`: {},
		`{"vocab_size":-1}`:                   {},
		`{"vocab_size":1.5}`:                  {},
		`{"vocab_size":1e3}`:                  {},
		`{"vocab_size":"32000"}`:              {},
		`{"vocab_size":null,"text_config":{"vocab_size":7}}`:             {vocabSize: 7},
		`{"text_config":{"vocab_size":7},"vocab_size":8}`:                {vocabSize: 8},
		`{"llm_config":{"vocab_size":9},"text_config":{}}`:               {vocabSize: 9},
		`{"llm_config":{"vocab_size":9},"text_config":[1]}`:              {vocabSize: 9},
		`{"vision_config":{"vocab_size":9}}`:                             {},
		`{"Vocab_Size":9}`:                                               {},
		`{"tie_word_embeddings":true}`:                                   {tieWordEmbeddings: &yes},
		`{"tie_word_embeddings":false}`:                                  {tieWordEmbeddings: &no},
		`{"tie_word_embeddings":"true"}`:                                 {},
		`{"tie_word_embeddings":null}`:                                   {},
		`{"quantization_config":null}`:                                   {},
		`{"quantization_config":{}}`:                                     {hasQuantization: true},
		`{"quantization_config":null,"quantization_config":{}}`:          {hasQuantization: true},
		`{"vocab_size":1,"vocab_size":2,"a":{"b":1,"b":2}}`:              {vocabSize: 2},
		`{"limit":[0.0, Infinity,-Infinity,NaN],"vocab_size":3}`:         {vocabSize: 3},
		`{"vocab_size":NaN,"text_config":{"a":Infinity,"vocab_size":7}}`: {vocabSize: 7},
		`{"vocab_size":-Infinity , "tie_word_embeddings":Infinity}`:      {},
		`{"a":"NaN, \", Infinity","vocab_size":4}`:                       {vocabSize: 4},
		"\ufeff{\"vocab_size\":5}":                                       {vocabSize: 5},
		"{\"\xff\":\"caf\xe9\",\"vocab_size\":6}":                        {vocabSize: 6},
		`{"quantization_config":{"quant_method":5}}`:                     {hasQuantization: true},
		`{"quantization_config":{"quant_method":"gptq"}}`:                {hasQuantization: true, quantMethod: "gptq"},
		`{"quantization\u005fconfig":{"quant_method":"\u0067ptq"}}`:      {hasQuantization: true, quantMethod: "gptq"},
		`{"text_config":{"quantization_config":{"quant_method":"awq"}}}`: {},
		"\r\n{ \"architectures\" : [\"X\"],\n\t\"vocab_size\" : 5 }\n":   {vocabSize: 5},
	} {
		got, err := parseConfig([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, expected %+v", text, got, want)
		}
	}
}

// notObjects are texts that are no configuration.
var notObjects = []string{
	"", " ", "null", "[]", "1", `"{}"`, "{", `{"a":1`, `{"a":1,}`, `{"a":1}{}`, `{"a":1} x`, "{}\x00", `{'a':1}`, "{//\n}",
	"\xff\xfe{\x00}\x00", "{}\ufeff", "\ufeff\ufeff{}", "NaN", `{NaN:1}`, `{"a":-NaN}`, `{"a":NaNNaN}`, `{"a":1NaN}`, `{"a":+Infinity}`, `{"a":--Infinity}`, `{"a":Infinit}`,
	`{"a":nan}`, `{"a":Infinity1}`, `{"a":1-Infinity}`, "{\"a\":1\xff}",
	`{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
}

func TestNotObjects(t *testing.T) {
	for _, text := range notObjects {
		_, parsed := parseConfig([]byte(text))
		_, added := addQuantization([]byte(text), testQuantization)
		_, _, removed := removeQuantization([]byte(text))
		for _, err := range []error{parsed, added, removed} {
			var bad *format.Error
			if !errors.As(err, &bad) {
				t.Errorf("%.40q: %v", text, err)
			}
		}
	}
}

func TestAddQuantization(t *testing.T) {
	const value = `"quantization_config": {"quant_method": "qins", "version": 1, "layout": "compact", "codec": "log"}`
	lines := func(start, indent string) string {
		return start + `"quantization_config": {` + start + indent + `"quant_method": "qins",` + start + indent + `"version": 1,` +
			start + indent + `"layout": "compact",` + start + indent + `"codec": "log"` + start + `}`
	}
	for _, v := range []struct{ name, text, want string }{
		{"empty", `{}`, `{` + value + `}`},
		{"empty with a space", "{ }\n", `{` + value + " }\n"},
		{"empty on two lines", "{\n}\n", "{" + lines("\n  ", "  ") + "\n}\n"},
		{"one line", `{"a": 1}`, `{"a": 1, ` + value + `}`},
		{"one line with spaces", "{ \"a\" : 1 }\n", `{ "a" : 1, ` + value + " }\n"},
		{"two spaces", "{\n  \"a\": 1,\n  \"b\": 2\n}\n", "{\n  \"a\": 1,\n  \"b\": 2," + lines("\n  ", "  ") + "\n}\n"},
		{"four spaces, no line feed at the end", "{\n    \"a\": {\n        \"b\": 1\n    }\n}", "{\n    \"a\": {\n        \"b\": 1\n    }," + lines("\n    ", "    ") + "\n}"},
		{"tabs", "{\n\t\"a\": []\n}\n", "{\n\t\"a\": []," + lines("\n\t", "\t") + "\n}\n"},
		{"lines of windows", "{\r\n  \"a\": 1\r\n}\r\n", "{\r\n  \"a\": 1," + lines("\r\n  ", "  ") + "\r\n}\r\n"},
		{"no indentation", "{\n\"a\": 1\n}", "{\n\"a\": 1," + lines("\n", "") + "\n}"},
		{"an empty line between", "{\n  \"a\": 1,\n\n  \"b\": 2\n\n}", "{\n  \"a\": 1,\n\n  \"b\": 2," + lines("\n  ", "  ") + "\n\n}"},
		{"commas first", "{\n  \"a\": 1\n, \"b\": 2\n}", "{\n  \"a\": 1\n, \"b\": 2, " + value + "\n}"},
		{"lines of old macs", "{\r  \"a\": 1\r}", "{\r  \"a\": 1, " + value + "\r}"},
		{"an odd return", "{\n\r \"a\": 1\n}", "{\n\r \"a\": 1, " + value + "\n}"},
		{"braces and commas in strings", `{"a": "},{", "b": "\"},"}`, `{"a": "},{", "b": "\"},", ` + value + `}`},
		{"not finite", `{"a": [0.0, Infinity], "b": -Infinity, "c": NaN}`, `{"a": [0.0, Infinity], "b": -Infinity, "c": NaN, ` + value + `}`},
		{"names given twice", `{"a": 1, "a": {"b": 1, "b": 2}}`, `{"a": 1, "a": {"b": 1, "b": 2}, ` + value + `}`},
		{"a byte order mark", "\ufeff{}", "\ufeff{" + value + "}"},
		{"Latin-1", "{\"a\": \"caf\xe9\"}", "{\"a\": \"caf\xe9\", " + value + "}"},
		{"null", `{"quantization_config": null, "a": 1}`, `{"quantization_config": {"quant_method": "qins", "version": 1, "layout": "compact", "codec": "log", "replaces": null}, "a": 1}`},
		{"null on its line", "{\n\t\"quantization_config\" :null\n}", "{\n\t\"quantization_config\" :{\n\t\t\"quant_method\": \"qins\",\n\t\t\"version\": 1,\n\t\t\"layout\": \"compact\",\n\t\t\"codec\": \"log\",\n\t\t\"replaces\": null\n\t}\n}"},
		{"null twice", `{"quantization_config":null,"quantization_config":null}`, `{"quantization_config":null,"quantization_config":{"quant_method": "qins", "version": 1, "layout": "compact", "codec": "log", "replaces": null}}`},
		{"nested one", `{"text_config": {"quantization_config": {"quant_method": "qins"}}}`, `{"text_config": {"quantization_config": {"quant_method": "qins"}}, ` + value + `}`},
	} {
		got, err := addQuantization([]byte(v.text), testQuantization)
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
			continue
		}
		if string(got) != v.want {
			t.Errorf("%s:\n%q, expected\n%q", v.name, got, v.want)
		}
		back, removed, err := removeQuantization(got)
		if err != nil || !removed || string(back) != v.text {
			t.Errorf("%s: came back as %q, %t, %v", v.name, back, removed, err)
		}
	}
	for _, text := range []string{`{"quantization_config":false}`, `{"a":1,"quantization\u005fconfig":{}}`} {
		var bad *format.Error
		if _, err := addQuantization([]byte(text), testQuantization); !errors.As(err, &bad) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestRemoveQuantization(t *testing.T) {
	const ours = `"quantization_config":{"z":[1],"quant_method":"qins"}`
	for text, want := range map[string]string{
		`{` + ours + `}`:                            `{}`,
		"{\n " + ours + "\n}":                       "{\n}",
		`{"a":1,` + ours + `,"b":2}`:                `{"a":1,"b":2}`,
		`{"a":1 , ` + ours + ` , "b":2}`:            `{"a":1 , "b":2}`,
		`{"a":1 , ` + ours + ` }`:                   `{"a":1 }`,
		`{ ` + ours + ` , "a":1 }`:                  `{ "a":1 }`,
		"{\n  " + ours + ",\n  \"a\":1\n}\n":        "{\n  \"a\":1\n}\n",
		"{\"a\":1,\n  " + ours + ",\n \"a\\\"\":1}": "{\"a\":1,\n \"a\\\"\":1}",
	} {
		got, removed, err := removeQuantization([]byte(text))
		if err != nil || !removed || string(got) != want {
			t.Errorf("%q: %q, %t, %v, expected %q", text, got, removed, err, want)
		}
	}
	for _, text := range []string{
		`{}`, `{"a":"quantization_config"}`, `{"quantization_config":null}`, `{"quantization_config":"qins"}`, `{"quantization_config":{}}`,
		`{"quantization_config":{"quant_method":"gptq"}}`, `{"quantization_config":{"quant_method":["qins"]}}`, `{"quantization_config":{"quant_method":"QINS"}}`,
		`{"x":{` + ours + `}}`,
	} {
		got, removed, err := removeQuantization([]byte(text))
		if err != nil || removed || string(got) != text {
			t.Errorf("%s: %s, %t, %v", text, got, removed, err)
		}
	}
}

// FuzzConfig: what is added is taken out again, and nothing else changes.
func FuzzConfig(f *testing.F) {
	for _, text := range notObjects {
		if len(text) < 1000 {
			f.Add([]byte(text))
		}
	}
	for _, text := range []string{
		`{}`, "{\n}", `{"a":1}`, "{\r\n\t\"a\" : [1 , {}]\r\n}\r\n", "{\n\r \"a\":{\"b\":\"},\"} ,\n  \"c\":null }", `{"vocab_size":1,"tie_word_embeddings":true,"text_config":{"vocab_size":2}}`,
		`{"a":[NaN , -Infinity,Infinity],"b":"NaN"}`, `{"a":1,"a":NaN,"vocab_size":1,"vocab_size":2}`, "\ufeff{\"a\":\"\xe9\"}", `{"quantization_config":null,"quantization_config":{"quant_method":"qins","replaces":null}}`,
		`{"quantization_config":null,"a":1}`, `{"a":1,"quantization_config":{"quant_method":"qins"} , "b":2}`, ` { "quantization_config":{"quant_method":"qins"} , "b":2}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		c, err := parseConfig(text)
		added, addErr := addQuantization(text, testQuantization)
		cut, removed, removeErr := removeQuantization(text)
		if !bytes.Equal(text, before) {
			t.Fatal("the text was changed in place")
		}
		if err != nil {
			if addErr == nil || removeErr == nil {
				t.Fatalf("%v, but %v and %v", err, addErr, removeErr)
			}
			return
		}
		if removeErr != nil || removed != (c.quantMethod == quantMethod) || (addErr == nil) == c.hasQuantization {
			t.Fatalf("%+v: removed %t, %v, added %v", c, removed, removeErr, addErr)
		}
		if removed {
			left, err := parseConfig(cut)
			c.hasQuantization, c.quantMethod = false, ""
			left.hasQuantization, left.quantMethod = false, "" // the name may have been given twice
			if err != nil || !reflect.DeepEqual(left, c) {
				t.Errorf("%+v is left of %+v: %v", left, c, err)
			}
		}
		if addErr != nil {
			return
		}
		d, err := parseConfig(added)
		if c.hasQuantization, c.quantMethod = true, quantMethod; err != nil || !reflect.DeepEqual(c, d) {
			t.Errorf("%+v became %+v in %s: %v", c, d, added, err)
		}
		back, removed, err := removeQuantization(added)
		if err != nil || !removed || !bytes.Equal(back, text) {
			t.Errorf("%q came back as %q, %t, %v", text, back, removed, err)
		}
	})
}
