package convert

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// Tool names this program in manifests.
const Tool = "qinsconv " + Version

// Version is the version of the program.
const Version = "0.1.0"

// ManifestSchema names the form of a manifest.
const ManifestSchema = "qins-manifest/1"

// manifestSuffix is what a manifest's name adds to its file's.
const manifestSuffix = ".manifest.json"

// ManifestPath returns the path of the manifest of a .qins file.
func ManifestPath(out string) string { return out + manifestSuffix }

// A Manifest tells what a conversion did. Every figure is measured on the
// finished file; all of them add up. The same input and options give the same
// bytes.
type Manifest struct {
	Schema string `json:"schema"`
	Tool   string `json:"tool"`
	ManifestFile
}

// A ManifestFile tells what became of one file.
type ManifestFile struct {
	Options    ManifestOptions  `json:"options"`
	Source     ManifestSource   `json:"source"`
	Output     Output           `json:"output"`
	Totals     Totals           `json:"totals"`
	Tensors    []ManifestTensor `json:"tensors"`
	SelfSHA256 string           `json:"self_sha256"`
}

// ManifestOptions are the options that the output depends on.
type ManifestOptions struct {
	Layout qins.Layout `json:"layout"`
	Codec  string      `json:"codec"`
	Rules  []string    `json:"rules"`
}

// ManifestSource is the file that was converted.
type ManifestSource struct {
	Name   string `json:"name"`
	Format string `json:"format"`
	Size   uint64 `json:"size"`
	SHA256 string `json:"sha256"`
}

// Output is the file that was written. Its parts add up to its size.
type Output struct {
	Name         string `json:"name"`
	Size         uint64 `json:"size"`
	SHA256       string `json:"sha256"`
	HeaderBytes  uint64 `json:"header_bytes"`
	PayloadBytes uint64 `json:"payload_bytes"`
	PaddingBytes uint64 `json:"padding_bytes"`
}

// Totals sum up the tensors.
type Totals struct {
	// Parameters counts those of encoded and kept tensors; tied ones share
	// theirs.
	Parameters uint64 `json:"parameters"`
	// Ratio is the source's size on disk over the output's.
	Ratio Figure `json:"ratio"`
	// BitsPerWeight is the output's whole size over all parameters,
	// BitsPerEncodedWeight that of the encoded tensors over theirs.
	BitsPerWeight        Figure `json:"bits_per_weight"`
	BitsPerEncodedWeight Figure `json:"bits_per_encoded_weight"`
	Encoded              Group  `json:"encoded"`
	Kept                 Group  `json:"kept"`
	Tied                 Group  `json:"tied"`
}

// A Group sums up the tensors of one action.
type Group struct {
	Tensors    uint64 `json:"tensors"`
	Parameters uint64 `json:"parameters"`
	// SourceBytes of tied tensors are those that the source stored twice.
	SourceBytes uint64 `json:"source_bytes"`
	OutputBytes uint64 `json:"output_bytes"`
}

// add counts one tensor. Tied ones share their parameters with another.
func (g *Group) add(action qins.Action, parameters, source, output uint64) {
	if action == qins.Tied {
		parameters = 0
	}
	g.Tensors++
	g.Parameters += parameters
	g.SourceBytes += source
	g.OutputBytes += output
}

// A ManifestTensor tells what became of one tensor.
type ManifestTensor struct {
	Name        string        `json:"name"`
	DType       format.DType  `json:"dtype"`
	Shape       format.Shape  `json:"shape"`
	Action      qins.Action   `json:"action"`
	Rule        string        `json:"rule"`
	TiedTo      string        `json:"tied_to,omitzero"`
	TiedIn      string        `json:"tied_in,omitzero"` // the output that holds it, where that is another
	Tie         qins.Tie      `json:"tie,omitzero"`
	SourceBytes uint64        `json:"source_bytes"`
	OutputBytes uint64        `json:"output_bytes"`
	Codec       *qins.Codec   `json:"codec,omitzero"`
	CRC         qins.Checksum `json:"crc32c"`
	Error       *TensorError  `json:"error,omitzero"`
}

// refusedRule begins the rules of tensors that the codec refused.
const refusedRule = "kept: "

// Refused reports whether the tensor would have been encoded, had the codec not
// refused its values.
func (t *ManifestTensor) Refused() bool { return strings.HasPrefix(t.Rule, refusedRule) }

// A TensorError says how far what decode gives back is from the source.
type TensorError struct {
	SNR    Figure     `json:"snr_db"`  // +Inf, null in JSON, where nothing was lost
	MaxAbs Scientific `json:"max_abs"` // largest absolute error
	MaxRel Scientific `json:"max_rel"` // largest relative error over |w| > 1e-8
	Cosine Figure     `json:"cosine"`
}

// A Figure is a number that is written with six decimals. Infinity is null.
type Figure float64

