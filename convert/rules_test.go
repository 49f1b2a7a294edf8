package convert

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/qinsconv/qinsconv/format"
)

// TestPolicy holds what the default rules say about tensors of real models.
func TestPolicy(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "policy.txt"))
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		if len(fields) != 5 {
			t.Fatalf("%q", line)
		}
		want, arch, name := fields[0], fields[3], fields[4]
		x := format.Tensor{Name: name, DType: format.BF16}
		for d := range strings.SplitSeq(fields[1], ",") {
			x.Shape = append(x.Shape, number(t, d))
		}
		size, _ := x.Shape.Bytes(x.DType)
		x.Size = int64(size)
		encode, rule := decide(x, modelConfig{vocabSize: number(t, fields[2])}, nil)
		if got := map[bool]string{true: "encode", false: "keep"}[encode]; got != want {
			t.Errorf("%s: %s %s: %s (%s), expected %s", arch, name, fields[1], got, rule, want)
		}
		count[want]++
	}
	if count["encode"] < 40 || count["keep"] < 60 {
		t.Errorf("there are %v", count)
	}
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKeeperWords makes names of what the patterns look for: none that a pattern
// matches is without one of its words.
func TestKeeperWords(t *testing.T) {
	parts := strings.Fields("relative_ rel_pos attn_rel_b attn.pos_h embed embd emb EMBED position lm_head LM_HEAD wte wpe shared shared_head output output_layer head token_types " +
		"language_model transformer weight norm NORM ln LN ln1 ln_ scale gamma router Router mlp moe moe_block mixer ffn feed_forward layers gate wg gate_inp shared_expert_gate " +
		"conv1d shortconv conv A_log a_LOG dt_proj ssm_a ssm_d ssm_dt time_mix_ first lerp decay w1 k_a patch_ qweight qzeros scales weight_scale weight_scale_inv weight:scale " +
		"weight_zero_point weight_integer g_idx G_IDX 0 7 x")
	between := []string{".", "_", ""}
	random := rand.New(rand.NewPCG(1, 2))
	matched := map[string]int{}
	for range 200_000 {
		var b strings.Builder
		for i := range 1 + random.IntN(4) {
			if i > 0 {
				b.WriteString(between[random.IntN(len(between))])
			}
			b.WriteString(parts[random.IntN(len(parts))])
		}
		name := b.String()
		for i := range keepers {
			k := &keepers[i]
			if !k.pattern.MatchString(name) {
				continue
			}
			matched[k.reason]++
			if !k.keeps(name, strings.ToLower(name)) {
				t.Fatalf("%s: %q has none of the words %q", k.reason, name, k.words)
			}
		}
	}
	for _, k := range keepers {
		if matched[k.reason] < 50 {
			t.Errorf("%s: only %d names", k.reason, matched[k.reason])
		}
	}
}

// TestRuleOrder gives rules that contradict each other and the defaults.
func TestRuleOrder(t *testing.T) {
	rule := func(include bool, pattern string) Rule {
		r, err := NewRule(include, pattern)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, c := range []struct {
		name   string
		dtype  format.DType
		shape  format.Shape
		rules  []Rule
		encode bool
		by     string
	}{
		{"lm_head.weight", format.BF16, format.Shape{1024, 64}, []Rule{rule(true, "head")}, true, "include head"},
		{"a.weight", format.BF16, format.Shape{64, 64}, []Rule{rule(false, "^a"), rule(true, "a")}, false, "exclude ^a"},
		{"a.weight", format.BF16, format.Shape{64, 64}, []Rule{rule(true, "a"), rule(false, "^a")}, true, "include a"},
		{"a.bias", format.F32, format.Shape{4}, []Rule{rule(true, "bias$")}, true, "include bias$"},
		{"a.weight", format.U8, format.Shape{64, 64}, []Rule{rule(true, "a")}, false, "include a, but U8 cannot be encoded"},
		{"a.weight", format.F16, format.Shape{0, 64}, []Rule{rule(true, "a")}, false, "include a, but it is empty"},
		{"a.weight", format.F16, format.Shape{64, 64}, []Rule{rule(false, "b")}, true, "default: 2-D weight"},
		{"a.weight", format.F16, format.Shape{1024, 64}, nil, false, "default: vocab_size rows"},
		{"a.weight", format.F16, format.Shape{64, 1024}, nil, true, "default: 2-D weight"},
		{"a.weight", format.F16, format.Shape{31, 33}, nil, false, "default: under 1024 elements"},
		{"a.weight", format.F64, format.Shape{64, 64}, nil, false, "default: dtype F64"},
	} {
		size, _ := c.shape.Bytes(c.dtype)
		x := format.Tensor{Name: c.name, DType: c.dtype, Shape: c.shape, Size: int64(size)}
		if encode, by := decide(x, modelConfig{vocabSize: 1024}, c.rules); encode != c.encode || by != c.by {
			t.Errorf("%s %s %v: %v by %q, expected %v by %q", c.name, c.dtype, c.shape, encode, by, c.encode, c.by)
		}
	}
}
