package convert_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/convert"
	"github.com/qinsconv/qinsconv/fixtures"
	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// small converts the small model and returns the paths of it and of the result.
func small(t testing.TB, opts convert.Options) (in, out string) {
	t.Helper()
	return converted(t, fixtures.Small(fixtures.TieOffset), opts)
}

// tiny returns a file of two weights that are encoded, three tensors that are
// kept and a tie.
func tiny() []byte {
	data := make([]byte, 32*32*4+41*25*2+3*4+5)
	for i := range data {
		data[i] = byte(i * i >> 3)
		if i%4 == 3 || i%2 == 1 && i >= 4096 {
			data[i] = 0x3c | byte(i)<<7 // the exponents of small numbers
		}
	}
	list := []format.Tensor{
		{Name: "a.weight", DType: format.F32, Shape: format.Shape{32, 32}},
		{Name: "b.weight", DType: format.BF16, Shape: format.Shape{41, 25}},
		{Name: "c.bias", DType: format.F32, Shape: format.Shape{3}},
		{Name: "d", DType: format.U8, Shape: format.Shape{5}},
	}
	if err := safetensors.Place(list); err != nil {
		panic(err)
	}
	list = append(list, list[0])
	list[4].Name = "e.weight"
	return fixtures.Pack([]format.Entry{{Key: "format", Value: "pt"}}, list, data)
}