// MarshalJSONTo implements json.MarshalerTo.
func (f Figure) MarshalJSONTo(enc *jsontext.Encoder) error { return writeNumber(enc, float64(f), 'f') }

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (f *Figure) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return readNumber(dec, (*float64)(f))
}

// A Scientific is a number that is written with seven significant digits.
type Scientific float64

// MarshalJSONTo implements json.MarshalerTo.
func (s Scientific) MarshalJSONTo(enc *jsontext.Encoder) error {
	return writeNumber(enc, float64(s), 'e')
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (s *Scientific) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return readNumber(dec, (*float64)(s))
}

func writeNumber(enc *jsontext.Encoder, v float64, form byte) error {
	if math.IsInf(v, 1) {
		return enc.WriteToken(jsontext.Null)
	}
	return enc.WriteValue(strconv.AppendFloat(enc.AvailableBuffer(), v, form, 6, 64))
}

func readNumber(dec *jsontext.Decoder, v *float64) error {
	if dec.PeekKind() == 'n' {
		*v = math.Inf(1)
		return dec.SkipValue()
	}
	return json.UnmarshalDecode(dec, v)
}

// newManifest describes a plan that was carried out. Source hash, output and
// totals are still to be filled in.
func newManifest(p *Plan, errs []*codec.Errors) *Manifest {
	m := &Manifest{
		Schema: ManifestSchema,
		Tool:   Tool,
		ManifestFile: ManifestFile{
			Options: p.options(),
			Source:  ManifestSource{Format: p.src.Format(), Size: uint64(p.src.Size())},
			Tensors: make([]ManifestTensor, len(p.Tensors)),
		},
	}
	for i := range p.Tensors {
		t := &p.Tensors[i]
		m.Tensors[i] = ManifestTensor{
			Name: t.Name, DType: t.DType, Shape: t.Shape, Action: t.Action, Rule: t.rule(), TiedTo: t.TiedTo, TiedIn: t.TiedIn, Tie: t.Tie,
			SourceBytes: uint64(t.SourceBytes), OutputBytes: uint64(t.OutputBytes), Codec: t.Codec, CRC: t.CRC,
		}
		if e := errs[i]; e != nil {
			m.Tensors[i].Error = newTensorError(e)
		}
	}
	return m
}

// options are those of the plan that the output depends on.
func (p *Plan) options() ManifestOptions { return ManifestOptions{p.Layout, p.Codec, p.Rules} }

func newTensorError(e *codec.Errors) *TensorError {
	return &TensorError{Figure(e.SNR()), Scientific(e.MaxAbs), Scientific(e.MaxRel), Figure(e.Cosine())}
}

// total sums up the tensors. Parameters and bytes that tensors share are
// counted once.
func (m *ManifestFile) total() Totals {
	var t Totals
	for i := range m.Tensors {
		mt := &m.Tensors[i]
		n, _ := mt.Shape.Elements()
		group := &t.Kept
		switch mt.Action {
		case qins.Encoded:
			group = &t.Encoded
		case qins.Tied:
			group = &t.Tied
		}
		group.add(mt.Action, n, mt.SourceBytes, mt.OutputBytes)
	}
	t.quotients(m.Source.Size, m.Output.Size)
	return t
}

// quotients sets what follows from the groups and the sizes on disk.
func (t *Totals) quotients(source, output uint64) {
	t.Parameters = t.Encoded.Parameters + t.Kept.Parameters
	t.Ratio = quotient(float64(source), float64(output))
	t.BitsPerWeight = quotient(8*float64(output), float64(t.Parameters))
	t.BitsPerEncodedWeight = quotient(8*float64(t.Encoded.OutputBytes), float64(t.Encoded.Parameters))
}

// quotient is zero where there is nothing to divide by.
func quotient(a, b float64) Figure {
	if b == 0 {
		return 0
	}
	return Figure(a / b)
}

// sealEnd is how a manifest ends that has no sum of its own yet.
const sealEnd = `"self_sha256": ""` + "\n}\n"

// seal returns the text of a manifest, whose own sum is empty, and sets that in
// both.
func seal(manifest any, sum *string) ([]byte, error) {
	text, err := json.Marshal(manifest, jsontext.WithIndent("  "), jsontext.EscapeForHTML(false))
	if err != nil {
		return nil, err
	}
	text = append(text, '\n')
	*sum = sumOf(text)
	end := strings.Replace(sealEnd, `""`, `"`+*sum+`"`, 1)
	return append(text[:len(text)-len(sealEnd)], end...), nil
}

// seal sets the manifest's own sum and returns its text.
func (m *Manifest) seal() ([]byte, error) {
	m.SelfSHA256 = ""
	return seal(m, &m.SelfSHA256)
}

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// maxManifest is far above the manifest of the longest header that a .qins file
// can have.
const maxManifest = 1 << 30

// ReadManifest reads the manifest of a file. One that is not in the form in
// which it is written, or that does not add up, is an error.
func ReadManifest(path string) (*Manifest, error) {
	text, err := readManifestText(path)
	if err != nil {
		return nil, err
	}
	return parseManifest(path, text)
}