func converted(t testing.TB, source []byte, opts convert.Options) (in, out string) {
	t.Helper()
	dir := t.TempDir()
	in, out = filepath.Join(dir, "in.safetensors"), filepath.Join(dir, "m.qins")
	if err := os.WriteFile(in, source, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := convert.Convert(t.Context(), in, out, opts); err != nil {
		t.Fatal(err)
	}
	return in, out
}

// TestFlips inverts one bit and all bits of every byte of a file, one after
// another. Each is found with the manifest, and in the data without it, too.
func TestFlips(t *testing.T) {
	for _, layout := range qins.Layouts() {
		t.Run(string(layout), func(t *testing.T) {
			t.Parallel()
			source := tiny()
			if layout == qins.Compact {
				source = fixtures.Small(fixtures.TieOffset) // large enough for kept tensors to be compressed
			}
			_, out := converted(t, source, convert.Options{Layout: layout})
			file, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(out, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			start := dataStart(t, file)
			flip := func(at int, mask byte) {
				if _, err := f.WriteAt([]byte{file[at] ^ mask}, int64(at)); err != nil {
					t.Fatal(err)
				}
				// Beside a manifest the whole file is hashed, so that some
				// bytes will do, but for one run of all by
				// QINSCONV_FLIPS=all.
				if at%8 == 0 || at < start && mask == 0xff || os.Getenv("QINSCONV_FLIPS") == "all" {
					report, err := convert.Verify(t.Context(), out, convert.VerifyOptions{Jobs: 1})
					if err != nil || report.OK() {
						t.Errorf("byte %d ^ %#x: found nothing with the manifest (%v)", at, mask, err)
					}
				}
				if at >= start && checkInMemory(t.Context(), file, at, mask) == nil {
					t.Errorf("byte %d ^ %#x: found nothing without the manifest", at, mask)
				}
				if _, err := f.WriteAt(file[at:at+1], int64(at)); err != nil {
					t.Fatal(err)
				}
			}
			for at := range file {
				flip(at, 0xff)
				flip(at, 0x01)
			}
			report, err := convert.Verify(t.Context(), out, convert.VerifyOptions{})
			if err != nil || !report.OK() {
				t.Errorf("the file is not as before: %v, %v", report.Findings, err)
			}
		})
	}
}

func dataStart(t testing.TB, file []byte) int {
	t.Helper()
	s, err := safetensors.New(bytes.NewReader(file), int64(len(file)), "file")
	if err != nil {
		t.Fatal(err)
	}
	return int(s.HeaderSize())
}

// checkInMemory checks the tensor that owns a byte of the data, with that byte
// changed.
func checkInMemory(ctx context.Context, file []byte, at int, mask byte) error {
	file = bytes.Clone(file)
	file[at] ^= mask
	s, err := safetensors.New(bytes.NewReader(file), int64(len(file)), "file")
	if err != nil {
		return err
	}
	f, err := qins.New(s)
	if err != nil {
		return err
	}
	for i := range f.Tensors() {
		for _, p := range f.PlanesOf(i) {
			if int64(at) >= p.Offset && int64(at) < p.Offset+p.Size {
				return f.Check(ctx, i)
			}
		}
	}
	return nil
}

// resum gives a changed manifest its own sum.
func resum(text string) string {
	field := regexp.MustCompile(`("self_sha256": ")[0-9a-f]*"`)
	empty := field.ReplaceAllString(text, `${1}"`)
	sum := sha256.Sum256([]byte(empty))
	return field.ReplaceAllString(text, "${1}"+hex.EncodeToString(sum[:])+`"`)
}

// TestManifestDigits changes each digit of a manifest to another one. That is
// always found; where the file shows the figure, it is found even if the
// manifest's own sum is made to agree. What only the source shows is found with
// the source.
func TestManifestDigits(t *testing.T) {
	in, out := small(t, convert.Options{Layout: qins.Compact})
	path := convert.ManifestPath(out)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if resum(text) != text {
		t.Fatal("the sum is taken in another way")
	}
	verify := func(text, against string) *convert.Report {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		report, err := convert.Verify(t.Context(), out, convert.VerifyOptions{Jobs: 1, Against: against})
		if err != nil {
			t.Fatal(err)
		}
		return report
	}

	// Only the lines of numbers and sums; digits in names and rules are found
	// by the manifest's sum only.
	tensor, section := "", ""
	changes := 0
	at := 0
	for line := range strings.Lines(text) {
		start := at
		at += len(line)
		key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if key = strings.Trim(key, `"`); !ok {
			key, value = "", strings.TrimSpace(line) // a dimension
		}
		if value == "" {
			continue
		}
		if key == "name" {
			tensor = value
		}
		if ok && strings.HasPrefix(line, `  "`) {
			section = key
		}
		from := start + strings.Index(line, value)
		for i := range len(value) {
			if value[i] < '0' || value[i] > '9' {
				continue
			}
			changed := []byte(text)
			changed[from+i] = '0' + (value[i]-'0'+1)%10
			what := fmt.Sprintf("%s, tensor %s: %q with digit %d changed", section, tensor, strings.TrimSpace(line), i)
			changes++
			if verify(string(changed), "").OK() {
				t.Errorf("%s: found nothing", what)
			}
			// A figure that the file shows, or that follows from others.
			number := value[0] == '-' || value[0] >= '0' && value[0] <= '9'
			checked := number || key == "sha256" && section == "output" || key == "crc32c"
			if inError := key == "snr_db" || key == "max_abs" || key == "max_rel" || key == "cosine"; inError || key == "sha256" && section == "source" {
				if verify(resum(string(changed)), in).OK() {
					t.Errorf("%s: found nothing with the source", what)
				}
			} else if checked && key != "self_sha256" {
				if verify(resum(string(changed)), "").OK() {
					t.Errorf("%s: found nothing once the sum was made to agree", what)
				}
			}
		}
	}
	if changes < 500 {
		t.Errorf("only %d digits", changes)
	}
	// Together they are the same: spaces that are taken for a part of the header.
	header, padding := regexp.MustCompile(`"header_bytes": (\d+)`), regexp.MustCompile(`"padding_bytes": (\d+)`)
	number := func(at *regexp.Regexp) int {
		n, err := strconv.Atoi(at.FindStringSubmatch(text)[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := number(padding); n == 0 {
		t.Error("there is no padding to take away from")
	}
	moved := header.ReplaceAllString(text, fmt.Sprintf(`"header_bytes": %d`, number(header)+1))
	moved = padding.ReplaceAllString(moved, fmt.Sprintf(`"padding_bytes": %d`, number(padding)-1))
	if verify(resum(moved), "").OK() {
		t.Error("padding was taken for a part of the header")
	}
	if report := verify(text, in); !report.OK() {
		t.Errorf("the manifest is not as before: %v", report.Findings)
	}
}

// TestOtherManifest puts together what does not belong together.
func TestOtherManifest(t *testing.T) {
	_, a := small(t, convert.Options{Layout: qins.Packed})
	_, b := small(t, convert.Options{Layout: qins.Compact})
	text, err := os.ReadFile(convert.ManifestPath(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(convert.ManifestPath(a), text, 0o666); err != nil {
		t.Fatal(err)
	}
	report, err := convert.Verify(t.Context(), a, convert.VerifyOptions{})
	if err != nil || report.Worst() != convert.Differs {
		t.Errorf("%v, %v", report.Findings, err)
	}
	for _, bad := range []string{"", "{}", "null", "[]", "{", string(text[:len(text)-1]), string(text) + "\n", strings.Replace(string(text), "/1", "/2", 1)} {
		if err := os.WriteFile(convert.ManifestPath(a), []byte(bad), 0o666); err != nil {
			t.Fatal(err)
		}
		report, err := convert.Verify(t.Context(), a, convert.VerifyOptions{})
		if err != nil || report.Worst() != convert.Unreadable {
			t.Errorf("manifest %.20q: %v, %v", bad, report.Findings, err)
		}
	}
}