func readManifestText(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe would wait for a writer
		return nil, &format.Error{File: path, Problem: "this is no regular file", Found: info.Mode().Type().String()}
	}
	if info.Size() > maxManifest {
		return nil, &format.Error{File: path, Problem: "too long for a manifest", Found: fmt.Sprintf("%d bytes", info.Size())}
	}
	return os.ReadFile(path)
}

func parseManifest(path string, text []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := unmarshalManifest(path, text, m, &m.Schema, &m.SelfSHA256); err != nil {
		return nil, err
	}
	return m, m.check(path)
}

// unmarshalManifest reads a manifest, of whose schema and own sum the places
// are given, and checks those.
func unmarshalManifest(path string, text []byte, manifest any, schema, sum *string) error {
	bad := func(problem, found, expected string) error {
		return &format.Error{File: path, Problem: problem, Found: found, Expected: expected}
	}
	if err := json.Unmarshal(text, manifest, json.RejectUnknownMembers(true)); err != nil {
		return &format.Error{File: path, Problem: "this is no manifest, or it was changed", Err: err}
	}
	if *schema != ManifestSchema {
		return bad("unknown schema", format.Quote(*schema), format.Quote(ManifestSchema))
	}
	found := *sum
	*sum = ""
	again, err := seal(manifest, sum)
	if err != nil {
		return &format.Error{File: path, Problem: "the manifest cannot be written again", Err: err}
	}
	if *sum != found {
		return bad("the manifest was changed: self_sha256", format.Quote(found), *sum)
	}
	if string(again) != string(text) {
		return bad("the manifest is not in the form in which manifests are written", "", "")
	}
	return nil
}

// check checks that the manifest adds up.
func (m *Manifest) check(path string) error {
	bad := func(tensor, problem string, found, expected any) error {
		return &format.Error{File: path, Tensor: tensor, Problem: problem, Found: fmt.Sprint(found), Expected: fmt.Sprint(expected)}
	}
	if !slices.Contains(Codecs(), m.Options.Codec) {
		return bad("", "unknown codec", format.Quote(m.Options.Codec), strings.Join(Codecs(), ", "))
	}
	var payload, source uint64
	for i := range m.Tensors {
		t := &m.Tensors[i]
		size, ok := t.Shape.Bytes(t.DType)
		if !ok {
			return bad(t.Name, "the shape overflows or does not fill whole bytes", t.Shape, t.DType)
		}
		if t.Action == qins.Tied && t.Tie != qins.TieContent {
			size = 0 // it has no bytes of its own
		}
		if t.SourceBytes != size {
			return bad(t.Name, "source_bytes do not fit the shape", t.SourceBytes, fmt.Sprintf("%d for %s %s", size, t.DType, t.Shape))
		}
		if encoded := t.Action == qins.Encoded; encoded != (t.Error != nil) || encoded != (t.Codec != nil) {
			return &format.Error{File: path, Tensor: t.Name, Problem: "codec and error belong to encoded tensors, and to all of them"}
		}
		if t.Codec != nil && t.Codec.ID != m.Options.Codec {
			return bad(t.Name, "the codec is not that of the options", t.Codec.ID, m.Options.Codec)
		}
		if t.OutputBytes > m.Output.Size || t.SourceBytes > m.Source.Size {
			return bad(t.Name, "the tensor is larger than its file", t.OutputBytes, m.Output.Size)
		}
		payload += t.OutputBytes
		source += t.SourceBytes
	}
	o := &m.Output
	if o.HeaderBytes > o.Size || o.PaddingBytes > o.Size || o.PayloadBytes > o.Size ||
		o.HeaderBytes+o.PayloadBytes+o.PaddingBytes != o.Size {
		return bad("", "the parts of the output do not add up to its size", fmt.Sprintf("%d+%d+%d", o.HeaderBytes, o.PayloadBytes, o.PaddingBytes), o.Size)
	}
	if payload != o.PayloadBytes {
		return bad("", "the tensors' output bytes do not add up to payload_bytes", payload, o.PayloadBytes)
	}
	if source > m.Source.Size {
		return bad("", "the tensors have more source bytes than the source", source, m.Source.Size)
	}
	return checkTotals(path, m.Totals, m.total())
}

// checkTotals compares totals as they are written, so with the digits that a
// manifest has.
func checkTotals(path string, found, expected Totals) error {
	got, err := json.Marshal(found)
	if err != nil {
		return &format.Error{File: path, Problem: "bad totals", Err: err}
	}
	want, err := json.Marshal(expected)
	if err != nil {
		return &format.Error{File: path, Problem: "bad totals", Err: err}
	}
	if string(got) != string(want) {
		return &format.Error{File: path, Problem: "the totals do not add up", Found: string(got), Expected: string(want)}
	}
	return nil
}
